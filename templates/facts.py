"""What is known about a swipe, and how each field of a template reads it. Pure.

``FIELDS`` is the whole vocabulary that templates have: every field is a plain string, cleaned of control
characters, so that a template sees no object and a value can neither break out of its field nor be taken for
template syntax.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal

import msgspec
from babel.dates import format_timedelta

from dispatcher.model.currency import UnknownCurrency, exponent
from dispatcher.model.event import DigestFacts, Event
from templates.errors import FieldRefused
from templates.money import format_money
from templates.text import clean
from templates.words import KINDS, NO_AMOUNT, NO_TAIL, Words, words_for

DEFAULT_TIMEZONE = "Asia/Shanghai"

MAX_CACHED_ZONES = 1024
"""Time zones kept in memory; the tz database has about 600 names, and an unknown name takes a place, too."""

MAX_CACHED_MINUTES = 8192
"""Written-out minutes (times zone and language) kept, about 2 MB: swipes of one moment share theirs."""

MAX_CACHED_DURATIONS = 8_192
"""Written-out delays kept, below 1 MB: a backlog of two hours has seven thousand, and babel takes 20 µs for each."""

MAX_TOLD_SUMS = 3
"""Currencies whose sums a digest lists; more would not fit, and hardly anybody pays in more."""

_TWO_DIGITS = tuple(f"{number:02}" for number in range(60))
_MONEY_BACK = frozenset({"refund", "reversal", "decline", "entry"})
_ENGLISH_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Reader = Callable[["SwipeFacts", Words], str]

FieldType = Literal["text", "money", "time", "word"]
"""``text`` may be cut from its end, ``money`` may lose its separators but no digit; the others stay as they
are.
"""


class SwipeFacts(msgspec.Struct, frozen=True, gc=False):
    """All that a swipe alert is rendered from.

    ``day_total_minor`` is the account's net total of the swipe's local day, this swipe included, in minor
    units of the event's currency; None when it is not kept. ``late_seconds`` is how late the alert is
    when that is to be said; 0: it is not.
    """

    event: Event
    timezone: str = DEFAULT_TIMEZONE
    day_total_minor: int | None = None
    late_seconds: int = 0


@lru_cache(maxsize=MAX_CACHED_ZONES)
def zone(name: str) -> zoneinfo.ZoneInfo:
    """The time zone of that name, or the default one: a recipient's odd setting must not cost the alert."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return zoneinfo.ZoneInfo(DEFAULT_TIMEZONE)


def kind_of(event: Event) -> str:
    """One of ``words.KINDS``. A declined status wins over the type, and a negative purchase is a refund."""
    if event.status is not None and event.status.startswith("declined"):
        return "decline"
    kind = event.type
    if event.amount < 0 and kind not in _MONEY_BACK:
        return "refund" if kind == "purchase" else "credit"
    return kind if kind in KINDS else "other"


def _local(minute: float, timezone: str) -> datetime:
    try:
        return datetime.fromtimestamp(minute * 60, zone(timezone))
    except (OverflowError, ValueError):
        raise FieldRefused("time", "is outside of the calendar") from None


@lru_cache(maxsize=MAX_CACHED_MINUTES)
def _long_form(minute: float, timezone: str, language: str) -> str:
    at, two = _local(minute, timezone), _TWO_DIGITS
    clock = f"{two[at.hour]}:{two[at.minute]}"
    if language == "zh":
        return f"{at.year:04}年{two[at.month]}月{two[at.day]}日 {clock}"
    return f"{at.year:04}-{two[at.month]}-{two[at.day]} {clock}"


@lru_cache(maxsize=MAX_CACHED_MINUTES)
def _short_form(minute: float, timezone: str, language: str) -> str:
    at = _local(minute, timezone)
    if language == "zh":
        return f"{at.month}月{at.day}日{at.hour:02}:{at.minute:02}"
    return f"{at.day} {_ENGLISH_MONTHS[at.month - 1]} at {at.hour:02}:{at.minute:02}"


def _time(facts: SwipeFacts, words: Words) -> str:
    return _long_form(facts.event.time.timestamp() // 60, facts.timezone, words.language)


def _short_time(facts: SwipeFacts, words: Words) -> str:
    return _short_form(facts.event.time.timestamp() // 60, facts.timezone, words.language)


def _amount(facts: SwipeFacts, words: Words) -> str:
    event = facts.event
    try:
        return format_money(abs(event.amount), event.currency, words.language)
    except UnknownCurrency:
        raise FieldRefused("amount", "is in an unknown currency") from None


def _original(facts: SwipeFacts, words: Words) -> str:
    event = facts.event
    if event.orig_amount is None or event.orig_currency is None or event.orig_currency == event.currency:
        return ""
    try:
        return format_money(abs(event.orig_amount), event.orig_currency, words.language)
    except UnknownCurrency:  # withdrawn, say: without its exponent the number would be a guess
        return ""


def _total(facts: SwipeFacts, words: Words) -> str:
    total = facts.day_total_minor
    if total is None:
        return NO_AMOUNT
    try:
        return format_money(total, facts.event.currency, words.language)
    except UnknownCurrency:
        return NO_AMOUNT


def _raw_merchant(facts: SwipeFacts) -> str | None:
    return facts.event.merchant


def _merchant(facts: SwipeFacts, words: Words) -> str:
    raw = facts.event.merchant
    return (clean(raw) if raw else "") or words.unknown_merchant


def _raw_city(facts: SwipeFacts) -> str | None:
    return facts.event.city


def _city(facts: SwipeFacts, _words: Words) -> str:
    raw = facts.event.city
    return clean(raw) if raw else ""


def _tail(facts: SwipeFacts, _words: Words) -> str:
    tail = facts.event.pan[-4:] if facts.event.pan else ""
    return tail if len(tail) == 4 and tail.isascii() and tail.isdigit() else NO_TAIL


def _kind(facts: SwipeFacts, words: Words) -> str:
    return words.kinds[kind_of(facts.event)]


def _special(facts: SwipeFacts, words: Words) -> str:
    kind = kind_of(facts.event)
    return "" if kind == "purchase" else words.kinds[kind]


def _action(facts: SwipeFacts, words: Words) -> str:
    return words.actions[kind_of(facts.event)]


@lru_cache(maxsize=MAX_CACHED_DURATIONS)
def _duration(seconds: int, babel: str) -> str:
    # Short, so that it finds room in one of WeChat's fields: "35 min", and in Chinese the same as the long form.
    return format_timedelta(timedelta(seconds=seconds), granularity="minute", format="short", locale=babel)


def _late(facts: SwipeFacts, words: Words) -> str:
    return _duration(facts.late_seconds, words.babel) if facts.late_seconds > 0 else ""


def main_currency(amounts: Mapping[str, int]) -> str:
    """The currency of the largest amount, by its face value in major units; of equal ones the first by its code."""

    def largest(currency: str) -> tuple[float, str]:
        try:
            return -abs(amounts[currency]) / 10 ** exponent(currency), currency
        except UnknownCurrency:
            return 0.0, currency

    return min(amounts, key=largest)


def _digest(facts: SwipeFacts) -> DigestFacts:
    digest = facts.event.digest
    if digest is None:
        raise FieldRefused("digest", "belongs to the event of a digest, and this is none")
    return digest


def _count(facts: SwipeFacts, _words: Words) -> str:
    return str(_digest(facts).count)


def _members(facts: SwipeFacts, words: Words) -> str:
    digest = _digest(facts)
    one, many = words.members.get(digest.type, words.members["notice"])
    return one if digest.count == 1 else many


def _moved(digest: DigestFacts) -> list[str]:
    """The currencies in which money moved, the largest amount first."""
    left = {currency: amount for currency, amount in digest.amounts.items() if amount}
    found = []
    while left:
        found.append(main_currency(left))
        del left[found[-1]]
    return found


def _money_of(digest: DigestFacts, currency: str, words: Words) -> str:
    try:
        return format_money(digest.amounts[currency], currency, words.language)
    except UnknownCurrency:
        return f"{NO_AMOUNT} {currency}"


def _sum(facts: SwipeFacts, words: Words) -> str:
    digest = _digest(facts)
    moved = _moved(digest)
    return _money_of(digest, moved[0], words) if moved else NO_AMOUNT


def _others(facts: SwipeFacts, words: Words) -> str:
    return words.and_others if len(_moved(_digest(facts))) > 1 else ""


def _sums(facts: SwipeFacts, words: Words) -> str:
    digest = _digest(facts)
    moved = _moved(digest)
    told = " + ".join(_money_of(digest, currency, words) for currency in moved[:MAX_TOLD_SUMS])
    return told + words.and_others if len(moved) > MAX_TOLD_SUMS else told


def _ends(facts: SwipeFacts) -> tuple[int, int]:
    digest = _digest(facts)
    return digest.since // 60_000, digest.until // 60_000


def _span(facts: SwipeFacts, words: Words) -> str:
    first, last = (_long_form(minute, facts.timezone, words.language) for minute in _ends(facts))
    return first if first == last else f"{first}~{last}"


def _period(facts: SwipeFacts, words: Words) -> str:
    since, until = _ends(facts)
    first, last = (_short_form(minute, facts.timezone, words.language) for minute in (since, until))
    if first == last:
        return first
    from_day, to_day = (_local(minute, facts.timezone).date() for minute in (since, until))
    return f"{first}–{last[-5:] if from_day == to_day else last}"


class Field(msgspec.Struct, frozen=True):
    """A field that templates may use: its type, how it is read, and whether it may be empty (to be tested by
    ``if``).

    A text also has ``raw``, what it is made from, and ``missing``, the word for a text of which nothing is left
    once a channel has taken out what it does not show. ``few``: its values are few and come again, so that what
    is made from it is worth remembering.
    """

    type: FieldType
    read: Reader
    optional: bool = False
    missing: Callable[[Words], str] | None = None
    raw: Callable[[SwipeFacts], str | None] | None = None
    few: bool = False


SWIPE_FIELDS: dict[str, Field] = {
    "time": Field("time", _time),
    "short_time": Field("time", _short_time),
    "amount": Field("money", _amount),
    "original": Field("money", _original, optional=True),
    "total": Field("money", _total),
    "merchant": Field("text", _merchant, missing=lambda words: words.unknown_merchant, raw=_raw_merchant),
    "city": Field("text", _city, optional=True, raw=_raw_city),
    "tail": Field("word", _tail, few=True),
    "kind": Field("word", _kind, few=True),
    "special": Field("word", _special, optional=True, few=True),
    "action": Field("word", _action, few=True),
    "late": Field("time", _late, optional=True, few=True),
}
"""``amount`` and ``original`` carry no minus: ``kind`` (or ``action``, the words before an amount in a
sentence) says which way the money went, ``special`` is ``kind`` unless it is an ordinary purchase.
``original`` is the amount in the merchant's own currency, of a foreign purchase only; ``total`` the net total
of the day, or ``--``; ``tail`` the last four digits of the card, or ``----``; ``late`` how late the
alert is, as far as the send rules want that to be said.
"""


DIGEST_FIELDS: dict[str, Field] = {
    "count": Field("word", _count),
    "members": Field("word", _members),
    "sum": Field("money", _sum),
    "others": Field("word", _others, optional=True),
    "sums": Field("money", _sums, optional=True),
    "span": Field("time", _span),
    "period": Field("time", _period),
}
"""Of a digest: ``count`` folded alerts, and ``members``, the word for them in the right number (``purchases``). ``sum``
is what they moved in the currency that moved most, with a minus when more came back, or ``--`` when no money moved;
``others`` the word for more currencies, if there are; ``sums`` those of up to three currencies, empty when no money
moved. ``span`` is the time of the first to that of the last as WeChat takes it, ``period`` the same in short.

In an alert that is no digest they are refused.
"""

FIELDS: dict[str, Field] = SWIPE_FIELDS | DIGEST_FIELDS
"""All of them."""


def context(facts: SwipeFacts, locale: str) -> dict[str, str]:
    """Every field that this event has. Raises ``FieldRefused`` if its currency is unknown."""
    words = words_for(locale)
    fields = SWIPE_FIELDS if facts.event.digest is None else FIELDS
    return {name: field.read(facts, words) for name, field in fields.items()}
