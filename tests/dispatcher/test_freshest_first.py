"""The engine in virtual time with a backlog of late swipes: what is fresh rings at once, and nothing is starved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from dispatcher.channels.base import ChannelPaused
from dispatcher.engine import DUE_BATCH, Engine
from dispatcher.freshness import FRESH_S, LATE
from tests.dispatcher.test_engine import BUSY, OK, ScriptedChannel, World, swipe

LATE_MS = 60_000
RATE = 10
ROOMY = {"lane_capacity": 800, "batch_events": 200}


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make() -> World:
        made.append(World(ScriptedChannel("wechat", [OK]), None))
        return made[-1]

    yield make
    for one in made:
        one.ledger.store.close()


async def admit(w: World, engine: Engine, numbers: range, age_ms: int = 0) -> list[int]:
    """Bring swipes of an age through the door, as an intake does; the ids of their alerts."""
    at_ms = w.now_ms() - age_ms
    newest = b'{"time":"%b"}' % datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().encode()
    await engine.reserve(len(numbers), newest)
    try:
        await engine.admit([swipe(number, at_ms) for number in numbers])
    finally:
        engine.release(len(numbers))
    return [(await w.state(f"e{number}")).id for number in numbers]


async def rings_at_once(w: World, engine: Engine, number: int) -> bool:
    """Whether a new swipe is sent within half a second: with the next few permits."""
    (alert,) = await admit(w, engine, range(number, number + 1))
    await trio.sleep(0.5)
    return alert in [tried for tried, _ in w.wechat.tried]


async def test_a_fresh_swipe_rings_at_once_although_minutes_of_late_ones_wait(world: Any, autojump_clock: Any) -> None:
    # Given a lane with a minute of late swipes in it, and more of them at the door
    w = world()
    await w.tell()
    async with w.running(rate=RATE, **ROOMY) as engine, trio.open_nursery() as nursery:
        for start in range(0, 1000, 200):
            nursery.start_soon(admit, w, engine, range(start, start + 200), LATE_MS)
        await trio.sleep(5)
        assert engine.lanes["wechat"].queue.length(LATE) > 500
        # When new ones come now and then, then each is sent at once
        for number in range(1000, 1005):
            assert await rings_at_once(w, engine, number)
            await trio.sleep(9.5)
        # And what is late goes on leaving with the rest of the rate, all of it in the end
        assert len(w.wechat.tried) > 0.9 * RATE * 55
        nursery.start_soon(engine.idle)
    assert len(w.wechat.tried) == 1005


async def test_a_fresh_swipe_rings_at_once_while_an_outages_retries_come_back(world: Any, autojump_clock: Any) -> None:
    # Given a provider that was busy for half a minute, and three thousand alerts that it sent away
    w = world()
    await w.tell()
    w.wechat.answers = [BUSY]
    async with w.running(lane_capacity=4 * DUE_BATCH, batch_events=1000) as engine:
        for start in range(0, 3000, 1000):
            await admit(w, engine, range(start, start + 1000))
        await trio.sleep(30)
    w.wechat.answers = [OK]
    w.wechat.tried.clear()
    async with w.running(rate=RATE, lane_capacity=4 * DUE_BATCH, batch_events=1000) as engine:
        # When it is well again, then the retries that are due fill the lane
        await trio.sleep(60)
        assert engine.lanes["wechat"].queue.length(LATE) > DUE_BATCH
        # And still a new swipe gets in, and is sent at once
        for number in range(3000, 3005):
            assert await rings_at_once(w, engine, number)
            await trio.sleep(2)
        assert len(w.wechat.tried) > 0.9 * RATE * 60


async def test_what_was_fresh_when_it_came_makes_room_when_it_is_so_no_longer(world: Any, autojump_clock: Any) -> None:
    # Given a channel that is paused for longer than a swipe is fresh
    w = world()
    await w.tell()
    w.wechat.paused = ChannelPaused("out of order", misconfigured=False, retry_after_s=FRESH_S + 1.0)
    async with w.running(rate=RATE, **ROOMY) as engine:
        old = await admit(w, engine, range(100))
        await trio.sleep(FRESH_S + 0.9)
        w.wechat.paused = None
        new = await admit(w, engine, range(100, 110))
        await engine.idle()
    tried = [alert for alert, _ in w.wechat.tried]
    # Then the new ones leave before the old ones, but for one of eight, and both in their order
    assert max(map(tried.index, new)) < 14
    assert [alert for alert in tried if alert in old] == old
    assert [alert for alert in tried if alert in new] == new


async def test_a_flood_of_fresh_ones_does_not_keep_late_ones_out_for_ever(world: Any, autojump_clock: Any) -> None:
    # Given more fresh swipes than the channel takes, minute after minute
    w = world()
    await w.tell()
    late: list[list[int]] = []

    async def flood(engine: Engine) -> None:
        for start in range(1000, 20_000, 20):
            await admit(w, engine, range(start, start + 20))

    async def bring_late(engine: Engine) -> None:
        late.append(await admit(w, engine, range(20), LATE_MS))

    async with w.running(rate=RATE, lane_capacity=80, batch_events=20) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(flood, engine)
        await trio.sleep(60)
        nursery.start_soon(bring_late, engine)
        await trio.sleep(120)
        # Then the late ones came in and have left all the same
        tried = {alert for alert, _ in w.wechat.tried}
        assert late
        assert tried.issuperset(late[0])
        nursery.cancel_scope.cancel()
