"""The engine and what rules hold: it leaves in its time, or when somebody releases it, or expires."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from dispatcher.ledger.held import HELD_WAIT_MS
from tests.dispatcher.ledger_kit import HOUR_MS, Tell
from tests.dispatcher.test_engine import OK, ScriptedChannel, World, swipe

LONG_S = HELD_WAIT_MS // 1000 + 10


async def held(w: World, event: str, *, due_ms: int, owner: int, rule: str = "night") -> None:
    decide = Tell("held", reason=rule, expires_ms=w.now_ms() + 24 * HOUR_MS, due_ms=due_ms)
    await w.ledger.admit([swipe(id=event)], w.now_ms(), owner, decide)


async def test_what_is_held_leaves_when_its_time_has_come(autojump_clock: MockClock) -> None:
    for fenced in (False, True):
        # Given an alert that is held for longer than anybody waits for
        w = World(ScriptedChannel("wechat", [OK], fenced=fenced), None)
        await w.tell()
        async with w.running() as engine:
            await held(w, "e1", due_ms=w.now_ms() + LONG_S * 1000, owner=engine.owner)
            # When somebody waits until nothing is to be done
            await engine.idle()
            # Then that time is not waited for
            assert (w.wechat.tried, (await w.state("e1")).state) == ([], "held")
            await trio.sleep(LONG_S - 1)
            assert w.wechat.tried == []
            # And when it has come the alert leaves at once
            await trio.sleep(1.5)
            alert = await w.state("e1")
            assert (alert.state, len(alert.attempts), len(w.wechat.tried)) == ("delivered", 1, 1)
        assert (await w.ledger.books()).balanced
        await w.ledger.aclose()


async def test_a_short_hold_is_waited_for(autojump_clock: MockClock) -> None:
    # Given a gap of half a minute between two alerts
    w = World(ScriptedChannel("wechat", [OK]), None)
    await w.tell()
    async with w.running() as engine:
        await held(w, "e1", due_ms=w.now_ms() + 30_000, owner=engine.owner, rule="gap")
        await engine.idle()
        # Then whoever waits sees it delivered
        assert (await w.state("e1")).state == "delivered"
    await w.ledger.aclose()


async def test_a_storm_is_sent_when_it_is_released_and_expires_when_it_is_not(autojump_clock: MockClock) -> None:
    # Given two alerts of a storm
    w = World(ScriptedChannel("wechat", [OK]), None)
    await w.tell()
    async with w.running() as engine:
        age = w.now_ms() + LONG_S * 1000
        for event in ("e1", "e2"):
            decide = Tell("held", reason="storm", expires_ms=age, due_ms=age)
            await w.ledger.admit([swipe(id=event)], w.now_ms(), engine.owner, decide)
        # When one of them is released, beside the engine
        first = (await w.state("e1")).id
        assert await w.ledger.release_held("storm", w.now_ms(), "ada", first) == 1
        await trio.sleep(2)
        # Then that one leaves
        assert [(await w.state(event)).state for event in ("e1", "e2")] == ["delivered", "held"]
        # And the other one expires in its time, untold
        await trio.sleep(LONG_S)
        assert [(await w.state(event)).state for event in ("e1", "e2")] == ["delivered", "expired"]
        assert len(w.wechat.tried) == 1
    assert w.meter.ended["expired"] == 1
    assert (await w.ledger.books()).open == 0
    await w.ledger.aclose()
