"""Alerts one after the other through a real engine and a channel's real network, for channels whose provider a test
scripts by the answer: each alert is admitted when the one before it has ended, and time jumps over the waits."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import structlog
import trio
import trio.testing
from prometheus_client import generate_latest

from dispatcher.admission import Admitter
from dispatcher.channels.base import Channel
from dispatcher.channels.build import make_channels, open_network
from dispatcher.config import EngineConfig
from dispatcher.config_load import load_config
from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy
from dispatcher.engine import Engine
from dispatcher.events import Rejected, decode_event
from dispatcher.ledger.stories import AlertStory
from dispatcher.ledger.worker import InlineLedger
from dispatcher.metrics import Meter
from dispatcher.model.alert import Alert
from dispatcher.model.recipient import Recipient, RecipientLine
from dispatcher.network.api import Deliver, Network, Request, Response
from dispatcher.network.routes import RoutedNetwork
from ratelimit.pacing import Pacer
from ratelimit.retry import RetryPolicy
from ratelimit.rules import load_rules
from templates.library import Library

NOON_MS = 1_795_320_000_000  # 2026-11-22 04:00 UTC
NEXT = "wechat"
JUMP_S = 30.0
PATIENCE_S = 60.0
"""Real seconds for one alert; more is a defect."""

MAIL = "holder.of.card@example.com"
ACCOUNT = "acct-private-77"
LIBRARY = Library.load()

A = AnswerClass
ENDS_HERE = frozenset({A.ACCEPTED, A.RECIPIENT_GONE, A.OPTED_OUT, A.PERMANENT})
GOES_ON = ENDS_HERE - {A.ACCEPTED}

REFUSED = Recipient.__struct_fields__.index("refused")
"""Where a recipient's card keeps what providers refused."""


class TakesAll(Network):
    """A network that answers 200 at once."""

    def submit(self, requests: Any, deliver: Deliver) -> None:
        answers = [Response(request, 200, b"") for request in requests]
        trio.lowlevel.current_trio_token().run_sync_soon(deliver, answers)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class NextChannel:
    """The channel after the one under test."""

    name = NEXT
    connections = 8
    fenced = False

    def policy(self, alert: Alert) -> ChannelPolicy:
        return ChannelPolicy(RetryPolicy(), True, None)

    async def ready(self) -> None: ...

    def prepare(self, alert: Alert) -> Request:
        return Request(NEXT, "http://x", (), b"", tag=alert)

    def classify(self, alert: Alert, response: Response) -> Answer:
        return Answer(A.ACCEPTED, "0")

    def knows(self, code: str) -> bool:
        return True


class World:
    """What a test sees: `send` one swipe to its end, then look at ``meter`` and `printed`."""

    def __init__(
        self, name: str, engine: Engine, ledger: InlineLedger, meter: Meter, logs: list[Any], file: Path
    ) -> None:
        self.name, self.engine, self.ledger, self.meter, self.logs = name, engine, ledger, meter, logs
        self._file = file
        self._count = 0

    async def send(self) -> AlertStory:
        self._count += 1
        # An account each: what one answer says of a recipient must not meet the next one.
        await self.ledger.import_recipients([_person(self.name, self._count)])
        await self.engine.admit([_swipe(self._count)])
        give_up = time.monotonic() + PATIENCE_S
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        while await self.ledger.open_count():
            assert time.monotonic() < give_up, "the alert stays open"
            await trio.to_thread.run_sync(time.sleep, 0.002)  # real time, for the network
            busy = any(lane.in_flight for lane in self.engine.lanes.values())
            if not busy and not self.engine.recorder.busy:
                clock.jump(JUMP_S)
        story = await self.ledger.explain(f"e{self._count}")
        assert story is not None
        return story.alerts[0]

    def refused(self) -> list[dict[str, Any]]:
        """What is remembered of each recipient's refusals, in the order of `send`."""
        with closing(sqlite3.connect(self._file)) as connection:
            rows = connection.execute("SELECT card FROM recipients ORDER BY id").fetchall()
        return [json.loads(row[0])[REFUSED] for row in rows]

    def printed(self) -> str:
        """All that is logged or counted."""
        return "\n".join(map(repr, self.logs)) + generate_latest(self.meter.registry).decode()


@asynccontextmanager
async def sending(name: str, section: str, folder: Path, files: Mapping[str, str]) -> AsyncIterator[World]:
    """An engine with the channel of ``section`` (TOML), the secret ``files`` beside it, and `NextChannel` behind it."""
    for file, content in files.items():
        (folder / file).write_text(content)
        (folder / file).chmod(0o600)
    (folder / "swipebell.toml").write_text(section)
    config = load_config(folder / "swipebell.toml", {})
    file = folder / "ledger.db"
    meter, ledger = Meter(), InlineLedger(str(file))
    network = RoutedNetwork(open_network(config, {}), {NEXT: TakesAll()})
    channels: dict[str, Channel] = {**make_channels(config, LIBRARY, network, {}), NEXT: NextChannel()}
    admitter = Admitter(load_rules("version = 1\n", "t"), LIBRARY, {n: c.fenced for n, c in channels.items()})
    engine = Engine(
        config=EngineConfig(lease_seconds=300.0),
        ledger=ledger,
        network=network,
        channels={one: (channel, Pacer(100_000)) for one, channel in channels.items()},
        decide=admitter,
        rules=admitter.in_force,
        ruleset=("v", "version = 1\n"),
        meter=meter,
        now_ms=lambda: NOON_MS + int(trio.current_time() * 1000) % 10**10,
        random=Random(1),
    )
    with structlog.testing.capture_logs() as logs:
        try:
            async with engine.running():
                yield World(name, engine, ledger, meter, logs, file)
        finally:
            await network.aclose()
            await ledger.aclose()


def _person(channel: str, number: int) -> RecipientLine:
    return RecipientLine(
        account=f"{ACCOUNT}-{number}",
        openid="o-private",
        phone="+8613800138000",
        email=MAIL,
        channels=(channel, NEXT),  # type: ignore[arg-type]
    )


def _swipe(number: int) -> Any:
    at = datetime.fromtimestamp(NOON_MS / 1000 + trio.current_time() % 10**7, UTC).isoformat()
    event = {"id": f"e{number}", "account": f"{ACCOUNT}-{number}", "pan": "************5770", "amount": 20_000}
    decoded = decode_event(json.dumps(event | {"currency": "CNY", "time": at, "merchant": "shell"}).encode(), number)
    assert not isinstance(decoded, Rejected), decoded
    return decoded
