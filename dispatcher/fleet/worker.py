"""A worker of a fleet: ``python -m dispatcher.fleet.worker DESCRIPTOR``, started by the supervisor only.

The descriptor is its end of a socket pair; the first frame says what to do. It ends when told to, on SIGTERM, when the
supervisor is gone, or by an error, which it tells the supervisor first.
"""

from __future__ import annotations

import signal
import socket
import sys

import structlog
import trio

from dispatcher.errors import LedgerUnavailable, SwipebellError, known_error
from dispatcher.fleet.frames import Ask, Failed, Ready, Report, Start, Stop, WorkersEnd
from dispatcher.logs import configure_logs, get_logger
from dispatcher.metrics import lane_lengths
from dispatcher.service import Service, service

REPORT_SECONDS = 1.0
"""As much as a killed worker's counts may be behind."""

log = get_logger("worker")


class FeedLost(SwipebellError):
    """The supervisor's fault, or the machine's: lines can no longer come in. A new worker gets a new connection."""


class _Work:
    """One worker's life; ``run`` returns its exit status."""

    def __init__(self, frames: WorkersEnd, start: Start) -> None:
        self._frames = frames
        self._start = start
        self._stop = trio.Event()
        self._ask = trio.Event()
        self._started = False

    async def run(self) -> int:
        """Work until told to stop."""
        try:
            await self._work()
        except (SwipebellError, BaseExceptionGroup) as error:
            known = known_error(error)
            if known is None:
                log.error("defect", exc_info=error)
                return 1
            await self._frames.send(Failed(type(known).__name__, str(known)))
            return known.exit_status
        except Exception as error:  # the last one there is; a raw traceback could show personal data
            log.error("defect", exc_info=error)
            return 1
        return 0

    async def _work(self) -> None:
        async with trio.open_nursery() as watchers:
            watchers.start_soon(self._watch_frames)
            watchers.start_soon(self._watch_signals)
            with trio.CancelScope() as starting:
                watchers.start_soon(self._give_up_start, starting)
                async with service(
                    self._start.config,
                    fail_fast=self._start.lines is not None,
                    processes=self._start.processes,
                ) as running:
                    await self._serve(running)
                await self._report(running)  # what the drain has brought is in it
            watchers.cancel_scope.cancel()

    async def _serve(self, running: Service) -> None:
        async with trio.open_nursery() as background:
            async with trio.open_nursery() as servers:
                if self._start.listeners:
                    # Imported here, because a worker that listens nowhere needs no HTTP server (10 MB).
                    from dispatcher.doors import open_doors

                    await open_doors(
                        running,
                        self._start.listeners,
                        servers=servers,
                        background=background,
                        stop=self._stop,
                        descriptors=self._start.listeners,
                    )
                if self._start.lines is not None:
                    background.start_soon(self._take_lines, running, self._start.lines)
                self._started = True  # from here on the end is orderly
                await self._frames.send(Ready())
                background.start_soon(self._keep_reporting, running)
                await self._stop.wait()
            background.cancel_scope.cancel()

    async def _take_lines(self, running: Service, descriptor: int) -> None:
        from dispatcher.intake.stream import Connection, Ending

        stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
        connection = Connection(
            running.engine, stream, restamped=self._start.restamped, idle_seconds=None, own_lines=True
        )
        ending = await connection.run()
        if ending is Ending.LEDGER and running.engine.trouble is not None:
            raise LedgerUnavailable(running.engine.trouble)
        if ending is not Ending.FINISHED:
            raise FeedLost(f"the connection on which lines come has ended ({ending.value})")

    # ---- words from and to the supervisor ---------------------------------------------------------------------

    async def _watch_frames(self) -> None:
        while (frame := await self._frames.receive()) is not None:
            match frame:
                case Ask():
                    self._ask.set()
                case Stop():
                    self._stop.set()
        if not self._stop.is_set():
            log.warning("supervisor_gone", hint="this worker ends in good order")
        self._stop.set()

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                self._stop.set()

    async def _give_up_start(self, starting: trio.CancelScope) -> None:
        await self._stop.wait()
        if not self._started:
            starting.cancel()

    async def _keep_reporting(self, running: Service) -> None:
        while True:
            with trio.move_on_after(REPORT_SECONDS):
                await self._ask.wait()
            self._ask = trio.Event()
            await self._report(running)

    async def _report(self, running: Service) -> None:
        engine = running.engine
        running.meter.lanes(lane_lengths(engine.lanes), 0)  # the supervisor counts the open ones once for all
        await self._frames.send(Report(running.meter.totals, engine.trouble))


async def _main(descriptor: int) -> int:
    frames = WorkersEnd(trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor))))
    start = await frames.receive()
    if not isinstance(start, Start):
        return 1  # the supervisor died in between
    configure_logs(start.config.log.level)
    structlog.contextvars.bind_contextvars(process=start.index + 1)
    return await _Work(frames, start).run()


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("swipebell: this module is started by swipebell run --processes and swipebell send --processes")
    sys.exit(trio.run(_main, int(sys.argv[1])))


if __name__ == "__main__":
    main()
