"""The send rules: whether an alert is sent, on which channels, and why.

Pure: no clock, no I/O, no ledger. One batch goes through in three steps, so that every counter is read once
inside the admission transaction::

    plans = [[decider.plan(event, swipe_ms, recipient, now_ms) for recipient in …] for event, swipe_ms in …]
    tally = Tally(read_counters({key for several in plans for plan in several for key in plan.counters}))
    for several in plans:
        decisions = tally.decide_event(several)
        balances = [tally.value(decision.day_total_key) for decision in decisions]
    write_counters(tally.changed)

The order of the questions: opt-out, channels (configured, address, refused, minimum amount), age, caps. So
whoever is counted as expired would have been told in time, and whoever is counted by a cap would have been
told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from dispatcher.model.event import MAX_INT64, Event
from dispatcher.model.recipient import Recipient, Refusal
from ratelimit.errors import RulesError
from ratelimit.fold import Fold
from ratelimit.localday import LocalDays
from ratelimit.rulefile import (
    DEFAULT_EXPIRE_AFTER_SECONDS,
    DEFAULT_EXPIRY,
    NO_ADDRESS,
    NO_CHANNEL,
    NO_RECIPIENT,
    OPT_OUT,
    RECIPIENT_GONE,
    RECIPIENT_MIN_AMOUNT,
    Cap,
    ExpireAfter,
    MinAmount,
    Rules,
    default_rules_text,
    load_rules,
)

__all__ = [
    "DEFAULT_EXPIRE_AFTER_SECONDS",
    "DEFAULT_EXPIRY",
    "NO_ADDRESS",
    "NO_CHANNEL",
    "NO_RECIPIENT",
    "OPT_OUT",
    "RECIPIENT_GONE",
    "RECIPIENT_MIN_AMOUNT",
    "Decider",
    "Decision",
    "Fold",
    "Increment",
    "Plan",
    "Rules",
    "RulesError",
    "Tally",
    "decide",
    "default_rules_text",
    "load_rules",
    "moved_amount",
]

REFUSAL_HOLDS_MS = 7 * 24 * 3600 * 1000
"""How long a provider's "gone" is believed: somebody who follows the account again keeps the same openid, and one
refused attempt a week is what it costs to notice."""

KEEP_COUNTER_MS = 2 * 24 * 3600 * 1000
"""How long a day's counter outlives its day: swipes that come in late still find it."""

MAX_COUNTED_AMOUNT = 10**14
"""Minor units. An amount above it (a trillion yuan) is a fault of the source and stays out of the day total:
the ledger's 64 bits hold 92,000 of the largest counted ones, an account's day has fewer."""

MOVES_MONEY = frozenset({"purchase", "cash", "fee", "refund", "reversal"})
"""Types that count for the balance of the day. Not ``entry`` (a posting of what a swipe has already told) and
none that is unknown: nobody can say whether it moved money."""

_ADDRESSES = {"wechat": "openid", "sms": "phone", "email": "email"}
"""Where a recipient keeps its address on a channel; a webhook's address is the channel's own."""

SERVICE = "wechat_service"
"""WeChat's customer-service messages: no recipient lists it. It comes before ``wechat`` for whoever may be sent one now
(``Recipient.service_until_ms``), under the rules of ``wechat``."""

_NO_MINIMUM = (0, "")

MAX_LADDERS = 4_096
"""Remembered ladders: a few orders of channels, times which addresses are there, times 180 currencies."""

Increment = tuple[str, int, int]
"""Counter key, what to add, and until when to keep the counter (epoch ms)."""

State = Literal["send", "suppressed", "expired"]

_Ladder = tuple[tuple[int, tuple[str, ...]], ...]
_LadderKey = tuple[tuple[str, ...], tuple[bool, bool, bool], str]


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What the rules say about one alert.

    ``route`` is the allowed channels in the recipient's order (empty unless the state is ``send`` or
    ``expired``). ``rule`` is the id of the rule that decided, or one of the reasons of `rulefile`; empty for
    ``send``. ``saw`` is what it looked at: ``amount`` and ``threshold/<channel>`` in minor units,
    ``age_seconds`` and ``limit_seconds``, ``counter`` and ``limit``. Times are epoch ms. ``increments`` are
    this alert's own (caps); ``day_total`` belongs to the event and its zone, is the same for all its
    recipients there, and counts once (see `Tally`); None when the event moved no money. ``zone_fallback``
    marks a recipient whose time zone is not known.
    """

    state: State
    route: tuple[str, ...]
    rule: str
    saw: dict[str, int] | None
    expires_at_ms: int
    increments: tuple[Increment, ...]
    day_total_key: str
    day_total: Increment | None
    zone_fallback: bool


class Plan(msgspec.Struct, frozen=True, gc=False):
    """All that can be said of one alert before its counters are known.

    ``counters`` are the keys to read. ``decided`` holds unless one of ``caps`` (rule id, counter key, limit)
    is full.
    """

    counters: tuple[str, ...]
    decided: Decision
    caps: tuple[tuple[str, str, int], ...]


class Decider:
    """One rule file in force for the configured channels. Immutable but for its memory of local days."""

    def __init__(self, rules: Rules, channels: Iterable[str]) -> None:
        self.rules = rules
        self._days = LocalDays()
        self._channels: dict[str, tuple[str, dict[str, tuple[int, str]]]] = {
            channel: (_ADDRESSES.get(channel, ""), {}) for channel in channels
        }
        self._expiry: dict[str, tuple[int, str]] = {}
        for rule in rules.rule:
            if isinstance(rule, MinAmount) and rule.channel in self._channels:
                minimum = self._channels[rule.channel][1]
                for currency, amount in rule.amounts.items():
                    # Of several rules for one channel and currency the strictest decides.
                    if amount > minimum.get(currency, _NO_MINIMUM)[0]:
                        minimum[currency] = (amount, rule.id)
            elif isinstance(rule, ExpireAfter):
                self._expiry[rule.category] = (rule.total_seconds * 1000, rule.id)
        self._serves = SERVICE in self._channels
        self._caps = tuple(rule for rule in rules.rule if isinstance(rule, Cap))
        self._ladders: dict[_LadderKey, _Ladder] = {}
        self._default_expiry = (DEFAULT_EXPIRE_AFTER_SECONDS * 1000, DEFAULT_EXPIRY)

    def plan(self, event: Event, swipe_ms: int, recipient: Recipient, now_ms: int, template: str | None = None) -> Plan:
        """Plan the alert for one recipient; ``swipe_ms`` is ``event.time`` and both times are epoch ms.

        ``template`` is the name of the template it would use, for refusals of one template (WeChat 43101); by
        default the category's name.
        """
        day = self._days.of(recipient.timezone, swipe_ms)
        total_key = f"day|{day.label}|{event.currency}|{event.account}"
        moved = moved_amount(event)
        total = (total_key, moved, day.ends_ms + KEEP_COUNTER_MS) if moved else None
        age_ms, expiry_rule = self._expiry.get(event.category, self._default_expiry)
        # A swipe that claims to lie in the future is as old as its arrival: a wrong clock at the source must
        # not keep an alert open for longer.
        expires_ms = (swipe_ms if swipe_ms < now_ms else now_ms) + age_ms
        route, rule, saw = self._route(event, recipient, template or event.category, now_ms)
        if recipient.service_until_ms > now_ms and self._serves and "wechat" in route:
            at = route.index("wechat")
            route = (*route[:at], SERVICE, *route[at:])
        state: State = "send" if route else "suppressed"
        if route and now_ms >= expires_ms:
            state, rule = "expired", expiry_rule
            saw = {"age_seconds": (now_ms - swipe_ms) // 1000, "limit_seconds": age_ms // 1000}
        increments: tuple[Increment, ...] = ()
        caps: tuple[tuple[str, str, int], ...] = ()
        keys: tuple[str, ...] = (total_key,)
        if self._caps and state == "send":
            today = self._days.of(recipient.timezone, now_ms)
            # The day's date without its zone: an account with recipients in two zones has one cap, not two.
            caps = tuple((cap.id, f"cap|{cap.id}|{today.day}|{event.account}", cap.limit) for cap in self._caps)
            increments = tuple((key, 1, today.ends_ms + KEEP_COUNTER_MS) for _, key, _ in caps)
            keys = (*(key for _, key, _ in caps), total_key)
        decided = Decision(state, route, rule, saw, expires_ms, increments, total_key, total, day.fallback)
        return Plan(keys, decided, caps)

    def _route(
        self, event: Event, recipient: Recipient, template: str, now_ms: int
    ) -> tuple[tuple[str, ...], str, dict[str, int] | None]:
        """The allowed channels, or the reason of the one that came closest to being allowed, with what it
        saw.

        The minimum holds for every type of event, declines and unknown types too: one rule that can be said
        in one sentence.
        """
        amount, currency = abs(event.amount), event.currency
        if not (recipient.refused or recipient.min_amount or recipient.opt_out):
            # Nearly everybody: the allowed channels then depend on the amount alone.
            for least, allowed in self._ladder(recipient, currency):
                if amount >= least:
                    return allowed, "", None
        if event.category in recipient.opt_out:
            return (), OPT_OUT, None
        refused, own_minimum = recipient.refused, recipient.min_amount
        route: list[str] = []
        below: list[tuple[int, str, str]] | None = None
        reason = NO_CHANNEL
        for channel in recipient.channels:
            terms = self._channels.get(channel)
            if terms is None or channel in route:
                continue
            address, minimum = terms
            if address and not getattr(recipient, address):
                if reason is NO_CHANNEL:
                    reason = NO_ADDRESS
                continue
            if refused and _still_refused(refused, channel, template, now_ms):
                reason = RECIPIENT_GONE
                continue
            threshold, rule = minimum.get(currency, _NO_MINIMUM)
            if own_minimum:
                own = own_minimum.get(channel, {}).get(currency, 0)
                if own > threshold:
                    threshold, rule = own, RECIPIENT_MIN_AMOUNT
            if amount >= threshold:
                route.append(channel)
            elif below is None:
                below = [(threshold, rule, channel)]
            else:
                below.append((threshold, rule, channel))
        if route:
            return tuple(route), "", None
        if below is not None:
            saw = {"amount": amount}
            saw.update((f"threshold/{channel}", threshold) for threshold, _, channel in below)
            return (), min(below)[1], saw
        return (), reason, None

    def _ladder(self, recipient: Recipient, currency: str) -> _Ladder:
        """From which amount on which channels are allowed, the highest first, for a recipient without wishes of its
        own; below the last rung none is."""
        has = (bool(recipient.openid), bool(recipient.phone), bool(recipient.email))
        key = (recipient.channels, has, currency)
        ladder = self._ladders.get(key)
        if ladder is not None:
            return ladder
        allowed: dict[str, int] = {}
        for channel in recipient.channels:
            terms = self._channels.get(channel)
            if terms is not None and (not terms[0] or getattr(recipient, terms[0])):
                allowed[channel] = terms[1].get(currency, _NO_MINIMUM)[0]
        ladder = tuple(
            (least, tuple(channel for channel, threshold in allowed.items() if threshold <= least))
            for least in sorted(set(allowed.values()), reverse=True)
        )
        if len(self._ladders) >= MAX_LADDERS:
            self._ladders.clear()
        self._ladders[key] = ladder
        return ladder


def _still_refused(refused: Mapping[str, Refusal], channel: str, template: str, now_ms: int) -> bool:
    found = (refused.get(channel), refused.get(f"{channel}/{template}"))
    return any(refusal is not None and now_ms - refusal.since < REFUSAL_HOLDS_MS for refusal in found)


def decide(plan: Plan, counters: Mapping[str, int]) -> Decision:
    """The decision, now that the counters are known (a missing one is 0). The first full cap decides."""
    if not plan.caps:
        return plan.decided
    planned = plan.decided
    state, route, rule, increments = planned.state, planned.route, "", planned.increments
    tightest = (MAX_INT64, 0, 0)
    for cap, key, limit in plan.caps:
        value = counters.get(key, 0)
        tightest = min(tightest, (limit - value, value, limit))
        if value >= limit:
            state, route, rule, increments = "suppressed", (), cap, ()
            tightest = (0, value, limit)
            break
    return Decision(
        state,
        route,
        rule,
        {**(planned.saw or {}), "counter": tightest[1], "limit": tightest[2]},
        planned.expires_at_ms,
        increments,
        planned.day_total_key,
        planned.day_total,
        planned.zone_fallback,
    )


class Tally:
    """The counters of one batch while it is being decided, so that its alerts see each other.

    ``seen`` is what was read for all ``Plan.counters`` (a missing one is 0). ``changed`` is what to write:
    counter key to its new value and until when to keep it (epoch ms).
    """

    def __init__(self, seen: Mapping[str, int]) -> None:
        self._values = dict(seen)
        self.changed: dict[str, tuple[int, int]] = {}

    def value(self, key: str) -> int:
        """The counter as it stands now."""
        return self._values.get(key, 0)

    def decide_event(self, plans: Sequence[Plan]) -> list[Decision]:
        """Decide the alerts of one event, in the order of its recipients, and count them.

        The day total counts once for each zone, however many recipients live there and whether or not they
        are told: money that moved belongs to the day's balance also when a rule kept the alert back.
        """
        if len(plans) == 1 and not plans[0].caps:  # nearly every event
            decided = plans[0].decided
            if decided.day_total is not None:
                self._add(decided.day_total)
            return [decided]
        decisions: list[Decision] = []
        totals: dict[Increment, None] = {}
        for plan in plans:
            decision = decide(plan, self._values)
            for increment in decision.increments:
                self._add(increment)
            if decision.day_total is not None:
                totals[decision.day_total] = None
            decisions.append(decision)
        for increment in totals:
            self._add(increment)
        return decisions

    def _add(self, increment: Increment) -> None:
        key, delta, keep_until_ms = increment
        value = self._values.get(key, 0) + delta
        self._values[key] = value
        self.changed[key] = (value, keep_until_ms)


def moved_amount(event: Event) -> int:
    """What the event adds to the balance of the day, in minor units of its currency; 0 when it moved no
    money.

    A reversal counts only when its amount is negative: a positive one does not say which way the money went.
    """
    amount = event.amount
    if event.type not in MOVES_MONEY or abs(amount) > MAX_COUNTED_AMOUNT:
        return 0
    if event.status is not None and event.status.lower().startswith("declined"):
        return 0
    return 0 if event.type == "reversal" and amount > 0 else amount
