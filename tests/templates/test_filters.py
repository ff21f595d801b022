"""The filters that templates have, in the language and the measure of the part in which they stand."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.errors import RenderFailed
from templates.filters import FILTERS
from templates.grammar import OUR_FILTERS
from templates.mcc import GROUPS, mcc_group, mcc_icon, mcc_word
from templates.render import Source, WechatPart, environment
from templates.text import columns, graphemes, has_emoji, units
from templates.words import NO_TAIL


def shown(text: str, part: str = "sms.en/text", **values: str) -> str:
    return Source(environment(), f"x@1/{part}", text).render(values)


@pytest.mark.parametrize(
    ("text", "part", "values", "expected"),
    [
        ("{{ merchant | short(6) }}", "sms.zh-CN/text", {"merchant": "星巴克南京西路店"}, "星巴克南京…"),
        ("{{ merchant | short(6) }}", "wechat.zh-CN/thing1", {"merchant": "星巴克南京西路店"}, "星巴克南京…"),
        ("{{ merchant | short(6) }}", "email.zh-CN/text", {"merchant": "星巴克南京西路店"}, "星巴…"),
        ("{{ merchant | short(6) }}", "email.en/text", {"merchant": "Starbucks"}, "Starb…"),
        ("{{ merchant | short(16) }}", "email.zh-CN/text", {"merchant": "星巴克南京西路店"}, "星巴克南京西路店"),
        ("{{ merchant | short(3) }}", "email.en/html", {"merchant": "&lt;b&gt;bold"}, "&lt;b…"),
        ("{{ merchant | short(5) | upper }}", "sms.en/text", {"merchant": "starbucks"}, "STAR…"),
        (
            "{{ amount_minor | money(currency) }}",
            "sms.en/text",
            {"amount_minor": "123450", "currency": "CNY"},
            "¥1,234.50",
        ),
        ("{{ amount_minor | money('KRW') }}", "sms.en/text", {"amount_minor": "403000"}, "₩403,000"),
        ("{{ amount_minor | money('KWD') }}", "sms.zh-CN/text", {"amount_minor": "-1250"}, "-KD 1.250"),
        (
            "{{ swiped_at | local_time }}",
            "sms.zh-CN/text",
            {"swiped_at": "2026-11-22T05:05:59+00:00"},
            "2026年11月22日 13:05",
        ),
        (
            "{{ swiped_at | local_time(timezone, 'short') }}",
            "sms.en/text",
            {"swiped_at": "2026-11-22T05:05:59+00:00", "timezone": "Europe/London"},
            "22 Nov at 05:05",
        ),
        ("{{ card | tail }}", "sms.en/text", {"card": "****0426"}, "0426"),
        ("{{ card | tail }}", "sms.en/text", {"card": "abc"}, NO_TAIL),
        ("{{ mcc | mcc_word }} {{ mcc | mcc_icon }}", "email.zh-CN/text", {"mcc": "5411"}, "超市食品 🛒"),
        ("{{ mcc | mcc_word }}{{ mcc | mcc_icon }}", "email.en/html", {"mcc": ""}, ""),
        ("{{ late_seconds | late }}", "sms.zh-CN/text", {"late_seconds": "2100"}, "35分钟"),
        ("{{ late_seconds | late }}", "wechat.en/thing1", {"late_seconds": "2100"}, "35 min"),
        ("{{ late_seconds | late }}", "sms.en/text", {"late_seconds": "0"}, ""),
    ],
)
def test_a_filter_shows(text: str, part: str, values: dict[str, str], expected: str) -> None:
    assert shown(text, part, **values) == expected


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{{ merchant | short(0) }}", {"merchant": "Secret"}),
        ("{{ merchant | short('wide') }}", {"merchant": "Secret"}),
        ("{{ merchant | short }}", {"merchant": "Secret"}),
        ("{{ merchant | short(3, 4, 5) }}", {"merchant": "Secret"}),
        ("{{ merchant | short(true) }}", {"merchant": "Secret"}),
        ("{{ merchant | short(width=3) }}", {"merchant": "Secret"}),
        ("{{ merchant | money('CNY') }}", {"merchant": "Secret"}),
        ("{{ amount_minor | money(merchant) }}", {"amount_minor": "5", "merchant": "Secret"}),
        ("{{ amount_minor | money('CNY') }}", {"amount_minor": "1.5"}),
        ("{{ merchant | local_time }}", {"merchant": "Secret"}),
        ("{{ swiped_at | local_time(form='odd') }}", {"swiped_at": "2026-11-22T05:05:59+00:00"}),
        ("{{ swiped_at | local_time }}", {"swiped_at": "9999-12-31T23:59:59+00:00"}),
        ("{{ merchant | late }}", {"merchant": "Secret"}),
        ("{{ late_seconds | late }}", {"late_seconds": "9" * 19}),
    ],
)
def test_a_filter_that_cannot_take_its_value_fails_the_alert_and_quotes_nobody(
    text: str, values: dict[str, str]
) -> None:
    with pytest.raises(RenderFailed, match=r"^x@1/sms.en/text: filter [a-z_]+: ") as caught:
        shown(text, **values)
    assert "Secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_grammar_knows_every_filter() -> None:
    assert FILTERS.keys() == OUR_FILTERS


@given(st.text(max_size=80), st.integers(min_value=1, max_value=40), st.sampled_from(["sms.en/text", "email.en/text"]))
def test_short_never_exceeds_its_length_nor_splits_a_grapheme(text: str, limit: int, part: str) -> None:
    short = shown(f"{{{{ merchant | short({limit}) }}}}", part, merchant=text)
    assert (units if part.startswith("sms") else columns)(short) <= limit
    if short != text:
        pieces = graphemes(text)
        kept = short.removesuffix("…")
        assert any("".join(pieces[:count]).rstrip() == kept for count in range(len(pieces) + 1))


@pytest.mark.parametrize(
    ("code", "group"),
    [
        ("3000", "airline"),
        ("3350", "airline"),
        ("3351", "car-hire"),
        ("3999", "hotel"),
        ("4121", "taxi"),
        ("4900", "utilities"),
        ("5411", "groceries"),
        ("5541", "fuel"),
        ("5812", "dining"),
        ("5814", "fast-food"),
        ("5912", "pharmacy"),
        ("6011", "cash"),
        ("7832", "leisure"),
        ("8062", "health"),
        ("9311", "government"),
    ],
)
def test_a_code_has_a_group(code: str, group: str) -> None:
    assert mcc_group(code) == GROUPS[group]


@pytest.mark.parametrize("code", ["0000", "2000", "4300", "9999", "541", "54111", "５４１１", "54a1", "", None])
def test_what_is_no_known_code_has_no_word(code: str | None) -> None:
    assert (mcc_word(code, "zh"), mcc_word(code, "en"), mcc_icon(code)) == ("", "", "")


def test_the_groups_are_distinct_used_and_short() -> None:
    # Given all codes there can be, then every group has one, and no two groups share a word or an icon
    found = [group for number in range(10_000) if (group := mcc_group(f"{number:04}")) is not None]
    assert set(found) == set(GROUPS.values())
    for words in ({group.zh for group in found}, {group.en for group in found}, {group.icon for group in found}):
        assert len(words) == len(GROUPS)
    # And the Chinese word fits a phrase of WeChat, and an icon is one sign
    assert all(len(group.zh) <= 5 and len(graphemes(group.icon)) == 1 for group in found)


@pytest.mark.parametrize(
    "raw",
    ["麦当劳", "Valamar Hotel Lacroma", "𠮷" * 9, "☕️咖啡☕️" * 4, "👨\u200d👩\u200d👧", "", "a\u0301" * 30, "\u202e"],
)
@pytest.mark.parametrize("limit", [1, 2, 8, 19, 20, 40])
def test_the_short_cut_for_a_shortened_text_agrees_with_the_engine(make_facts: Any, raw: str, limit: int) -> None:
    # Given the same field in a form that becomes a Python format, and in one that only the engine can read
    facts = make_facts(merchant=raw)
    shown = {}
    for form in (f"在{{{{ merchant | short({limit}) }}}}", f"在{{{{- merchant | short({limit}) -}}}}"):
        engine = environment()
        source = Source(engine, "x@1/wechat.zh-CN/thing1", form)
        part = WechatPart(engine, "x@1/wechat.zh-CN", "zh-CN", {"thing1": source})
        shown[source.format is None] = part.render(facts)["thing1"]["value"]
        assert orjson.loads(part.render_json(facts)) == part.render(facts)
    # Then they say the same, as far as the engine may count an emoji that WeChat does not show
    assert units(shown[False]) <= min(20, limit + 1)
    if not has_emoji(raw):
        assert shown[False] == shown[True]
