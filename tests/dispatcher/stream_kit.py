"""What the tests of stream intake share: an engine in virtual time, and the peer's end of a connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from trio.testing import memory_stream_pair

from dispatcher.engine import Engine
from dispatcher.intake.stream import take_stream
from tests.dispatcher.test_engine import OK, ScriptedChannel, World

IDLE_S = 30.0

Pair = tuple[trio.abc.Stream, trio.abc.Stream]


def new_world() -> World:
    return World(ScriptedChannel("wechat", [OK]), None)


def line(number: int | str, **changes: Any) -> bytes:
    """One event as a line; two with the same number and no changes are the same event."""
    event = {"id": f"e{number}", "account": "acc", "amount": 20_000, "currency": "CNY", "time": "2099-01-01T00:00:00Z"}
    event |= {"merchant": f"shop {number}"}  # no two alike: a burst of one would be a storm
    return json.dumps({**event, **changes}).encode() + b"\n"


class Peer:
    """The other end of a connection; ``lines`` is everything it has read."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.lines: list[dict[str, Any]] = []
        self._rest = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self) -> dict[str, Any] | None:
        """The next line; None at the end of the connection."""
        while b"\n" not in self._rest:
            chunk = await self.stream.receive_some(65_536)
            if not chunk:
                assert not self._rest, "the last line is cut off"
                return None
            self._rest += chunk
        text, _, self._rest = self._rest.partition(b"\n")
        self.lines.append(json.loads(text))
        return self.lines[-1]

    async def acknowledged(self, upto: int) -> dict[str, Any]:
        """Reads until line ``upto`` is acknowledged; returns the sums over everything read."""
        while not self.lines or self.lines[-1].get("ack", 0) < upto:
            answer = await self.answer()
            assert answer is not None, f"closed after {self.lines[-3:]}"
            assert "error" not in answer, answer
        return self.sums()

    async def rest(self) -> list[dict[str, Any]]:
        """Everything until the other side closes."""
        start = len(self.lines)
        while await self.answer() is not None:
            pass
        return self.lines[start:]

    async def finish(self) -> dict[str, Any]:
        """Half-close, read to the end; returns the sums over everything read."""
        assert isinstance(self.stream, trio.abc.HalfCloseableStream)
        await self.stream.send_eof()
        await self.rest()
        return self.sums()

    def sums(self) -> dict[str, Any]:
        acks = [one for one in self.lines if "error" not in one]
        return {
            "ack": acks[-1]["ack"] if acks else 0,
            "accepted": sum(one["accepted"] for one in acks),
            "duplicate": sum(one["duplicate"] for one in acks),
            "rejected": [refused["line"] for one in acks for refused in one["rejected"]],
        }


@asynccontextmanager
async def connected(
    engine: Engine,
    pair: Callable[[], Pair] = memory_stream_pair,
    *,
    idle_seconds: float | None = IDLE_S,
    **options: Any,
) -> AsyncIterator[Peer]:
    """A connection whose other end the test has. On leaving, this end is closed and the engine's must end too."""
    ours, theirs = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(take_stream, engine, ours, idle_seconds=idle_seconds, **options))
        yield Peer(theirs)
        await theirs.aclose()
