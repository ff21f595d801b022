"""Keeps N equal workers alive, adds up what they count, and stops them together.

A worker that dies is started again after a pause that grows with each short life. One that cannot keep its promise
(a failed fsync) or is set up wrong ends all of them: the next one would meet the same.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import trio

from dispatcher.errors import ConfigurationError, LedgerFailed, LedgerUnavailable, SwipebellError
from dispatcher.fleet.frames import Ask, Failed, FramesBroken, FromWorker, Ready, Report, Stop, ToWorker
from dispatcher.logs import get_logger
from dispatcher.totals import Totals, merged

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 10.0
SETTLED_S = 30.0
"""A worker that has lived so long was all right: its death counts as the first again."""

FIRST_STARTS = 3
"""So many workers may die before any was ever ready; then it is not a mishap, and the operator waits for an answer."""

MAX_SHORT_LIVES = 10
"""So many workers in one place may die young, one after the other, before a run that has an end gives up: some line
kills whoever takes it. A service goes on trying."""

ENDING_S = 5.0
"""How long a worker may take to exit after it has closed its end of the socket."""

REPORT_S = 2.0
"""How long a worker may take to report when asked; after that its last report is taken."""

ENDS_ALL = {
    "LedgerFailed": LedgerFailed,
    "ConfigurationError": ConfigurationError,
    "ChannelMisconfigured": ConfigurationError,
}
"""Class of a worker's error -> what the fleet ends with."""

log = get_logger("supervisor")


def restart_pause_s(short_lives: int) -> float:
    """Seconds until a dead worker is started again; ``short_lives``: how many in a row died young, with this one."""
    return min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(max(short_lives - 1, 0), 30))


class Worker(Protocol):
    """One started process; see `dispatcher.fleet.process`."""

    async def send(self, frame: ToWorker) -> bool:
        """False when it is gone."""

    async def receive(self) -> FromWorker | None:
        """None when it is gone."""

    async def wait(self) -> int:
        """Its exit status, negative for a signal."""

    def kill(self) -> None:
        """SIGKILL."""

    async def aclose(self) -> None:
        """Close the sockets to it."""


class _Slot:
    """The place of one worker and of those that replace it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.short_lives = 0
        self.clear()

    def clear(self) -> None:
        self.worker: Worker | None = None
        self.ready = False
        self.totals: Totals | None = None
        self.trouble: str | None = None
        self.failed: Failed | None = None
        self.reports = 0


class Fleet:
    """``processes`` workers made by ``launch``; use ``async with fleet.running():``.

    ``attend`` runs beside each worker from the moment it is ready, and has to end by itself when the worker is gone
    (that is how ``send`` deals out its lines). ``fail_fast``: a ledger that cannot write ends the run, and so do
    workers that die one after the other.
    ``stop_seconds``: how long workers may take to end before they are killed.
    """

    def __init__(
        self,
        launch: Callable[[int], Awaitable[Worker]],
        processes: int,
        *,
        fail_fast: bool,
        stop_seconds: float,
        attend: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        self._launch = launch
        self._attend = attend
        self._fail_fast = fail_fast
        self._stop_seconds = stop_seconds
        self._slots = [_Slot(index) for index in range(processes)]
        self._retired = Totals()
        self._news = trio.Event()
        self._stopping = trio.Event()
        self._killing = trio.Event()
        self._ended = 0
        self._ever_ready = False
        self.deaths = 0
        """Workers that ended without having been told to."""

    @property
    def processes(self) -> int:
        """How many there should be."""
        return len(self._slots)

    @property
    def ready(self) -> int:
        """How many can admit events now."""
        return sum(slot.ready for slot in self._slots)

    @property
    def trouble(self) -> str | None:
        """Why the fleet as a whole is not well, if it is not."""
        for slot in self._slots:
            if slot.trouble is not None:
                return f"process {slot.index + 1}: {slot.trouble}"
        return None if self.ready else "no process is ready; the log says why"

    @property
    def busy(self) -> bool:
        """Whether a worker's lane held an alert when it last reported."""
        return any(any(map(sum, slot.totals.lanes.values())) for slot in self._slots if slot.totals is not None)

    def totals(self) -> Totals:
        """Everything that all workers, dead ones too, have told so far. Of a worker that was killed, its last second
        is missing."""
        return merged([self._retired, *(slot.totals for slot in self._slots if slot.totals is not None)])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        """Start the workers and keep them. On leaving, however it comes, tell them to stop and wait for their end.

        Raises what ends all of them, as the error that a process alone would have ended with.
        """
        async with trio.open_nursery() as nursery:
            shields = [trio.CancelScope(shield=True) for _ in self._slots]
            for shield, slot in zip(shields, self._slots, strict=True):
                nursery.start_soon(self._keep, slot, shield)
            try:
                yield self
            finally:
                self._stopping.set()
                with trio.CancelScope(shield=True):
                    with trio.move_on_after(self._stop_seconds):
                        await self._all_ended()
                    self._killing.set()
                    await self._all_ended()

    async def all_ready(self) -> None:
        """Wait until every worker can admit events."""
        while self.ready < self.processes:
            await self._hear()

    async def refresh(self) -> None:
        """Ask every worker for a new report and wait for it, ``REPORT_S`` at most."""
        asked = []
        for slot in self._slots:
            worker, seen = slot.worker, slot.reports  # before asking: the answer may be here before `send` returns
            if slot.ready and worker is not None and await worker.send(Ask()):
                asked.append((slot, worker, seen))
        with trio.move_on_after(REPORT_S):
            while any(slot.worker is worker and slot.reports == seen for slot, worker, seen in asked):
                await self._hear()

    def kill(self) -> None:
        """End all workers at once, without their drain: what they held is taken over at the next start."""
        self._killing.set()

    async def _hear(self) -> None:
        if self._news.is_set():
            self._news = trio.Event()
        await self._news.wait()

    async def _all_ended(self) -> None:
        while self._ended < len(self._slots):
            await self._hear()

    # ---- one place --------------------------------------------------------------------------------------------

    async def _keep(self, slot: _Slot, shield: trio.CancelScope) -> None:
        try:
            with shield:
                while not self._stopping.is_set():
                    await self._live(slot)
        finally:
            self._ended += 1
            self._news.set()

    async def _live(self, slot: _Slot) -> None:
        """One worker from its start to its end, and the pause after it."""
        started = trio.current_time()
        try:
            slot.worker = worker = await self._launch(slot.index)
        except OSError as error:  # no descriptor, no memory: it may pass
            slot.short_lives += 1
            self._judge(slot, None)
            pause = restart_pause_s(slot.short_lives)
            log.error("worker_not_started", process=slot.index + 1, error=error.strerror, again_in_seconds=pause)
            await self._pause(pause)
            return
        status = 0
        try:
            async with trio.open_nursery() as nursery:
                passing_on = trio.CancelScope()
                nursery.start_soon(self._pass_on, worker, passing_on)
                status = await self._listen(slot, worker, nursery)
                passing_on.cancel()  # while `attend` still takes what the worker had said before it died
        finally:
            with trio.CancelScope(shield=True):
                await worker.aclose()  # which ends it, should it still live
                await self._end_of(worker, self._stop_seconds)
            failed = slot.failed
            if slot.totals is not None:
                slot.totals.drop_gauges()
                self._retired.merge(slot.totals)
            slot.clear()
            self._news.set()
        stopping = self._stopping.is_set()
        slot.short_lives = 1 if trio.current_time() - started >= SETTLED_S else slot.short_lives + 1
        self._judge(slot, failed)
        if stopping:
            return
        self.deaths += 1
        pause = restart_pause_s(slot.short_lives)
        log.warning(
            "worker_ended",
            process=slot.index + 1,
            status=status if status >= 0 else None,
            signal=_signal_name(-status) if status < 0 else None,
            error=None if failed is None else failed.message,
            restart_in_seconds=pause,
        )
        await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._stopping.wait()

    async def _listen(self, slot: _Slot, worker: Worker, nursery: trio.Nursery) -> int:
        """Take the worker's words until it is gone; returns its exit status."""
        attending = False
        try:
            while (frame := await worker.receive()) is not None:
                match frame:
                    case Ready():
                        slot.ready = self._ever_ready = True
                        if self._attend is not None and not attending:
                            attending = True
                            nursery.start_soon(self._attend, worker)
                    case Report(totals, trouble):
                        slot.totals, slot.trouble = totals, trouble
                        slot.reports += 1
                    case Failed():
                        slot.failed = frame
                self._news.set()
        except FramesBroken as error:
            log.error("worker_unintelligible", process=slot.index + 1, error=str(error))
            worker.kill()
        slot.ready = False
        return await self._end_of(worker, ENDING_S)

    async def _end_of(self, worker: Worker, seconds: float) -> int:
        with trio.move_on_after(seconds):
            return await worker.wait()
        worker.kill()
        return await worker.wait()

    async def _pass_on(self, worker: Worker, until: trio.CancelScope) -> None:
        """Tell the worker when all are to stop, and kill it when that takes too long."""
        with until:
            await self._stopping.wait()
            await worker.send(Stop())
            await self._killing.wait()
            worker.kill()

    def _judge(self, slot: _Slot, failed: Failed | None) -> None:
        """Raise if the end of this worker is the end of all."""
        why = "the log says why" if failed is None else failed.message
        if failed is not None:
            if failed.kind in ENDS_ALL:
                raise ENDS_ALL[failed.kind](failed.message)
            if failed.kind == "LedgerUnavailable" and (self._fail_fast or not self._ever_ready):
                raise LedgerUnavailable(failed.message)
        if not self._ever_ready and not self._stopping.is_set() and slot.short_lives >= FIRST_STARTS:
            raise SwipebellError(f"process {slot.index + 1} ended {FIRST_STARTS} times before it was ready: {why}")
        if self._fail_fast and slot.short_lives >= MAX_SHORT_LIVES:
            raise SwipebellError(f"process {slot.index + 1} ended {MAX_SHORT_LIVES} times in a row: {why}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
