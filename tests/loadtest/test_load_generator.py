"""The open loop under virtual time: arrivals keep to their schedule, and a stall cannot hide."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from loadtest.load import generator as module
from loadtest.load.generator import Generator
from loadtest.load.lines import Chunk
from loadtest.load.schedule import Arrivals
from loadtest.load.tally import Tally
from loadtest.load.window import LEAST, SLOW_S, Window
from tests.loadtest.load_kit import Numbers, SlowTarget, Target, chunk_numbers, generator_of


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


async def test_after_an_overload_new_arrivals_leave_at_once_and_the_backlog_beside_them(
    autojump_clock: MockClock,
) -> None:
    # Given two hundred a second, ten seconds of them with a target that takes fifty a second, and twenty more when it
    # takes three hundred
    def rate(now: float) -> float:
        return 50.0 if now < 10.0 else 300.0

    times = [number / 200 for number in range(6000)]
    fresh, late = SlowTarget(rate, 0.8), SlowTarget(rate, 0.2)
    tally = Tally()
    tally.epoch = 1_000_000.0
    generator = Generator(Arrivals(iter(times)), Numbers(), [fresh], tally, [late])
    for target in (fresh, late):
        target.generator, target.tally = generator, tally
    await generator.arrive()
    with trio.fail_after(60):
        await generator.hand_out_rest()
    tally.finish()
    generator.backlog.close()
    # Then nothing is lost and nothing sent twice
    assert tally.accepted == tally.shown == 6000
    numbers = [number for target in (fresh, late) for _, chunk in target.chunks for number in chunk_numbers(chunk)]
    assert sorted(numbers) == list(range(6000))
    # And once the target is well again, nobody waits for longer than what was still fresh takes, while the
    # backlog takes its time
    seconds = tally.intervals()
    assert max(one.max_ms or 0.0 for one in seconds[10:22]) < 2_100
    assert max(one.max_ms or 0.0 for one in seconds[22:30]) < 20
    assert max(one.max_ms or 0.0 for one in seconds[:10]) > 10_000
    # The backlog leaves oldest first
    assert [chunk.first for _, chunk in late.chunks] == sorted(chunk.first for _, chunk in late.chunks)
    assert tally.waiting == tally.kept == 0


async def test_a_chunk_that_is_given_back_is_neither_sent_nor_unanswered_until_it_leaves_again(
    autojump_clock: MockClock,
) -> None:
    target = Target(lambda now: now < 5.0)
    generator, tally = generator_of([0.0] * 10, target)
    tally.arrive([0.0] * 10)
    tally.build([f"k{number}" for number in range(10)])
    generator.keep(Chunk(0, 10, Numbers().build(0, [0.0] * 10, 0.0)[0], again=True))
    assert generator.behind.is_set()
    assert (tally.waiting, tally.unanswered, tally.sent) == (10, 0, 0)
    await trio.sleep(5)
    await generator.hand_out_rest()
    generator.backlog.close()
    ((_, chunk),) = target.chunks
    assert (chunk.again, chunk.body) == (True, b"".join(b"%d\n" % number for number in range(10)))
    assert tally.accepted == 10


def test_a_window_follows_how_fast_answers_come() -> None:
    window = Window(1024)
    for _ in range(3):
        window.answered(100, SLOW_S * 1.1)
    assert window.size == 128
    for _ in range(10):
        window.answered(100, SLOW_S * 10)
    assert window.size == LEAST
    window.answered(64, 0.02)
    assert window.size == 2 * LEAST
    for _ in range(100):
        window.answered(64, 0.02)
    assert window.size == 1024
