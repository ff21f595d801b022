"""Card numbers are masked at the door: everywhere, in every spelling, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.cards import (
    looks_like_card,
    mask_line,
    mask_name,
    mask_pan,
    mask_text,
    may_hold_card,
    passes_luhn,
    skeleton,
    unmasked_number,
)

# The machine may be busy, and a failure must come again.
REPEATABLE = settings(derandomize=True, deadline=None)

VISA = "4111111111111111"  # the test number that every payment handbook prints
UNIONPAY_19 = "6222021234567890128"


def with_check_digit(body: str) -> str:
    return next(body + digit for digit in "0123456789" if passes_luhn(body + digit))


CARD_NUMBERS = st.builds(
    lambda first, rest: with_check_digit(first + rest),
    st.sampled_from("234569"),
    st.text("0123456789", min_size=11, max_size=17),
)


@pytest.mark.parametrize(
    ("number", "passes"),
    [(VISA, True), ("4111111111111112", False), ("79927398713", True), ("79927398710", False), ("0", True)],
)
def test_luhn(number: str, passes: bool) -> None:
    assert passes_luhn(number) is passes


@pytest.mark.parametrize(
    ("number", "looks"),
    [
        (VISA, True),
        (with_check_digit("9" + "0" * 17), True),
        (with_check_digit("2" * 12), True),
        (with_check_digit("1" * 15), False),
        (with_check_digit("7" * 15), False),
        (with_check_digit("8" * 15), False),
        (with_check_digit("4" * 11), False),
        (with_check_digit("4" * 19), False),
    ],
)
def test_a_card_number_has_13_to_19_digits_and_begins_with_2_to_6_or_9(number: str, looks: bool) -> None:
    assert looks_like_card(number) is looks


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"paid with {VISA}", "paid with ************1111"),
        (f"{VISA}", "************1111"),
        ("4111 1111 1111 1111 thanks", "**** **** **** 1111 thanks"),
        ("no. 4111-1111-1111-1111.", "no. ****-****-****-1111."),
        (f"2024-01-03 {VISA}", "2024-01-03 ************1111"),
        (f"12 4111 1111 1111 1111 7 {VISA}", "12 **** **** **** 1111 7 ************1111"),
        (f"卡号{VISA}消费", "卡号************1111消费"),
        ("４１１１１１１１１１１１１１１１", "************１１１１"),
        ("4111\u00a01111\u20111111\u30001111", "****\u00a0****\u2011****\u30001111"),
        (f"card_{VISA}", "card_************1111"),
        (f"({VISA})", "(************1111)"),
    ],
)
def test_a_number_in_free_text_keeps_only_its_last_four_digits(text: str, masked: str) -> None:
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "shell kings 587",
        "e4be9b2d13851325fed59d7bc64757b0",
        f"a{VISA}",
        f"{VISA}f",
        f"{VISA}0000",
        "4111111111111112",
        "1111111111111117",
        "2023-01-01T00:00:02+00:00",
        "+8613800138000",
        "************5770",
        "622848******1234",
        "4111  1111  1111  1111",
        "",
    ],
)
def test_other_text_comes_back_as_the_same_object(text: str) -> None:
    assert mask_text(text) is text


def test_the_lines_own_card_number_is_masked_without_luhn_and_beside_letters() -> None:
    assert mask_text("ref X4111111111111112Y", "4111111111111112") == "ref X************1112Y"
    assert mask_text("123456789012 twice 123456789012", "123456789012") == "********9012 twice ********9012"


@pytest.mark.parametrize(
    ("pan", "masked"),
    [
        (VISA, "************1111"),
        ("4111 1111 1111 1111", "**** **** **** 1111"),
        ("4111-1111-1111-1112", "****-****-****-1112"),
        ("123456789012", "********9012"),
        ("PAN4111111111111111", "PAN************1111"),
        ("４１１１１１１１１１１１１１１１", "************１１１１"),
        ("4" * 24, "*" * 20 + "4444"),
    ],
)
def test_the_pan_field_is_masked_whatever_its_check_digit(pan: str, masked: str) -> None:
    assert unmasked_number(pan) is not None
    assert mask_pan(pan) == masked
    assert unmasked_number(masked) is None


@pytest.mark.parametrize("pan", ["************5770", "622848******1234", "62284800****1234", "5770", "", "x" * 40])
def test_a_masked_pan_stays_as_it_is(pan: str) -> None:
    assert unmasked_number(pan) is None
    assert mask_pan(pan) == pan


def test_a_field_name_loses_every_long_run_of_digits() -> None:
    assert mask_name("phone_13800138000") == "phone_***********"
    assert mask_name(f"x{VISA}y") == f"x{'*' * 16}y"
    assert mask_name("line2") == "line2"


def mask(line: bytes) -> bytes:
    pan = json.loads(line).get("pan")
    return mask_line(
        line,
        keys=frozenset({"id"}),
        known_fields=frozenset({"id", "amount", "pan"}),
        pan_number=unmasked_number(pan) if isinstance(pan, str) else None,
    ).line


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        (b'{ "a" :"4111111111111111" }', b'{ "a" :"************1111" }'),
        (b'{"a":{"b":["x",4111111111111111]},"c":1.50}', b'{"a":{"b":["x","************1111"]},"c":1.50}'),
        (b'{"a":-4111111111111111}', b'{"a":"-************1111"}'),
        (b'{"a":4111111111111111.0}', b'{"a":"************1111.0"}'),
        (rb'{"a":"\u0034111111111111111\n"}', b'{"a":"************1111\\n"}'),
        (b'{"4111111111111111":1}', b'{"************1111":1}'),
        (rb'{"p\u0061n":"123456789012"}', rb'{"p\u0061n":"********9012"}'),
        (
            b'{"pan":"411111111111111","n":"X411111111111111"}',
            b'{"pan":"***********1111","n":"X***********1111"}',
        ),
    ],
)
def test_a_line_is_changed_only_where_a_number_stands(line: bytes, masked: bytes) -> None:
    assert mask(line) == masked
    assert mask(masked) == masked


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":"4111111111111111","amount":4111111111111111}',
        b'{"a":{"b":0.4111111111111111,"c":4.111111111111111e15}}',
        b'{"a":"x\\"4111","b":"1111","c":"1111","d":"1111"}',
    ],
)
def test_keys_amounts_and_fractions_are_left_alone(line: bytes) -> None:
    assert mask(line) is line


def test_the_id_inside_a_nested_object_is_no_key() -> None:
    assert mask(b'{"a":{"id":"4111111111111111"}}') == b'{"a":{"id":"************1111"}}'


@REPEATABLE
@given(
    number=CARD_NUMBERS,
    before=st.sampled_from(["", " ", "卡", "(", "12 ", "2024-01-03 ", "no.", "7-", "\u3000"]),
    after=st.sampled_from(["", " ", "元", ")", " 12", "-7", "."]),
    separator=st.sampled_from(["", " ", "-", "\u00a0", "\u2013"]),
    size=st.integers(min_value=1, max_value=6),
    fullwidth=st.booleans(),
)
def test_no_spelling_of_a_card_number_survives(
    number: str, before: str, after: str, separator: str, size: int, fullwidth: bool
) -> None:
    # Given a card number in groups, in some spelling, between other things
    spelled = separator.join(number[at : at + size] for at in range(0, len(number), size))
    if fullwidth:
        spelled = spelled.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})
    text = before + spelled + after
    # When the text is masked
    masked = mask_text(text)
    # Then the number is gone from it, and the quick look at the raw line had said that it might be there
    assert spelled not in masked
    assert len(masked) == len(text)
    assert may_hold_card(skeleton(json.dumps({"a": text}, ensure_ascii=False).encode()))


@REPEATABLE
@given(st.text(alphabet="0123456789 -a４*", max_size=80))
def test_masking_twice_is_masking_once(text: str) -> None:
    once = mask_text(text)
    assert mask_text(once) == once
