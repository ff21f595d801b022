"""The whole library, and an event for each of its templates to tell: a given one, changed until it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from dispatcher.model.event import DIGEST, DigestFacts, Event
from templates.facts import FIELDS, SwipeFacts
from templates.library import DEFAULT_LOCALE, OTHER_LOCALE, Library, Template
from templates.template import Match
from tests.templates import second_opinion

LIBRARY: Final = Library.load()
TEMPLATES: Final = {template.id: template for template in LIBRARY}
LOCALES: Final = (DEFAULT_LOCALE, OTHER_LOCALE)

TYPES: Final = ("purchase", "purchase", "refund", "reversal", "cash", "fee", "decline", "entry", "a type of tomorrow")
CURRENCIES: Final = ("EUR", "JPY", "KWD", "USD", "KRW", "HKD", "CHF", "XOF", "GBP", "HRK")
ZONES: Final = ("Asia/Shanghai", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "Not/AZone")
LATE: Final = (0, 0, 0, 125, 8_000, 900_000)
MONEY_BACK: Final = frozenset({"refund", "reversal"})
HALF_A_DAY_MS: Final = 43_200_000
ANY: Final = Match()


def fitted(template: Template, event: Event, number: int) -> SwipeFacts:
    """``event`` as one that this template tells; ``number`` varies what it leaves open."""
    match = template.match or ANY
    category = template.category if match.category is None else match.category[number % len(match.category)]
    changes: dict[str, Any] = {"category": category}
    if category == "swipe":
        changes |= _movement(event, match, number)
    elif match.type is not None:
        changes["type"] = match.type[number % len(match.type)]
    if category == DIGEST:
        changes |= {"digest": _digest(event, number), "type": DIGEST}
    facts = facts_of(template, event, number)
    changes["facts"] = facts or None
    total = None if number % 5 == 0 else event.amount * (number % 7)
    return SwipeFacts(
        event=msgspec.structs.replace(event, **changes),
        timezone=ZONES[number % len(ZONES)],
        day_total_minor=total,
        late_seconds=LATE[number % len(LATE)],
    )


def _movement(event: Event, match: Match, number: int) -> dict[str, Any]:
    """A card movement of the kind that the template is for, and of every kind in turn where it does not say."""
    types = match.type or (TYPES if event.amount > 0 else (event.type,))
    kind, amount, currency = types[number % len(types)], event.amount, event.currency
    changes: dict[str, Any] = {"type": kind}
    if kind in MONEY_BACK and number % 2:
        amount = -abs(amount)
    if match.large_from is not None:
        currency, least = tuple(match.large_from.items())[number % len(match.large_from)]
        amount += least if amount >= 0 else -least
    if match.declined or (match is ANY and number % 11 == 0):
        changes["status"] = "declined: insufficient funds"
    if match.foreign or (match is ANY and (event.orig_currency is not None or number % 4 == 0)):
        original = event.orig_currency or next(one for one in CURRENCIES[number % 9 :] if one != currency)
        changes |= {"orig_amount": event.orig_amount or amount * 3, "orig_currency": original}
    else:
        changes |= {"orig_amount": None, "orig_currency": None}
    return changes | {"amount": amount, "currency": currency}


TEXTS: Final = ("name", "title", "text")
NEEDED_TEXTS: Final = frozenset({"title", "text"})
DUE: Final = frozenset({"due_date", "short_due_date", "stage", "stage_word", "days", "due_in"})
STAGES: Final = ("before", "on", "after")
LONG_TEXT: Final = "自2026年12月1日起，本行将调整信用卡积分规则，详情请见官网公告。Please see our website for details. "


def facts_of(template: Template, event: Event, number: int) -> dict[str, str | int]:
    """What the core system would tell for this template's fields besides the event's own; optional ones now and then.

    Amounts and texts come from the event, so that they are as various as real ones.
    """
    names = {field.name for field in template.fields}
    amount, day = abs(event.amount), event.time.date() + timedelta(days=number % 9 - 4)
    every: dict[str, str | int] = {
        "name": (event.merchant or "李雷")[:20],
        "period": f"{event.time:%Y-%m}",
        "statement_amount_minor": -amount if template.category == "statement" and number % 13 == 0 else amount,
        "minimum_due_minor": amount // 10,
        "remaining_minor": amount // 2,
        "available_minor": amount * 3,
        "due_date": day.isoformat(),
        "stage": STAGES[1 + (day < event.time.date()) - (day > event.time.date())],
        "points": amount // 100 if number % 3 else -(amount // 100),
        "points_balance": amount,
        "points_expiring": amount // 50,
        "points_expiry": day.isoformat(),
        "old_limit_minor": amount * 10,
        "new_limit_minor": amount * (5 + number % 12),
        "limit_until": day.isoformat(),
        "title": event.merchant or "公告",
        "text": (f"{event.city or event.merchant}: {LONG_TEXT * (1 + number % 3)}")[:200].strip(),
        "link": "https://bank.example/n?id=1&from=mail",
        "picture": "https://bank.example/p/new-year.png",
        "unsubscribe": "TD",
        "confirm_word": "Y",
        "deny_word": "N",
        "hotline": "400-820-5555",
    }
    told = {name: value for name, value in every.items() if FIELD_OF.get(name, name) in names}
    if names & DUE:
        told["due_date"] = every["due_date"]
    return {name: value for name, value in told.items() if number % 4 or not _is_optional(name)}


FIELD_OF: Final = {"period": "statement_period"} | {
    f"{name}_minor": name
    for name in ("statement_amount", "minimum_due", "remaining", "available", "old_limit", "new_limit")
}
"""The field of a template that reads a fact, where it has another name."""


def _is_optional(name: str) -> bool:
    if name == "stage":  # the due date says it as well
        return True
    return FIELDS[FIELD_OF.get(name, name)].optional


def _digest(event: Event, number: int) -> DigestFacts:
    since = int(event.time.timestamp() * 1000)
    amounts = {event.currency: event.amount}
    amounts |= {CURRENCIES[(number + more) % len(CURRENCIES)]: event.amount * more for more in range(1, number % 5)}
    return DigestFacts(
        role="primary",
        count=1 + number % 200,
        amounts=amounts,
        since=since,
        until=since + HALF_A_DAY_MS * (number % 3),
        rule="cap",
        type=("", *TYPES)[number % (len(TYPES) + 1)],
    )


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


def an_event(**changes: Any) -> Event:
    """A lunch in Shanghai for 38.00 yuan."""
    event: dict[str, Any] = {
        "id": "e1",
        "account": "a1",
        "pan": "************0426",
        "amount": 3800,
        "currency": "CNY",
        "merchant": "星巴克南京西路店",
        "mcc": "5814",
        "city": "上海",
        "country": "CN",
        "time": datetime(2026, 11, 22, 5, 5, 59, tzinfo=UTC),
    }
    return Event(**(event | changes))


def with_texts(facts: SwipeFacts, text: str, needed: str) -> SwipeFacts:
    """The same with ``text`` in every field of the event in which the core system may write what it likes.

    ``needed`` stands in those texts without which the notice would say nothing.
    """
    event = facts.event
    told = {**(event.facts or {})}
    told |= {name: needed if name in NEEDED_TEXTS else text for name in TEXTS if name in told}
    changes: dict[str, Any] = {"merchant": text, "city": text, "country": text, "mcc": text, "facts": told or None}
    if event.digest is None:
        changes["type"] = text
    return msgspec.structs.replace(facts, event=msgspec.structs.replace(event, **changes))
