"""The door: every line becomes an event or a refusal that says why, and no card number gets in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatcher.cards import passes_luhn
from dispatcher.events import (
    Accepted,
    Rejected,
    decode_event,
)
from dispatcher.model.event import Event

# The machine may be busy, and a failure must come again.
REPEATABLE = settings(derandomize=True, deadline=None)

VISA = "4111111111111111"
SWIPE: dict[str, Any] = {
    "id": "e-1",
    "account": "A-77",
    "pan": "************5770",
    "amount": 7261,
    "currency": "GBP",
    "merchant": "shell kings 587",
    "mcc": None,
    "time": "2017-01-03T15:27:27+00:00",
}


def line_with(**changes: Any) -> bytes:
    return json.dumps(SWIPE | changes, ensure_ascii=False).encode()


def line_without(name: str) -> bytes:
    return json.dumps({field: value for field, value in SWIPE.items() if field != name}).encode()


def raw_amount(text: str) -> bytes:
    return line_with(amount=0).replace(b'"amount": 0', b'"amount": ' + text.encode())


def accepted(raw: bytes) -> Accepted:
    answer = decode_event(raw, 1)
    assert isinstance(answer, Accepted), answer
    return answer


def rejected(raw: bytes) -> Rejected:
    answer = decode_event(raw, 7)
    assert isinstance(answer, Rejected), answer
    assert answer.line == 7
    return answer


# ---- what is accepted
# -------------------------------------------------------------------------------------------


def test_an_event_is_read_and_its_line_is_stored_as_given() -> None:
    # Given a line with odd spacing, a field nobody knows and an escape
    line = line_with(label=0, note='caf\u00e9 "x"').replace(b", ", b" ,  ")
    # When it is decoded
    answer = accepted(line)
    # Then the known fields are there, and the payload is the very line
    assert answer.event.id == "e-1"
    assert answer.event.amount == 7261
    assert answer.event.time == datetime(2017, 1, 3, 15, 27, 27, tzinfo=UTC)
    assert answer.event.type == "purchase"
    assert answer.event.category == "swipe"
    assert answer.payload is line


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 2**63 - 1},
        {"amount": -(2**63)},
        {"currency": "HRK"},
        {"orig_amount": 5, "orig_currency": "KWD"},
        {"orig_amount": None, "orig_currency": None},
        {"id": "x" * 128},
        {"type": "a type of tomorrow"},
        {"time": "2017-01-03T15:27:27.123456Z"},
        {"time": "0001-01-01T00:00:00Z"},
        {"time": "9999-12-31T23:59:59Z"},
        {"merchant": "tab\tand bell\a"},
        {"merchant": "back\\slash \\n is two characters"},
        {"merchant": 'quoted ": colon'},
        {"merchant": "ends with a backslash\\"},
        {"extra": {"a": ["b", {"c": "d"}, []], "e": {}}},
        {"extra": 10**30},
        {"extra": "星巴克（南京西路店）\u3000"},
        {"merchant": ""},
    ],
)
def test_unusual_but_valid_events_are_accepted_unchanged(changes: dict[str, Any]) -> None:
    for ascii_only in (True, False):
        line = json.dumps(SWIPE | changes, ensure_ascii=ascii_only).encode()
        assert accepted(line).payload is line


def test_a_byte_order_mark_is_stripped() -> None:
    assert accepted(b"\xef\xbb\xbf" + line_with()).payload == line_with()


def test_nesting_of_16_levels_is_allowed_and_brackets_inside_strings_are_none() -> None:
    assert accepted(line_with(x=json.loads("[" * 15 + "]" * 15)))
    assert accepted(line_with(x="[{" * 1000 + '"' + "[" * 50))


def test_a_line_of_exactly_64_kib_is_allowed() -> None:
    assert accepted(line_with(x="y" * (65_536 - len(line_with(x="")))))


def test_neither_repr_shows_what_is_in_the_event() -> None:
    assert "kings" not in repr(accepted(line_with()))


# ---- what is refused, and how it is said
# ------------------------------------------------------------------------

INTEGER = "field amount: expected an integer in minor units, got "
NO_DATE = "field time: not a date and time such as 2024-05-01T12:30:00+08:00 (RFC 3339)"
CODE = "expected an ISO 4217 code of three capital letters"
CONTROL = "contains NUL, CR or LF"

REFUSED = {
    "empty line": (b"", "not JSON: the line is empty"),
    "blank line": (b"  ", "not JSON: the line is empty"),
    "not JSON": (b"id,account,amount", "not JSON: invalid character (byte 0)"),
    "cut off": (line_with()[:-4], "not JSON: the line ends too early"),
    "trailing characters": (line_with() + b" x", "not JSON: something follows after the object"),
    "two objects": (line_with() * 2, "not JSON: something follows after the object"),
    "raw newline in a string": (b'{"id":"a\nb"}', "not JSON: invalid character (byte 8)"),
    "not UTF-8": (line_with(merchant="@").replace(b"@", b"\xff"), "not UTF-8"),
    "not UTF-8 in an unknown field's name": (line_with(**{"@": 1}).replace(b"@", b"\xc3"), "not UTF-8"),
    "UTF-16": (line_with().decode().encode("utf-16"), "not UTF-8"),
    "a surrogate in UTF-8": (line_with(merchant="@").replace(b"@", b"\xed\xa0\x80"), "not UTF-8"),
    "lone high surrogate": (
        line_with(x="@").replace(b"@", b"\\ud800"),
        "not JSON: a \\u escape is half of a surrogate pair",
    ),
    "lone low surrogate in a name": (
        line_with(**{"@": 1}).replace(b"@", b"\\udc00"),
        "not JSON: a \\u escape is half of a surrogate pair",
    ),
    "array": (b"[1]", "expected a JSON object, got array"),
    "string": (b'"4111111111111111"', "expected a JSON object, got string"),
    "number": (b"5", "expected a JSON object, got integer"),
    "null": (b"null", "expected a JSON object, got null"),
    "array nested 10,000 deep": (b"[" * 10_000 + b"]" * 10_000, "nested deeper than 16 levels"),
    "unclosed nesting": (b"[" * 10_000, "nested deeper than 16 levels"),
    "object nested 17 deep": (line_with(x=json.loads("[" * 16 + "]" * 16)), "nested deeper than 16 levels"),
    "line over 64 KiB": (line_with(x="y" * 65_536), "line is longer than 65,536 bytes"),
    "id missing": (line_without("id"), "field id: missing"),
    "id empty": (line_with(id=""), "field id: empty"),
    "id blank": (line_with(id=" \t\u3000"), "field id: only blanks"),
    "id null": (line_with(id=None), "field id: expected a string, got null"),
    "id a number": (line_with(id=17), "field id: expected a string, got integer"),
    "id of 129 characters": (line_with(id="x" * 129), "field id: longer than 128 characters"),
    "account missing": (line_without("account"), "field account: missing"),
    "account empty": (line_with(account=""), "field account: empty"),
    "account blank": (line_with(account=" "), "field account: only blanks"),
    "account too long": (line_with(account="x" * 129), "field account: longer than 128 characters"),
    "time missing": (line_without("time"), "field time: missing"),
    "time empty": (line_with(time=""), "field time: empty"),
    "time a number": (
        line_with(time=1483457247),
        "field time: expected a string such as 2024-05-01T12:30:00+08:00, got integer",
    ),
    "time without zone": (
        line_with(time="2017-01-03T15:27:27"),
        "field time: has no time zone; add Z or an offset such as +08:00",
    ),
    "year 0": (line_with(time="0000-01-01T00:00:00Z"), "field time: there is no year 0"),
    "leap second": (
        line_with(time="2016-12-31T23:59:60Z"),
        "field time: leap seconds are not accepted; send :59 or :00",
    ),
    "30 February": (line_with(time="2017-02-30T00:00:00Z"), NO_DATE),
    "24 o'clock": (line_with(time="2017-02-03T24:00:00Z"), NO_DATE),
    "words for a time": (line_with(time="yesterday"), NO_DATE),
    "before year 1 in UTC": (
        line_with(time="0001-01-01T00:00:00+05:00"),
        "field time: outside the years 1 to 9999 when converted to UTC",
    ),
    "after year 9999 in UTC": (
        line_with(time="9999-12-31T23:59:59-05:00"),
        "field time: outside the years 1 to 9999 when converted to UTC",
    ),
    "amount missing": (line_without("amount"), "field amount: missing"),
    "amount float": (raw_amount("72.61"), INTEGER + "float"),
    "amount integral float": (raw_amount("1.0"), INTEGER + "float"),
    "amount exponent": (raw_amount("1e3"), INTEGER + "float"),
    "amount beyond floats": (raw_amount("1e400"), INTEGER + "float"),
    "amount string": (raw_amount('"7261"'), INTEGER + "string"),
    "amount true": (raw_amount("true"), INTEGER + "true"),
    "amount null": (raw_amount("null"), INTEGER + "null"),
    "amount object": (raw_amount("{}"), INTEGER + "object"),
    "amount 2**63": (raw_amount("9223372036854775808"), INTEGER + "one beyond 64 bits"),
    "amount -2**63-1": (raw_amount("-9223372036854775809"), INTEGER + "one beyond 64 bits"),
    "amount of 5,000 digits": (raw_amount("1" * 5000), INTEGER + "one beyond 64 bits"),
    "amount NaN": (raw_amount("NaN"), "not JSON: invalid character (byte 70)"),
    "orig_amount float": (
        line_with(orig_amount=1.5),
        "field orig_amount: expected an integer in minor units, got float",
    ),
    "NaN beside an escape": (
        line_with(x="@").replace(b'"@"', b'"\\u0041","y":NaN'),
        "not JSON: invalid character (byte 194)",
    ),
    "number out of range in an unknown field": (
        line_with(x=[0]).replace(b"[0]", b"[1e999]"),
        "field x: number out of range",
    ),
    "currency missing": (line_without("currency"), "field currency: missing"),
    "currency null": (line_with(currency=None), "field currency: expected an ISO 4217 code, got null"),
    "currency empty": (line_with(currency=""), "field currency: empty"),
    "currency unknown": (line_with(currency="ZZZ"), "field currency: unknown ISO 4217 code"),
    "currency gold": (line_with(currency="XAU"), "field currency: unknown ISO 4217 code"),
    "currency lowercase": (line_with(currency="usd"), f"field currency: {CODE}"),
    "currency symbol": (line_with(currency="$"), f"field currency: {CODE}"),
    "orig_currency unknown": (line_with(orig_currency="ZZZ"), "field orig_currency: unknown ISO 4217 code"),
    "orig_currency lowercase": (line_with(orig_currency="usd"), f"field orig_currency: {CODE}"),
    "merchant a number": (line_with(merchant=5), "field merchant: expected a string or null, got integer"),
    "pan a number": (line_with(pan=int(VISA)), "field pan: expected a string or null, got integer"),
    "type null": (line_with(type=None), "field type: expected a string, got null"),
    "NUL": (line_with(merchant="a\0b"), f"field merchant: {CONTROL}"),
    "LF": (line_with(merchant="a\nb"), f"field merchant: {CONTROL}"),
    "CR": (line_with(id="a\rb"), f"field id: {CONTROL}"),
    "LF after a currency": (line_with(currency="USD\n"), f"field currency: {CONTROL}"),
    "LF as a \\u escape": (line_with(merchant="@").replace(b"@", b"\\u000A"), f"field merchant: {CONTROL}"),
    "CR in a nested list": (line_with(x={"y": ["a", "b\r"]}), f"field x.y: {CONTROL}"),
    "NUL in a nested name": (line_with(x={"y\0z": 1}), "field x.y\ufffdz: its name contains NUL, CR or LF"),
    "LF in a name": (line_with(**{"a\nb": 1}), "field a\ufffdb: its name contains NUL, CR or LF"),
    "duplicate key": (b'{"x":1,' + line_with(x=2)[1:], "field x: appears more than once"),
    "duplicate with the same value": (b'{"id":"e-1",' + line_with()[1:], "field id: appears more than once"),
    "duplicate by escape": (b'{"\\u0069d":"e-1",' + line_with()[1:], "field id: appears more than once"),
    "duplicate with blanks": (b'{"mcc" \t: null,' + line_with()[1:], "field mcc: appears more than once"),
    "duplicate nested": (
        line_with(x="@").replace(b'"@"', b'[{"y":1,"z":{},"y":"a"}]'),
        "field y: appears more than once",
    ),
    "duplicate hidden behind an escaped backslash": (
        b'{"mcc":null,' + line_with(merchant="a\\").replace(b'": ', b'":')[1:],
        "field mcc: appears more than once",
    ),
    "duplicate hidden behind a quoted colon": (
        b'{"mcc":null,' + line_with(merchant='a": b').replace(b'": ', b'":')[1:],
        "field mcc: appears more than once",
    ),
    "duplicate whose name is a card number": (
        b'{"4111111111111111":1,"4111111111111111":2}',
        "field ****************: appears more than once",
    ),
    "duplicate with an endless name": (
        json.dumps({"x" * 100: 1}).replace("}", "," + json.dumps({"x" * 100: 1})[1:]).encode(),
        f"field {'x' * 63}…: appears more than once",
    ),
    "account repeats the number of pan": (
        line_with(pan=VISA, account=f"GB-{VISA}"),
        "field account: repeats the full card number of pan; send a token instead",
    ),
    "account repeats it in another spelling": (
        line_with(pan="4111 1111 1111 1111", account="4111-11111111-1111"),
        "field account: repeats the full card number of pan; send a token instead",
    ),
    "id repeats it": (
        line_with(pan="123456789012", id="tx123456789012"),
        "field id: repeats the full card number of pan; send a token instead",
    ),
    "refers_to repeats it": (
        line_with(pan=VISA, refers_to=f"tx{VISA}"),
        "field refers_to: repeats the full card number of pan; send a token instead",
    ),
}


@pytest.mark.parametrize(("raw", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_line_is_refused_with_field_and_reason(raw: bytes, error: str) -> None:
    answer = rejected(raw)
    assert answer.error == error
    named = error.split(":")[0].removeprefix("field ") if error.startswith("field ") else None
    assert answer.field == named


def test_two_names_that_become_one_when_masked_are_duplicates() -> None:
    # Given two card numbers with the same last four digits as names of fields
    other = next(number for number in (f"5{n:011d}1111" for n in range(100)) if passes_luhn(number))
    answer = rejected(line_with(**{VISA: 1, other: 2}))
    # Then neither is dropped silently
    assert answer.error == "field ************1111: appears more than once"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"id": "e-1"}, "e-1"),
        ({"id": "e" * 128}, "e" * 128),
        ({"id": "e" * 129}, None),
        ({"id": ""}, None),
        ({"id": 5}, None),
        ({"id": "a\x1bb"}, None),
        ({"id": "a\nb"}, None),
        ({"id": VISA}, "************1111"),
        ({"id": "123456789012x", "pan": "123456789012"}, None),
    ],
)
def test_a_refusal_names_the_id_only_if_it_can_be_shown(changes: dict[str, Any], shown: str | None) -> None:
    assert rejected(line_with(amount=1.5, **changes)).id == shown


def test_a_refusal_for_a_repeated_id_names_neither_of_them() -> None:
    assert rejected(b'{"id":"other",' + line_with()[1:]).id is None
    assert rejected(b'{"x":1,' + line_with(x=2)[1:]).id == "e-1"


# ---- whatever comes ------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@REPEATABLE
@given(st.binary(max_size=300))
@example(b'{"id":"\\u0000"}')
@example(b'{"a":"\\\\","a":1}')
@example(b"\xef\xbb\xbf\xef\xbb\xbf{}")
@example(b'{"x":' + b"9" * 5000 + b"," + b'"x":NaN}')
def test_any_bytes_are_accepted_or_rejected_and_never_an_exception(raw: bytes) -> None:
    assert isinstance(decode_event(raw, 1), Rejected)


@REPEATABLE
@given(st.dictionaries(st.sampled_from([*Event.__struct_fields__, "x", "y"]), JSON), st.booleans())
def test_any_json_object_is_accepted_or_rejected_and_never_an_exception(
    changes: dict[str, Any], ascii_only: bool
) -> None:
    # surrogatepass: what Hypothesis' texts hold is valid, but the line need not be.
    line = json.dumps(SWIPE | changes, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    answer = decode_event(line, 1)
    assert isinstance(answer, (Accepted, Rejected))
    if isinstance(answer, Accepted):
        assert decode_event(answer.payload, 1) == answer


NAMES = ('"id"', '"a"', '"b"', '"\\\\"', '"x\\":"', '"\\u0061"')


@REPEATABLE
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6))
def test_duplicate_names_are_found_exactly(names: list[str]) -> None:
    # Given an object whose names come from a handful, two of them spelled differently but equal
    line = ("{" + ",".join(f'{name}:"{i}\\\\"' for i, name in enumerate(names)) + "}").encode()
    # Then it is refused for a duplicate exactly if two names are equal
    repeated = len({json.loads(name) for name in names}) < len(names)
    assert rejected(line).error.endswith("appears more than once") is repeated
