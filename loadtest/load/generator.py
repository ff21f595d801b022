"""The open loop: what the schedule says is due is handed to whoever can take it, and nobody is waited for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from loadtest.load.backlog import FRESH_S, Backlog
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
"""Arrivals that wait because the target takes no more: 210 bytes each here and 260 in the backlog's file, minutes of a
heavy overload. Later ones are abandoned, and that is said."""

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
    def room(self) -> int:
        """How many events it can take now; 0: none."""

    def offer(self, chunk: Chunk) -> None:
        """Send these lines, and see to it that they are answered, over a new connection if need be."""

    async def run(self) -> None:
        """Hold the connection until cancelled."""


class Generator:
    """``began`` is trio's time of the run's second 0.

    Arrivals that find no sender with room wait as numbers only, and are built when they leave, in their order. What has
    waited for ``FRESH_S`` joins the backlog, which goes to ``backlog_senders`` (those of the fresh ones, if there are
    none): as a core system should, it sends what is fresh first and the backlog in what capacity is left.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        source: Source,
        senders: Sequence[Sender],
        tally: Tally,
        backlog_senders: Sequence[Sender] = (),
    ) -> None:
        self.backlog = Backlog(tally)
        self.behind = trio.Event()
        """Set as soon as there is a backlog."""
        self.began = trio.current_time()
        self.scheduled_all_at: float | None = None
        """When the last arrival had been scheduled, in seconds from the begin."""
        self._arrivals = arrivals
        self._source = source
        self._senders = _InTurn(senders)
        self._backlog_senders = _InTurn(backlog_senders)
        self._tally = tally
        self._pushed_until = 0

    @property
    def now(self) -> float:
        """Seconds from the begin of the run."""
        return trio.current_time() - self.began

    async def arrive(self) -> None:
        """Let the events arrive until the schedule is at its end. Cancelled, it has scheduled what was due by then."""
        tally = self._tally
        while (next_at := self._arrivals.next_at) is not None:
            now = self.now
            free = MAX_WAITING - tally.waiting
            times = self._arrivals.due(now, min(DUE_AT_ONCE, free) if free > 0 else DUE_AT_ONCE)
            if free > 0:
                tally.arrive(times)
            else:
                tally.abandon(times)
            self._hand_out(now)
            next_at = self._arrivals.next_at
            if next_at is not None and next_at <= self.now and len(times) == DUE_AT_ONCE:
                await trio.lowlevel.checkpoint()  # more is due than was taken: others have their turn, then on
                continue
            # While something waits, whoever becomes ready is to get it soon.
            soon = self.now + TICK_S
            wake_at = soon if tally.waiting or next_at is None else max(soon, next_at)
            await trio.sleep_until(self.began + wake_at)
        self.stop_arrivals()

    def stop_arrivals(self) -> None:
        """Nothing arrives any more."""
        if self.scheduled_all_at is None:
            self.scheduled_all_at = self.now

    def over(self) -> bool:
        """Whether nothing arrives any more."""
        return self.scheduled_all_at is not None

    async def hand_out_rest(self) -> None:
        """Until nothing waits any more. Cancelled, it leaves the rest unsent."""
        while self._tally.waiting:
            self._hand_out(self.now)
            await trio.sleep(TICK_S)

    def keep(self, chunk: Chunk) -> None:
        """Take a chunk into the backlog: it was not sent in time, or the target would not have it now."""
        self.backlog.add(chunk)
        self.behind.set()

    def _hand_out(self, now: float) -> None:
        if self._hand_out_fresh(now):
            self._keep_late(now)
        senders = self._backlog_senders or self._senders
        while self.backlog and (sender := senders.ready()) is not None:
            sender.offer(self.backlog.take())

    def _hand_out_fresh(self, now: float) -> bool:
        """True when the senders take no more, and something is left."""
        tally = self._tally
        fresh_from = self._pushed_until
        while unbuilt := len(tally.scheduled) - tally.built:
            sender = self._senders.ready()
            if sender is None:
                if len(tally.scheduled) > self._pushed_until:
                    tally.push_back(len(tally.scheduled) - max(self._pushed_until, tally.built), now)
                    self._pushed_until = len(tally.scheduled)
                return True
            first = tally.built
            chunk = self._build(min(CHUNK_EVENTS, unbuilt, sender.room))
            if first >= fresh_from:
                # It had never to wait for the target: what it is late by now is the generator's own.
                times = tally.scheduled[first : first + chunk.count]
                tally.lateness.add([int((self.now - at) * 1000 * PER_MS) for at in times])
            sender.offer(chunk)
        return False

    def _keep_late(self, now: float) -> None:
        """Move what has waited for too long into the backlog."""
        scheduled = self._tally.scheduled
        while (late := bisect_left(scheduled, now - FRESH_S, self._tally.built) - self._tally.built) > 0:
            self.keep(self._build(min(CHUNK_EVENTS, late)))

    def _build(self, count: int) -> Chunk:
        first = self._tally.built
        times = self._tally.scheduled[first : first + count]
        body, keys = self._source.build(first, times, self._tally.epoch)
        self._tally.build(keys)
        return Chunk(first, count, body)


class _InTurn:
    """Senders, of which each gets its turn. They may be added to."""

    def __init__(self, senders: Sequence[Sender]) -> None:
        self._senders = senders
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._senders)

    def ready(self) -> Sender | None:
        """The next one that has room."""
        senders = self._senders
        for step in range(len(senders)):
            at = (self._next + step) % len(senders)
            if senders[at].room > 0:
                self._next = at + 1
                return senders[at]
        return None
