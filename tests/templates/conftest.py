"""A swipe to start from, and the shipped template."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.model.event import Event
from templates.facts import SwipeFacts
from templates.library import Library, Template

MakeFacts = Callable[..., SwipeFacts]


@pytest.fixture(scope="session")
def swipe() -> Template:
    return Library.load().template("swipe")


@pytest.fixture(scope="session")
def make_facts() -> MakeFacts:
    """A lunch in Shanghai, 38.00 yuan; anything of the event or the facts can be given otherwise."""

    def make(**changed: Any) -> SwipeFacts:
        of_facts: dict[str, Any] = {name: changed.pop(name) for name in SwipeFacts.__struct_fields__ if name in changed}
        event: dict[str, Any] = {
            "id": "e1",
            "account": "a1",
            "pan": "************0426",
            "amount": 3800,
            "currency": "CNY",
            "merchant": "星巴克南京西路店",
            "city": "上海",
            "time": datetime(2026, 11, 22, 5, 5, 59, tzinfo=UTC),
        }
        facts: dict[str, Any] = {"event": Event(**(event | changed)), "day_total_minor": 123450} | of_facts
        return SwipeFacts(**facts)

    return make
