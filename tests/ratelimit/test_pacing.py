"""The pacer's guarantee, its order, and what a cancelled waiter leaves behind. All time is virtual."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.pacing import Pacer

RATES = [0.5, 0.9, 1, 1.9, 2, 3, 5.5, 20, 25, 49, 50, 51.7, 200, 1234, 20_000]


def busiest_second(grants: list[tuple[float, int]], seconds: float = 1.0) -> int:
    """The most permits in any half-open stretch of ``seconds``; such a stretch begins at a grant."""
    busiest = total = last = 0
    for start, n in grants:
        while last < len(grants) and grants[last][0] < start + seconds:
            total += grants[last][1]
            last += 1
        busiest = max(busiest, total)
        total -= n
    return busiest


def test_busiest_second_counts_a_half_open_stretch() -> None:
    # Given grants at the ends of a second, when they are counted, then only the first end belongs to it
    assert busiest_second([(0.0, 3), (0.5, 1), (1.0, 5), (1.2, 1)]) == 7


@pytest.mark.parametrize("rate", RATES)
async def test_under_full_load_no_second_exceeds_the_rate_and_95_percent_of_it_are_used(
    rate: float, autojump_clock: trio.testing.MockClock
) -> None:
    # Given a pacer that has been idle for a while
    pacer = Pacer(rate)
    await trio.sleep(10)
    start, grants, seconds = trio.current_time(), [], 20 / min(rate, 1)
    # When a lane takes whatever it can get for twenty seconds
    while trio.current_time() < start + seconds:
        n = await pacer.acquire_up_to(256)
        grants.append((trio.current_time(), n))
    # Then no second ever held more than the rate, and no grant more than the burst
    assert busiest_second(grants) <= max(1, math.floor(rate))
    assert max(n for _, n in grants) <= pacer.burst <= max(1, rate / 10)
    # And at least 95 % of it were used (of a fractional rate its whole part, since a second holds whole
    # messages)
    usable = rate if rate < 1 else math.floor(rate)
    assert sum(n for _, n in grants) >= 0.95 * usable * seconds


async def test_half_a_permit_a_second_is_one_every_two_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Given half a permit a second, when three are acquired one by one
    pacer = Pacer(0.5)
    times = []
    for _ in range(3):
        await pacer.acquire(1)
        times.append(trio.current_time())
    # Then they come exactly two seconds apart, the first at once
    assert times == pytest.approx([0, 2, 4])


async def test_beyond_the_burst_permits_gather(autojump_clock: trio.testing.MockClock) -> None:
    # Given a rate of 200 (a burst of 4, 192 leak a second), when 100 are acquired at once
    pacer = Pacer(200)
    await pacer.acquire(100)
    # Then it takes as long as all but the burst need
    assert trio.current_time() == pytest.approx((100 - 4) / 192, abs=1e-4)


async def test_nothing_is_acquired_at_once(autojump_clock: trio.testing.MockClock) -> None:
    # Given a pacer with nothing to give, when nothing is acquired, then it does not wait
    pacer = Pacer(1)
    await pacer.acquire(1)
    await pacer.acquire(0)
    assert trio.current_time() == 0


@pytest.mark.parametrize("rate", [0, -1, math.inf, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    # Given a rate that nothing can be paced by, when a pacer is made of it, then it says so
    with pytest.raises(ValueError, match="a rate must be above 0 and finite"):
        Pacer(rate)


async def test_an_impossible_number_of_permits_is_refused() -> None:
    # Given a pacer, when less than nothing is asked for, then it says so
    with pytest.raises(ValueError, match="cannot acquire -1 permits"):
        await Pacer(1).acquire(-1)
    with pytest.raises(ValueError, match="cannot acquire up to 0 permits"):
        await Pacer(1).acquire_up_to(0)


async def test_a_lone_alert_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    # Given a pacer with room for four, when a lane of one alert asks, then it gets one at once, and so do the
    # next
    pacer = Pacer(200)
    assert [await pacer.acquire_up_to(1) for _ in range(4)] == [1, 1, 1, 1]
    assert trio.current_time() == 0
    # And a larger wish that follows waits for half a burst instead of waking up for each permit
    assert await pacer.acquire_up_to(256) == 2
    assert trio.current_time() == pytest.approx(2 / 192, abs=1e-5)


async def test_two_lanes_get_the_same_share(autojump_clock: trio.testing.MockClock) -> None:
    # Given two lanes on one pacer, one greedy and one that wants a single permit at a time
    pacer = Pacer(200)
    served: list[str] = []

    async def lane(name: str, n: int) -> None:
        while trio.current_time() < 10:
            await pacer.acquire_up_to(n)
            served.append(name)

    # When both ask as often as they can for ten seconds
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane, "greedy", 256)
        nursery.start_soon(lane, "modest", 1)
    # Then they take turns
    assert abs(served.count("greedy") - served.count("modest")) <= 10
    assert len(served) > 1000


async def test_a_large_request_is_not_overtaken_by_small_ones(autojump_clock: trio.testing.MockClock) -> None:
    # Given an empty pacer with a large request waiting
    pacer = Pacer(200)
    await pacer.acquire(4)
    order: list[str] = []

    async def ask(name: str, n: int) -> None:
        await pacer.acquire(n)
        order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "large", 50)
        await trio.testing.wait_all_tasks_blocked()
        # When small ones come later, one after the other
        for number in range(3):
            nursery.start_soon(ask, f"small {number}", 1)
            await trio.testing.wait_all_tasks_blocked()
    # Then they are served in the order in which they came
    assert order == ["large", "small 0", "small 1", "small 2"]


async def test_a_newcomer_does_not_take_what_somebody_is_waiting_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Given an empty pacer on which one waits for a whole burst
    pacer = Pacer(200)
    await pacer.acquire(4)
    order: list[str] = []

    async def ask(name: str, n: int) -> None:
        await pacer.acquire(n)
        order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "waiting", 4)
        # When somebody asks for little after half of it has come together
        await trio.sleep(2.5 / 192)
        nursery.start_soon(ask, "newcomer", 1)
    # Then the one that waited is served first
    assert order == ["waiting", "newcomer"]


async def test_a_late_wake_up_is_shared_by_all_who_wait(mock_clock: trio.testing.MockClock) -> None:
    # Given an empty pacer on which two lanes wait
    pacer = Pacer(200)
    await pacer.acquire(4)
    granted: list[int] = []

    async def lane() -> None:
        granted.append(await pacer.acquire_up_to(256))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane)
        nursery.start_soon(lane)
        await trio.testing.wait_all_tasks_blocked()
        # When the process was held up for a second, so that the whole burst is there
        mock_clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.autojump_threshold = 0
    # Then each gets its half of it
    assert granted == [2, 2]


@pytest.mark.parametrize("n", [1, 3, 50])
async def test_a_cancelled_waiter_leaves_no_trace(n: int, autojump_clock: trio.testing.MockClock) -> None:
    # Given an empty pacer on which one waits, and then another
    pacer = Pacer(200)
    await pacer.acquire(4)
    scope = trio.CancelScope()
    served_at: list[float] = []

    async def first() -> None:
        with scope:
            await pacer.acquire(n)

    async def second() -> None:
        await pacer.acquire(2)
        served_at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        # When the first gives up
        scope.cancel()
    # Then the second is served when it would have been without the first
    assert scope.cancelled_caught
    assert served_at == [pytest.approx(2 / 192, abs=1e-5)]


async def test_a_cancelled_large_request_gives_back_what_it_had_gathered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Given a request for far more than the burst, which has gathered for a second
    pacer = Pacer(200)
    with trio.move_on_after(1) as scope:
        await pacer.acquire(1000)
    assert scope.cancelled_caught
    # When it has given up, then the pacer is as full as if nobody had asked
    assert await pacer.acquire_up_to(4) == 4
    assert trio.current_time() == 1


async def test_a_cancelled_lane_does_not_take_permits_even_when_there_are_some() -> None:
    # Given a pacer with room, when a task that is already cancelled asks
    pacer = Pacer(200)
    with trio.CancelScope() as scope:
        scope.cancel()
        await pacer.acquire_up_to(4)
    # Then it is told so, and the permits are still there
    assert scope.cancelled_caught
    assert await pacer.acquire_up_to(4) == 4


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([0.7, 1, 3, 5.5, 30, 200, 777.7]),
    steps=st.lists(
        st.tuples(
            st.floats(0, 1.5),  # sleep before, seconds
            st.integers(1, 12),  # permits
            st.none() | st.floats(0, 0.5),  # gives up after, seconds
        ),
        max_size=25,
    ),
    lanes=st.integers(1, 3),
)
def test_the_guarantee_holds_for_any_use(rate: float, steps: list[tuple[float, int, float | None]], lanes: int) -> None:
    # Given some lanes that ask, pause and give up as they like
    grants: list[tuple[float, int]] = []

    async def lane(pacer: Pacer, mine: list[tuple[float, int, float | None]]) -> None:
        for pause, n, patience in mine:
            await trio.sleep(pause)
            with trio.move_on_after(math.inf if patience is None else patience):
                granted = await pacer.acquire_up_to(n)
                grants.append((trio.current_time(), granted))

    async def main() -> None:
        pacer = Pacer(rate)
        async with trio.open_nursery() as nursery:
            for number in range(lanes):
                nursery.start_soon(lane, pacer, steps[number::lanes])

    # When they have run, and none of them hangs
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    # Then no second holds more than the rate; below one a second, no longer stretch more than one
    grants.sort()
    assert busiest_second(grants) <= max(1, math.floor(rate))
    if rate < 1:
        assert busiest_second(grants, 0.999 / rate) <= 1
    # And every lane got what it waited for
    assert len(grants) >= sum(patience is None for _, _, patience in steps)
