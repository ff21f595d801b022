"""The gate in front of admission: how much may be in the ledger at a time, and that no lane is full.

It is the backpressure of every intake. What it counts are events and not batches, so that two hundred connections with
one line each share a commit as the four batches of a file do.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from dispatcher.lane import Lane

BATCHES = 4
"""Full batches that may be in the ledger at a time: enough to keep its thread busy while one of them is being fsynced.
So many at most go over a lane's capacity."""

CALLS = 64
"""Admissions under way, however small: twice what shares a commit (``CALLS_PER_COMMIT``)."""


class Gate:
    """Counts the events of admissions under way; first come, first served. ``lanes`` are asked for room."""

    def __init__(self, lanes: Sequence[Lane], batch_events: int) -> None:
        self._lanes = lanes
        self._limit = BATCHES * batch_events
        self._line = trio.Lock()
        self._calls = self._events = 0
        self._released = trio.Event()

    async def reserve(self, events: int) -> None:
        """Wait for the right to admit so many events, a batch at most. Cancelled, it has taken nothing."""
        async with self._line:
            while self._calls >= CALLS or (self._calls and self._events + events > self._limit):
                self._released = trio.Event()
                await self._released.wait()
            for lane in self._lanes:
                await lane.room()
            self._calls += 1
            self._events += events

    def release(self, events: int) -> None:
        """Give back what `reserve` took, with the same number."""
        self._calls -= 1
        self._events -= events
        self._released.set()
