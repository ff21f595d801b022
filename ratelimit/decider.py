"""From an event and a recipient to a plan: everything that can be said before the counters are known. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.asked import KEEP_COUNTER_MS
from ratelimit.decision import Decision, Plan, State
from ratelimit.effects import MAX_WORD_CHARS, ConsentRule, ExpireAfter, Priority, Route
from ratelimit.localday import LocalDays
from ratelimit.match import is_declined
from ratelimit.matched import Matched, holds
from ratelimit.routes import SERVICE, Found, missing_consent
from ratelimit.rulefile import OPT_OUT, Rules
from ratelimit.windows import Windows

MAX_COUNTED_AMOUNT = 10**14
"""Minor units. An amount above it (a trillion yuan) is a fault of the source and stays out of the day total:
the ledger's 64 bits hold 92,000 of the largest counted ones, an account's day has fewer."""

MOVES_MONEY = frozenset({"purchase", "cash", "fee", "refund", "reversal"})
"""Types that count for the balance of the day. Not ``entry`` (a posting of what a swipe has already told) and
none that is unknown: nobody can say whether it moved money."""

MAX_MATCHED = 2_048
"""Remembered combinations of category, type and currency: a bank has a few of each, but a source may send any. Each
holds what matches of the file, some kilobytes. When full they start afresh."""

MAX_ORDERS = 1_024
"""Remembered orders of channels that a route rule makes of a recipient's own."""


class Decider:
    """One rule file in force for the configured channels. Immutable but for what it remembers."""

    def __init__(self, rules: Rules, channels: Iterable[str]) -> None:
        self.rules = rules
        self._channels = tuple(channels)
        self._days = LocalDays()
        self._windows = Windows(self._days)
        self._matched: dict[tuple[str, str, str], Matched] = {}
        self._of_digests: dict[tuple[str, str], Matched] = {}
        """By the members' category and the currency."""
        self._orders: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
        self._serves = SERVICE in self._channels
        self._late: dict[str, int] = {}
        for rule in rules.rule:
            if isinstance(rule, ExpireAfter) and rule.say_late_minutes is not None:
                self._late.setdefault(rule.category, rule.say_late_minutes * 60_000)
        self.has_consents = any(isinstance(rule, ConsentRule) for rule in rules.rule)
        self.has_priorities = any(isinstance(rule, Priority) for rule in rules.rule)
        self.has_deadlines = any(isinstance(rule, Route) and rule.deadline_seconds is not None for rule in rules.rule)

    def plan(self, event: Event, swipe_ms: int, recipient: Recipient, now_ms: int, template: str | None = None) -> Plan:
        """Plan the alert for one recipient; ``swipe_ms`` is ``event.time`` and both times are epoch ms.

        ``template`` is the name of the template it would use, for refusals of one template (WeChat 43101), consents and
        caps by template; by default the category's name.
        """
        matched = None if event.digest is not None else self._matched.get((event.category, event.type, event.currency))
        matched = matched or self._match(event)
        day = self._days.of(recipient.timezone, swipe_ms)
        total_key = f"day|{day.label}|{event.currency}|{event.account}"
        moved = moved_amount(event)
        total = (total_key, moved, day.ends_ms + KEEP_COUNTER_MS) if moved else None
        age_ms, expiry_rule = matched.age or matched.age_of(event, recipient)
        # A swipe that claims to lie in the future is as old as its arrival: a wrong clock at the source must
        # not keep an alert open for longer.
        expires_ms = (swipe_ms if swipe_ms < now_ms else now_ms) + age_ms
        template = template or event.category
        minimums = matched.straight
        if minimums is not None and not recipient.opt_out:  # nearly every event
            order = matched.order
            channels = recipient.channels if order is None else self._order(order, recipient.channels)
            route, rule, saw = minimums.route(event, recipient, channels, template, now_ms, ())
        else:
            route, rule, saw = self._route(matched, event, recipient, template, now_ms)
        if recipient.service_until_ms > now_ms and self._serves and "wechat" in route:
            at = route.index("wechat")
            route = (*route[:at], SERVICE, *route[at:])
        state: State = "send" if route else "suppressed"
        if route and now_ms >= expires_ms:
            state, rule = "expired", expiry_rule
            saw = {"age_seconds": (now_ms - swipe_ms) // 1000, "limit_seconds": age_ms // 1000}
        decided = Decision(state, route, rule, saw, expires_ms, (), total_key, total, day.fallback, now_ms)
        if state != "send":
            return Plan(event, (), decided, now_ms)
        guards = matched.guards if matched.guards_all else matched.guards_of(event, recipient)
        questions = matched.questions
        if questions is not None:
            asked, counters, marks = questions.ask(event, recipient, template, now_ms, expires_ms, route, self._windows)
            return Plan(event, tuple(counters), decided, now_ms, tuple(marks), asked, guards)
        return Plan(event, (), decided, now_ms, (), None, guards)

    def consents(self, event: Event, recipient: Recipient, channel: str, template: str) -> bool:
        """Whether neither an opt-out nor a ``consent`` rule is against telling the recipient on this channel by this
        template (its name)."""
        if any(category in recipient.opt_out for category in event.categories):
            return False
        matched = self._match(event)
        about = "wechat" if channel == SERVICE else channel
        return not (
            any(
                holds(rest, event, recipient) and missing_consent(consent, recipient.consents, None, None)
                for consent, rest in matched.consents
            )
            or any(one.against(event, recipient, about, template) for one in matched.channel_consents)
        )

    def is_urgent(self, event: Event, recipient: Recipient) -> bool:
        """Whether any ``priority`` rule matches."""
        matched = self._match(event)
        return any(holds(rest, event, recipient) for rest in matched.urgent)

    def deadline_ms(self, event: Event, recipient: Recipient) -> int | None:
        """How long each channel waits for its receipt, by the first matching ``route`` rule; None: as configured."""
        matched = self._match(event)
        for route, rest in matched.routes:
            if holds(rest, event, recipient):
                return None if route.deadline_seconds is None else route.deadline_seconds * 1000
        return None

    def say_late_ms(self, category: str) -> int | None:
        """From which age on (ms after the swipe) an alert of the category says that it is late; None: it never does."""
        return self._late.get(category)

    def _route(self, matched: Matched, event: Event, recipient: Recipient, template: str, now_ms: int) -> Found:
        if any(category in recipient.opt_out for category in event.categories):
            return (), OPT_OUT, None
        for consent, rest in matched.consents:
            if holds(rest, event, recipient):
                missing = missing_consent(consent, recipient.consents, None, None)
                if missing is not None:
                    return (), consent.id, missing
        channels = recipient.channels
        for route, rest in matched.routes:
            if holds(rest, event, recipient):
                channels = self._order(route, channels)
                break
        minimums = matched.minimums or matched.minimums_of(event, recipient)
        return minimums.route(event, recipient, channels, template, now_ms, matched.channel_consents)

    def _order(self, route: Route, own: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the recipient's own channels that the rule names, in its order."""
        key = (route.id, own)
        order = self._orders.get(key)
        if order is None:
            if len(self._orders) >= MAX_ORDERS:
                self._orders.clear()
            order = self._orders[key] = tuple(channel for channel in route.channels if channel in own)
        return order

    def _match(self, event: Event) -> Matched:
        if event.digest is not None and event.digest.category:
            return self._match_digest(event, event.digest.category)
        matched = self._matched.get((event.category, event.type, event.currency))
        if matched is not None:
            return matched
        # No rule names a longer word, nor an empty one: all of those match alike, and 64 KB are not to be remembered.
        category = event.category if len(event.category) <= MAX_WORD_CHARS else ""
        kind = event.type if len(event.type) <= MAX_WORD_CHARS else ""
        key = category, kind, event.currency
        matched = self._matched.get(key)
        if matched is None:
            if len(self._matched) >= MAX_MATCHED:
                self._matched.clear()
            matched = self._matched[key] = Matched(self.rules.rule, self._channels, (category,), *key[1:])
        return matched

    def _match_digest(self, event: Event, members: str) -> Matched:
        members = members if len(members) <= MAX_WORD_CHARS else ""
        key = members, event.currency
        matched = self._of_digests.get(key)
        if matched is None:
            if len(self._of_digests) >= MAX_MATCHED:
                self._of_digests.clear()
            categories = (members, event.category)
            matched = self._of_digests[key] = Matched(
                self.rules.rule, self._channels, categories, event.type, event.currency
            )
        return matched


def moved_amount(event: Event) -> int:
    """What the event adds to the balance of the day, in minor units of its currency; 0 when it moved no
    money.

    A reversal counts only when its amount is negative: a positive one does not say which way the money went.
    """
    amount = event.amount
    if event.type not in MOVES_MONEY or abs(amount) > MAX_COUNTED_AMOUNT:
        return 0
    if event.status is not None and is_declined(event):
        return 0
    return 0 if event.type == "reversal" and amount > 0 else amount
