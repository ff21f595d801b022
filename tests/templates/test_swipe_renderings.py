"""What a cardholder reads, word by word."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
import pytest

from templates.facts import (
    DEFAULT_TIMEZONE,
    DIGEST_FIELDS,
    MAX_CACHED_ZONES,
    SWIPE_FIELDS,
    SwipeFacts,
    context,
    kind_of,
    zone,
)
from templates.library import Template
from templates.limits import check


def wechat(template: Template, facts: SwipeFacts, locale: str) -> dict[str, str]:
    data = template.render_wechat(facts, locale)
    assert check(data) == []
    return {key: field["value"] for key, field in data.items()}


PURCHASE = {
    "zh-CN": (
        {
            "time3": "2026年11月22日 13:05",
            "amount2": "¥38.00",
            "thing5": "星巴克南京西路店",
            "thing1": "尾号0426",
            "thing9": "当日累计 ¥1,234.50",
        },
        "您尾号0426的信用卡11月22日13:05消费¥38.00（星巴克南京西路店），当日累计¥1,234.50。",
    ),
    "en": (
        {
            "time3": "2026-11-22 13:05",
            "amount2": "¥38.00",
            "thing5": "星巴克南京西路店",
            "thing1": "Card 0426",
            "thing9": "Day total ¥1,234.50",
        },
        "Card 0426: Purchase of ¥38.00 at 星巴克南京西路店 on 22 Nov at 13:05. Day total ¥1,234.50.",
    ),
}


@pytest.mark.parametrize("locale", PURCHASE)
def test_a_purchase_in_full(swipe: Template, make_facts: Any, locale: str) -> None:
    # Given an ordinary purchase, when it is rendered, then every word is as a bank would write it.
    fields, text = PURCHASE[locale]
    assert wechat(swipe, make_facts(), locale) == fields
    assert swipe.render_sms(make_facts(), locale) == text


@pytest.mark.parametrize(
    ("kind", "in_chinese", "in_english", "sms_chinese", "sms_english"),
    [
        ("refund", "尾号0426 退款", "Refund *0426", "退款¥38.00", "Refund of ¥38.00"),
        ("reversal", "尾号0426 交易撤销", "Reversal *0426", "撤销交易¥38.00", "Reversal of ¥38.00"),
        ("cash", "尾号0426 预借现金", "Cash advance *0426", "预借现金¥38.00", "Cash advance of ¥38.00"),
        ("fee", "尾号0426 费用", "Fee *0426", "产生费用¥38.00", "Fee of ¥38.00"),
        (
            "decline",
            "尾号0426 交易被拒",
            "Declined *0426",
            "交易被拒，金额¥38.00",
            "Declined: transaction of ¥38.00",
        ),
        ("entry", "尾号0426 账户入账", "Account entry *0426", "账户入账¥38.00", "Account entry of ¥38.00"),
        ("teleport", "尾号0426 交易", "Transaction *0426", "发生交易¥38.00", "Transaction of ¥38.00"),
    ],
)
def test_every_type_says_what_happened(
    swipe: Template,
    make_facts: Any,
    kind: str,
    in_chinese: str,
    in_english: str,
    sms_chinese: str,
    sms_english: str,
) -> None:
    facts = make_facts(type=kind)
    assert wechat(swipe, facts, "zh-CN")["thing1"] == in_chinese
    assert wechat(swipe, facts, "en")["thing1"] == in_english
    assert f"13:05{sms_chinese}（" in swipe.render_sms(facts, "zh-CN")
    assert f": {sms_english} at " in swipe.render_sms(facts, "en")


@pytest.mark.parametrize(
    ("minor", "currency", "shown"),
    [
        (123450, "CNY", "¥1,234.50"),
        (403000, "KRW", "₩403,000"),
        (1250, "KWD", "KD 1.250"),
        (5, "USD", "$0.05"),
        (7261, "GBP", "£72.61"),
        (100, "JPY", "JP¥100"),
        (100, "CHF", "CHF 1.00"),
        (100, "XOF", "XOF 100"),
        (0, "CNY", "¥0.00"),
        (99, "CNY", "¥0.99"),
        (100, "CNY", "¥1.00"),
        (99_999, "CNY", "¥999.99"),
        (100_000, "CNY", "¥1,000.00"),
    ],
)
@pytest.mark.parametrize("locale", ["zh-CN", "en"])
def test_an_amount_has_its_currency_s_sign_and_decimals(
    swipe: Template, make_facts: Any, locale: str, minor: int, currency: str, shown: str
) -> None:
    facts = make_facts(amount=minor, currency=currency)
    assert wechat(swipe, facts, locale)["amount2"] == shown
    assert shown in swipe.render_sms(facts, locale)


@pytest.mark.parametrize(
    ("kind", "expected"), [("purchase", "refund"), ("refund", "refund"), ("fee", "credit"), ("new", "credit")]
)
def test_a_negative_amount_is_told_by_a_word_and_not_by_a_minus(
    swipe: Template, make_facts: Any, kind: str, expected: str
) -> None:
    # Given money that comes back, when rendered, then the amount is positive (WeChat's amount has no minus).
    facts = make_facts(type=kind, amount=-500, day_total_minor=-500)
    assert kind_of(facts.event) == expected
    fields = wechat(swipe, facts, "zh-CN")
    assert fields["amount2"] == "¥5.00"
    assert fields["thing9"] == "当日累计 -¥5.00"


def test_a_declined_status_wins_over_the_type(swipe: Template, make_facts: Any) -> None:
    facts = make_facts(status="declined: insufficient funds")
    assert wechat(swipe, facts, "zh-CN")["thing1"] == "尾号0426 交易被拒"
    assert make_facts(status="approved").event.type == "purchase"
    assert wechat(swipe, make_facts(status="approved"), "zh-CN")["thing1"] == "尾号0426"


def test_a_foreign_purchase_shows_both_amounts_in_the_sms(swipe: Template, make_facts: Any) -> None:
    facts = make_facts(orig_amount=16000, orig_currency="EUR", day_total_minor=None)
    assert swipe.render_sms(facts, "zh-CN") == (
        "您尾号0426的信用卡11月22日13:05消费¥38.00，原币€160.00（星巴克南京西路店）。"
    )
    assert swipe.render_sms(facts, "en") == (
        "Card 0426: Purchase of ¥38.00 (€160.00) at 星巴克南京西路店 on 22 Nov at 13:05."
    )


@pytest.mark.parametrize(
    "changed", [{"orig_currency": "CNY", "orig_amount": 3800}, {"orig_currency": "QQQ", "orig_amount": 1}]
)
def test_an_original_amount_that_says_nothing_is_left_out(
    swipe: Template, make_facts: Any, changed: dict[str, Any]
) -> None:
    # Given the same currency, or one whose decimals nobody knows, then the sentence has no second amount.
    assert "原币" not in swipe.render_sms(make_facts(**changed), "zh-CN")


def test_missing_facts_have_words_and_no_field_is_empty(swipe: Template, make_facts: Any) -> None:
    facts = make_facts(merchant=None, city=None, pan=None, mcc=None, day_total_minor=None)
    assert wechat(swipe, facts, "zh-CN") == {
        "time3": "2026年11月22日 13:05",
        "amount2": "¥38.00",
        "thing5": "商户未知",
        "thing1": "尾号----",
        "thing9": "当日累计 --",
    }
    assert wechat(swipe, facts, "en")["thing5"] == "unknown merchant"
    assert swipe.render_sms(facts, "zh-CN") == "您尾号----的信用卡11月22日13:05消费¥38.00（商户未知）。"


@pytest.mark.parametrize("pan", ["", "****", "622202******", "************04２6", "426"])
def test_a_card_number_without_four_plain_digits_at_its_end_has_no_tail(make_facts: Any, pan: str) -> None:
    assert context(make_facts(pan=pan), "en")["tail"] == "----"


@pytest.mark.parametrize(
    ("timezone", "shown"),
    [
        ("Asia/Shanghai", "2026-11-22 13:05"),
        ("America/New_York", "2026-11-22 00:05"),
        ("Pacific/Kiritimati", "2026-11-22 19:05"),
        ("Nowhere/Land", "2026-11-22 13:05"),
        ("../../etc/passwd", "2026-11-22 13:05"),
        ("", "2026-11-22 13:05"),
        ("Asia", "2026-11-22 13:05"),
        ("a\0b", "2026-11-22 13:05"),
    ],
)
def test_the_time_is_the_recipient_s_and_an_unknown_zone_is_china(make_facts: Any, timezone: str, shown: str) -> None:
    assert context(make_facts(timezone=timezone), "en")["time"] == shown
    assert zone("Nowhere/Land").key == DEFAULT_TIMEZONE
    assert zone.cache_info().maxsize == MAX_CACHED_ZONES


def test_a_single_digit_month_is_padded_in_the_field_and_plain_in_the_sentence(make_facts: Any) -> None:
    facts = make_facts(time=datetime(2026, 1, 2, 16, 3, tzinfo=UTC))
    assert context(facts, "zh-CN")["time"] == "2026年01月03日 00:03"
    assert context(facts, "zh-CN")["short_time"] == "1月3日00:03"
    assert context(facts, "en")["short_time"] == "3 Jan at 00:03"


@pytest.mark.parametrize(
    ("late_seconds", "chinese", "english"),
    [
        (0, None, None),
        (59, "1分钟", "1 min"),
        (2100, "35分钟", "35 min"),
        (8000, "2小时", "2 hr"),
        (200_000, "2天", "2 days"),
    ],
)
def test_an_sms_that_comes_late_says_so(
    swipe: Template, make_facts: Any, late_seconds: int, chinese: str | None, english: str | None
) -> None:
    facts = make_facts(late_seconds=late_seconds)
    if chinese is None:
        assert "延迟" not in swipe.render_sms(facts, "zh-CN")
        assert "late" not in swipe.render_sms(facts, "en")
    else:
        assert swipe.render_sms(facts, "zh-CN").endswith(f"，本通知延迟约{chinese}。")
        assert swipe.render_sms(facts, "en").endswith(f" This notice is about {english} late.")


@pytest.mark.parametrize("seconds", [0, 60, 2100, 3000, 8000, 86_000, 200_000, 10**6, 10**7, 10**9])
@pytest.mark.parametrize("locale", ["zh-CN", "en"])
def test_a_typed_field_says_how_late_it_is_where_there_is_room(
    swipe: Template, make_facts: Any, seconds: int, locale: str
) -> None:
    # Given a late purchase, and a late event of every kind
    purchase = swipe.render_wechat(make_facts(late_seconds=seconds), locale)
    kinds = [make_facts(late_seconds=seconds, type=kind) for kind in ("cash", "reversal", "entry", "refund", "fee")]
    others = [swipe.render_wechat(facts, locale) for facts in kinds]
    # Then the purchase says it, all are within WeChat's limits, and none has lost a word of what happened
    late = {"zh-CN": "迟到约", "en": " late"}[locale]
    assert (late in purchase["thing1"]["value"]) == bool(seconds)
    assert [check(data) for data in (purchase, *others)] == [[]] * 6
    assert all("0426" in data["thing1"]["value"] and "…" not in data["thing1"]["value"] for data in (purchase, *others))
    plain = [swipe.render_wechat(msgspec.structs.replace(facts, late_seconds=0), locale) for facts in kinds]
    for told, usual in zip(others, plain, strict=True):
        assert told["thing1"]["value"].startswith(usual["thing1"]["value"])
    # And the text that is sent says the same
    assert swipe.render_wechat_json(make_facts(late_seconds=seconds), locale) == orjson.dumps(purchase).decode()


@pytest.mark.parametrize(
    ("locale", "like"),
    [
        ("zh-HK", "zh-CN"),
        ("zh", "zh-CN"),
        ("zh-Hant-TW", "zh-CN"),
        ("zh_TW", "zh-CN"),
        ("en-GB", "en"),
        ("fr-CA", "en"),
        ("", "en"),
    ],
)
def test_a_locale_falls_back(swipe: Template, make_facts: Any, locale: str, like: str) -> None:
    facts = make_facts(type="refund")
    assert swipe.render_wechat(facts, locale) == swipe.render_wechat(facts, like)
    assert swipe.render_sms(facts, locale) == swipe.render_sms(facts, like)


def test_any_number_of_locales_takes_a_bounded_memory(swipe: Template, make_facts: Any) -> None:
    for number in range(500):
        swipe.render_sms(make_facts(), f"xx-{number}")
    assert len(swipe._sms) <= 64


def test_context_has_every_field_as_a_plain_string(make_facts: Any) -> None:
    for locale in ("zh-CN", "en"):
        values = context(make_facts(), locale)
        assert values.keys() >= SWIPE_FIELDS.keys()
        assert values.keys().isdisjoint(DIGEST_FIELDS)
        assert {type(value) for value in values.values()} == {str}
        assert all(values[name] for name, field in SWIPE_FIELDS.items() if not field.optional)
        assert values["city"] == "上海"
