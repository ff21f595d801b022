"""One load test from its start to its result, top to bottom."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import Final

import msgspec
import trio

from dispatcher.errors import Interrupted
from dispatcher.ledger.api import Books
from loadtest.load.books import Comparison, read_books
from loadtest.load.display import Screen
from loadtest.load.generator import Generator, Source
from loadtest.load.http_sender import HttpSender, check_http
from loadtest.load.lines import SwipeLines
from loadtest.load.machine import ProcessTree
from loadtest.load.plan import Plan, accounts_of
from loadtest.load.recorded import RecordedLines
from loadtest.load.schedule import Arrivals
from loadtest.load.stream_sender import StreamSender, check_stream
from loadtest.load.tally import Tally
from loadtest.load.watch import BookWatch, Sampler
from loadtest.load.world import (
    Engine,
    Site,
    claimed_site,
    free_port,
    import_accounts,
    running_engine,
    running_providers,
)
from loadtest.providers.mixes import about_receipts

LOOK_S: Final = 0.2
BACKLOG_PART: Final = 4
"""One connection for the backlog to so many for what is fresh."""
CONNECT_S: Final = 10.0
"""How long the first connection may take before the arrivals begin without it."""
INTERRUPTED_SETTLE_S: Final = 5.0
"""After an interrupt what was sent has so long to be acknowledged and delivered."""


class Seen(msgspec.Struct, kw_only=True):
    """What a run came to, before it is judged. ``played_s`` is when the last arrival had been scheduled,
    ``seconds`` the end of all. ``trouble`` says what ended it early, if anything did."""

    started: datetime
    seconds: float
    played_s: float
    tally: Tally
    sampler: Sampler
    reconnected: int
    settled: bool
    books: Books | None = None
    comparison: Comparison | None = None
    kills: int = 0
    interrupted: bool = False
    trouble: str | None = None


class Stop:
    """What the operator asked for: before the first arrival an interrupt ends everything, after it the arrivals."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.playing = False

    async def watch(self, cancel: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """Until cancelled; started when it listens. A second signal does not wait for anything any more."""
        # A closed terminal must not leave the engine behind: it is in a process group of its own.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if self.asked.is_set() or not self.playing:
                    cancel()
                self.asked.set()


async def perform(plan: Plan) -> Seen:
    """Run the load test.

    Raises ``Interrupted`` when it was stopped before the first arrival, or stopped twice; ``SwipebellError`` for what
    cannot be started or reached. Whatever was started is ended first.
    """
    stop = Stop()
    screen = Screen(plan)
    seen: list[Seen] = []
    async with trio.open_nursery() as nursery:
        # Before anything is started that would have to be ended.
        await nursery.start(stop.watch, nursery.cancel_scope.cancel)
        nursery.start_soon(screen.show)
        seen.append(await (_embedded if plan.target is None else _against_target)(plan, stop, screen))
        nursery.cancel_scope.cancel()
    if not seen:
        raise Interrupted("the load test was stopped before it had seen anything; nothing was kept")
    return seen[0]


async def _embedded(plan: Plan, stop: Stop, screen: Screen) -> Seen:
    assert plan.folder is not None
    with ExitStack() as held:
        site = Site(
            folder=plan.folder,
            processes=plan.processes,
            peak=plan.load.peak,
            latency_s=plan.latency_s,
            provider_rate=plan.provider_rate,
            faults=plan.faults,
            seed=plan.seed,
            receipts_port=free_port(held) if about_receipts(plan.faults) else None,
        )
        held.enter_context(claimed_site(site.folder))
        screen.stage = "starting the simulated providers"
        async with running_providers(site) as providers_url:
            await _import(plan, site, screen)
            engine = Engine(site, providers_url, held)
            screen.stage = f"starting the engine, {site.processes} process{'es' if site.processes > 1 else ''}"
            async with running_engine(engine):
                run = _Run(plan, stop, screen, providers_url, engine.metrics_url, engine)
                run.connect_stream("127.0.0.1", engine.stream_port)
                seen = await run.play()
        screen.stage = "comparing the two books"
        seen.kills = engine.kills
        seen.books, seen.comparison = await read_books(site.ledger, seen.tally, run.source)
    return seen


async def _import(plan: Plan, site: Site, screen: Screen) -> None:
    def progress(count: int) -> None:
        screen.stage = f"inventing cardholders: {count:,}"

    progress(0)
    await import_accounts(site, accounts_of(plan.load, plan.seed, plan.accounts), progress)


async def _against_target(plan: Plan, stop: Stop, screen: Screen) -> Seen:
    target = plan.target
    assert target is not None
    screen.stage = f"looking for {target.url}"
    if target.stream:
        await check_stream(target.host, target.port, plan.token)
    else:
        await check_http(target.url, plan.token)
    run = _Run(plan, stop, screen, plan.providers_url, plan.metrics_url, None)
    if target.stream:
        run.connect_stream(target.host, target.port)
    else:
        run.connect_http(target.url)
    return await run.play()


class _Run:
    """The arrivals and all who look at what becomes of them."""

    def __init__(
        self,
        plan: Plan,
        stop: Stop,
        screen: Screen,
        providers_url: str | None,
        metrics_url: str | None,
        engine: Engine | None,
    ) -> None:
        self._plan = plan
        self._stop = stop
        self._screen = screen
        self._engine = engine
        self.tally = Tally(exclusive=engine is not None)
        self._senders: list[StreamSender | HttpSender] = []
        self._backlog_senders: list[StreamSender | HttpSender] = []
        self.source = _source(plan)
        arrivals = Arrivals(plan.load.times(plan.seed))
        self.generator = Generator(arrivals, self.source, self._senders, self.tally, self._backlog_senders)
        self._book = None if providers_url is None else BookWatch(providers_url, self.tally, self._now)
        self._sampler = Sampler(
            self.tally, self._now, metrics_url=metrics_url, tree=self._tree, measured=self._book is not None
        )

    def _now(self) -> float:
        return self.generator.now

    def _tree(self) -> ProcessTree | None:
        return None if self._engine is None else self._engine.tree

    def connect_stream(self, host: str, port: int) -> None:
        """Send over connections to a stream intake. Lines are acknowledged in their order, so the backlog has some of
        its own."""
        for senders, count in self._shares():
            senders += [StreamSender(host, port, self._plan.token, self.tally, self._now) for _ in range(count)]

    def connect_http(self, url: str) -> None:
        """Send by requests to an HTTP intake."""
        token, keep = self._plan.token, self.generator.keep
        for senders, count in self._shares():
            keeps = keep if senders is self._senders else None
            senders += [HttpSender(url, token, self.tally, self._now, keeps) for _ in range(count)]

    def _shares(self) -> list[tuple[list[StreamSender | HttpSender], int]]:
        connections = self._plan.connections
        return [(self._senders, connections), (self._backlog_senders, max(1, connections // BACKLOG_PART))]

    async def _send_backlog(self, nursery: trio.Nursery) -> None:
        """Connect for it as soon as there is one: most runs have none."""
        await self.generator.behind.wait()
        for sender in self._backlog_senders:
            nursery.start_soon(sender.run)

    async def play(self) -> Seen:
        """Let the events arrive, and wait until what became of them is known."""
        async with self._watchers(), trio.open_nursery() as nursery:
            for sender in self._senders:
                nursery.start_soon(sender.run)
            nursery.start_soon(self._send_backlog, nursery)
            await self._connected()
            # From here on an interrupt ends the arrivals only.
            self._stop.playing = True
            started = datetime.now(UTC)
            self.tally.epoch, self.generator.began = time.time(), trio.current_time()
            self._screen.watch(self.tally, self.generator, self._sampler)
            self._screen.stage = ""
            nursery.start_soon(self._sampler.run)
            if self._book is not None:
                nursery.start_soon(self._book.run)
            if self._plan.kill_every_s is not None and self._engine is not None:
                victims = Random(f"kills/{self._plan.seed}")  # noqa: S311 - repeatable is the point
                nursery.start_soon(self._engine.kill_every, self._plan.kill_every_s, victims, self.generator.over)
            await self._arrivals()
            self._screen.stage = "waiting until nothing is open"
            settled = await self._settle()
            if self._book is not None:
                await self._book.look()
            await self._sampler.sample()
            seconds = self._now()
            nursery.cancel_scope.cancel()
        self.tally.finish()
        return Seen(
            started=started,
            seconds=seconds,
            played_s=self.generator.scheduled_all_at or seconds,
            tally=self.tally,
            sampler=self._sampler,
            reconnected=sum(sender.reconnected for sender in (*self._senders, *self._backlog_senders)),
            settled=settled,
            interrupted=self._stop.asked.is_set(),
            trouble=self._trouble(),
        )

    @asynccontextmanager
    async def _watchers(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._sampler.aclose)
            if self._book is not None:
                stack.push_async_callback(self._book.aclose)
                await self._book.start()
            await self._sampler.start()
            stack.callback(self.generator.backlog.close)
            if isinstance(self.source, RecordedLines):
                stack.callback(self.source.close)
            yield

    async def _arrivals(self) -> None:
        """Until the schedule is at its end, an interrupt, or the engine's end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_on, nursery.cancel_scope, self._stop.asked)
            if self._engine is not None:
                nursery.start_soon(self._end_on, nursery.cancel_scope, self._engine.died)
            nursery.start_soon(self._generate, nursery.cancel_scope)
        self.generator.stop_arrivals()

    def _trouble(self) -> str | None:
        if self._engine is not None and self._engine.died.is_set():
            return f"the engine ended by itself, {self._engine.last_words()}"
        errors = [sender.last_error for sender in self._senders if sender.last_error is not None]
        return f"the target did not answer: {errors[0]}" if errors and not self.tally.answered else None

    @staticmethod
    async def _end_on(scope: trio.CancelScope, event: trio.Event) -> None:
        await event.wait()
        scope.cancel()

    async def _generate(self, scope: trio.CancelScope) -> None:
        await self.generator.arrive()
        scope.cancel()

    async def _connected(self) -> None:
        with trio.move_on_after(CONNECT_S):
            while True:
                if all(sender.room for sender in self._senders):
                    return
                await trio.sleep(LOOK_S / 10)

    async def _settle(self) -> bool:
        """Wait until everything that was due is sent, acknowledged and ended; False when it took too long.

        After an interrupt nothing more is sent, and the wait is short; an interrupt during the wait ends it.
        """
        interrupted = self._stop.asked.is_set()
        with trio.move_on_after(INTERRUPTED_SETTLE_S if interrupted else self._plan.settle_s):
            async with trio.open_nursery() as nursery:
                if not interrupted:
                    nursery.start_soon(self._end_on, nursery.cancel_scope, self._stop.asked)
                if self._engine is not None:
                    nursery.start_soon(self._end_on, nursery.cancel_scope, self._engine.died)
                while True:
                    if not interrupted:
                        # Each time: what the target would not have came back, and is to be sent again.
                        await self.generator.hand_out_rest()
                    if await self._nothing_open():
                        nursery.cancel_scope.cancel()
                        return True
                    await trio.sleep(LOOK_S)
        return False

    async def _nothing_open(self) -> bool:
        tally = self.tally
        if tally.waiting and not self._stop.asked.is_set():  # after an interrupt it waits for nothing
            return False
        if tally.unanswered:
            self._screen.stage = f"waiting for {tally.unanswered:,} acknowledgements"
            return False
        # The providers may have shown everything while the engine still waits for an answer that was lost.
        await self._sampler.ask()
        metrics = self._sampler.metrics
        self._screen.stage = f"waiting until {metrics.open or len(tally.pending):,} open alerts have ended"
        if metrics.answers or self._engine is not None:
            return metrics.answers and metrics.open == 0
        return self._book is None or not tally.pending


def _source(plan: Plan) -> Source:
    if plan.load.recording is not None:
        return RecordedLines(plan.load.recording)
    return SwipeLines(seed=plan.seed, accounts=plan.accounts, run=_letters(time.time_ns() // 1_000_000))


def _letters(number: int) -> str:
    """A number without digits: beside the others of an id they would look like a card number."""
    text = ""
    while number:
        number, letter = divmod(number, 26)
        text += chr(ord("a") + letter)
    return text
