"""The open loop: what the schedule says is due is handed to whoever can take it, and nobody is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from loadtest.load.lines import Chunk
from loadtest.load.schedule import Arrivals
from loadtest.load.tally import PER_MS, Tally

TICK_S: Final = 0.002
"""The generator wakes at most so often; an arrival is late by half of it on average."""
CHUNK_EVENTS: Final = 512
"""Most events handed to one connection at a time: 130 KB, so that connections share what has piled up."""
DUE_AT_ONCE: Final = 4096
"""Most arrivals taken from the schedule before others get their turn: 10 ms of work."""

MAX_WAITING: Final = 1_000_000
"""Arrivals that wait because the target takes no more: nine bytes each, minutes of a heavy overload. Later ones are
abandoned, and that is said."""

LATE_S: Final = 0.05
"""Later than this at the 99th percentile, of its own doing, and the generator was the limit."""


class Source(Protocol):
    """Builds events' lines."""

    def build(self, first: int, times: Sequence[float], epoch: float) -> tuple[bytes, list[str]]:
        """Lines of the events from number ``first`` on, and the keys of their alerts. Called strictly in order."""

    def event_id(self, number: int) -> str:
        """The id of an event that was built."""


class Sender(Protocol):
    """One connection to the target."""

    @property
    def ready(self) -> bool:
        """Whether it can take a chunk now."""

    def offer(self, chunk: Chunk) -> None:
        """Send these lines, and see to it that they are answered, over a new connection if need be."""

    async def run(self) -> None:
        """Hold the connection until cancelled."""


class Generator:
    """``run`` ends when everything that was due has been handed over. ``began`` is trio's time of the run's second 0.

    Arrivals that find no sender ready wait as numbers only, and are built when they leave.
    """

    def __init__(self, arrivals: Arrivals, source: Source, senders: Sequence[Sender], tally: Tally) -> None:
        self.began = trio.current_time()
        self.scheduled_all_at: float | None = None
        """When the last arrival had been scheduled, in seconds from the begin."""
        self._arrivals = arrivals
        self._source = source
        self._senders = senders
        self._tally = tally
        self._next_sender = 0
        self._pushed_until = 0
        self._stopped = False

    @property
    def now(self) -> float:
        """Seconds from the begin of the run."""
        return trio.current_time() - self.began

    def stop(self) -> None:
        """No further arrivals; what waits is not sent any more."""
        self._stopped = True

    async def run(self) -> None:
        """See the class. Cancelled, it leaves what waits unsent."""
        tally = self._tally
        while not self._stopped:
            now = self.now
            free = MAX_WAITING - tally.waiting
            times = self._arrivals.due(now, min(DUE_AT_ONCE, free) if free > 0 else DUE_AT_ONCE)
            if free > 0:
                tally.arrive(times)
            else:
                tally.abandon(times)
            if self._arrivals.next_at is None and self.scheduled_all_at is None:
                self.scheduled_all_at = self.now
            self._hand_out(now)
            if not tally.waiting and self._arrivals.next_at is None:
                return
            await self._pause()
        if self.scheduled_all_at is None:
            self.scheduled_all_at = self.now

    async def _pause(self) -> None:
        next_at = self._arrivals.next_at
        wake_at = self.now + TICK_S
        if next_at is not None and not self._tally.waiting:
            if next_at <= self.now:  # more is due than was taken: others have their turn, then on
                await trio.lowlevel.checkpoint()
                return
            wake_at = max(wake_at, next_at)
        await trio.sleep_until(self.began + wake_at)

    def _hand_out(self, now: float) -> None:
        tally = self._tally
        fresh_from = self._pushed_until
        while tally.waiting:
            sender = self._ready_sender()
            if sender is None:
                if len(tally.scheduled) > self._pushed_until:
                    tally.push_back(len(tally.scheduled) - max(self._pushed_until, tally.built), now)
                    self._pushed_until = len(tally.scheduled)
                return
            first = tally.built
            count = min(CHUNK_EVENTS, tally.waiting)
            times = tally.scheduled[first : first + count]
            if first >= fresh_from:
                # It had never to wait for the target: what it is late by now is the generator's own.
                tally.lateness.add([int((self.now - at) * 1000 * PER_MS) for at in times])
            body, keys = self._source.build(first, times, tally.epoch)
            tally.build(keys)
            sender.offer(Chunk(first, count, body))

    def _ready_sender(self) -> Sender | None:
        """The next one in turn that can take a chunk."""
        senders = self._senders
        for step in range(len(senders)):
            at = (self._next_sender + step) % len(senders)
            if senders[at].ready:
                self._next_sender = at + 1
                return senders[at]
        return None
