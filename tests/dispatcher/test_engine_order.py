"""In what order what is due leaves, and when outcomes wait for more of them. Virtual time."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from dispatcher.delivery import Answer, given_back
from dispatcher.model.alert import Alert
from dispatcher.network.api import Request
from tests.dispatcher.test_engine import BUSY, OK, PERSON, ScriptedChannel, World, swipe


class Noting(ScriptedChannel):
    """Notes in which order alerts leave (answers come in any)."""

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__("wechat", answers)
        self.left: list[int] = []

    def prepare(self, alert: Alert) -> Request:
        self.left.append(alert.id)
        return super().prepare(alert)


async def waiting(world: Any, count: int) -> list[int]:
    """So many alerts that wait for their next try; their ids."""
    async with world.running() as engine:
        await engine.admit([swipe(number) for number in range(count)])
        await trio.sleep(0.2)
    return world.wechat.left[:count]


async def test_what_is_due_leaves_in_the_order_in_which_it_became_due(autojump_clock: MockClock) -> None:
    # Given alerts that wait for their next try, the last one for the longest
    world: Any = World(Noting([BUSY]), None)
    await world.tell(PERSON)
    ids = await waiting(world, 5)
    assert len(set(ids)) == 5
    connection = world.ledger.store.connection
    for place, alert_id in enumerate(reversed(ids)):
        connection.execute("UPDATE alerts SET due_at=? WHERE id=?", (world.now_ms() - 1_000 + place, alert_id))
    world.wechat.left.clear()
    # When a process takes them up together
    async with world.running():
        await trio.sleep(0.5)
    # Then those that were due for longest leave first
    assert world.wechat.left[:5] == list(reversed(ids))
    world.ledger.store.close()


async def test_outcomes_gather_under_a_flood_also_while_receipts_come(autojump_clock: MockClock) -> None:
    world = World(ScriptedChannel("wechat", [OK]), None)
    await world.tell(PERSON)
    async with world.running() as engine:
        lane: Any = engine.lanes["wechat"]
        recorder = engine.recorder
        (alert,) = (await world.ledger.admit([swipe(1)], world.now_ms(), engine.owner, engine._decide)).alerts
        # Given more in the lane than leaves at once, an outcome of it, and a receipt's step beside it
        lane.queue.put([alert], 0)
        recorder._steps.extend([((given_back(alert, 0),), lane), ((given_back(alert, 0),), None)])
        # Then they wait for more of them, and what receipts bring alone is not held up
        assert recorder._may_gather()
        recorder._steps.popleft()
        assert not recorder._may_gather()
        # And nothing to write down wakes nobody
        recorder._steps.clear()
        lane.queue.take(1)
        engine.record([], None)
        assert not recorder._steps
    world.ledger.store.close()
