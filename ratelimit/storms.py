"""The storm rules: bursts that are held until somebody looks. Pure.

A storm is of events, so each event is counted once, however many are told of it. A fingerprint rule looks at none of
the first events that move money of an account and currency on its local day, half as many as its limit: that saves the
counter of nearly everybody, and makes a burst longer by as many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dispatcher.model.event import Event
from ratelimit.effects import Storm
from ratelimit.match import Test
from ratelimit.scopes import fingerprint_of

MINUTE_MS = 60 * 1000
HOUR_MS = 60 * MINUTE_MS

KEEP_BUCKET_MS = 3 * HOUR_MS
"""How long a burst's counter outlives its bucket: a clock that is set back, by a wrong zone say, still finds it."""

NORMAL_DAYS = 7
"""Days back that an hour's usual number is taken from: a week, which has every weekday once."""

KEEP_VOLUME_MS = (NORMAL_DAYS + 1) * 24 * HOUR_MS


class StormGuard:
    """One storm rule, ready to be asked. ``rest`` is what its ``when`` still has to ask of an event, ``is_volume``
    that it looks at the number of an hour and not at a fingerprint, ``spared`` how many of a day's first events it
    does not look at."""

    __slots__ = (
        "_fingerprint",
        "at_least",
        "bucket_ms",
        "id",
        "is_volume",
        "limit",
        "rest",
        "sample",
        "spared",
        "times",
    )

    def __init__(self, rule: Storm, rest: Test | None) -> None:
        self.id = rule.id
        self.rest = rest
        self.is_volume = not rule.fingerprint
        self._fingerprint = fingerprint_of(("account", *rule.fingerprint))
        self.limit = rule.limit or 0
        self.spared = self.limit // 2
        self.bucket_ms = (rule.minutes or 0) * MINUTE_MS
        self.times = rule.volume_times or 0.0
        self.at_least = rule.at_least or 0
        self.sample = rule.sample

    def key(self, event: Event, now_ms: int) -> tuple[str, int]:
        """The counter of this event and until when to keep it; of a volume rule that of what no storm rule holds."""
        if self.is_volume:
            hour = now_ms // HOUR_MS
            return self._hour_key(hour), (hour + 1) * HOUR_MS + KEEP_VOLUME_MS
        bucket = now_ms // self.bucket_ms
        return f"storm|{self.id}|{bucket}|{self._fingerprint(event)}", (bucket + 1) * self.bucket_ms + KEEP_BUCKET_MS

    def held_key(self, now_ms: int) -> str:
        """Of a volume rule, the counter of this hour's events that a storm rule holds. They are counted by themselves,
        or an hour of a faulty source would be usual for a week."""
        return f"{self._hour_key(now_ms // HOUR_MS)}held"

    def past_keys(self, now_ms: int) -> tuple[str, ...]:
        """The counters of the same hour of the days before, for a volume rule."""
        if not self.is_volume:
            return ()
        hour = now_ms // HOUR_MS
        return tuple(self._hour_key(hour - 24 * days) for days in range(1, NORMAL_DAYS + 1))

    def limit_now(self, now_ms: int, seen: Mapping[str, int]) -> int | None:
        """How many may pass in this bucket or hour; None when nothing is known that an hour could be compared with."""
        if not self.is_volume:
            return self.limit
        known = [seen[key] for key in self.past_keys(now_ms) if key in seen]
        if not known:
            return None
        return max(self.at_least, math.ceil(self.times * sum(known) / len(known)))

    def passes(self, before: int, limit: int) -> bool:
        """Whether an event passes that ``before`` others of its kind came before: below the limit all, beyond it one
        in ``sample``."""
        return before < limit or (self.sample > 0 and (before - limit + 1) % self.sample == 0)

    def _hour_key(self, hour: int) -> str:
        # Nobody in particular is counted: the hour stands before the last bar, so that it is forgotten in its time.
        return f"volume|{self.id}|{hour}|"


class StormGuards:
    """The storm rules that match an event, in the order of the file. ``spared`` is how many of a day's first events
    none of them looks at."""

    __slots__ = ("guards", "spared")

    def __init__(self, guards: Sequence[StormGuard]) -> None:
        self.guards = tuple(guards)
        self.spared = min(guard.spared for guard in self.guards)
