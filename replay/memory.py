"""Counters in memory, in the place of the ledger's: for scenarios and for what-if, where nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dispatcher.ledger.sqlite_counters import split

DAY_TOTAL = "day|"
"""How the keys of day totals begin. They are nearly all keys there are: one an account and day."""


FIRST_SWEEP = 65_536
"""Marks after which those that are over are looked for; then whenever there are twice as many as were left, so that
looking costs little for each."""


class Memory:
    """The counters and marks of the send rules; what is over is forgotten.

    Without ``day_totals`` these are not kept: they are what an alert shows of its day, and only a storm rule decides by
    them.
    """

    def __init__(self, *, day_totals: bool = True) -> None:
        self.day_totals = day_totals
        self._counters: dict[str, dict[str, int]] = {}
        self._marks: dict[str, tuple[tuple[int, ...], int]] = {}
        self._keep: dict[str, int] = {}
        self._sweep_at = FIRST_SWEEP

    def __len__(self) -> int:
        """How many keys are kept."""
        return sum(map(len, self._counters.values())) + len(self._marks)

    def counters(self, keys: Sequence[str]) -> Mapping[str, int]:
        """The values of those that exist."""
        found = {}
        for key in keys:
            kind, who = split(key)
            several = self._counters.get(kind)
            if several is not None and who in several:
                found[key] = several[who]
        return found

    def marks(self, keys: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """The times (epoch ms, ascending) of those that exist."""
        return {key: self._marks[key][0] for key in keys if key in self._marks}

    def keep(
        self, counters: Mapping[str, tuple[int, int]], marks: Mapping[str, tuple[tuple[int, ...], int]], now_ms: int
    ) -> None:
        """Set what a batch of decisions at ``now_ms`` changed: (value, keep until in epoch ms) by key."""
        for key, (value, keep_until) in counters.items():
            if self.day_totals or not key.startswith(DAY_TOTAL):
                kind, who = split(key)
                self._counters.setdefault(kind, {})[who] = value
                if keep_until > self._keep.get(kind, -1):
                    self._keep[kind] = keep_until
        self._marks.update(marks)
        self._forget(now_ms)

    def _forget(self, now_ms: int) -> None:
        """Drop what is over: kinds of counters whole, as the ledger does, and marks each by itself, now and then."""
        for kind in [kind for kind, keep_until in self._keep.items() if keep_until < now_ms]:
            del self._keep[kind], self._counters[kind]
        if len(self._marks) >= self._sweep_at:
            self._marks = {key: mark for key, mark in self._marks.items() if mark[1] >= now_ms}
            self._sweep_at = max(FIRST_SWEEP, 2 * len(self._marks))
