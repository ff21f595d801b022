"""Lines of what is written in a template.toml."""

from __future__ import annotations

import tomllib

import pytest

from templates.places import Places

TEXT = '''\
id = "a"  # a comment
[[fields]]
name = "x"
[[fields]]
name = "y"
["sms"."zh-CN"]
text = """
[not a table]
one \\
    two \\u4e2d \\" three
four"""
other = 1
[ email.en ]
text = \'\'\'
first \\
second\'\'\'
'''


def test_tables_and_keys_have_their_lines() -> None:
    places = Places(TEXT)
    assert places.key("", "id") == 1
    assert places.table("fields[1]") == 4
    assert places.key("fields[1]", "name") == 5
    assert places.table("sms.zh-CN") == 6
    assert places.key("sms.zh-CN", "other") == 12
    assert places.table("email.en") == 13
    assert places.first_table("email") == 13
    assert places.table("not a table") is None
    assert places.key("sms.zh-CN", "nothing") is None


@pytest.mark.parametrize(
    ("table", "word", "line"),
    [("sms.zh-CN", "one", 9), ("sms.zh-CN", "two", 10), ("sms.zh-CN", "three", 10), ("sms.zh-CN", "four", 11),
     ("email.en", "first", 15), ("email.en", "second", 16)],
)  # fmt: skip
def test_a_word_of_a_long_text_has_the_line_that_it_is_written_on(table: str, word: str, line: int) -> None:
    # Given a text as TOML reads it, whose escaped line ends are gone
    channel, locale = table.split(".")
    text = tomllib.loads(TEXT)[channel][locale]["text"]
    # When the place of a word is asked for, Then it is the line of the file
    assert Places(TEXT).inside(table, "text", text.index(word)) == line


def test_a_line_of_a_long_text_is_found_in_the_file() -> None:
    places = Places(TEXT)
    assert [places.start_of("sms.zh-CN", "text", line) for line in (1, 2, 3)] == [8, 9, 11]
    assert places.start_of("email.en", "text", 2) == 16
    assert places.start_of("", "id", 1) == 1
    assert places.inside("", "id", 0) == 1
    assert places.inside("email.en", "nothing", 0) is None
    assert places.start_of("email.en", "nothing", 1) is None
