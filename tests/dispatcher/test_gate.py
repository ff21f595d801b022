"""The gate under virtual time: fresh batches go first, late ones leave them room, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dispatcher.freshness import LATE_TURNS
from dispatcher.gate import BATCHES, CALLS, Gate

NOW_MS = 1_795_320_000_000
FRESH_LINE = b'{"time":"2026-11-22T04:00:00Z"}'
LATE_LINE = b'{"time":"2026-11-22T03:00:00Z"}'


class FakeLane:
    """A lane of which only the length counts."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.queued = 0
        self.on_room: Callable[[], None] = lambda: None

    @property
    def free(self) -> int:
        return self.capacity - self.queued

    @property
    def free_for_late(self) -> int:
        return self.capacity * 3 // 4 - self.queued

    def send(self, count: int) -> None:
        self.queued -= count
        self.on_room()


def gate_of(capacity: int = 40, batch: int = 10) -> tuple[Gate, FakeLane]:
    lane: Any = FakeLane(capacity)
    return Gate([lane], batch, lambda: NOW_MS), lane


class Queue:
    """Batches that go through the gate into the lane, and the order in which they did."""

    def __init__(self, gate: Gate, lane: FakeLane, nursery: trio.Nursery) -> None:
        self.passed: list[str] = []
        self._gate, self._lane, self._nursery = gate, lane, nursery

    async def add(self, name: str, line: bytes, events: int = 10) -> None:
        async def go() -> None:
            await self._gate.reserve(events, line)
            self.passed.append(name)
            self._lane.queued += events
            self._gate.release(events)

        self._nursery.start_soon(go)
        await wait_all_tasks_blocked()


async def test_while_nothing_waits_nobody_is_asked_how_late_he_is(autojump_clock: MockClock) -> None:
    gate, _ = gate_of()
    for _ in range(2):
        await gate.reserve(10, LATE_LINE)


async def test_late_batches_leave_a_quarter_of_the_lane_to_fresh_ones(autojump_clock: MockClock) -> None:
    gate, lane = gate_of()
    async with trio.open_nursery() as nursery:
        queue = Queue(gate, lane, nursery)
        for number in range(5):
            await queue.add(f"late {number}", LATE_LINE)
        assert queue.passed == ["late 0", "late 1", "late 2"]
        # When a fresh one comes, then it need not wait for them
        await queue.add("fresh", FRESH_LINE)
        assert queue.passed[3:] == ["fresh"]
        # And at the lane's bound everybody waits
        await queue.add("fresh too", FRESH_LINE)
        assert queue.passed[4:] == []
        lane.send(40)
        await wait_all_tasks_blocked()
        assert queue.passed[4:] == ["fresh too", "late 3", "late 4"]


async def test_late_batches_under_way_count_as_if_they_were_in_the_lane(autojump_clock: MockClock) -> None:
    gate, _ = gate_of()
    for _ in range(3):
        await gate.reserve(10, LATE_LINE)
    with trio.move_on_after(1) as waiting:
        await gate.reserve(10, LATE_LINE)
    assert waiting.cancelled_caught
    await gate.reserve(10, FRESH_LINE)


async def test_fresh_ones_overtake_the_late_that_wait_and_keep_their_own_order(autojump_clock: MockClock) -> None:
    gate, lane = gate_of()
    lane.queued = 40
    async with trio.open_nursery() as nursery:
        queue = Queue(gate, lane, nursery)
        for name, line in (("l1", LATE_LINE), ("f1", FRESH_LINE), ("l2", LATE_LINE), ("f2", FRESH_LINE)):
            await queue.add(name, line)
        while lane.queued or len(queue.passed) < 4:
            lane.send(min(10, lane.queued))
            await wait_all_tasks_blocked()
    assert queue.passed == ["f1", "f2", "l1", "l2"]


async def test_an_endless_flood_of_fresh_ones_lets_one_late_event_of_eight_through(autojump_clock: MockClock) -> None:
    gate, lane = gate_of()
    lane.queued = 40
    async with trio.open_nursery() as nursery:
        queue = Queue(gate, lane, nursery)
        for number in range(10):
            await queue.add(f"late {number}", LATE_LINE)
        for number in range(10):
            await queue.add(f"fresh {number}", FRESH_LINE)
        for number in range(10, 80):
            lane.send(10)
            await wait_all_tasks_blocked()
            await queue.add(f"fresh {number}", FRESH_LINE)
        nursery.cancel_scope.cancel()
    late = [at for at, name in enumerate(queue.passed) if name.startswith("late")]
    assert len(late) == pytest.approx(len(queue.passed) / LATE_TURNS, abs=1)
    assert [queue.passed[at] for at in late] == [f"late {number}" for number in range(len(late))]


async def test_a_late_batch_that_gives_up_lets_the_others_on(autojump_clock: MockClock) -> None:
    # Given a late batch whose turn has come, at a lane that is full
    gate, lane = gate_of()
    lane.queued = 40
    gate._passed = 1000
    async with trio.open_nursery() as nursery:
        queue = Queue(gate, lane, nursery)
        with trio.move_on_after(1):
            await gate.reserve(10, LATE_LINE)
        await queue.add("fresh", FRESH_LINE)
        lane.send(5)
        await wait_all_tasks_blocked()
        assert queue.passed == ["fresh"]


@pytest.mark.parametrize("line", [FRESH_LINE, LATE_LINE])
async def test_who_is_cancelled_has_taken_nothing(line: bytes, autojump_clock: MockClock) -> None:
    gate, lane = gate_of()
    lane.queued = 40
    for _ in range(CALLS + BATCHES):
        with trio.move_on_after(0.1) as waiting:
            await gate.reserve(10, line)
        assert waiting.cancelled_caught
    lane.send(40)
    await gate.reserve(10, line)
    assert (gate._calls, gate._events) == (1, 10)


async def test_no_more_than_four_batches_or_so_many_calls_are_under_way(autojump_clock: MockClock) -> None:
    for events, most in ((10, BATCHES), (1, BATCHES * 10), (0, CALLS)):
        gate, _ = gate_of(capacity=1000)
        taken = 0
        with trio.move_on_after(1):
            while True:
                await gate.reserve(events, FRESH_LINE)
                taken += 1
        assert taken == most
        gate.release(events)
        await gate.reserve(events, FRESH_LINE)
