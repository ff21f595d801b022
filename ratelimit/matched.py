"""What a rule file has to say about one category, type and currency, worked out once. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.effects import (
    Cap,
    ConsentRule,
    Dedup,
    ExpireAfter,
    MinAmount,
    MinGap,
    Priority,
    QuietHours,
    Route,
    Rule,
    Storm,
)
from ratelimit.limits import LimitRule
from ratelimit.match import Test, may_match, rest_of
from ratelimit.questions import Questions, TimedRule, timed_rule
from ratelimit.routes import ChannelConsent, Minimums
from ratelimit.rulefile import DEFAULT_EXPIRE_AFTER_SECONDS, DEFAULT_EXPIRY
from ratelimit.storms import StormGuard, StormGuards
from ratelimit.timed import DedupRule

DIGEST_CATEGORY = "digest"
"""What tells the members of a digest. It is never folded itself: rules that fold do not ask about it."""

MAX_MINIMUMS = 64
"""Remembered combinations of minimums that match only some amounts or recipients; a file has a few such rules."""

_DEFAULT_EXPIRY = (DEFAULT_EXPIRE_AFTER_SECONDS * 1000, DEFAULT_EXPIRY)


def holds(test: Test | None, event: Event, recipient: Recipient) -> bool:
    """Whether what is left of a ``when`` matches."""
    return test is None or test(event, recipient)


class Matched:
    """The rules that may match an event of one category (or, a digest, of two: `Event.categories`), type and currency.

    ``age``, ``minimums`` and ``guards`` are what holds for every such event, None where that depends on the rest of a
    ``when``; ``straight`` is the minimums when nothing has a say in the route but they and ``order``, a route rule.
    """

    def __init__(
        self, rules: Sequence[Rule], channels: Sequence[str], categories: Sequence[str], kind: str, currency: str
    ) -> None:
        mine = [
            (rule, rest_of(rule.when))
            for rule in rules
            if any(may_match(rule.when, category, kind, currency) for category in categories)
        ]
        self._channels = channels
        self.consents: list[tuple[ConsentRule, Test | None]] = []
        self.channel_consents: list[ChannelConsent] = []
        self.routes: list[tuple[Route, Test | None]] = []
        self.urgent: list[Test | None] = []
        ages: dict[str, list[tuple[tuple[int, str], Test | None]]] = {category: [] for category in categories}
        timed: list[TimedRule] = []
        dedups: list[DedupRule] = []
        storms: list[StormGuard] = []
        minimums: list[tuple[MinAmount, Test | None]] = []
        for rule, rest in mine:
            if isinstance(rule, MinAmount):
                minimums.append((rule, rest))
            elif isinstance(rule, ExpireAfter):
                if rule.category in categories:
                    ages[rule.category].append(((rule.total_seconds * 1000, rule.id), rest))
            elif isinstance(rule, ConsentRule):
                if rule.category not in categories:
                    continue
                if rule.channel is None and rule.template is None:
                    self.consents.append((rule, rest))
                else:
                    self.channel_consents.append(ChannelConsent(rule, rest))
            elif isinstance(rule, Route):
                self.routes.append((rule, rest))
            elif isinstance(rule, Priority):
                self.urgent.append(rest)
            elif isinstance(rule, Storm):
                storms.append(StormGuard(rule, rest))
            elif isinstance(rule, Dedup):
                dedups.append(DedupRule(rule, rest))
            elif isinstance(rule, Cap | MinGap | QuietHours):
                one = timed_rule(rule, rest)
                if not (DIGEST_CATEGORY in categories and isinstance(one, LimitRule) and one.at == "digest"):
                    timed.append(one)
        # A digest's own age before that of its members' category: it was said of digests by name.
        self._ages = [age for category in reversed(categories) for age in ages[category]] + [(_DEFAULT_EXPIRY, None)]
        self.age = self._ages[0][0] if self._ages[0][1] is None else None
        self._storms = storms
        self.questions = Questions(timed, dedups) if timed or dedups else None
        self.guards = StormGuards(storms) if storms else None
        self.guards_all = all(guard.rest is None for guard in storms)
        self._minimums = minimums
        self._made: dict[tuple[bool, ...], Minimums] = {}
        plain = all(rest is None for _, rest in minimums)
        self.minimums = Minimums(channels, [rule for rule, _ in minimums]) if plain else None
        self.order = self.routes[0][0] if self.routes and self.routes[0][1] is None else None
        is_open = bool(self.consents or self.channel_consents) or (bool(self.routes) and self.order is None)
        self.straight = None if is_open else self.minimums

    def age_of(self, event: Event, recipient: Recipient) -> tuple[int, str]:
        """The age limit in ms and its rule: of those that match the first, which is mostly ``age``."""
        return next(age for age, rest in self._ages if holds(rest, event, recipient))

    def minimums_of(self, event: Event, recipient: Recipient) -> Minimums:
        """The least amounts, of the rules that match; mostly ``minimums``."""
        which = tuple(holds(rest, event, recipient) for _, rest in self._minimums)
        made = self._made.get(which)
        if made is None:
            if len(self._made) >= MAX_MINIMUMS:
                self._made.clear()
            rules = [rule for (rule, _), is_meant in zip(self._minimums, which, strict=True) if is_meant]
            made = self._made[which] = Minimums(self._channels, rules)
        return made

    def guards_of(self, event: Event, recipient: Recipient) -> StormGuards | None:
        """The storm rules that match; ``guards`` when ``guards_all``."""
        guards = [guard for guard in self._storms if holds(guard.rest, event, recipient)]
        return StormGuards(guards) if guards else None
