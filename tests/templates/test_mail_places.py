"""Where a field may not stand in a mail: where escaping its value does not make it harmless."""

from __future__ import annotations

from pathlib import Path

import pytest

from templates.lint import lint_file
from templates.mail_places import MARK, marked, unsafe_places
from tests.templates.lint_kit import GOOD, line_of, write

PLACE = "<p>{{ amount }} at {{ merchant }}</p>"
"""In GOOD, what is replaced."""


def told(text: str) -> list[str]:
    html = marked(text)
    assert len(html) == len(text)
    found = list(unsafe_places(html, styles=False))
    assert all(html[position] == MARK or MARK in html[position:] for position, _ in found)
    return [where for _, where in found]


@pytest.mark.parametrize(
    "html",
    [
        "<p>{{ merchant }}</p>",
        "<p title=\"{{ merchant }}\" lang='{{ city }}'>a</p>",
        '<a href = "https://b.example/{{ tail }}" title="a > {{ merchant }}">a</a>',
        "<p>2 < 3 {{ merchant }}</p>",
        "<!-- <script> --><p>{{ merchant }}</p><style>p{color:red}</style>{{ merchant }}",
        "{# <p title={{ merchant }}> #}<title>{{ merchant }}</title>",
        "{% raw %}<p title={{ merchant }}>{% endraw %}",
        "<script>1</script >{{ merchant }}<br/>{{ merchant }}",
        '<p data-on="{{ merchant }}">a</p>',
    ],
)
def test_between_tags_and_inside_of_quotes_a_value_is_harmless(html: str) -> None:
    assert told(html) == []


@pytest.mark.parametrize(
    ("html", "where"),
    [
        ("<p title={{ merchant }}>a</p>", "in a tag without quotes around it"),
        ("<p title = x{{ merchant }}>a</p>", "in a tag without quotes around it"),
        ("<p title=x\"{{ merchant }}\">a</p>", "in a tag without quotes around it"),
        ("<p title=a=\"{{ merchant }}\">a</p>", "in a tag without quotes around it"),
        ("<p title=\"a\"{{ merchant }}>a</p>", "in a tag without quotes around it"),
        ("<p {{ merchant }}>a</p>", "in a tag without quotes around it"),
        ("<p {{ merchant }}=\"a\">a</p>", "in a tag without quotes around it"),
        ("<p\n/{{ merchant }}>a</p>", "in a tag without quotes around it"),
        ("<p title='a' alt={% if city %}{{ city }}{% endif %}>", "in a tag without quotes around it"),
        ("</p {{ merchant }}>", "in a tag without quotes around it"),
        ("<{{ merchant }}>a</p>", "in the name of a tag"),
        ("<h{{ tail }}>a</p>", "in the name of a tag"),
        ("<style>p{color:{{ merchant }}}</style>", "in a style sheet"),
        ("<STYLE type='a>b'>{{ merchant }}", "in a style sheet"),
        ("<script>a = \"{{ merchant }}\"</script>", "in a script"),
        ("<p onclick=\"x('{{ merchant }}')\">a</p>", "in the attribute onclick"),
        ("<p ONLOAD = '{{ merchant }}'>a</p>", "in the attribute onload"),
        ("<iframe srcdoc=\"{{ merchant }}\"></iframe>", "in the attribute srcdoc"),
    ],
)  # fmt: skip
def test_elsewhere_it_could_say_more_than_its_words(html: str, where: str) -> None:
    assert told(html) == [where]


def test_a_field_in_an_unsafe_place_is_an_error_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace(PLACE, "<p>{{ amount }}</p>\n<p title={{ merchant }}>a</p>")
    (linted,) = lint_file(write(tmp_path, text))
    (finding,) = linted.findings
    assert (finding.where, finding.severity) == ("[email.en] html", "error")
    assert finding.what == "a field stands in a tag without quotes around it"
    assert finding.line == line_of(text, "<p title=")


@pytest.mark.parametrize(
    ("layout", "where"),
    [
        ("<style>{% block a %}{% endblock %}</style>", "in a style sheet"),
        ("<p title={% block a %}{% endblock %}>a</p>", "in a tag without quotes around it"),
        ('<p style="color:{% block a %}{% endblock %}">a</p>', "in the attribute style"),
    ],
)
def test_a_field_is_followed_into_the_layout_that_it_fills(tmp_path: Path, layout: str, where: str) -> None:
    # Given a layout with a block where no field may stand, and a mail that fills it with one
    body = '{% extends "own" %}{% block a %}{{ merchant }}{% endblock %}'
    path = write(tmp_path, GOOD.replace(PLACE, "").replace('<html lang="en"', body + '<html lang="en"'))
    (tmp_path / "_layout").mkdir()
    (tmp_path / "_layout" / "own.html").write_text(f"<html>{layout}</html>")
    # When it is linted, Then it is an error of the mail
    (linted,) = lint_file(path)
    assert f"a field stands {where}" in {one.what for one in linted.findings if one.severity == "error"}
