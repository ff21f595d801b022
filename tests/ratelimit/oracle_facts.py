"""What the oracle of the send rules knows without its list: which rule speaks of whom, and the calendar.

Written a second time on purpose: it shares nothing with what it is to check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient

ZONES = available_timezones()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FINGERPRINT = ("merchant", "amount", "currency", "type")
TEMPLATES = {"digest": "digest"}
"""Categories with a template of their own; the others are told by that of a swipe."""
DECLINED = ("purchase", "cash", "fee", "entry", "decline")
"""Types of which a declined one has a notice of its own."""
RuleTable = Mapping[str, Any]


def matches(rule: RuleTable, event: Event, to: Recipient) -> bool:
    when: Mapping[str, Any] = rule.get("when", {})
    facts: dict[str, Any] = {
        "category": lambda words: event.category in words,
        "type": lambda words: event.type in words,
        "currency": lambda words: event.currency in words,
        "country": lambda words: event.country in words,
        "mcc": lambda words: any(like(word, event.mcc or "") for word in words),
        "amount_from": lambda least: abs(event.amount) >= least,
        "amount_below": lambda most: abs(event.amount) < most,
        "declined": lambda wanted: declined(event) is wanted,
        "foreign": lambda wanted: (event.orig_currency not in (None, event.currency)) is wanted,
        "role": lambda words: to.role in words,
        "locale": lambda words: any(f"{to.locale}-".startswith(f"{word}-") for word in words),
    }
    asked = {key: [value] if isinstance(value, str) else value for key, value in when.items()}
    if rule["effect"] in ("consent", "expire_after"):
        asked["category"] = [rule["category"]]
    return all(facts[key](value) for key, value in asked.items())


def declined(event: Event) -> bool:
    return (event.status or "").lower().startswith("declined")


def moves_money(event: Event) -> bool:
    return event.type in ("purchase", "cash", "fee", "refund") and not declined(event)


def fingerprint(rule: RuleTable, event: Event) -> tuple[Any, ...]:
    fields = rule.get("fingerprint", FINGERPRINT)
    return (
        event.account,
        *(
            (event.time - EPOCH) // timedelta(milliseconds=1) if one == "time" else getattr(event, one)
            for one in fields
        ),
    )


def like(pattern: str, mcc: str) -> bool:
    return len(mcc) == len(pattern) and all(a in ("x", b) for a, b in zip(pattern, mcc, strict=True))


def consented(rule: RuleTable, to: Recipient) -> bool:
    """By the narrowest word about it, unless a wider one took that back later."""
    keys = [rule[key] for key in ("category", "channel", "template") if key in rule]
    words = [to.consents[name] for one in range(len(keys)) if (name := "/".join(keys[: one + 1])) in to.consents]
    holds = None
    for word in words:
        if holds is None or holds.given or (word.at, not word.given) > (holds.at, True):
            holds = word
    return rule["mode"] == "opt-out" if holds is None else holds.given


def template_of(event: Event) -> str:
    """The shipped notice that tells it; none of the machine's events is a large purchase."""
    if event.category != "swipe":
        return TEMPLATES.get(event.category, "swipe")
    if event.status is not None and event.status.startswith("declined"):
        return "decline" if event.type in DECLINED else "swipe"
    if event.type in ("refund", "reversal", "cash"):
        return event.type
    foreign = event.orig_currency is not None and event.orig_currency != event.currency
    return "foreign-purchase" if foreign and event.type == "purchase" else "swipe"


def at_limit(rule: RuleTable) -> str:
    return str(rule.get("at_cap", rule.get("at_gap", "suppress")))


def scopes(rule: RuleTable) -> list[str]:
    per = rule.get("per", "recipient")
    return [per] if isinstance(per, str) else per


def counted_on(rule: RuleTable, route: Sequence[str]) -> list[str | None]:
    """The channels of a route that a rule speaks of; a single None when it speaks of none."""
    if rule["effect"] == "dedup" or ("channel" not in rule and "channel" not in scopes(rule)):
        return [None]
    spoken_of = list(route) if at_limit(rule) == "suppress" else route[:1]
    return [one for one in spoken_of if one == rule.get("channel", one)]


def scope(rule: RuleTable, event: Event, to: Recipient, channel: str | None) -> tuple[Any, ...]:
    if rule["effect"] == "dedup":
        return (to.id, *fingerprint(rule, event))
    who = {"account": event.account, "recipient": to.id, "channel": channel, "category": event.category}
    who |= {"template": template_of(event), "merchant": event.merchant}
    return tuple(who[one] for one in scopes(rule))


def length(rule: RuleTable) -> int:
    minutes = rule.get("hours", 0) * 60 + rule.get("minutes", 0)
    return int(minutes * 60 + rule.get("seconds", 0)) * 1000


def ms_of(moment: datetime) -> int:
    return round((moment - EPOCH) / timedelta(milliseconds=1))


def local(zone: str, at: int) -> datetime:
    """What the clock on the wall there shows."""
    info = ZoneInfo(zone if zone in ZONES else "Asia/Shanghai")
    return (EPOCH + timedelta(milliseconds=at)).astimezone(info).replace(tzinfo=None)


def first_moment(zone: str, wall: datetime) -> int:
    """The first moment at which a clock there shows ``wall`` or more, to a quarter of an hour."""
    at = ms_of(wall.replace(tzinfo=UTC)) - 15 * 3600 * 1000
    while local(zone, at) < wall:
        at += 15 * 60_000
    return at


def window_of(rule: RuleTable, zone: str, at: int) -> tuple[int, ...]:
    day = local(zone, at).date()
    parts = {"day": (day.year, day.month, day.day), "week": day.isocalendar()[:2], "month": (day.year, day.month)}
    return tuple(parts[rule["window"]])


def next_window(rule: RuleTable, zone: str, at: int) -> int:
    day = local(zone, at).replace(hour=0, minute=0, second=0, microsecond=0)
    window = window_of(rule, "UTC", ms_of(day.replace(tzinfo=UTC)))
    while window_of(rule, "UTC", ms_of(day.replace(tzinfo=UTC))) == window:
        day += DAY
    return first_moment(zone, day)


def quiet_until(rule: RuleTable, zone: str, at: int) -> int | None:
    """The end of the quiet period that ``at`` lies in, None when it lies in none."""
    today = local(zone, at).replace(hour=0, minute=0, second=0, microsecond=0)
    begin, end = (timedelta(hours=int(rule[key][:2]), minutes=int(rule[key][3:])) for key in ("from", "to"))
    for day in (today - DAY, today, today + DAY):
        if DAYS[day.weekday()] in rule.get("days", DAYS):
            last = first_moment(zone, day + (end if begin < end else end + DAY))
            if first_moment(zone, day + begin) <= at < last:
                return last
    return None
