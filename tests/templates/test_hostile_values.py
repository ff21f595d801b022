"""Values that want to be more than values, and the two files of real and synthetic swipes."""

from __future__ import annotations

import gzip
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.event import Event
from templates.errors import FieldRefused
from templates.facts import SwipeFacts
from templates.library import Template
from templates.limits import MAX_SMS_TEXT_UNITS, check, segments
from templates.text import units

EVENTS_OF_A_FILE = 20_000

ZALGO = "".join(letter + "\u0335\u0342\u0338\u035b\u0489" * 8 for letter in "STARBUCKS")

HOSTILE = {
    "template expression": "{{ 7*7 }}",
    "template statement": "{% for i in range(9) %}x{% endfor %}",
    "template comment": "{# gone #}",
    "python format": "%s %(x)s {0.__class__}",
    "html": "<script>alert('1')</script>",
    "json": '"}},"touser":"x',
    "backslashes": '\\u0000\\"\\n',
    "sql": "'; DROP TABLE alerts; --",
    "line breaks": "a\r\nBcc: x\n\n.\u2028b\u0085c",
    "control characters": "a\x00b\x08c\x1b[31md\x1fe\x7f",
    "the field separator": "\x1f" * 30,
    "bidirectional": "\u202eevil\u202c\u2066x\u2069\u200f",
    "zero width": "a\u200b\u200c\u200d\ufeffb",
    "zalgo": ZALGO,
    "emoji": "😀🎉👨\u200d👩\u200d👧🇨🇳☕️",
    "beyond the BMP": "𠮷" * 40,
    "flags": "🇨🇳" * 300,
    "blank": "   ",
    "invisible": "\u3164\u2800\u115f",
    "only marks": "\u0301" * 40,
    "lone surrogate": "a\ud83db",
    "ten thousand characters": "x" * 10_000,
    "ten thousand ideographs": "商" * 10_000,
    "ten thousand marks": "e" + "\u0301" * 10_000,
    "right to left": "مطعم الشام للمأكولات الشرقية والغربية",
    "thai": "ร้านอาหารไทยต้นตำรับกรุงเทพมหานคร",
    "an ellipsis already": "…" * 25,
    "a dash": "--",
}


@pytest.mark.parametrize("locale", ["zh-CN", "en"])
@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_merchant_comes_out_harmless_and_within_limits(
    swipe: Template, make_facts: Any, raw: str, locale: str
) -> None:
    # Given the string wherever the event has text
    facts = make_facts(merchant=raw, city=raw, pan=raw, type=raw, status=raw, timezone=raw[:100])
    # When rendered
    data = swipe.render_wechat(facts, locale)
    text = swipe.render_sms(facts, locale)
    # Then nothing is refused, nothing hides, and the amount is whole
    assert check(data) == []
    assert data["amount2"]["value"] == "¥38.00"
    assert "¥38.00" in text
    assert units(text) <= MAX_SMS_TEXT_UNITS
    assert segments(text) <= 8
    assert text.replace("\u200d", "").isprintable()
    text.encode("utf-8")


@given(st.text(max_size=120), st.integers(min_value=-(10**9), max_value=10**9), st.sampled_from(["zh-CN", "en"]))
def test_any_merchant_and_amount_stay_within_the_limits(
    swipe: Template, make_facts: Any, raw: str, amount: int, locale: str
) -> None:
    # Given any merchant, and an amount that WeChat has room for
    facts = make_facts(merchant=raw, city=raw, amount=amount, day_total_minor=None)
    # Then no field is refused, and the amount is told with every digit
    data = swipe.render_wechat(facts, locale)
    assert check(data) == []
    digits = f"{abs(amount) // 100}.{abs(amount) % 100:02}"
    assert data["amount2"]["value"].replace(",", "") == f"¥{digits}"
    text = swipe.render_sms(facts, locale)
    assert units(text) <= MAX_SMS_TEXT_UNITS
    assert f"¥{digits}" in text.replace(",", "")


@pytest.mark.parametrize("name", ["template expression", "template comment", "sql", "html", "python format"])
def test_syntax_of_any_kind_stays_literal(swipe: Template, make_facts: Any, name: str) -> None:
    facts = make_facts(merchant=HOSTILE[name])
    assert f"（{HOSTILE[name]}）" in swipe.render_sms(facts, "zh-CN")
    shown = swipe.render_wechat(facts, "zh-CN")["thing5"]["value"]
    assert HOSTILE[name].startswith(shown.removesuffix("…"))


def test_a_long_merchant_is_cut_from_its_end_to_twenty_with_the_ellipsis(swipe: Template, make_facts: Any) -> None:
    facts = make_facts(merchant="Valamar Hotel Lacroma Reception")
    assert swipe.render_wechat(facts, "en")["thing5"]["value"] == "Valamar Hotel Lacro…"


def test_an_sms_too_long_loses_merchant_and_keeps_everything_else(swipe: Template, make_facts: Any) -> None:
    text = swipe.render_sms(make_facts(merchant="商" * 600, late_seconds=8000, amount=123456789), "zh-CN")
    assert units(text) == MAX_SMS_TEXT_UNITS
    assert text.startswith("您尾号0426的信用卡11月22日13:05消费¥1,234,567.89（商商")
    assert text.endswith("商…），当日累计¥1,234.50，本通知延迟约2小时。")


def test_a_merchant_of_emoji_only_is_unknown_on_wechat(swipe: Template, make_facts: Any) -> None:
    facts = make_facts(merchant="🎉🎉")
    assert swipe.render_wechat(facts, "zh-CN")["thing5"]["value"] == "商户未知"
    assert "（🎉🎉）" in swipe.render_sms(facts, "zh-CN")


def test_a_day_total_too_long_for_its_field_loses_separators_then_its_place(swipe: Template, make_facts: Any) -> None:
    def shown(total: int) -> str:
        return swipe.render_wechat(make_facts(day_total_minor=total), "en")["thing9"]["value"]

    assert shown(9_999_999) == "Day total ¥99,999.99"
    assert shown(99_999_999) == "Day total ¥999999.99"
    assert shown(123_456_789) == "Day total --"
    assert shown(10_000_000) == "Day total ¥100000.00"


def test_an_amount_that_wechat_cannot_hold_is_refused_and_the_sms_still_tells_it(
    swipe: Template, make_facts: Any
) -> None:
    facts = make_facts(amount=2**63 - 1, day_total_minor=None)
    with pytest.raises(FieldRefused, match=r"^amount2: has more than 10 digits$"):
        swipe.render_wechat(facts, "zh-CN")
    assert "¥92,233,720,368,547,758.07" in swipe.render_sms(facts, "zh-CN")
    assert swipe.render_wechat(make_facts(amount=123_456_789), "zh-CN")["amount2"]["value"] == "¥1234567.89"


def test_an_unknown_currency_is_refused_without_repeating_it(swipe: Template, make_facts: Any) -> None:
    facts = make_facts(currency="QQQ")
    for render in (swipe.render_wechat, swipe.render_sms):
        with pytest.raises(FieldRefused) as caught:
            render(facts, "zh-CN")
        assert "QQQ" not in str(caught.value)


def test_a_time_at_the_edge_of_the_calendar_is_refused(swipe: Template, make_facts: Any) -> None:
    time = msgspec.convert("9999-12-31T23:59:59+00:00", type=Any)
    event = msgspec.convert(
        {"id": "e", "account": "a", "amount": 1, "currency": "CNY", "time": time}, Event, strict=False
    )
    with pytest.raises(FieldRefused, match="calendar"):
        swipe.render_wechat(make_facts(event=event), "zh-CN")


@pytest.mark.parametrize("name", ["birmingham-2014-2018", "sparkov-2023h1"])
def test_recorded_swipes_are_never_refused(swipe: Template, shared_data: Path, name: str) -> None:
    totals: dict[tuple[str, str], int] = defaultdict(int)
    decode = msgspec.json.Decoder(Event).decode
    with gzip.open(shared_data / f"{name}.ndjson.gz") as lines:
        for number, line in enumerate(islice(lines, EVENTS_OF_A_FILE)):
            event = decode(line)
            day = (event.account, event.time.date().isoformat())
            totals[day] += event.amount
            facts = SwipeFacts(event, day_total_minor=totals[day])
            locale = ("zh-CN", "en")[number % 2]
            assert check(swipe.render_wechat(facts, locale)) == []
            assert units(swipe.render_sms(facts, locale)) <= MAX_SMS_TEXT_UNITS
    assert number == EVENTS_OF_A_FILE - 1
