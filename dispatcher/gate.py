"""The gate in front of admission: how much may be in the ledger at a time, and that no lane is full.

It is the backpressure of every intake. What it counts are events and not batches, so that two hundred connections with
one line each share a commit as the four batches of a file do.

Where batches have to wait, they wait in two lines, those of fresh swipes and those of late ones (`freshness`). The
fresh line goes first, late batches leave a part of each lane free, and while both lines are full one event of eight is
a late one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from dispatcher.freshness import FRESH, LATE, LATE_TURNS, looks_late
from dispatcher.lane import Lane

BATCHES = 4
"""Full batches that may be in the ledger at a time: enough to keep its thread busy while one of them is being fsynced.
So many at most go over a lane's capacity."""

CALLS = 64
"""Admissions under way, however small: twice what shares a commit (``CALLS_PER_COMMIT``)."""


class Gate:
    """Counts the events of admissions under way; in each line first come, first served. The ``lanes`` are asked for
    room, and say when they have some."""

    def __init__(self, lanes: Sequence[Lane], batch_events: int, now_ms: Callable[[], int]) -> None:
        self._lanes = lanes
        self._limit = BATCHES * batch_events
        self._now_ms = now_ms
        # What is urgent, a line that is not decoded yet does not say.
        self._lines = {FRESH: trio.Lock(), LATE: trio.Lock()}
        self._fronts = {FRESH: 0, LATE: 0}
        """By line: the events of the batch at its front, 0 when nobody waits."""
        self._passed = 0
        """Fresh events that went past the late batch at the front."""
        self._calls = self._events = 0
        self._changed = trio.Event()
        for lane in lanes:
            lane.on_room = self._wake

    async def reserve(self, events: int, line: bytes | None = None) -> None:
        """Wait for the right to admit so many events, a batch at most. Cancelled, it has taken nothing.

        ``line`` is the newest of the batch, which tells whether it is late; None: it is fresh.
        """
        await trio.lowlevel.checkpoint()
        if not any(line.locked() for line in self._lines.values()) and self._open_to(LATE, events):  # whatever it is
            self._take(events)
            return
        which = LATE if line is not None and looks_late(line, self._now_ms()) else FRESH
        async with self._lines[which]:
            self._fronts[which] = events
            try:
                while not self._open_to(which, events):
                    self._changed = trio.Event() if self._changed.is_set() else self._changed
                    await self._changed.wait()
                self._take(events)
                self._count_turn(which, events)
            finally:
                self._fronts[which] = 0
                self._wake()

    def release(self, events: int) -> None:
        """Give back what `reserve` took, with the same number."""
        self._calls -= 1
        self._events -= events
        self._wake()

    def _take(self, events: int) -> None:
        self._calls += 1
        self._events += events

    def _wake(self) -> None:
        self._changed.set()

    def _open_to(self, which: int, events: int) -> bool:
        if self._calls >= CALLS or (self._calls and self._events + events > self._limit):
            return False
        late_events = self._fronts[LATE]
        late_is_next = late_events and self._passed >= (LATE_TURNS - 1) * late_events
        if which == FRESH:
            return not late_is_next and all(lane.free > 0 for lane in self._lanes)
        if late_is_next:
            return all(lane.free > 0 for lane in self._lanes)
        # What is under way will be in a lane in a moment: counted, or four late batches would fill what is left free.
        return not self._fronts[FRESH] and all(lane.free_for_late > self._events for lane in self._lanes)

    def _count_turn(self, which: int, events: int) -> None:
        if which == LATE:
            self._passed = 0
        elif self._fronts[LATE]:
            self._passed += events
