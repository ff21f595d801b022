"""How the fields of a digest read it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.model.currency import UnknownCurrency, exponent
from dispatcher.model.event import DigestFacts
from templates.errors import FieldRefused
from templates.field import Field, SwipeFacts
from templates.moments import local, long_form, short_form
from templates.money import format_money
from templates.words import NO_AMOUNT, Words

MAX_TOLD_SUMS = 3
"""Currencies whose sums a digest lists; more would not fit, and hardly anybody pays in more."""


def main_currency(amounts: Mapping[str, int]) -> str:
    """The currency of the largest amount, by its face value in major units; of equal ones the first by its code."""

    return min((_smallness(amount, currency), currency) for currency, amount in amounts.items())[1]


def _smallness(amount: int, currency: str) -> float:
    try:
        return -abs(amount) / float(10 ** exponent(currency))
    except UnknownCurrency:
        return 0.0


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
    moved = [(_smallness(amount, currency), currency) for currency, amount in digest.amounts.items() if amount]
    return [currency for _, currency in sorted(moved)]


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
    first, last = (long_form(minute, facts.timezone, words.language) for minute in _ends(facts))
    return first if first == last else f"{first}~{last}"


def _period(facts: SwipeFacts, words: Words) -> str:
    since, until = _ends(facts)
    first, last = (short_form(minute, facts.timezone, words.language) for minute in (since, until))
    if first == last:
        return first
    from_day, to_day = (local(minute, facts.timezone).date() for minute in (since, until))
    return f"{first}–{last[-5:] if from_day == to_day else last}"


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
