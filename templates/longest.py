"""The longest values that fields can have, and other odd ones, to try a template with. Pure.

The values are read from events, as an alert's are, so that a field is no longer here than it can become. What no event
of ours has (a fact of one bank, say) is taken from the template's examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec

from dispatcher.model.currency import EXPONENTS
from dispatcher.model.event import DigestFacts, Event
from templates.errors import RenderError
from templates.facts import FIELDS, SwipeFacts
from templates.limits import MAX_AMOUNT_DIGITS
from templates.money import format_money
from templates.text import MAX_TEXT_UNITS, units
from templates.words import KINDS, STAGES, words_for

LONGEST_AMOUNT = 10**MAX_AMOUNT_DIGITS - 1
"""Minor units: as many digits as WeChat takes."""

USUAL_CHARS = 40
"""Of a merchant's name in a card message (ISO 8583, field 43): what a real alert has at most."""

LATEST_SECONDS = 23 * 3600 + 59 * 60
"""The longest delay in words is below a day."""

HOME = "CNY"
AT = datetime(2026, 12, 31, 15, 59, tzinfo=UTC)
_WIDE, _LATIN, _SHAPES = "国", "Wide Merchant ", "👨‍👩‍👧‍👦é́"
_LINK = "https://bank.example/" + "a" * 179
_MANY = 999_999_999


class Longest(msgspec.Struct, frozen=True):
    """One set of values. ``label`` says what they are, for messages; ``usual``: a real alert may well have them."""

    label: str
    values: dict[str, str]
    usual: bool = False


def longest_values(examples: Mapping[str, str], locale: str) -> Iterator[Longest]:
    """Sets of values for the fields of ``examples``, one after the other."""
    for number, (label, known) in enumerate(_read(words_for(locale).language)):
        yield Longest(label, {name: known.get(name, example) for name, example in examples.items()}, usual=number == 0)


@cache
def _read(language: str) -> tuple[tuple[str, dict[str, str]], ...]:
    """Every field that has one, by label: cleaning long names takes longer than all that is tried with them."""
    words = words_for(language)
    read = []
    for label, facts in _worst(language):
        values = {}
        for name, field in FIELDS.items():
            with suppress(RenderError):
                values[name] = field.read(facts, words)
        read.append((label, values))
    return tuple(read)


def _worst(language: str) -> Iterator[tuple[str, SwipeFacts]]:
    longest = longest_currency(language)
    wide, latin = _WIDE * MAX_TEXT_UNITS, _LATIN * MAX_TEXT_UNITS
    usual = _facts(_WIDE * USUAL_CHARS, HOME, 99_999_999, link=_LINK[:40])
    yield (
        f"names of {USUAL_CHARS} characters and amounts of eight digits",
        msgspec.structs.replace(usual, late_seconds=0),
    )
    yield "the longest Chinese names and amounts", _facts(wide, longest)
    yield "the longest Latin names and amounts", _facts(latin, longest)
    yield f"the longest amounts in {HOME}", _facts(latin, HOME)
    yield "names of emoji", _facts(_SHAPES * MAX_TEXT_UNITS, longest)
    yield "no name and no city", _facts(None, longest)
    yield "totals below zero", _facts(wide, longest, sign=-1)
    yield "one of everything", _facts("A", HOME, 1, count=1)
    for kind in KINDS:
        declined = f"declined: {_longest_reason(language)}" if kind == "decline" else None
        yield f"a {kind}", _facts(wide, longest, type=kind, status=declined)
    for stage in STAGES:
        yield f"the stage {stage}", _facts(wide, longest, stage=stage)


def _facts(
    text: str | None,
    currency: str,
    amount: int = LONGEST_AMOUNT,
    *,
    sign: int = 1,
    count: int = 9_999,
    stage: str = "before",
    link: str = _LINK,
    **event: Any,
) -> SwipeFacts:
    start = int(AT.timestamp() * 1000)
    digest = DigestFacts(
        "primary", count, dict.fromkeys((currency, "CLF", "USD", "EUR"), sign * amount), start - 86_400_000 * 9, start,
        "longest", "decline",
    )  # fmt: skip
    money = ("statement_amount", "minimum_due", "remaining", "available", "old_limit", "new_limit")
    told: dict[str, str | int] = {f"{name}_minor": amount for name in money}
    told["statement_amount_minor"] = sign * amount
    told |= dict.fromkeys(("points", "points_balance", "points_expiring"), _MANY if count > 1 else 1)
    told |= dict.fromkeys(("name", "title", "text"), (text or "A")[:200])
    told |= {"link": link, "picture": _LINK, "due_date": "2026-12-31", "points_expiry": "2026-12-31"}
    told |= {"limit_until": "2026-12-31", "period": "2026-12", "stage": stage, "hotline": "+86 400-8888-8888"}
    if stage != "on":
        told["days"] = 30 if count > 1 else 1
    given: dict[str, Any] = {
        "id": "longest",
        "account": "longest",
        "pan": None if text is None else "************0426",
        "amount": amount,
        "currency": currency,
        "merchant": text,
        "city": text,
        "country": "GS",
        "mcc": "5969",
        "time": AT,
        "orig_amount": amount,
        "orig_currency": longest_currency("en", besides=currency),
        "digest": digest,
        "facts": told,
    }
    total = sign * amount if text is not None else None
    return SwipeFacts(Event(**(given | event)), day_total_minor=total, late_seconds=LATEST_SECONDS)


def _longest_reason(language: str) -> str:
    reasons = words_for(language).declines
    return max(reasons, key=lambda reason: units(reasons[reason])).replace("-", " ")


@cache
def longest_currency(language: str, besides: str = "") -> str:
    """The currency whose longest amount takes most room."""
    others = sorted(currency for currency in EXPONENTS if currency != besides)
    return max(others, key=lambda currency: units(format_money(LONGEST_AMOUNT, currency, language)))
