"""``swipebell send --processes N``: one reader deals the lines of a file to N workers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import BinaryIO, TypeVar

import msgspec
import trio

from dispatcher.config import Config
from dispatcher.errors import Interrupted
from dispatcher.events import Rejected
from dispatcher.fleet.dealer import Dealer
from dispatcher.fleet.process import Process, start_process
from dispatcher.fleet.run import STOP_MARGIN_S
from dispatcher.fleet.share import check_processes
from dispatcher.fleet.signals import until_signal
from dispatcher.fleet.sockets import bind_all, close_all, sections_to_listen
from dispatcher.fleet.supervisor import Fleet
from dispatcher.ledger.api import Books
from dispatcher.ledger.held import HELD_WAIT_MS
from dispatcher.ledger.worker import ThreadedLedger
from dispatcher.summary import Summary, summarize
from dispatcher.totals import Totals

Name = TypeVar("Name", bound=str)


async def send_fleet(
    config: Config,
    stream: BinaryIO,
    processes: int,
    *,
    restamped: bool,
    on_rejected: Callable[[Rejected], None],
    show: Callable[[Callable[[], Totals]], Awaitable[None]],
) -> Summary:
    """Send every line of ``stream`` and wait until no alert is open. ``show`` runs beside it, with the totals to show.

    Raises `Interrupted` after SIGTERM or SIGINT, and what ended the fleet.
    """
    check_processes(config, processes)
    ledger = ThreadedLedger(str(config.ledger.path))
    sockets = bind_all(sections_to_listen(config, intake=False))
    dealer = Dealer(stream, on_rejected)

    async def attend(worker: Process) -> None:
        assert worker.lines is not None
        await dealer.deal(worker.lines)

    fleet = Fleet(
        lambda index: start_process(config, index, processes, sockets, feeds=True, restamped=restamped),
        processes,
        fail_fast=True,
        stop_seconds=config.engine.drain_seconds + STOP_MARGIN_S,
        attend=attend,
    )

    def totals() -> Totals:
        now = fleet.totals()
        now.events = dealer.events
        return now

    async def work() -> Summary:
        before = await ledger.books()
        async with fleet.running(), trio.open_nursery() as beside:
            # As with one process, whose interpreter runs already when its clock starts.
            await fleet.all_ready()
            started = perf_counter()
            beside.start_soon(dealer.read)
            beside.start_soon(show, totals)
            await dealer.settled()
            await _idle(fleet, ledger)
            seconds = perf_counter() - started
            beside.cancel_scope.cancel()
        after = await ledger.books()
        if fleet.deaths:
            return _by_the_books(totals(), before, after, seconds)
        return summarize(totals(), after, seconds)

    try:
        summary = await until_signal(work, fleet.kill)
    finally:
        close_all(sockets.values())
        await ledger.aclose()
    if summary is None:
        raise Interrupted
    return summary


async def _idle(fleet: Fleet, ledger: ThreadedLedger) -> None:
    """Wait until no alert in the whole ledger is open, as `Engine.idle` does."""
    held_until = time.time_ns() // 1_000_000 + HELD_WAIT_MS
    while True:
        await fleet.refresh()
        # The ledger is asked only when the lanes are empty: it has better things to do until then.
        left = 0 if fleet.busy else await ledger.open_count(held_until)
        if not fleet.busy and not left:
            return
        await trio.sleep(0.05 if fleet.busy else min(1.0, 0.05 + left / 100_000))


def _by_the_books(counted: Totals, before: Books, after: Books, seconds: float) -> Summary:
    """The summary when a worker died: what it had not told yet is in the ledger. Exact as long as nobody else works on
    the same ledger; only the latencies and what was delivered by channel lack the dead worker's last second.

    Lines that it had admitted and not acknowledged were dealt again, and came back as duplicates of themselves.
    """
    accepted = after.events - before.events
    events = counted.events
    if events["accepted"] <= accepted <= events["accepted"] + events["duplicate"]:
        again = accepted - events["accepted"]
        counted.events = Counter({**events, "accepted": accepted, "duplicate": events["duplicate"] - again})
    counted.ended = _since(before.states, after.states)
    counted.suppressed_by = _since(before.suppressed_by, after.suppressed_by)
    counted.failed_by = _since(before.failed_by, after.failed_by)
    counted.attempts = _since(before.attempts, after.attempts)
    unknown = after.unknown_attempts - before.unknown_attempts
    doubles = after.known_doubles - before.known_doubles
    summary = summarize(counted, after, seconds)
    return msgspec.structs.replace(summary, unknown_attempts=unknown, known_doubles=doubles)


def _since(before: Mapping[Name, int], after: Mapping[Name, int]) -> dict[Name, int]:
    return Counter({name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name)})
