"""The open loop under virtual time: arrivals keep to their schedule, and a stall cannot hide."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from loadtest.load import generator as module
from tests.loadtest.load_kit import Numbers, Target, generator_of


async def test_a_stall_of_two_seconds_is_in_the_latencies_of_all_who_arrived_meanwhile(
    autojump_clock: MockClock,
) -> None:
    # Given a hundred events a second for five seconds, and a target that takes nothing from second 1 to second 3
    times = [number / 100 for number in range(500)]
    generator, tally = generator_of(times, Target(lambda now: 1.0 <= now < 3.0))
    await generator.arrive()
    await generator.hand_out_rest()
    # Then the first who arrived in the stall waited for all of it, the last for nothing: by the schedule, not by when
    # the generator got rid of them
    assert tally.delivered.count == tally.acknowledged.count == 500
    assert tally.delivered.at(100) == pytest.approx(2000, rel=0.01)
    late = sorted((1000 * (3.0 - at) for at in times if 1.0 <= at < 3.0), reverse=True)
    assert tally.delivered.at(100 - 100 * 100 / 500) == pytest.approx(late[100], rel=0.02)
    assert tally.delivered.at(50) < 10
    # And it was the target that pushed back, not the generator that was late
    assert tally.pushed_back == 200
    assert tally.lateness.at(100) < 10
    seconds = tally.intervals()
    assert [one.scheduled for one in seconds] == [100] * 5
    assert [one.pushed_back for one in seconds] == [0, 100, 100, 0, 0]
    assert seconds[1].delivered == seconds[2].delivered == 0
    assert seconds[3].delivered == 300


async def test_a_target_that_keeps_up_gets_each_event_within_a_tick(autojump_clock: MockClock) -> None:
    times = [number / 250 for number in range(250)]
    target = Target()
    generator, tally = generator_of(times, target)
    await generator.arrive()
    assert tally.pushed_back == 0
    assert tally.acknowledged.at(100) <= module.TICK_S * 1000 + 0.2
    assert b"".join(chunk.body for _, chunk in target.chunks) == Numbers().build(0, times, 0.0)[0]
    assert generator.scheduled_all_at == pytest.approx(times[-1], abs=0.01)


async def test_what_no_longer_fits_is_abandoned_and_counted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given room for 50 that wait, and a target that takes nothing for a second
    monkeypatch.setattr(module, "MAX_WAITING", 50)
    generator, tally = generator_of([number / 100 for number in range(200)], Target(lambda now: now < 1.0))
    await generator.arrive()
    # Then the first 50 are kept, those that find no room are not, and what comes after the stall is sent
    assert tally.abandoned == pytest.approx(50, abs=2)
    assert tally.accepted == 200 - tally.abandoned
    assert sum(one.scheduled for one in tally.intervals()) == 200


async def test_an_interrupt_leaves_what_waits_unsent(autojump_clock: MockClock) -> None:
    target = Target(lambda now: now >= 1.0)
    generator, tally = generator_of([number / 100 for number in range(1000)], target)
    with trio.move_on_after(2.0):
        await generator.arrive()
    generator.stop_arrivals()
    assert tally.accepted == pytest.approx(100, abs=2)
    assert tally.waiting == pytest.approx(100, abs=2)
    assert generator.scheduled_all_at == pytest.approx(2.0)


async def test_a_flood_is_shared_out_in_chunks(autojump_clock: MockClock) -> None:
    target = Target()
    generator, tally = generator_of([0.0] * 10_000, target)
    await generator.arrive()
    assert tally.accepted == 10_000
    assert max(chunk.count for _, chunk in target.chunks) == module.CHUNK_EVENTS
