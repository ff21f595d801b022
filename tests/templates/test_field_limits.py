"""Each of WeChat's types at its limit and one beyond, and the parts of an SMS."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.errors import FieldRefused
from templates.limits import WECHAT_TYPES, check, fit, segments, type_of
from templates.text import ELLIPSIS, clean, units, without_emoji

ACCEPTED = [
    ("thing", "中" * 20),
    ("thing", "x" * 20),
    ("short_thing", "五个字符号"),
    ("const", "交易成功"),
    ("name", "张" * 10),
    ("name", "Ann O'Neill-van derM"),
    ("character_string", "a" * 32),
    ("character_string", "****0426"),
    ("time", "2026年11月22日 13:05"),
    ("time", "2026-11-22 13:05"),
    ("time", "13:05:59"),
    ("time", "13:05~14:00"),
    ("date", "2026年11月22日"),
    ("date", "2026-11-22 13:05"),
    ("amount", "¥1,234.50"),
    ("amount", "₩403,000"),
    ("amount", "KD 1.250"),
    ("amount", "HK$5.00"),
    ("amount", "¥12345678.90"),
    ("amount", "¥5元"),
    ("phrase", "交易被拒绝"),
    ("phone_number", "+86-138****0000"),
    ("car_number", "沪A12345"),
    ("number", "1" * 32),
    ("letter", "x" * 32),
    ("symbol", "!?#&%"),
]

REFUSED = [
    ("thing", ""),
    ("thing", " \n "),
    ("thing", "😀"),
    ("const", "x" * 21),
    ("character_string", "尾号0426"),
    ("time", "tomorrow"),
    ("time", "24:00"),
    ("time", "2026年11月22日"),
    ("name", "张" * 11),
    ("name", "x" * 21),
    ("name", "张San"),
    ("date", "13:05"),
    ("amount", "5.00"),
    ("amount", "-¥5.00"),
    ("amount", "¥"),
    ("amount", "¥12345678901"),
    ("amount", "¥123,456,789.01"),
    ("amount", "¥1,2345"),
    ("phrase", "交易被拒绝了"),
    ("phrase", "refund"),
    ("phone_number", "1" * 18),
    ("car_number", "沪A1234567"),
    ("number", "1" * 33),
    ("number", "一"),
    ("letter", "x" * 33),
    ("letter", "x1"),
    ("symbol", "!!!!!!"),
    ("symbol", "ab"),
]


@pytest.mark.parametrize(("kind", "value"), ACCEPTED)
def test_a_value_within_its_limit_stays_as_it_is(kind: str, value: str) -> None:
    assert fit(kind, value) == value
    assert check({f"{kind}1": {"value": value}}) == []


@pytest.mark.parametrize(("kind", "value"), REFUSED)
def test_a_value_that_cannot_be_made_to_fit_is_refused_without_being_named(kind: str, value: str) -> None:
    with pytest.raises(FieldRefused) as caught:
        fit(kind, value, f"{kind}7")
    assert caught.value.key == f"{kind}7"
    assert str(caught.value).startswith(f"{kind}7: ")
    assert not value.strip() or value not in str(caught.value)
    assert check({f"{kind}7": {"value": value}}) != []


@pytest.mark.parametrize("kind", WECHAT_TYPES)
def test_every_type_has_an_accepted_and_most_have_a_refused_example(kind: str) -> None:
    assert any(kind == accepted for accepted, _ in ACCEPTED)
    assert WECHAT_TYPES[kind].mark or any(kind == refused for refused, _ in REFUSED)


@pytest.mark.parametrize("kind", WECHAT_TYPES)
def test_the_short_cut_agrees_with_the_long_way(kind: str) -> None:
    # Given the pattern that lets a value through unseen, when it matches, then fit changes nothing.
    fast = re.compile(WECHAT_TYPES[kind].fast).fullmatch
    for _, value in ACCEPTED + REFUSED:
        if fast(value):
            assert fit(kind, value) == value
            assert check({f"{kind}1": {"value": value}}) == []


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("thing", "x" * 21, "x" * 19 + "…"),
        ("thing", "中" * 1000, "中" * 19 + "…"),
        ("short_thing", "六个字的短事", "六个字的…"),
        ("character_string", "x" * 33, "x" * 29 + "..."),
        ("thing", "abcdefghijklmnopqr  stuvwx", "abcdefghijklmnopqr…"),
    ],
)
def test_what_may_be_cut_ends_in_an_ellipsis_that_counts(kind: str, value: str, expected: str) -> None:
    assert fit(kind, value) == expected
    assert check({f"{kind}1": {"value": expected}}) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("¥123,456.78", "¥123,456.78"),
        ("¥1,234,567.89", "¥1234567.89"),
        ("¥12,345,678.90", "¥12345678.90"),
        ("₩9,999,999,999", "₩9999999999"),
        ("KD 1,234,567.890", "KD 1234567.890"),
    ],
)
def test_a_long_amount_loses_its_separators_and_never_a_digit(value: str, expected: str) -> None:
    assert fit("amount", value) == expected


def test_emoji_control_characters_and_line_breaks_go() -> None:
    assert fit("thing", "a😀b\r\nc\u202ed\x00e\u2764\ufe0f") == "ab cde"


@pytest.mark.parametrize("key", ["thing1", "character_string22", "short_thing3", "phone_number999"])
def test_a_key_s_type_is_its_name_without_its_number(key: str) -> None:
    assert type_of(key) == key.rstrip("0123456789")


@pytest.mark.parametrize(
    "key", ["thing", "thing0", "first", "remark", "keyword1", "Thing1", "thing1 ", "thing_1", "1", ""]
)
def test_what_is_not_a_typed_key_has_no_type(key: str) -> None:
    assert type_of(key) is None


@pytest.mark.parametrize(
    "data",
    [
        {"first": {"value": "x"}},
        {"thing1": {"value": 5}},
        {"thing1": {"value": "x", "color": "#fff"}},
        {"thing1": {"value": "x" * 21}},
        {"thing1": {"value": "a\nb"}},
        {"thing1": {"value": "a\u202eb"}},
        {"thing1": {"value": "a😀"}},
        {"thing1": {"value": " a"}},
    ],
)
def test_check_finds_what_the_provider_would_refuse(data: dict[str, dict[str, str]]) -> None:
    assert len(check(data)) >= 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 1),
        ("中" * 70, 1),
        ("中" * 71, 2),
        ("中" * 134, 2),
        ("中" * 135, 3),
        ("x" * 160, 3),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("x" * 500, 8),
    ],
)
def test_an_sms_has_seventy_units_or_parts_of_sixty_seven(text: str, parts: int) -> None:
    assert segments(text) == parts


def test_a_part_does_not_end_inside_of_an_emoji() -> None:
    # Given emoji only, 33 of them fit in a part (66 of 67 units), then 67 emoji need a third part.
    assert units("😀" * 67) == 134
    assert segments("😀" * 67) == 3


def test_the_ellipsis_is_one_unit() -> None:
    assert units(ELLIPSIS) == 1


@given(st.sampled_from(sorted(WECHAT_TYPES)), st.text(max_size=60))
def test_whatever_the_text_it_fits_or_is_refused(kind: str, raw: str) -> None:
    try:
        value = fit(kind, raw)
    except FieldRefused:
        return
    assert check({f"{kind}1": {"value": value}}) == []


@given(
    st.sampled_from(["thing", "short_thing"]),
    st.text(alphabet=st.characters(categories=["L", "N", "M", "So"]), min_size=1),
)
def test_a_text_of_any_letters_is_never_too_long_and_loses_its_end_only(kind: str, raw: str) -> None:
    value = fit(kind, f"x{raw}")
    assert units(value) <= WECHAT_TYPES[kind].limit
    assert without_emoji(clean(f"x{raw}")).startswith(value.removesuffix(ELLIPSIS))
