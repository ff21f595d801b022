"""The engine in virtual time with rules that call some alerts urgent: these pass the queue, and nothing is starved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from dispatcher.engine import Engine
from dispatcher.freshness import FRESH, LATE, URGENT
from dispatcher.rules_in_force import RulesInForce
from ratelimit.rules import Decider, load_rules
from tests.dispatcher.channel_kit import an_alert
from tests.dispatcher.test_engine import BUSY, OK, ScriptedChannel, World, swipe

RATE = 10
PLAIN = "version = 1\n"
URGENT_RULES = """version = 1
[[rule]]
id = "fraud-first"
effect = "priority"
when = { category = "fraud" }

[[rule]]
id = "large-first"
effect = "priority"
when = { currency = "CNY", amount_from = 500000 }
"""


@pytest.fixture(autouse=True)
def _slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of virtual time pass here: the ledger is asked for what is due every second and not five times in one."""
    monkeypatch.setattr("dispatcher.engine.CLOCK_TICK_S", 1.0)


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make() -> World:
        made.append(World(ScriptedChannel("wechat", [OK]), None))
        return made[-1]

    yield make
    for one in made:
        one.ledger.store.close()


async def admit(w: World, engine: Engine, numbers: range, age_ms: int = 0, **changes: Any) -> None:
    """Bring swipes of an age in, as an intake does."""
    at_ms = w.now_ms() - age_ms
    await engine.reserve(len(numbers))
    try:
        await engine.admit([swipe(number, at_ms, **changes) for number in numbers])
    finally:
        engine.release(len(numbers))


async def admitted(w: World, engine: Engine, numbers: range, age_ms: int = 0, **changes: Any) -> list[int]:
    """The same; the ids of their alerts."""
    await admit(w, engine, numbers, age_ms, **changes)
    return [(await w.state(f"e{number}")).id for number in numbers]


def tried(w: World) -> list[int]:
    return [alert for alert, _ in w.wechat.tried]


def lengths(engine: Engine) -> list[int]:
    queue = engine.lanes["wechat"].queue
    return [queue.length(number) for number in (URGENT, FRESH, LATE)]


async def test_an_urgent_alert_behind_thousands_of_fresh_ones_leaves_first(world: Any, autojump_clock: Any) -> None:
    # Given a lane with three thousand fresh swipes in it
    w = world()
    await w.tell()
    async with w.running(rate=RATE, rules=URGENT_RULES, lane_capacity=4000, batch_events=1000) as engine:
        for start in range(0, 3000, 1000):
            await admit(w, engine, range(start, start + 1000))
        assert len(tried(w)) <= RATE
        # When a fraud warning comes, a large purchase, and one that is nearly so
        (warning,) = await admitted(w, engine, range(3000, 3001), category="fraud", amount=100)
        (large,) = await admitted(w, engine, range(3002, 3003), amount=500_000)
        (other,) = await admitted(w, engine, range(3001, 3002), amount=499_999)
        await trio.sleep(0.5)
        # Then the two leave with the next permits, and the third waits its turn
        assert tried(w).index(warning) < tried(w).index(large)
        assert {warning, large} <= set(tried(w)[-RATE:])
        assert other not in tried(w)


async def test_the_age_of_an_urgent_alert_takes_nothing_from_it(world: Any, autojump_clock: Any) -> None:
    # Given a lane full of fresh swipes, and a fraud warning that comes with an hour's delay
    w = world()
    await w.tell()
    async with w.running(rate=RATE, rules=URGENT_RULES, lane_capacity=800, batch_events=200) as engine:
        await admit(w, engine, range(200))
        (alert,) = await admitted(w, engine, range(200, 201), 3_600_000, category="fraud")
        await trio.sleep(0.5)
        # Then it leaves first all the same
        assert alert in tried(w)


async def test_a_retry_is_urgent_again_after_a_restart(world: Any, autojump_clock: Any) -> None:
    # Given three hundred swipes and a fraud warning among them that a busy provider sent away
    w = world()
    await w.tell()
    w.wechat.answers = [BUSY]
    async with w.running(rules=URGENT_RULES) as engine:
        await admit(w, engine, range(200))
        (alert,) = await admitted(w, engine, range(200, 201), category="fraud")
        await admit(w, engine, range(201, 300))
        await trio.sleep(1)
    w.wechat.answers = [OK]
    w.wechat.tried.clear()
    # When another process finds all of them due
    w.offset_ms = 600_000
    async with w.running(rate=RATE, rules=URGENT_RULES) as engine:
        await trio.sleep(1)
        # Then the warning is one of the first that leave
        assert alert in tried(w)[: RATE + 1]
        assert sum(lengths(engine)) > 200


async def test_a_flood_of_urgent_ones_starves_neither_fresh_nor_late_ones(world: Any, autojump_clock: Any) -> None:
    # Given more urgent alerts than the channel takes, minute after minute
    w = world()
    await w.tell()

    async def flood(engine: Engine) -> None:
        for start in range(1000, 2_000, 20):
            await admit(w, engine, range(start, start + 20), category="fraud")

    async with (
        w.running(rate=RATE, rules=URGENT_RULES, lane_capacity=80, batch_events=20) as engine,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(flood, engine)
        await trio.sleep(10)
        # When ten fresh and five late ones come
        fresh = await admitted(w, engine, range(10))
        late = await admitted(w, engine, range(10, 15), 60_000)
        began = len(tried(w))
        await trio.sleep(30)
        # Then one of eight places was for them, and all of them have left while the flood went on
        assert set(tried(w)) >= {*fresh, *late}
        assert max(tried(w).index(alert) for alert in (*fresh, *late)) - began < 8 * 15 + 8 * 10
        assert lengths(engine)[0] > 0
        nursery.cancel_scope.cancel()


async def test_other_rules_hold_for_what_comes_back_to_the_lane(world: Any, autojump_clock: Any) -> None:
    # Given rules that call nothing urgent
    w = world()
    await w.tell()
    async with w.running(rate=RATE, rules=PLAIN) as engine:
        await admit(w, engine, range(200))
        (first,) = await admitted(w, engine, range(200, 201), category="fraud")
        await trio.sleep(0.5)
        assert (first in tried(w), lengths(engine)[0]) == (False, 0)
        # When others are put in force
        w.admitter.put_in_force(load_rules(URGENT_RULES, "test"))
        (second,) = await admitted(w, engine, range(201, 202), category="fraud")
        await trio.sleep(0.5)
        # Then the next warning leaves first
        assert second in tried(w)


def test_without_a_priority_no_alert_is_looked_at() -> None:
    alerts = [an_alert(), an_alert(event={"category": "fraud"})]
    plain = RulesInForce(Decider(load_rules(PLAIN, "test"), ["wechat"]))
    assert plain.is_urgent is None
    assert plain.parted(alerts) == ((), alerts)
    assert plain.parted(alerts)[1] is alerts
    urgent = RulesInForce(Decider(load_rules(URGENT_RULES, "test"), ["wechat"]))
    assert urgent.parted(alerts) == (alerts[1:], alerts[:1])
