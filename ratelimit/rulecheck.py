"""What is wrong with a rule that can be read, and which rules can never decide anything. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dispatcher.model.currency import is_known
from dispatcher.model.event import MAX_INT64
from ratelimit.effects import (
    MAX_EXPIRE_AFTER_SECONDS,
    MAX_ROLLING_LIMIT,
    MAX_WORD_CHARS,
    MAX_WORDS,
    Cap,
    ConsentRule,
    Dedup,
    Digest,
    ExpireAfter,
    MinAmount,
    MinGap,
    Priority,
    QuietHours,
    Route,
    Rule,
    Storm,
    When,
    minute_of_day,
)
from ratelimit.shadows import shadowed

_CODE = re.compile(r"[A-Z]{3}")
_MCC = re.compile(r"[0-9]{4}|[0-9]{3}x|[0-9]{2}xx|[0-9]xxx")
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")

WORD_KEYS = ("category", "type", "currency", "country", "mcc", "role", "locale")
"""Keys of ``when`` that are lists."""


class Fault(ValueError):
    """What is wrong with one rule, and with which of its keys; `rulefile` adds the file and the rule."""

    def __init__(self, what: str, key: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.key = key


def check_amounts(amounts: object) -> None:
    """Raises `Fault` unless it is a table of currencies and minor units."""
    if not isinstance(amounts, dict) or not amounts:
        raise Fault("must be a table of currencies and amounts, such as { CNY = 10000 }", "amounts")
    for code, amount in amounts.items():
        key = f"amounts.{code if _CODE.fullmatch(code) else repr(code)}"
        _check_currency(code, key)
        if type(amount) is not int or not 0 <= amount <= MAX_INT64:
            raise Fault(f"{amount!r} must be a whole number of minor units, 0 or more", key)


def check_time(key: str, value: object) -> None:
    """Raises `Fault` unless it is a time of day."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise Fault(f'{value!r} must be a time of day from "00:00" to "23:59"', key)


def check_when(table: Mapping[str, Any]) -> None:
    """Raises `Fault` for words that are none and currencies and codes that do not exist."""
    for key in WORD_KEYS:
        if key not in table:
            continue
        words = table[key]
        if not isinstance(words, list) or not 1 <= len(words) <= MAX_WORDS:
            raise Fault(f"must be a word or a list of 1 to {MAX_WORDS} words", f"when.{key}")
        for word in words:
            if not isinstance(word, str) or not 1 <= len(word) <= MAX_WORD_CHARS:
                raise Fault(f"{word!r} must be a word of 1 to {MAX_WORD_CHARS} characters", f"when.{key}")
            if key == "currency":
                _check_currency(word, "when.currency")
            if key == "mcc" and not _MCC.fullmatch(word):
                raise Fault(f'{word!r} must be four digits, or end in x such as "58xx"', "when.mcc")
    for key in ("amount_from", "amount_below"):
        if key not in table:
            continue
        if type(table[key]) is not int or not 0 <= table[key] <= MAX_INT64:
            raise Fault(f"{table[key]!r} must be a whole number of minor units, 0 or more", f"when.{key}")
        if len(table.get("currency", ())) != 1:
            raise Fault("needs one currency in the same table, such as currency = 'CNY'", f"when.{key}")
    for key in ("declined", "foreign"):
        if key in table and type(table[key]) is not bool:
            raise Fault(f"{table[key]!r} must be true or false", f"when.{key}")


def _check_currency(code: object, key: str) -> None:
    if not isinstance(code, str) or not _CODE.fullmatch(code) or not is_known(code):
        # No nearest one here: of three hundred codes of three letters it is mostly a wrong one.
        said = "" if repr(code) in key or str(code) in key else f"{code!r} "
        raise Fault(f"{said}is not a currency of ISO 4217", key)


def check(rule: Rule) -> None:
    """Raises `Fault` for what contradicts itself or is out of range within one rule."""
    if isinstance(rule, ExpireAfter | MinGap | Dedup):
        _check_span(rule.total_seconds, "hours, minutes and seconds")
    if isinstance(rule, Cap):
        _check_window(rule)
        _check_digest(rule.digest, rule.at_cap, "at_cap")
    elif isinstance(rule, MinGap):
        _check_digest(rule.digest, rule.at_gap, "at_gap")
    elif isinstance(rule, QuietHours):
        if minute_of_day(rule.start) == minute_of_day(rule.end):
            raise Fault(f"contradictory: they begin and end at {rule.start}; say an end that differs", "to")
    elif isinstance(rule, Priority):
        if rule.when == When():
            raise Fault("must name something: what is urgent when everything is?", "when")
    elif isinstance(rule, Route):
        if not rule.when.category:
            raise Fault("is missing: a route is for one category or several", "when.category")
    elif isinstance(rule, Storm):
        _check_storm(rule)


def _check_span(seconds: int, said: str) -> None:
    if not 1 <= seconds <= MAX_EXPIRE_AFTER_SECONDS:
        raise Fault(f"{said} must add up to 1 … {MAX_EXPIRE_AFTER_SECONDS} seconds")


def _check_window(rule: Cap) -> None:
    if (rule.window is None) == (rule.rolling_seconds == 0):
        raise Fault("must be given, or rolling_hours and rolling_minutes, and not both", "window")
    if rule.window is None:
        _check_span(rule.rolling_seconds, "rolling_hours and rolling_minutes")
        if rule.limit > MAX_ROLLING_LIMIT:
            raise Fault(f"{rule.limit} is too many for a rolling window; at most {MAX_ROLLING_LIMIT}", "limit")


def _check_digest(digest: Digest | None, at_limit: str, key: str) -> None:
    if digest is None:
        return
    if at_limit != "digest":
        raise Fault(f"goes with {key} = 'digest' only", "digest")
    if (digest.at is None) == (digest.after_minutes is None):
        raise Fault(
            "needs one of at and after_minutes: a digest that waits for its count alone may never leave", "digest"
        )


def _check_storm(rule: Storm) -> None:
    burst = {"fingerprint": rule.fingerprint or None, "limit": rule.limit, "minutes": rule.minutes}
    volume = {"volume_times": rule.volume_times, "at_least": rule.at_least}
    given = [key for key, value in (burst | volume).items() if value is not None]
    if set(given) != set(burst) and set(given) != set(volume):
        raise Fault("needs fingerprint, limit and minutes, or volume_times and at_least, and not both")
    for key in ("role", "locale"):
        if getattr(rule.when, key):
            raise Fault("a storm is of events, whoever is told of them", f"when.{key}")


def repeated(rules: tuple[Rule, ...]) -> tuple[str, Fault] | None:
    """The first rule that repeats another's id or speaks of what another has already settled; None when all is well."""
    ids: set[str] = set()
    expiries: dict[str, str] = {}
    routes: dict[frozenset[str], str] = {}
    for rule in rules:
        if rule.id in ids:
            return rule.id, Fault("two rules have this id", "id")
        ids.add(rule.id)
        if isinstance(rule, ExpireAfter) and rule.when == When():
            other = expiries.setdefault(rule.category, rule.id)
            if other != rule.id:
                return rule.id, Fault(f"{rule.category!r} already expires by rule {other}", "category")
        if isinstance(rule, Route) and rule.when == When(category=rule.when.category):
            other = routes.setdefault(frozenset(rule.when.category), rule.id)
            if other != rule.id:
                named = ", ".join(map(repr, rule.when.category))
                return rule.id, Fault(f"{named} already goes by rule {other}", "when.category")
    return None


def never_deciding(rules: tuple[Rule, ...]) -> Iterator[tuple[str, str]]:
    """Rules of which it is certain that they decide nothing: (id, why)."""
    for place, rule in enumerate(rules):
        reason = _impossible(rule)
        if reason is not None:
            yield rule.id, f"can never match: {reason}"
            continue
        others = [other for other in rules if other is not rule and _impossible(other) is None]
        earlier = [other for other in rules[:place] if _impossible(other) is None]
        by = shadowed(rule, earlier, others)
        if by is not None:
            yield rule.id, f"can never decide: {by}"


def _impossible(rule: Rule) -> str | None:
    when = rule.when
    if when.amount_below is not None:
        least = when.amount_from or 0
        if least >= when.amount_below:
            return f"no amount is {least} or more and below {when.amount_below}"
    if isinstance(rule, ExpireAfter | ConsentRule) and when.category and rule.category not in when.category:
        return f"its category {rule.category!r} is not in when.category"
    if isinstance(rule, MinAmount):
        if when.currency and not set(when.currency) & set(rule.amounts):
            return "when.currency has none of the currencies of amounts"
        if not any(rule.amounts.values()):
            return "no amount is below 0"
    return None
