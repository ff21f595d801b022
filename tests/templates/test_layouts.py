"""Layouts: HTML that mails share, and a bank's own in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from templates.errors import TemplateError
from templates.layouts import MAX_LAYOUT_BYTES, MAX_LAYOUTS, SHIPPED, load_layouts, used_layouts
from templates.library import Library, load_template
from templates.loader import compile_template

MAIL = """
id = "hello"
version = 1
category = "service"
[[fields]]
name = "merchant"
type = "text"
example = "shop"
[email.zh-CN]
subject = "{{ merchant }}"
text = "{{ merchant }}"
html = '''HTML'''
[email.en]
subject = "{{ merchant }}"
text = "{{ merchant }}"
html = '''HTML'''
"""
PLAIN = "<html lang='{{ lang }}'>{% block body %}{% endblock %}</html>"
CHILD = '{% extends "plain" %}{% block body %}<b>{{ merchant }}</b>{% endblock %}'


def write(folder: Path, html: str = CHILD, **layouts: str) -> Path:
    (folder / "_layout").mkdir(exist_ok=True)
    for name, text in layouts.items():
        (folder / "_layout" / f"{name}.html").write_text(text, "utf-8")
    path = folder / "hello" / "template.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(MAIL.replace("HTML", html), "utf-8")
    return path


def test_a_mail_fills_the_blocks_of_a_layout(tmp_path: Path, make_facts: Any) -> None:
    # Given a layout of a bank's own and a mail for it
    template = load_template(write(tmp_path, plain=PLAIN))
    # When it is rendered, then the layout knows the mail's locale, and values are escaped as ever
    words = template.render_email(make_facts(merchant="<i>"), "en-GB")
    assert words.html == "<html lang='en'><b>&lt;i&gt;</b></html>"
    # And the template knows what it is made of, which is all that has to be kept of a version
    assert template.layouts == {"plain": PLAIN}


def test_rendering_opens_no_file(tmp_path: Path, make_facts: Any) -> None:
    path = write(tmp_path, plain=PLAIN)
    template = load_template(path)
    (tmp_path / "_layout" / "plain.html").unlink()
    path.unlink()
    assert "<b>x</b>" in template.render_email(make_facts(merchant="x"), "en").html


def test_a_bank_s_layout_takes_the_place_of_the_shipped_one_for_all(tmp_path: Path, make_facts: Any) -> None:
    # Given a folder with nothing but a layout of the shipped name
    (tmp_path / "_layout").mkdir()
    mail = "<html lang='{{ lang }}'><h1>Our Bank</h1>{% block headline %}{% endblock %}</html>"
    (tmp_path / "_layout" / "mail.html").write_text(mail, "utf-8")
    # When the library is loaded with it, then the shipped notices look like the bank's
    words = Library.load(tmp_path).template("swipe").render_email(make_facts(), "zh-CN")
    assert words.html == "<html lang='zh-CN'><h1>Our Bank</h1>¥38.00</html>"


def test_the_layouts_of_a_text_are_those_that_it_leads_to() -> None:
    layouts = {"a": '{% extends "b" %}', "b": "{% from 'c' import x %}", "c": "", "d": ""}
    assert list(used_layouts('{% extends "a" %}', layouts)) == ["a", "b", "c"]
    assert used_layouts("{{ x }}", layouts) == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("plain", "\n{% block body %}", r"plain.html:2: the layout: SyntaxError"),
        ("plain", "\n<p>{{ merchant }}</p>", r"plain.html:2: the layout: names 'merchant'; a layout has blocks"),
        ("plain", "{{ 'x' * 9 }}", "the layout: UnknownOperator"),
        ("plain", "{% include 'x' %}", "the layout: UnknownStatement"),
        ("plain", "a\n\x07", r"plain.html:2: the file: holds a control character"),
        ("plain", "x" * (MAX_LAYOUT_BYTES + 1), "is over 32768 bytes"),
        ("Plain", "x", "the name: is not a word"),
    ],
)
def test_a_mistake_in_a_layout_is_named_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    write(tmp_path, **{name: text})
    with pytest.raises(TemplateError, match=message) as caught:
        Library.load(tmp_path)
    assert caught.value.file == tmp_path / "_layout" / f"{name}.html"


@pytest.mark.parametrize(
    ("html", "layout", "message"),
    [
        ('{% extends "plane" %}', PLAIN, "hello/template.toml:11: .* html: TemplateNotFound|TemplateNotFound"),
        ('{% extends "../../etc/passwd" %}', PLAIN, "TemplateNotFound"),
        ('{% extends "plain" %}', '{% extends "plain" %}', "InvalidOperation"),
        ('{% extends "plain" %}{% block body %}{{ city }}{% endblock %}', PLAIN, "unknown field 'city'; add it"),
        ('{% extends "plain" %}', "{% for i in range(99999) %}x{% endfor %}", "OutOfFuel"),
    ],
)
def test_a_mail_that_cannot_use_its_layout_is_refused_when_it_is_loaded(
    tmp_path: Path, html: str, layout: str, message: str
) -> None:
    path = write(tmp_path, html, plain=layout)
    with pytest.raises(TemplateError, match=message):
        load_template(path)


def test_the_files_of_a_folder_are_bounded_and_must_be_readable(tmp_path: Path) -> None:
    assert load_layouts(tmp_path) == {}
    write(tmp_path, **{f"l{number}": "x" for number in range(MAX_LAYOUTS)})
    assert len(load_layouts(tmp_path)) == MAX_LAYOUTS
    write(tmp_path, more="x")
    with pytest.raises(TemplateError, match="are more than 16"):
        load_layouts(tmp_path)
    (tmp_path / "_layout" / "l0.html").unlink()
    (tmp_path / "_layout" / "l1.html").write_bytes(b"\xff")
    with pytest.raises(TemplateError, match="is not UTF-8"):
        load_layouts(tmp_path)
    (tmp_path / "_layout" / "l1.html").unlink()
    (tmp_path / "_layout" / "l1.html").mkdir()
    with pytest.raises(TemplateError, match="is not a regular file"):
        load_layouts(tmp_path)


def test_every_colour_of_the_shipped_layout_can_be_read() -> None:
    # Given the pairs of text and ground that the layout makes, light and dark
    mail = load_layouts(SHIPPED)["mail"]
    pairs = [
        ("#1f2937", "#ffffff"), ("#566070", "#ffffff"), ("#566070", "#f3f4f6"), ("#991b1b", "#fef2f2"),
        ("#1f2937", "#e5e7eb"), ("#f3f4f6", "#1f2937"), ("#b6bfcc", "#1f2937"), ("#b6bfcc", "#111827"),
        ("#fecaca", "#451a1a"), ("#042f2e", "#5eead4"), ("#f3f4f6", "#374151"),
    ]  # fmt: skip
    # Then each is in use and has the contrast that small text needs (WCAG 2.2, 1.4.3)
    for text, ground in pairs:
        assert text in mail
        assert ground in mail
        brighter, darker = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (brighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)


def luminance(colour: str) -> float:
    """WCAG's relative luminance of ``#rrggbb``."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


LAYOUT_THAT_DOUBLES = (
    "{% set a %}{% block body %}{% endblock %}{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40
)
MACRO_THAT_DOUBLES = (
    "{% macro twice(a) %}{{ a }}{{ a }}{% endmacro %}{% set b %}{% block body %}{% endblock %}{% endset %}{{ "
    + "twice(" * 40
    + "b"
    + ")" * 40
    + " }}"
)


@pytest.mark.parametrize("layout", [LAYOUT_THAT_DOUBLES, MACRO_THAT_DOUBLES], ids=["set", "macro"])
def test_a_layout_that_doubles_its_text_is_a_mistake_and_not_the_end_of_the_process(
    tmp_path: Path, layout: str
) -> None:
    # Given a layout that would make a terabyte of a word, in fewer steps than a mail has
    # When it is loaded with a template that uses it, then file and part are named
    with pytest.raises(TemplateError, match=r"\[email\.zh-CN\].*more than \d+ characters of output"):
        load_template(write(tmp_path, plain=layout))


@pytest.mark.parametrize(
    "layout",
    [
        "{% set a = lang ~ lang %}",
        "{% set a = lang + lang %}",
        "{% set a = [lang, lang] %}",
        "{% set a = {'x': lang} %}",
        "{% set a = [[lang]] %}",
    ],
)
def test_a_layout_joins_texts_by_writing_them_only(tmp_path: Path, layout: str) -> None:
    with pytest.raises(TemplateError, match="UnknownOperator: a layout puts texts together by writing them"):
        load_template(write(tmp_path, plain=layout))


@pytest.mark.parametrize(
    "layout",
    ["{% set a = (lang, lang) %}" * 40, '{{ "}}" == ' + "-" * 20_000 + "1 }}", "{% block a %}"],
    ids=["doubles", "long", "no layout"],
)
def test_a_layout_that_an_earlier_release_kept_is_looked_at_again(tmp_path: Path, layout: str) -> None:
    # Given a version in the ledger, with the layout that it was told with
    path = write(tmp_path, plain=PLAIN)
    # When it is compiled for an alert that pins it, and this release would not take the layout
    # Then the version is refused, and the process goes on
    with pytest.raises(TemplateError, match="the layout"):
        compile_template(path.read_text("utf-8"), {"plain": layout}, path)
