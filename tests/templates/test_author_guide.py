"""The author's guide names everything that a template can hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from templates.facts import FIELDS
from templates.grammar import OUR_FILTERS
from templates.limits import WECHAT_TYPES
from templates.template import Match

GUIDE = (Path(__file__).parents[2] / "docs" / "templates.md").read_text("utf-8")


@pytest.mark.parametrize("names", [FIELDS, WECHAT_TYPES, OUR_FILTERS, Match.__struct_fields__])
def test_the_guide_names_all_fields_types_filters_and_conditions(names: list[str]) -> None:
    # Given what the code knows, When the guide is searched, Then all of it is there
    assert [name for name in names if not re.search(rf"\b{name}\b", GUIDE)] == []


def test_its_links_lead_somewhere() -> None:
    # The page of versions comes with the commands that it explains.
    folder = Path(__file__).parents[2] / "docs"
    linked = set(re.findall(r"\]\(([^)#]+)\)", GUIDE)) - {"templates-versions.md"}
    assert [one for one in linked if not (folder / one).exists()] == []
