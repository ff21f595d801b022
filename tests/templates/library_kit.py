"""The whole library, and an event for each of its templates to tell: a given one, changed until it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from dispatcher.model.event import DIGEST, DigestFacts, Event
from templates.facts import SwipeFacts
from templates.library import REQUIRED_LOCALES, Library, Template
from tests.templates import second_opinion

LIBRARY: Final = Library.load()
TEMPLATES: Final = {template.id: template for template in LIBRARY}
LOCALES: Final = REQUIRED_LOCALES

TYPES: Final = ("purchase", "purchase", "refund", "reversal", "cash", "fee", "decline", "entry", "a type of tomorrow")
CURRENCIES: Final = ("EUR", "JPY", "KWD", "USD", "KRW", "HKD", "CHF", "XOF", "GBP", "HRK")
ZONES: Final = ("Asia/Shanghai", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "Not/AZone")
LATE: Final = (0, 0, 0, 125, 8_000, 900_000)
MONEY_BACK: Final = frozenset({"refund", "reversal"})
NOT_IN_CALENDAR_MS: Final = 86_400_000


def fitted(template: Template, event: Event, number: int) -> SwipeFacts:
    """``event`` as one that this template tells; ``number`` varies what it leaves open."""
    changes: dict[str, Any] = {"category": template.category}
    if template.category == "swipe":
        changes |= _movement(event, number)
    elif template.category == DIGEST:
        changes |= {"digest": _digest(event, number), "type": DIGEST}
    total = None if number % 5 == 0 else event.amount * (number % 7)
    return SwipeFacts(
        event=msgspec.structs.replace(event, **changes),
        timezone=ZONES[number % len(ZONES)],
        day_total_minor=total,
        late_seconds=LATE[number % len(LATE)],
    )


def _movement(event: Event, number: int) -> dict[str, Any]:
    kind = TYPES[number % len(TYPES)] if event.amount > 0 else event.type
    changes: dict[str, Any] = {"type": kind, "amount": -event.amount if kind in MONEY_BACK and number % 2 else event.amount}
    if number % 11 == 0:
        changes["status"] = "declined: insufficient funds"
    if number % 4 == 0 and event.orig_currency is None:
        changes |= {"orig_amount": event.amount * 3, "orig_currency": CURRENCIES[number % len(CURRENCIES)]}
    return changes


def _digest(event: Event, number: int) -> DigestFacts:
    since = int(event.time.timestamp() * 1000)
    amounts = {event.currency: event.amount}
    amounts |= {CURRENCIES[(number + more) % len(CURRENCIES)]: event.amount * more for more in range(1, number % 5)}
    return DigestFacts(
        role="primary",
        count=1 + number % 200,
        amounts=amounts,
        since=since,
        until=since + NOT_IN_CALENDAR_MS * (number % 3) // 2,
        rule="cap",
        type=("", *TYPES)[number % (len(TYPES) + 1)],
    )


Told = dict[str, tuple[Any, list[str]]]


def tell(template: Template, facts: SwipeFacts, locale: str) -> Iterator[tuple[str, Any, list[str]]]:
    """Each channel's name, what it would send, and what is wrong with that. A refusal raises."""
    for channel, render, judge in CHANNELS:
        if channel in template.channels or (channel == "card" and template.has_card):
            rendered = render(template, facts, locale)
            yield channel, rendered, judge(rendered)


CHANNELS: Final[tuple[tuple[str, Callable[..., Any], Callable[[Any], list[str]]], ...]] = (
    ("wechat", Template.render_wechat_json, second_opinion.of_wechat),
    ("sms", Template.render_sms, second_opinion.of_sms),
    ("email", Template.render_email, second_opinion.of_mail),
    ("card", Template.render_card, second_opinion.of_card),
)
