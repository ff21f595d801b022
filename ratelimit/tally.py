"""The counters and marks of one batch while it is being decided, so that its alerts see each other.

Pure but for the three readers, which the admission transaction brings.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from dispatcher.model.event import MAX_INT64, Event
from ratelimit.asked import Asked
from ratelimit.decision import DayTotal, Decision, Increment, Mark, Plan
from ratelimit.limits import near_times
from ratelimit.storms import StormGuard
from ratelimit.walk import walk

ReadCounters = Callable[[Sequence[str]], Mapping[str, int]]
"""Keys to the values of those counters that exist."""

ReadMarks = Callable[[Sequence[str]], Mapping[str, Sequence[int]]]
"""Keys to the times of those marks that exist (epoch ms, in any order)."""

ReadTotals = Callable[[Sequence[str]], Mapping[str, DayTotal]]
"""Keys to those day totals that exist."""

_StormKey = tuple[StormGuard, str, int]

_NOTHING: DayTotal = (0, 0)


class Keys(NamedTuple):
    """What the plans of a batch will look at. ``guarded`` are those that storm rules look at, one for each event."""

    counters: list[str]
    totals: list[str]
    marks: list[str]
    guarded: list[Plan]


def keys_of(planned: Sequence[Sequence[Plan]]) -> Keys:
    """What the plans, by event, will look at."""
    wanted = Keys([], [], [], [])
    counters, totals, marks, guarded = wanted
    for plans in planned:
        for plan in plans:
            totals.append(plan.decided.day_total_key)
            if plan.counters:
                counters.extend(plan.counters)
            if plan.marks:
                marks.extend(plan.marks)
            if plan.storms is not None and plan is plans[0]:
                guarded.append(plan)
    return wanted


class Tally:
    """Counters, marks and day totals, each read at most once.

    ``changed``, ``changed_marks`` and ``changed_totals`` are what to write: key to the new value (or times, the oldest
    first; or total and events) and until when to keep it (epoch ms).
    """

    def __init__(self, read: ReadCounters, read_marks: ReadMarks, read_totals: ReadTotals) -> None:
        self._read = read
        self._read_marks = read_marks
        self._read_totals = read_totals
        self._totals: dict[str, DayTotal] = {}
        self.changed_totals: dict[str, tuple[int, int, int]] = {}
        self._values: dict[str, int | None] = {}
        self._times: dict[str, list[int]] = {}
        self._storms: dict[str, list[_StormKey]] = {}
        self.changed: dict[str, tuple[int, int]] = {}
        self.changed_marks: dict[str, tuple[tuple[int, ...], int]] = {}

    def prefetch(self, wanted: Keys) -> None:
        """Read what the plans of a batch will look at: all at once, and then the few storm counters.

        Without it every key is read when it is looked at, with the same decisions.
        """
        self._fetch(wanted.counters)
        self._fetch_totals(wanted.totals)
        self._fetch_times(wanted.marks)
        if wanted.guarded:
            self._fetch_storms(wanted.guarded)

    def value(self, key: str) -> int:
        """The counter as it stands now."""
        values = self._values
        if key not in values:
            self._fetch((key,))
        return values[key] or 0

    def day_total(self, key: str) -> int:
        """What the day comes to as it stands now, in minor units."""
        return self._day(key)[0]

    def times(self, key: str) -> Sequence[int]:
        """The times of a mark as they stand now, the oldest first."""
        if key not in self._times:
            self._fetch_times((key,))
        return self._times[key]

    def decide_event(self, event: Event, plans: Sequence[Plan]) -> list[Decision]:
        """Decide the alerts of one event, in the order of its recipients, and count them.

        The day total counts once for each zone, however many recipients live there and whether or not they
        are told: money that moved belongs to the day's balance also when a rule kept the alert back.
        """
        if len(plans) == 1:  # nearly every event
            plan = plans[0]
            storms = plan.storms
            if storms is None or (storms.spared and self._events_of(plan) < storms.spared):
                decision = plan.decided
                if plan.asked is not None and decision.state == "send":
                    decision = self._ask_timed(plan.asked, decision)
                if decision.day_total is not None:
                    self._add_total(decision.day_total)
                return [decision]
        held = self._ask_storms(event, plans)
        decisions: list[Decision] = []
        totals: dict[Increment, None] = {}
        for plan in plans:
            decision = plan.decided
            if decision.state == "send":
                if held is not None:
                    decision = _held_by_storm(decision, *held)
                elif plan.asked is not None:
                    decision = self._ask_timed(plan.asked, decision)
            if decision.day_total is not None:
                totals[decision.day_total] = None
            decisions.append(decision)
        for increment in totals:
            self._add_total(increment)
        return decisions

    def _ask_timed(self, asked: Asked, planned: Decision) -> Decision:
        """Decide an alert that the timed rules have to be asked about, and count it."""
        decision = self._sent_now(asked, planned) or walk(asked, planned, self)
        values, changed = self._values, self.changed
        for key, delta, keep_until_ms in decision.increments:
            # Every one of these has been looked at, so its value is known.
            value = values[key] = (values[key] or 0) + delta
            changed[key] = (value, keep_until_ms)
        for mark in decision.times:
            key, time, _, keep_until_ms = mark
            times = self._times[key]
            if times:
                self._mark(times, mark, asked.now_ms)
            else:
                times.append(time)
                self.changed_marks[key] = ((time,), keep_until_ms)
        return decision

    def _sent_now(self, asked: Asked, planned: Decision) -> Decision | None:
        """The decision about an alert that no timed rule has anything against, as most; None when one may have."""
        if asked.must_walk or planned.route is not asked.route:
            return None
        values, times_of = self._values, self._times
        least, counter, of = MAX_INT64 + 1, -1, 0
        for (key, _, _), limit in zip(asked.increments, asked.limits, strict=True):
            value = (values[key] if key in values else self.value(key)) or 0
            room = limit - value
            if room <= 0:
                return None
            # Of several caps the one with the least room is shown, of those the one with the lower count.
            if room < least or (room == least and value < counter):
                least, counter, of = room, value, limit
        for (key, now_ms, _, _), (limit, window_ms, is_cap) in zip(asked.marks, asked.nears, strict=True):
            times = times_of[key] if key in times_of else self.times(key)
            value = near_times(times, now_ms, window_ms) if times else 0
            room = limit - value
            if room <= 0:
                return None
            if is_cap and (room < least or (room == least and value < counter)):
                least, counter, of = room, value, limit
        saw = planned.saw
        if counter >= 0:
            saw = {"counter": counter, "limit": of} if saw is None else {**saw, "counter": counter, "limit": of}
        return Decision(
            "send",
            planned.route,
            planned.rule,
            saw,
            planned.expires_at_ms,
            asked.increments,
            planned.day_total_key,
            planned.day_total,
            planned.zone_fallback,
            asked.now_ms,
            None,
            asked.marks,
        )

    def _events_of(self, plan: Plan) -> int:
        """How many events that moved money of its account and currency came before it on its local day, as this
        recipient's zone has it. One that moves none itself is not spared by any fingerprint."""
        return MAX_INT64 if plan.decided.day_total is None else self._day(plan.decided.day_total_key)[1]

    def _ask_storms(self, event: Event, plans: Sequence[Plan]) -> tuple[str, dict[str, int]] | None:
        """The first storm rule that holds the event back, and what it saw; counts the event for it and those before.

        An event that is told to nobody anyway is not counted.
        """
        plan = next((plan for plan in plans if plan.storms is not None and plan.decided.state == "send"), None)
        if plan is None:
            return None
        events = self._events_of(plans[0])
        if plan.storms is not None and events < plan.storms.spared:
            return None
        held: tuple[str, dict[str, int]] | None = None
        volumes: list[_StormKey] = []
        for guard, key, keep_until_ms in self._storms.get(event.id) or _storm_keys(event, plan):
            if events < guard.spared:
                continue
            before = self.value(key)
            if guard.is_volume:
                before += self.value(guard.held_key(plan.now_ms))
                volumes.append((guard, key, keep_until_ms))
            else:
                self._add((key, 1, keep_until_ms))
            limit = guard.limit_now(plan.now_ms, self._known(guard.past_keys(plan.now_ms)))
            if limit is not None and not guard.passes(before, limit):
                held = guard.id, {"counter": before, "limit": limit, "storm": 1}
                break
        for guard, key, keep_until_ms in volumes:
            self._add((key if held is None else guard.held_key(plan.now_ms), 1, keep_until_ms))
        return held

    def _known(self, keys: Sequence[str]) -> dict[str, int]:
        """Those of these counters that exist."""
        self._fetch([key for key in keys if key not in self._values])
        found = ((key, self._values[key]) for key in keys)
        return {key: value for key, value in found if value is not None}

    def _fetch(self, keys: Sequence[str]) -> None:
        if keys:
            fetched: dict[str, int | None] = dict.fromkeys(keys)
            fetched.update(self._read(list(fetched)))
            self._values.update(fetched)

    def _day(self, key: str) -> DayTotal:
        if key not in self._totals:
            self._fetch_totals((key,))
        return self._totals[key]

    def _fetch_totals(self, keys: Sequence[str]) -> None:
        fetched = dict.fromkeys(keys, _NOTHING)
        fetched.update(self._read_totals(list(fetched)))
        self._totals.update(fetched)

    def _fetch_times(self, keys: Sequence[str]) -> None:
        if keys:
            unique = list(dict.fromkeys(keys))
            for key in unique:
                self._times[key] = []
            for key, times in self._read_marks(unique).items():
                self._times[key] = sorted(times)

    def _fetch_storms(self, guarded: Sequence[Plan]) -> None:
        """Those of events that are not among the first of their day, in the ledger or in this batch."""
        coming: dict[str, int] = {}
        keys: list[str] = []
        for plan in guarded:
            event = plan.event
            total = plan.decided.day_total_key
            before = coming[total] = coming.get(total, -1) + 1
            if plan.storms is None or self._events_of(plan) + before < plan.storms.spared:
                continue
            found = self._storms[event.id] = _storm_keys(event, plan)
            for guard, key, _ in found:
                keys.append(key)
                if guard.is_volume:
                    keys.extend((guard.held_key(plan.now_ms), *guard.past_keys(plan.now_ms)))
        self._fetch(keys)

    def _add(self, increment: Increment) -> None:
        key, delta, keep_until_ms = increment
        values = self._values
        value = values[key] = ((values[key] if key in values else self.value(key)) or 0) + delta
        self.changed[key] = (value, keep_until_ms)

    def _add_total(self, increment: Increment) -> None:
        key, moved, keep_until_ms = increment
        total, events = self._totals[key] if key in self._totals else self._day(key)
        total, events = self._totals[key] = (total + moved, events + 1)
        self.changed_totals[key] = (total, events, keep_until_ms)

    def _mark(self, times: list[int], mark: Mark, now_ms: int) -> None:
        key, time, most, keep_until_ms = mark
        insort(times, time)
        # The newest ones up to now, and all that are still to come: those are as many as may be held.
        past = bisect_right(times, now_ms)
        if past > most:
            del times[: past - most]
        kept_until_ms = times[-1] - time + keep_until_ms  # as long as the last of them matters
        self.changed_marks[key] = (tuple(times), kept_until_ms)


def decide(plan: Plan, counters: Mapping[str, int], marks: Mapping[str, Sequence[int]] | None = None) -> Decision:
    """The decision about a single alert, the first of its day, with these counters and marks (a missing one is 0, or
    no time)."""
    tally = Tally(
        lambda keys: {key: counters[key] for key in keys if key in counters},
        lambda _keys: marks or {},
        lambda _keys: {},
    )
    return tally.decide_event(plan.event, [plan])[0]


def _storm_keys(event: Event, plan: Plan) -> list[_StormKey]:
    guards = () if plan.storms is None else plan.storms.guards
    return [(guard, *guard.key(event, plan.now_ms)) for guard in guards]


def _held_by_storm(planned: Decision, rule: str, saw: dict[str, int]) -> Decision:
    """Until somebody releases or discards it, or it expires. It counts nothing: nobody has been told."""
    return msgspec.structs.replace(
        planned, state="held", rule=rule, saw={**(planned.saw or {}), **saw}, send_ms=planned.expires_at_ms
    )
