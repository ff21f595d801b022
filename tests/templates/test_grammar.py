"""What a template's text may say, and that what is left of the language cannot take the engine with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from templates import grammar, render, scan
from templates.errors import RenderFailed
from templates.grammar import FILTERS, LAYOUT_STATEMENTS, Refused, check, filters_of
from templates.remedies import REMEDIES
from templates.render import MAX_OUTPUT_CHARS, UNBOUNDED_FILTERS, UNBOUNDED_GLOBALS, Source, environment

GOOD = [
    "plain * text | with signs",
    "{{ merchant }} * 2",
    "{{ merchant | short(12) }}",
    "{{ merchant|upper|trim }}",
    "{{ 'a * b | nofilter' }}",
    '{{ "%} * }}" }}',
    "{# {% set x = 1 %} * #}",
    "{% raw %}{% set x %} {{ a * b }} ' {% endraw %}",
    "{%- if merchant == '*' -%}x{%- elif city -%}y{%- else -%}z{%- endif -%}",
    "{% for i in range(3) %}{{ i }}{% endfor %}",
    "{% for number in range(1, 4) -%} {{ number }} {%- endfor %}",
    "{% block a %}x{% endblock a %}",
    "{% if merchant is startingwith('https://') and city is not defined or tail|int is odd %}x{% endif %}",
    "{% if kind in ['a', 'b'] or kind in ('c', 'd') %}{{ merchant[:3] }}{{ (city or kind)[0] }}{% endif %}",
    "{{ merchant | default(city, true) }}{{ merchant ~ city + kind }}",
    r"""{{ 'a\nb\\u0041\'\"' }}""",
    "{{ -1 }}{{- 1 -}}{{+ 1 +}}{{ 1.5 }}{{ none }}",
    '{% extends "mail" %}{% from "rows" import row, button as knob %}{{ row("a", merchant) }}',
]


@pytest.mark.parametrize("text", GOOD)
def test_what_alerts_need_may_be_said(text: str) -> None:
    Source(environment(), "x", text)


BAD = [
    ('{{ {"a": {"b": 1}} and (("x" * 100000000) | length) }}', "UnknownOperator", 1),
    ('{{ {"a": {"b": 1}} and merchant | replace("a", "b") }}', "UnknownOperator", 1),
    ('{% if {"a": {"b": 1}} %}x{% endif %}', "UnknownOperator", 1),
    ("{{ 'x' * 99 }}", "UnknownOperator", 1),
    ("{{ 2 ** 9 }}", "UnknownOperator", 1),
    ("a\n\n{% if 'x' * 99 %}{% endif %}", "UnknownOperator", 3),
    ("{{ merchant }}\n{{ merchant | nofilter }}", "UnknownFilter", 2),
    ("{{ merchant\n | upper\n | replace('a', 'b') }}", "UnknownFilter", 3),
    ("{{ merchant | format }}", "UnknownFilter", 1),
    ("{% if merchant | join('x') %}{% endif %}", "UnknownFilter", 1),
    ("{% raw %} ' {% endraw %}{{ 'x' * 99 }}", "UnknownOperator", 1),
    ("{# ' #}{{ 'x' * 99 }}", "UnknownOperator", 1),
    ("{{ '\\'' * 99 }}", "UnknownOperator", 1),
    ("{% set a = merchant ~ merchant %}", "UnknownStatement", 1),
    ("{%- set a %}{% endset %}", "UnknownStatement", 1),
    ("{%+ with a = merchant %}{% endwith %}", "UnknownStatement", 1),
    ("{% macro a() %}{% endmacro %}", "UnknownStatement", 1),
    ("{% include 'x' %}", "UnknownStatement", 1),
    ("{% filter upper %}x{% endfilter %}", "UnknownStatement", 1),
    ("{% autoescape false %}x{% endautoescape %}", "UnknownStatement", 1),
    ("\n{% for x in [merchant ~ merchant] %}{% endfor %}", "UnknownLoop", 2),
    ("{% for x in merchant %}{% endfor %}", "UnknownLoop", 1),
    ("{{ range(100000) }}", "UnknownFunction", 1),
    ("{% if range(9) | string %}{% endif %}", "UnknownFunction", 1),
    ("{% if tail is divisibleby(3) %}{% endif %}", "UnknownTest", 1),
    ("{{ tail is\nnot\ndivisibleby 3 }}", "UnknownTest", 1),
    ("{{ 1 if merchant is in(city) }}", "UnknownTest", 1),
    ("{{ [merchant, city] | string }}", "UnknownOperator", 1),
    ("{{ [merchant] | string }}", "UnknownOperator", 1),
    ("{{ (merchant, city) | string }}", "UnknownOperator", 1),
    ("{{ ('a', ['b']) | string }}", "UnknownOperator", 1),
    (r'{{ "\u0000\u202e\u001b" }}', "UnknownEscape", 1),
    (r"{{ merchant }}{{ 'a\\\\\t' }}", "UnknownEscape", 1),
    (r"{% if merchant == 'a\x1b' %}{% endif %}", "UnknownEscape", 1),
    ('{% extends "ma" ~ "il" %}', "TemplateNotFound", 1),
    ('\n{% extends "m\\u0061il" %}', "TemplateNotFound", 2),
    ('{% extends ("mail") %}', "TemplateNotFound", 1),
    ('{% extends "ma" "il" %}', "TemplateNotFound", 1),
    ('{% extends "mail" if city else "rows" %}', "TemplateNotFound", 1),
    ("{% extends merchant %}", "TemplateNotFound", 1),
    ('{% extends "hello@1/email.en/html" %}', "TemplateNotFound", 1),
    ('{% from "ro" ~ "ws" import row %}', "UnknownStatement", 1),
    ('{% from "r\\u006fws" import row %}', "TemplateNotFound", 1),
    ("{% from (merchant) import row %}", "TemplateNotFound", 1),
    ("{% for x in range(3) recursive %}{{ loop(range(3)) }}{% endfor %}", "UnknownLoop", 1),
]


@pytest.mark.parametrize(("text", "kind", "line"), BAD)
def test_what_can_make_much_from_little_is_refused_with_its_line(text: str, kind: str, line: int) -> None:
    # Given a text that the engine itself would take
    environment().add_template("x", text)
    # When it is compiled for an alert
    with pytest.raises(Refused) as caught:
        Source(environment(), "x", text)
    # Then it is refused, and the message says what there is instead
    assert (caught.value.kind, caught.value.line) == (kind, line)
    assert caught.value.detail


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("{{ " + "~".join("1" * 20_000) + " }}", "TooLong", 1),
        ("\n{% if " + "-" * 20_000 + "1 %}x{% endif %}", "TooLong", 2),
        ("{{ '" + "x" * 20_000, "TooLong", 1),
        ("{% if city %}" * 4_000 + "{% endif %}" * 4_000, "TooDeep", 1),
    ],
)
def test_what_would_end_the_process_is_never_compiled(text: str, kind: str, line: int) -> None:
    # The engine's compiler calls itself for each operator and block; it has no bound of its own
    with pytest.raises(Refused) as caught:
        Source(environment(), "x", text)
    assert (caught.value.kind, caught.value.line) == (kind, line)


def test_a_layout_has_macros_and_the_same_limits() -> None:
    check("{% macro row(a) %}{{ a }}{% endmacro %}{% set b %}x{% endset %}", LAYOUT_STATEMENTS)
    for text in (
        "{{ 'x' * 99 }}",
        "{% include 'x' %}",
        "{% for x in [1] %}{% endfor %}",
        "{{ a | replace('x', 'y') }}",
        "{% set a = lang | urlencode %}",  # of a % it makes three characters, and of these five
    ):
        with pytest.raises(Refused):
            check(text, LAYOUT_STATEMENTS)


LISTS = [
    '{% set a = ("x", lang) %}',
    "{% set a = (lang, lang) %}",
    "{% set a = (lang,) %}",
    "{% set a = lang, lang %}",
    "{% set a = lang, %}",
    "{% set a, b = lang, lang %}",
    "{% set (a, b) = lang %}",
    "{% set a = [lang] %}",
    "{% set a = [\n'x', lang\n] %}",
    "{% set a = [['x'], ['x']] %}",
    "{% set a = [-lang] %}",
    "{% set a = [(lang)] %}",
    "{% set a = [none, loop] %}",
    "{% set a = {'k': lang} %}",
    "{% set a = {lang: 'v'} %}",
    "{% set a = {'k': {'l': 'v'}} %}",
    "{% set a = 0 or[lang,lang] %}",
    "{% set a = 0 or(lang,lang) %}",
    "{% set a = 0 and\n[lang] %}",
    "{% set a = 1 if lang else[lang,lang] %}",
    "{% set a = 1 if lang else(lang,lang) %}",
    '{% set a = 0 or{"k":lang} %}',
    "{% set a = not[lang] %}",
    "{% set a = 1 in[lang] %}",
    "{% set a = lang is startingwith[lang,lang] %}",
    "{% set a = 'x'[lang,lang] %}",
    "{% set a = {'x': 'y'}[lang,lang] %}",
    "{% set a = lang == [lang, lang] %}",
    "{% set a | default([lang, lang]) %}{% endset %}",
    "{% if (lang, lang) == (lang, lang) %}{% endif %}",
    "{% if lang, lang %}{% endif %}",
    "{% if[lang,lang] %}{% endif %}",
    "{% if(lang,lang) %}{% endif %}",
    "{% if 0 %}{% elif[lang,lang] %}{% endif %}",
    "{{ lang, lang }}",
    "{{ (lang, lang) | string | length }}",
    "{{ lang | default((lang, lang)) }}",
    "{{ m((lang, lang)) }}",
    "{{ m(a=(lang, lang)) }}",
    "{{ m([lang]) }}",
    "{{ m(((lang), (lang))) }}",
    "{{ loop.cycle((lang, lang)) }}",
    "{% macro m(a, b=(lang, lang)) %}{% endmacro %}",
    "{% macro m(a, b=[lang]) %}{% endmacro %}",
    "{% set a.b = lang %}",
    "{% set a = lang ~ lang %}",
    "{%+ set a = lang+lang %}",
    "{{ 'x' ~ lang }}",
]


@pytest.mark.parametrize("text", LISTS)
def test_a_layout_has_no_list_that_holds_a_value(text: str) -> None:
    """Forty of them, each with the last twice, are a terabyte once they are written or compared."""
    with pytest.raises(Refused, match=r"UnknownOperator|UnknownStatement|UnknownTest"):
        check(text, LAYOUT_STATEMENTS)


@pytest.mark.parametrize(
    "text",
    [
        '{%- set accent = {"alert": "#b91c1c", "good": "#15803d"}[tone] | default("#0f766e") -%}',
        '{%- set zh = lang[:2] == "zh" -%}',
        "{% set a %}x{% endset %}{% set b | upper %}x{% endset %}",
        "{%+ if zh +%}{% endif %}",
        "{% macro m(a, b='x') %}{{ n(a, b, c=m(a, b)) }}{% endmacro %}",
        "{% if lang in ('zh-CN', 'zh') or lang in [\n'en',\n'fr'\n] %}{% endif %}",
        "{{ (lang or 'x')[0] }}{{ super() }}{{ self.body() }}",
    ],
)
def test_a_layout_may_look_up_compare_and_call(text: str) -> None:
    check(text, LAYOUT_STATEMENTS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{% for i in range(90000) %}x{% endfor %}", "line 1: OutOfFuel"),
        (
            "{% for i in range(999) %}" * 3 + "x" + "{% endfor %}" * 3,
            "line 1: OutOfFuel",
        ),
        ("{% for i in range(9999999) %}{% endfor %}", "line 1: InvalidOperation"),
        (
            "{% for i in range(100) %}" + "x" * 10_000 + "{% endfor %}",
            f"more than {MAX_OUTPUT_CHARS} characters of output",
        ),
        ("{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}", "line 1: InvalidOperation"),
    ],
    ids=["loop", "loops in loops", "a range too long", "a megabyte", "a block in itself"],
)
def test_an_endless_loop_or_a_megabyte_fails_its_rendering_only(text: str, reason: str) -> None:
    engine = environment()
    other = Source(engine, "other", "{{ merchant }}!")
    with pytest.raises(RenderFailed) as caught:
        Source(engine, "x", text).render({})
    assert caught.value.reason == reason
    assert other.render({"merchant": "m"}) == "m!"


def test_every_filter_that_a_template_may_name_exists() -> None:
    arguments = {"short": "(3)", "money": "('CNY')"}
    values = {"late": "5", "money": "5", "local_time": "2026-11-22T05:05:59+00:00", "abs": None, "round": None}
    for name in sorted(FILTERS):
        value = values.get(name, "x")
        given = "5" if value is None or name == "int" else f"'{value}'"
        Source(environment(), "x", f"{{{{ {given} | {name}{arguments.get(name, '')} }}}}").render({})


def test_the_sandbox_itself_lacks_what_has_no_limit() -> None:
    engine = environment()
    for name in UNBOUNDED_FILTERS:
        with pytest.raises(Exception, match="unknown filter"):
            engine.render_str(f"{{{{ 'x' | {name} }}}}")
    assert engine.globals.keys().isdisjoint(UNBOUNDED_GLOBALS)


def test_the_filters_of_a_text_are_found_with_their_lines() -> None:
    text = "a | b {{ merchant | short(3) }}\n{% if city | trim == '| x' %}{{ '\n' | upper }}{% endif %}{{ a | lower }}"
    assert list(filters_of(text)) == [("short", 1), ("trim", 2), ("upper", 3), ("lower", 3)]


def test_whoever_is_refused_is_told_what_to_do() -> None:
    # Given every kind of refusal that is in the code
    said = "".join(Path(module.__file__ or "").read_text("utf-8") for module in (grammar, scan, render))
    kinds = set(re.findall(r'(?:\bRefused|_Found)\("(\w+)"', said))
    # Then each has a remedy of its own
    assert len(kinds) >= 10
    assert kinds <= REMEDIES.keys()
