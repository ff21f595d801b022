"""Text from outside: cleaned, counted and cut."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates.text import (
    MAX_TEXT_UNITS,
    PLAIN,
    clean,
    columns,
    cut,
    cut_to_columns,
    graphemes,
    has_emoji,
    units,
    without_emoji,
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("shell kings 587", "shell kings 587"),
        ("  two  blanks ", "two blanks"),
        ("a\r\nb\tc", "a b c"),
        ("a\x00b\x1fc", "ab c"),
        ("a\u202eb\u2066c\u200fd\ufeff", "abcd"),
        ("全角\u3000空格\u00a0x", "全角 空格 x"),
        ("\u3164\u2800", ""),
        ("a\ud800b", "ab"),
        ("a\ue000b", "ab"),
        ("Cafe\u0301", "Café"),
        ("\u0301\u0301\u0301", ""),
        ("Z" + "\u0335" * 50 + "a", "Z" + "\u0335" * 3 + "a"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("a\u200d\u200d\u200db", "a\u200db"),
        ("\u200d", ""),
        ("{{ 7*7 }}", "{{ 7*7 }}"),
        ("", ""),
    ],
)
def test_what_hides_reorders_or_piles_up_is_removed(raw: str, expected: str) -> None:
    assert clean(raw) == expected


@given(st.text(max_size=400))
def test_a_cleaned_text_is_clean_whatever_it_was(raw: str) -> None:
    text = clean(raw)
    assert text == text.strip()
    assert "  " not in text
    assert units(text) <= MAX_TEXT_UNITS
    assert clean(text) == text
    assert all(unicodedata.category(character) not in ("Cc", "Cs", "Co", "Zl", "Zp") for character in text)


def test_ten_thousand_characters_are_cut_at_the_maximum() -> None:
    assert clean("x" * 10_000) == "x" * (MAX_TEXT_UNITS - 1) + "…"


def test_every_plain_character_is_harmless() -> None:
    # Given all characters that take the short cut, then the long way would not have changed one.
    plain = re.compile(f"[{PLAIN}]").fullmatch
    for code in range(0x10000):
        character = chr(code)
        if plain(character):
            assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Mn", "Me", "Mc", "Zs")
            assert not has_emoji(character)
            assert not character.isspace()
            assert len(graphemes("e" + character)) == 2
            assert units(character) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("星巴克☕️", "星巴克"),
        ("a 😀 b", "a b"),
        ("🇨🇳 shop", "shop"),
        ("1\ufe0f\u20e3", "1"),
        ("👨\u200d👩\u200d👧", ""),
        ("𠮷野家", "𠮷野家"),
        ("plain", "plain"),
    ],
)
def test_emoji_go_and_rare_ideographs_stay(text: str, expected: str) -> None:
    assert without_emoji(text) == expected
    assert not has_emoji(expected)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("abcd e", 6, "abcd e"),
        ("abcd ef", 6, "abcd…"),
        ("𠮷𠮷𠮷", 5, "𠮷𠮷…"),
        ("𠮷𠮷𠮷", 4, "𠮷…"),
        ("abe\u0301fg", 4, "ab…"),
        ("ab👨\u200d👩\u200d👧x", 9, "ab…"),
        ("ab👨\u200d👩\u200d👧xyz", 11, "ab👨\u200d👩\u200d👧…"),
        ("a🇨🇳🇨🇳b", 6, "a🇨🇳…"),
        ("👍🏽👍🏽", 5, "👍🏽…"),
        ("abc", 1, "…"),
        ("ab\u0e19\u0e33x", 4, "ab…"),
        ("ab\u0915\u094d\u0937x", 5, "ab…"),
        ("ab\u0915\u094d\u0937xy", 6, "ab\u0915\u094d\u0937…"),
    ],
)
def test_a_cut_never_splits_what_a_reader_sees_as_one(text: str, limit: int, expected: str) -> None:
    assert cut(text, limit) == expected
    assert units(expected) <= limit


@given(st.text(max_size=60), st.integers(min_value=1, max_value=60))
def test_a_cut_is_within_its_limit_and_made_of_whole_graphemes(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert units(short) <= limit
    if short != text:
        kept = short.removesuffix("…")
        assert text.startswith(kept)
        pieces = graphemes(text)
        assert any("".join(pieces[:count]).rstrip() == kept for count in range(len(pieces) + 1))


@given(st.text(max_size=60))
def test_graphemes_join_to_the_text(text: str) -> None:
    assert "".join(graphemes(text)) == text


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("shell", 5),
        ("星巴克", 6),
        ("ｆｕｌｌ", 8),
        ("ﾊﾟ", 1),
        ("Cafe\u0301", 4),
        ("𠮷野家", 6),
        ("😀", 2),
        ("👨\u200d👩\u200d👧", 2),
        ("🇨🇳", 2),
        ("☕️", 2),
        ("Жар", 3),
    ],
)
def test_a_wide_character_takes_two_columns(text: str, width: int) -> None:
    assert columns(text) == width


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("星巴克", 6, "星巴克"),
        ("星巴克咖啡", 7, "星巴克…"),
        ("星巴克咖啡", 6, "星巴…"),
        ("a星b巴", 5, "a星b…"),
        ("🇨🇳🇨🇳", 3, "🇨🇳…"),
        ("星", 1, "…"),
    ],
)
def test_a_cut_to_columns_counts_its_ellipsis(text: str, limit: int, expected: str) -> None:
    assert cut_to_columns(text, limit) == expected
    assert columns(expected) <= limit


@pytest.mark.parametrize("override", list("\u202a\u202b\u202d\u202e\u202c\u2066\u2067\u2068\u2069\u200e\u200f\u061c"))
def test_nothing_that_turns_the_direction_is_left_to_move_the_amount(override: str) -> None:
    assert clean(f"{override}shop{override} 38.00{override}") == "shop 38.00"
