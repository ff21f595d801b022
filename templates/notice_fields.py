"""How the fields of notices that are no card movement read them: statements, repayments, points, offers. Pure.

All but a few come from ``Event.facts``, what the core system told besides the swipe's own fields. A fact that a
template needs and the event lacks is ``MissingFact``; one that is there and of the wrong shape is ``FieldRefused``.
Neither names a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from dispatcher.model.currency import UnknownCurrency
from templates.errors import FieldRefused, MissingFact
from templates.field import Field, Reader, SwipeFacts
from templates.moments import day_form, local, month_form, short_day_form
from templates.money import format_money
from templates.text import clean
from templates.words import STAGES, Words

_is_day = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_is_month = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])").fullmatch
_is_link = re.compile(
    r"https://[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::[0-9]{1,5})?(?:[/?#][!#-;=?-Z_a-z~\[\]%]*)?"
)
_is_phone = re.compile(r"\+?[0-9][0-9 ()-]{1,30}").fullmatch


def _needed(facts: SwipeFacts, name: str) -> str | int:
    value = facts.event.fact(name)
    if value is None or value == "":
        raise MissingFact(name)
    return value


def _text(name: str, *, optional: bool = False) -> Field:
    """A fact as text, cleaned; it may be cut from its end."""

    def raw(facts: SwipeFacts) -> str | None:
        value = facts.event.fact(name) if optional else _needed(facts, name)
        return None if value is None else str(value)

    def read(facts: SwipeFacts, _words: Words) -> str:
        return clean(raw(facts) or "")

    return Field("text", read, optional=optional, raw=raw)


def _word(name: str, *, optional: bool = False) -> Field:
    """A fact as text that is told whole or not at all."""
    text = _text(name, optional=optional)
    return Field("word", text.read, optional=optional)


def _whole_number(name: str, value: str | int) -> int:
    if isinstance(value, str):  # a long one was taken for a card number and masked, say
        raise FieldRefused(name, "is not a whole number")
    return value


def _money(name: str, *, optional: bool = False) -> Field:
    """``NAME_minor``, minor units of the event's currency; one below zero keeps its minus."""
    fact = f"{name}_minor"

    def read(facts: SwipeFacts, words: Words) -> str:
        if optional and facts.event.fact(fact) is None:
            return ""
        minor = _whole_number(fact, _needed(facts, fact))
        try:
            return format_money(minor, facts.event.currency, words.language)
        except UnknownCurrency:
            raise FieldRefused(name, "is in an unknown currency") from None

    return Field("money", read, optional=optional)


def _number(name: str, *, optional: bool = False) -> Field:
    def read(facts: SwipeFacts, _words: Words) -> str:
        if optional and facts.event.fact(name) is None:
            return ""
        return f"{_whole_number(name, _needed(facts, name)):,}"

    return Field("word", read, optional=optional)


def _day_of(facts: SwipeFacts, name: str) -> date:
    value = _needed(facts, name)
    try:
        if isinstance(value, str) and _is_day(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise FieldRefused(name, "is not a day such as 2026-11-25")


def _day(name: str, form: Callable[[date, str], str], *, optional: bool = False) -> Field:
    def read(facts: SwipeFacts, words: Words) -> str:
        if optional and facts.event.fact(name) is None:
            return ""
        return form(_day_of(facts, name), words.language)

    return Field("time", read, optional=optional, few=True)


def _period(facts: SwipeFacts, words: Words) -> str:
    value = _needed(facts, "period")
    if not isinstance(value, str) or not _is_month(value):
        raise FieldRefused("period", "is not a month such as 2026-10")
    return month_form(value, words.language)


def _link(name: str, *, optional: bool = False) -> Field:
    """An https address; told whole, and safe inside of an HTML attribute."""

    def read(facts: SwipeFacts, _words: Words) -> str:
        value = facts.event.fact(name) if optional else _needed(facts, name)
        if value is None or value == "":
            return ""
        if not isinstance(value, str) or not _is_link.fullmatch(value):
            raise FieldRefused(name, "is not an https address")
        return value

    return Field("word", read, optional=optional)


def _days_until_due(facts: SwipeFacts) -> int:
    """Below zero once the day is past. ``days`` and ``stage`` of the core system win over counting by ourselves."""
    days, stage = facts.event.fact("days"), facts.event.fact("stage")
    if stage is not None and stage not in STAGES:
        raise FieldRefused("stage", f"is none of {', '.join(STAGES)}")
    if stage == "on":
        return 0
    if days is not None and stage is not None:
        number = abs(_whole_number("days", days))
        if not number:
            raise FieldRefused("days", f"is 0 though the stage is {stage}")
        return number if stage == "before" else -number
    if days is not None:
        return _whole_number("days", days)
    due = _day_of(facts, "due_date")
    return (due - local(facts.event.time.timestamp() // 60, facts.timezone).date()).days


def _stage(facts: SwipeFacts, _words: Words) -> str:
    stage = facts.event.fact("stage")
    if isinstance(stage, str) and stage in STAGES:
        return stage
    left = _days_until_due(facts)
    return "before" if left > 0 else "after" if left < 0 else "on"


def _stage_word(facts: SwipeFacts, words: Words) -> str:
    return words.stages[_stage(facts, words)]


def _days(facts: SwipeFacts, _words: Words) -> str:
    return str(abs(_days_until_due(facts)))


def _due_in(facts: SwipeFacts, words: Words) -> str:
    left = _days_until_due(facts)
    if left == 0:
        return words.due_today
    one, many = words.due_in if left > 0 else words.overdue
    return (one if abs(left) == 1 else many).format(abs(left))


def _limit_change(facts: SwipeFacts, words: Words) -> str:
    old, new = (_whole_number(name, _needed(facts, name)) for name in ("old_limit_minor", "new_limit_minor"))
    return words.limit_raised if new >= old else words.limit_lowered


def _hotline(facts: SwipeFacts, _words: Words) -> str:
    value = facts.event.fact("hotline")
    if value is None or value == "":
        return ""
    if not _is_phone(str(value)):
        raise FieldRefused("hotline", "is not a telephone number")
    return str(value)


def _few(read: Reader) -> Field:
    return Field("word", read, few=True)


NOTICE_FIELDS: dict[str, Field] = {
    "name": _text("name", optional=True),
    "statement_period": Field("time", _period, few=True),
    "statement_amount": _money("statement_amount"),
    "minimum_due": _money("minimum_due", optional=True),
    "remaining": _money("remaining", optional=True),
    "available": _money("available", optional=True),
    "due_date": _day("due_date", day_form),
    "short_due_date": _day("due_date", short_day_form),
    "stage": _few(_stage),
    "stage_word": _few(_stage_word),
    "days": _few(_days),
    "due_in": _few(_due_in),
    "points": _number("points"),
    "points_balance": _number("points_balance"),
    "points_expiring": _number("points_expiring", optional=True),
    "points_expiry": _day("points_expiry", day_form, optional=True),
    "old_limit": _money("old_limit"),
    "new_limit": _money("new_limit"),
    "limit_change": _few(_limit_change),
    "limit_until": _day("limit_until", day_form, optional=True),
    "title": _text("title"),
    "text": _text("text"),
    "link": _link("link", optional=True),
    "picture": _link("picture", optional=True),
    "unsubscribe": _word("unsubscribe"),
    "confirm_word": _word("confirm_word", optional=True),
    "deny_word": _word("deny_word", optional=True),
    "hotline": Field("word", _hotline, optional=True),
}
"""See the table at the top of ``facts``."""
