"""Recipient lines: each is a recipient or a refusal that repeats nobody's address."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.events import Rejected
from dispatcher.recipients import DecodedRecipient, decode_recipient

# The machine may be busy, and a failure must come again.
REPEATABLE = settings(derandomize=True, deadline=None)

LINE: dict[str, Any] = {
    "account": "A-77",
    "role": "primary",
    "openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o",
    "phone": "+8613800138000",
    "email": "li@example.com",
    "locale": "zh-CN",
    "timezone": "Asia/Shanghai",
    "channels": ["wechat", "sms"],
    "min_amount": {"sms": {"CNY": 10000}},
    "opt_out": ["broadcast"],
}
SECRETS = ("oUpF8uMuAJO", "13800138000", "li@example.com", "Lǐ Wěi", "4111111111111111")


def line_with(**changes: Any) -> bytes:
    return json.dumps(LINE | changes, ensure_ascii=False).encode()


def decoded(raw: bytes) -> DecodedRecipient:
    answer = decode_recipient(raw, 1)
    assert isinstance(answer, DecodedRecipient), answer
    return answer


def rejected(raw: bytes) -> Rejected:
    answer = decode_recipient(raw, 7)
    assert isinstance(answer, Rejected), answer
    assert answer.line == 7
    return answer


def test_a_whole_recipient_is_read() -> None:
    recipient = decoded(line_with()).recipient
    assert recipient.account == "A-77"
    assert recipient.channels == ("wechat", "sms")
    assert recipient.min_amount == {"sms": {"CNY": 10000}}
    assert recipient.opt_out == ("broadcast",)


@pytest.mark.parametrize(
    "changes",
    [
        {"openid": None},
        {"phone": None},
        {"channels": ["email"], "openid": None, "phone": None},
        {"channels": ["webhook"], "openid": None, "phone": None, "email": None},
        {"min_amount": {}},
        {"min_amount": {"sms": {"HRK": 0, "KWD": 2**63 - 1}}},
        {"timezone": "UTC"},
        {"locale": "en"},
        {"locale": "zh-Hant-TW"},
    ],
)
def test_a_recipient_needs_an_address_for_one_of_its_channels_only(changes: dict[str, Any]) -> None:
    assert decoded(line_with(**changes))


def test_an_account_and_one_address_are_enough() -> None:
    assert decoded(b'\xef\xbb\xbf{"account":"A-1","phone":"+447700900123"}').recipient.channels == (
        "wechat",
        "sms",
    )


def test_names_of_unknown_fields_come_along_so_that_the_importer_can_tell() -> None:
    assert decoded(line_with()).unknown == ()
    assert decoded(line_with(name="Lǐ Wěi", vip=True)).unknown == ("name", "vip")
    assert decoded(line_with(**{"card 4111111111111111": 1})).unknown == ("card ****************",)


def test_the_repr_shows_nobody() -> None:
    assert repr(decoded(line_with(name="Lǐ Wěi"))) == "<DecodedRecipient, 1 unknown fields>"


CHANNELS = "a list of 1 to 8 of email, sms, webhook, wechat"
PHONE = "a number in E.164 such as +8613800000000 without blanks, or null"
MINIMUM = 'an object such as {"sms": {"CNY": 10000}}, amounts in minor units and not negative'

REFUSED = {
    "not JSON": (b"account,phone", "not JSON: invalid character (byte 0)"),
    "not UTF-8": (b'{"account":"\xff"}', "not UTF-8"),
    "too long": (line_with(x="y" * 65_536), "line is longer than 65,536 bytes"),
    "too deep": (b"[" * 10_000, "nested deeper than 16 levels"),
    "array": (b"[]", "expected a JSON object, got array"),
    "duplicate key": (b'{"phone":"+8613800138001",' + line_with()[1:], "field phone: appears more than once"),
    "LF in an address": (line_with(openid="a\nb"), "field openid: contains NUL, CR or LF"),
    "NUL in an unknown field": (line_with(name="a\0b"), "field name: contains NUL, CR or LF"),
    "account missing": (b"{}", "field account: missing"),
    "account empty": (line_with(account=""), "field account: empty"),
    "account blank": (line_with(account="  "), "field account: only blanks"),
    "account a number": (
        line_with(account=5),
        "field account: expected a string of 1 to 128 characters, got integer",
    ),
    "account too long": (
        line_with(account="x" * 129),
        "field account: expected a string of 1 to 128 characters",
    ),
    "openid empty": (line_with(openid=""), "field openid: expected a string of 1 to 128 characters, or null"),
    "phone without plus": (line_with(phone="13800138000"), f"field phone: expected {PHONE}"),
    "phone with blanks": (line_with(phone="+86 138 0013 8000"), f"field phone: expected {PHONE}"),
    "phone a number": (line_with(phone=13800138000), f"field phone: expected {PHONE}, got integer"),
    "no mail address": (
        line_with(email="li at example.com"),
        "field email: expected a mail address of at most 254 characters, or null",
    ),
    "locale": (line_with(locale="中文"), "field locale: expected a locale such as zh-CN or en"),
    "time zone unknown": (
        line_with(timezone="Asia/Beijing"),
        "field timezone: unknown time zone; expected a name such as Asia/Shanghai",
    ),
    "time zone a path": (
        line_with(timezone="../../etc/passwd"),
        "field timezone: unknown time zone; expected a name such as Asia/Shanghai",
    ),
    "time zone an offset": (
        line_with(timezone="+08:00"),
        "field timezone: unknown time zone; expected a name such as Asia/Shanghai",
    ),
    "time zone null": (
        line_with(timezone=None),
        "field timezone: expected a time zone such as Asia/Shanghai, got null",
    ),
    "channel unknown": (line_with(channels=["sms", "13800138000"]), f"field channels: expected {CHANNELS}"),
    "channels empty": (line_with(channels=[]), f"field channels: expected {CHANNELS}"),
    "channels null": (line_with(channels=None), f"field channels: expected {CHANNELS}, got null"),
    "channel twice": (line_with(channels=["sms", "sms"]), "field channels: names a channel twice"),
    "min_amount float": (
        line_with(min_amount={"sms": {"CNY": 1.5}}),
        f"field min_amount: expected {MINIMUM}",
    ),
    "min_amount negative": (
        line_with(min_amount={"sms": {"CNY": -1}}),
        f"field min_amount: expected {MINIMUM}",
    ),
    "min_amount of no channel": (
        line_with(min_amount={"fax": {"CNY": 1}}),
        f"field min_amount: expected {MINIMUM}",
    ),
    "min_amount lowercase": (
        line_with(min_amount={"sms": {"cny": 1}}),
        f"field min_amount: expected {MINIMUM}",
    ),
    "min_amount unknown code": (
        line_with(min_amount={"sms": {"ZZZ": 1}}),
        "field min_amount: unknown ISO 4217 code",
    ),
    "min_amount beyond 64 bits": (
        line_with(min_amount={"sms": {"CNY": 2**63}}),
        "field min_amount: an amount is beyond 64 bits",
    ),
    "opt_out": (line_with(opt_out="broadcast"), "field opt_out: expected a list of strings"),
    "no address": (
        line_with(openid=None, phone=None),
        "field channels: no address for any of them; add openid or phone",
    ),
}


@pytest.mark.parametrize(("raw", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_line_is_refused_with_field_and_reason_and_without_a_value(raw: bytes, error: str) -> None:
    answer = rejected(raw)
    assert answer.error == error
    assert not any(secret in f"{answer}" for secret in SECRETS)


def test_a_refusal_names_the_account_masked_if_it_looks_like_a_card_number() -> None:
    assert rejected(line_with(phone="x")).id == "A-77"
    assert rejected(line_with(phone="x", account="4111111111111111")).id == "************1111"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@REPEATABLE
@given(st.dictionaries(st.sampled_from([*LINE, "x"]), JSON))
def test_any_json_object_is_a_recipient_or_refused_and_never_an_exception(changes: dict[str, Any]) -> None:
    assert isinstance(decode_recipient(line_with(**changes), 1), (DecodedRecipient, Rejected))


@REPEATABLE
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_never_an_exception(raw: bytes) -> None:
    assert isinstance(decode_recipient(raw, 1), Rejected)
