"""Where an alert's microseconds go: processor time of each stage alone, in one thread, by the batch.

Together they cost more than alone: threads wait for the GIL, and the cores share their execution units.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from dispatcher.admission import Admitter
from dispatcher.channels.wechat.channel import WechatChannel
from dispatcher.config_load import load_config
from dispatcher.delivery import after_answer
from dispatcher.events import Accepted, decode_lines, restamp
from dispatcher.ledger.api import Admission, Counted, Decisions
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import Admitting
from dispatcher.metrics import Meter
from dispatcher.model.alert import Alert, Step
from dispatcher.model.private import Secret
from dispatcher.network.api import Request, Response
from dispatcher.network.fake import FakeNetwork
from dispatcher.service import read_rules, read_templates
from loadtest.bench.contest import Bench
from loadtest.bench.figures import Failed, Figures, Kind
from loadtest.bench.sinks import Sink
from loadtest.bench.swipes import swipes
from ratelimit.retry import RetryPolicy

BATCH: Final = 256
LEASE_MS: Final = 10**9
QUARTILE: Final = 4
"""The fastest batch of so many stands for a stage: what others on the machine take away is only ever added."""
TOKEN_ANSWER: Final = b'{"access_token":"' + b"S" * 136 + b'","expires_in":7200}'
ACCEPTED_ANSWER: Final = b'{"errcode":0,"errmsg":"ok","msgid":1}'

T = TypeVar("T")


class Stages:
    """A row for each stage."""

    label = "stages"
    kind: Kind = "stage"
    base: str | None = None

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site(self.label)
        self._site.configure(Sink("http://127.0.0.1:9"))

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        sizes = bench.sizes
        self._site.take_ledger(bench.ledgers.empty(sizes.accounts))
        lines = swipes(sizes.stage_alerts, accounts=sizes.accounts, batch=str(number))
        found = trio.run(measure_stages, self._site.folder / "swipebell.toml", list(lines))
        return {stage: {"cpu_us": value} for stage, value in found.items()}


class Clock:
    """Adds up the processor time of named stages, batch by batch."""

    def __init__(self) -> None:
        self._now: dict[str, float] = defaultdict(float)
        self._batches: dict[str, list[float]] = defaultdict(list)

    def timed(self, stage: str, work: Callable[[], T]) -> T:
        """Do ``work`` as a part of ``stage``."""
        began = time.process_time()
        result = work()
        self._now[stage] += time.process_time() - began
        return result

    def shift(self, source: str, seconds: float) -> None:
        """``seconds`` that ``source`` counted were another stage's."""
        self._now[source] -= seconds

    def end_batch(self, alerts: int) -> None:
        """Close the batch of so many alerts."""
        for stage, seconds in self._now.items():
            self._batches[stage].append(seconds / alerts * 1e6)
        self._now.clear()

    def quartiles(self) -> dict[str, float]:
        """µs an alert of each stage, in the order in which they came first."""
        return {stage: sorted(values)[len(values) // QUARTILE] for stage, values in self._batches.items()}


async def measure_stages(config_path: Path, lines: list[bytes]) -> dict[str, float]:
    """Take the lines through every stage but the network. Raises `Failed` when one is not accepted."""
    config = load_config(config_path, {})
    rules, library = read_rules(config), read_templates(config)
    assert config.channels.wechat is not None
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, lambda request: (_answered(request, TOKEN_ANSWER), 0.0))
        channel = WechatChannel(config.channels.wechat, Secret("-"), library, network, RetryPolicy(), None)
        await channel.ready()
        path = _Path(
            channel=channel,
            store=SqliteStore(str(config.ledger.path)),
            admitter=Admitter(rules, library, {channel.name: channel.fenced}),
        )
        try:
            path.begin(rules.version_id, rules.content)
            for first in range(0, len(lines), BATCH):
                path.take(lines[first : first + BATCH])
        finally:
            path.store.close()
        nursery.cancel_scope.cancel()
    return path.clock.quartiles()


class _Path:
    """The way of a batch, stage by stage."""

    def __init__(self, *, channel: WechatChannel, store: SqliteStore, admitter: Admitter) -> None:
        self.clock = Clock()
        self.store = store
        self._channel = channel
        self._admitter = admitter
        self._meter = Meter()
        self._owner = 0

    def begin(self, version: str, content: str) -> None:
        """Register as a process does."""
        now_ms = _now_ms()
        self.store.begin()
        self.store.ruleset(version, content, now_ms)
        self._owner = self.store.register("bench", now_ms, now_ms + LEASE_MS)
        self.store.commit()

    def take(self, lines: list[bytes]) -> None:
        """One batch, from its lines to its recorded outcomes."""
        timed = self.clock.timed
        numbered = list(enumerate(lines, 1))
        events = timed("decode, check, look for card numbers", lambda: decode_lines(numbered).accepted)
        events = timed("restamp", lambda: restamp(events, datetime.now(UTC)))
        admission = self._admit(events)
        timed("count what was admitted", lambda: self._meter.admitted(admission))
        requests = timed("render and body", lambda: [self._channel.prepare(alert) for alert in admission.alerts])
        responses = [_answered(request, ACCEPTED_ANSWER) for request in requests]
        steps = timed("classify and step", lambda: [self._step(response) for response in responses])
        self.store.begin()
        timed("record outcomes", lambda: self.store.record(steps, self._owner))
        timed("commit of outcomes (WAL, fsync)", self.store.commit)
        timed("count what was recorded", lambda: self._meter.recorded(steps))
        if len(steps) != len(lines):
            raise Failed(f"of {len(lines)} swipes {len(steps)} came through the stages")
        self.clock.end_batch(len(lines))

    def _admit(self, events: list[Accepted]) -> Admission:
        store, clock = self.store, self.clock
        rules, before, inside = "admission: rules and drafts", "admission: before its turn", "admission: in its turn"

        def decide(*arguments: Any) -> Callable[[Counted], Decisions]:
            began = time.process_time()
            second_half = clock.timed(rules, lambda: self._admitter(*arguments))
            clock.shift(before, time.process_time() - began)
            return lambda counted: decided(second_half, counted)

        def decided(second_half: Callable[[Counted], Decisions], counted: Counted) -> Decisions:
            began = time.process_time()
            decisions = clock.timed(rules, lambda: second_half(counted))
            clock.shift(inside, time.process_time() - began)
            return decisions

        admitting = clock.timed(before, lambda: Admitting(events, _now_ms(), self._owner, decide))
        clock.timed(before, lambda: store.prepare(admitting))
        store.begin()
        admission = clock.timed(inside, lambda: store.admit(admitting))
        clock.timed("commit of admissions (WAL, fsync)", store.commit)
        return admission

    def _step(self, response: Response) -> Step:
        alert: Alert = response.request.tag
        answer = self._channel.classify(alert, response)
        return after_answer(alert, answer, self._channel.policy(alert), _now_ms(), 0.5)


def _answered(request: Request, body: bytes) -> Response:
    return Response(request=request, status=200, body=body, seconds=0.01)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
