"""Which rules of a file can never decide anything because another one always does before. Pure.

Only what is certain is said: a warning that may be wrong teaches people to look away.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit.effects import (
    Cap,
    ConsentRule,
    Dedup,
    ExpireAfter,
    MinAmount,
    MinGap,
    QuietHours,
    Route,
    Rule,
    When,
)

_LISTS = ("category", "type", "currency", "country", "role", "mcc", "locale")
"""A word of the last two may stand for several: only what is spelled alike is certain."""


def covers(wide: When, narrow: When) -> bool:
    """Whether everything that ``narrow`` matches is matched by ``wide``. May say False for what it cannot see."""
    for key in _LISTS:
        words = getattr(wide, key)
        if words and not (getattr(narrow, key) and set(getattr(narrow, key)) <= set(words)):
            return False
    for key in ("declined", "foreign"):
        if getattr(wide, key) is not None and getattr(wide, key) != getattr(narrow, key):
            return False
    if wide.amount_from is not None and (narrow.amount_from is None or narrow.amount_from < wide.amount_from):
        return False
    return wide.amount_below is None or (narrow.amount_below is not None and narrow.amount_below <= wide.amount_below)


def shadowed(rule: Rule, earlier: Sequence[Rule], others: Sequence[Rule]) -> str | None:
    """Why ``rule`` never decides: what always comes before it; None when it may. ``others`` is all but itself."""
    if isinstance(rule, Cap):
        return _by_caps(rule, earlier, others)
    if isinstance(rule, MinAmount):
        return _by_minimums(rule, earlier, others)
    for other in earlier:
        if type(other) is not type(rule) or not covers(other.when, rule.when):
            continue
        if isinstance(rule, Route):
            return f"rule {other.id} settles the route of all that it matches"
        if isinstance(rule, ExpireAfter) and isinstance(other, ExpireAfter) and other.category == rule.category:
            return f"rule {other.id} settles the age of all that it matches"
        if isinstance(rule, Dedup) and isinstance(other, Dedup):
            if set(other.fingerprint) <= set(rule.fingerprint) and other.total_seconds >= rule.total_seconds:
                return f"rule {other.id} finds all that it would find"
        elif isinstance(rule, MinGap) and isinstance(other, MinGap):
            same = set(other.per) == set(rule.per) and other.channel == rule.channel and other.when == rule.when
            if rule.channel or "channel" in rule.per:  # what is counted then depends on what happens
                same = same and (other.at_gap == "suppress") == (rule.at_gap == "suppress")
            if same and other.total_seconds >= rule.total_seconds:
                return f"rule {other.id} already keeps a gap of {other.total_seconds} s"
        elif isinstance(rule, QuietHours) and isinstance(other, QuietHours):
            if _same_hours(rule, other) and (not other.days or set(rule.days) == set(other.days)):
                return f"rule {other.id} has the same hours and comes first"
        elif (
            isinstance(rule, ConsentRule)
            and isinstance(other, ConsentRule)
            and (other.category, other.mode, other.channel, other.template)
            == (rule.category, rule.mode, rule.channel, rule.template)
        ):
            return f"rule {other.id} asks for the same consent"
    return None


def _same_hours(rule: QuietHours, other: QuietHours) -> bool:
    return (rule.start, rule.end) == (other.start, other.end)


def _by_caps(rule: Cap, earlier: Sequence[Rule], others: Sequence[Rule]) -> str | None:
    """Two caps of one scope, window and ``when`` count the same alerts, so the lower one is always full first."""
    for other in others:
        if not isinstance(other, Cap) or (other.channel, other.when) != (rule.channel, rule.when):
            continue
        if set(other.per) != set(rule.per):
            continue
        if (other.window, other.rolling_seconds) != (rule.window, rule.rolling_seconds):
            continue
        # With a channel, what is counted depends on what happens at the cap (see `timed`).
        if (rule.channel or "channel" in rule.per) and (other.at_cap == "suppress") != (rule.at_cap == "suppress"):
            continue
        # A rolling cap that holds remembers times that lie ahead, but counts the same ones as its twin.
        if other.limit < rule.limit or (other.limit == rule.limit and other in earlier):
            return f"rule {other.id} is full at {other.limit}, before it"
    return None


def _by_minimums(rule: MinAmount, earlier: Sequence[Rule], others: Sequence[Rule]) -> str | None:
    for other in others:
        if not isinstance(other, MinAmount) or other.channel != rule.channel or not covers(other.when, rule.when):
            continue
        first = other in earlier
        if all(
            other.amounts.get(code, -1) > amount or (first and other.amounts.get(code, -1) == amount)
            for code, amount in rule.amounts.items()
        ):
            return f"rule {other.id} asks for as much or more on {rule.channel}"
    return None
