"""Counters in memory, in the place of the ledger's: for scenarios and for what-if, where nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from dispatcher.ledger.sqlite_counters import split
from ratelimit.decision import DayTotal

_Value = TypeVar("_Value")

FIRST_SWEEP = 65_536
"""Marks after which those that are over are looked for; then whenever there are twice as many as were left, so that
looking costs little for each."""


class Memory:
    """The counters and marks of the send rules; what is over is forgotten.

    Without ``day_totals`` these are not kept: they are what an alert shows of its day, only a storm rule decides by
    them, and they are nearly all keys there are: one an account and day.
    """

    def __init__(self, *, day_totals: bool = True) -> None:
        self.day_totals = day_totals
        self._counters: dict[str, dict[str, int]] = {}
        self._totals: dict[str, dict[str, DayTotal]] = {}
        self._marks: dict[str, tuple[tuple[int, ...], int]] = {}
        self._keep: dict[str, int] = {}
        self._sweep_at = FIRST_SWEEP

    def __len__(self) -> int:
        """How many keys are kept."""
        several = len(self._marks)
        for kept in (self._counters, self._totals):
            several += sum(map(len, kept.values()))
        return several

    def counters(self, keys: Sequence[str]) -> Mapping[str, int]:
        """The values of those that exist."""
        return _found(self._counters, keys)

    def totals(self, keys: Sequence[str]) -> Mapping[str, DayTotal]:
        """The day totals that exist."""
        return _found(self._totals, keys)

    def marks(self, keys: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """The times (epoch ms, ascending) of those that exist."""
        return {key: self._marks[key][0] for key in keys if key in self._marks}

    def keep(
        self,
        counters: Mapping[str, tuple[int, int]],
        marks: Mapping[str, tuple[tuple[int, ...], int]],
        totals: Mapping[str, tuple[int, int, int]],
        now_ms: int,
    ) -> None:
        """Set what a batch of decisions at ``now_ms`` changed: (value, keep until in epoch ms) by key, of day totals
        (total, events, keep until)."""
        for key, (value, keep_until) in counters.items():
            kind = self._keep_until(key, keep_until)
            self._counters.setdefault(kind, {})[key[len(kind) :]] = value
        for key, (total, events, keep_until) in totals.items() if self.day_totals else ():
            kind = self._keep_until(key, keep_until)
            self._totals.setdefault(kind, {})[key[len(kind) :]] = (total, events)
        self._marks.update(marks)
        self._forget(now_ms)

    def _keep_until(self, key: str, keep_until: int) -> str:
        """The key's kind, which is now kept until then."""
        kind, _ = split(key)
        if keep_until > self._keep.get(kind, -1):
            self._keep[kind] = keep_until
        return kind

    def _forget(self, now_ms: int) -> None:
        """Drop what is over: kinds of counters whole, as the ledger does, and marks each by itself, now and then."""
        for kind in [kind for kind, keep_until in self._keep.items() if keep_until < now_ms]:
            del self._keep[kind]
            self._counters.pop(kind, None)
            self._totals.pop(kind, None)
        if len(self._marks) >= self._sweep_at:
            self._marks = {key: mark for key, mark in self._marks.items() if mark[1] >= now_ms}
            self._sweep_at = max(FIRST_SWEEP, 2 * len(self._marks))


def _found(kept: Mapping[str, Mapping[str, _Value]], keys: Sequence[str]) -> dict[str, _Value]:
    found = {}
    for key in keys:
        kind, who = split(key)
        several = kept.get(kind)
        if several is not None and who in several:
            found[key] = several[who]
    return found
