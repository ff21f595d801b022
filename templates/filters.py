"""The filters that templates have besides minijinja's own. Pure.

    {{ merchant | short(12) }}                      at most 12, by whole graphemes, the ellipsis counted
    {{ amount_minor | money(currency) }}            ¥1,234.50: the currency's own sign and decimals
    {{ swiped_at | local_time(timezone) }}          2026年11月22日 13:05; local_time(timezone, "short"): 11月22日13:05
    {{ card | tail }}                               0426, or ----
    {{ mcc | mcc_word }}  {{ mcc | mcc_icon }}      餐饮 🍽️; empty for a code that has none
    {{ late_seconds | late }}                       35分钟; empty when it is not late

They speak the language of the part in which they stand, and ``short`` counts as its channel does: UTF-16 units for
WeChat and an SMS, columns of a screen (a Chinese character has two) in a mail and on a card. A value that a filter
cannot take fails that alert; no message says what it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from html import escape, unescape
from typing import Any, NamedTuple

import minijinja

from dispatcher.model.currency import UnknownCurrency
from templates.errors import FieldRefused
from templates.mcc import mcc_icon, mcc_word
from templates.moments import DEFAULT_TIMEZONE, duration, long_form, short_form
from templates.money import format_money
from templates.text import MAX_TEXT_UNITS, cut, cut_to_columns
from templates.words import NO_TAIL, Words, words_for

MAX_CACHED_PLACES = 16_384
"""Names of template texts that are taken apart once: a thousand templates have some twelve each."""

COUNTS_UNITS = frozenset({"wechat", "sms"})
"""Channels whose limits are in UTF-16 units."""

_is_whole = re.compile(r"-?[0-9]{1,19}").fullmatch
_place = re.compile(r".*/([a-z]+)\.([A-Za-z0-9-]+)(?:/(.*))?").fullmatch


class FilterRefused(Exception):
    """A filter cannot take its value: a mistake of the template, or an event that no example is like."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"filter {name}: {what}")


class _Part(NamedTuple):
    """Where a filter stands, as the name of the template text says: ``swipe@1/email.en/html``."""

    channel: str
    words: Words
    is_html: bool


@lru_cache(maxsize=MAX_CACHED_PLACES)
def _part_of(name: str) -> _Part:
    found = _place(name)
    if found is None:
        return _Part("", words_for("en"), is_html=False)
    return _Part(found[1], words_for(found[2]), is_html=found[3] == "html")


def _whole(name: str, value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not _is_whole(text):
        raise FilterRefused(name, "takes a whole number")
    return int(text)


def short(part: _Part, value: object, limit: object) -> str:
    room = _whole("short", limit)
    if not 1 <= room <= MAX_TEXT_UNITS:
        raise FilterRefused("short", f"takes a length of 1 to {MAX_TEXT_UNITS}")
    text = unescape(str(value)) if part.is_html else str(value)
    text = cut(text, room) if part.channel in COUNTS_UNITS else cut_to_columns(text, room)
    return escape(text) if part.is_html else text


def money(part: _Part, value: object, currency: object) -> str:
    try:
        return format_money(_whole("money", value), str(currency), part.words.language)
    except UnknownCurrency:
        raise FilterRefused("money", "takes the code of a currency") from None


def local_time(part: _Part, value: object, timezone: object = DEFAULT_TIMEZONE, form: object = "long") -> str:
    forms = {"long": long_form, "short": short_form}
    if form not in forms:
        raise FilterRefused("local_time", 'takes the form "long" or "short"')
    try:
        at = datetime.fromisoformat(str(value))
        return forms[str(form)](at.timestamp() // 60, str(timezone), part.words.language)
    except (ValueError, OverflowError, FieldRefused):
        raise FilterRefused("local_time", "takes a time such as 2026-11-22T05:05:00+00:00") from None


def tail(_part: _Part, value: object) -> str:
    digits = str(value)[-4:]
    return digits if len(digits) == 4 and digits.isascii() and digits.isdigit() else NO_TAIL


def of_mcc_word(part: _Part, value: object) -> str:
    return mcc_word(str(value), part.words.language)


def of_mcc_icon(_part: _Part, value: object) -> str:
    return mcc_icon(str(value))


def late(part: _Part, value: object) -> str:
    seconds = _whole("late", value)
    if seconds <= 0:
        return ""
    try:
        return duration(seconds, part.words.babel)
    except OverflowError:
        raise FilterRefused("late", "takes a number of seconds") from None


FILTERS: dict[str, Callable[..., str]] = {
    "short": short,
    "money": money,
    "local_time": local_time,
    "tail": tail,
    "mcc_word": of_mcc_word,
    "mcc_icon": of_mcc_icon,
    "late": late,
}
"""By the name that templates use. Each takes the part in which it stands, then the value and what is in brackets."""


def register(engine: minijinja.Environment) -> None:
    """Adds them all to a sandbox."""
    for name, function in FILTERS.items():
        engine.add_filter(name, _guarded(name, function))


def _guarded(name: str, function: Callable[..., str]) -> Callable[..., str]:
    """What the engine calls: it hands over any exception as it is, and only ours are known to name no value."""

    @minijinja.pass_state
    def call(state: Any, *given: object, **named: object) -> str:
        try:
            return function(_part_of(state.name), *given, **named)
        except FilterRefused:
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError):  # arguments too many, too few or unknown
            raise FilterRefused(name, "is given what it does not take") from None

    return call
