"""The leased pacer: its share changes as others decide, and no second holds more than its largest. Virtual time."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.leased import WINDOW_SECONDS, LeasedPacer
from tests.ratelimit.test_pacing import busiest_second


def steady_ms() -> int:
    return int(trio.current_time() * 1000)


async def test_without_a_share_nothing_is_granted(autojump_clock: trio.testing.MockClock) -> None:
    pacer = LeasedPacer(100, steady_ms)
    assert not pacer.take_now(1)
    with trio.move_on_after(10) as scope:
        await pacer.acquire_up_to(1)
    assert scope.cancelled_caught
    # When it gets one, then a lone alert leaves at once, and after its end nothing does
    pacer.lend(10, steady_ms() + 3_000)
    before = trio.current_time()
    assert await pacer.acquire_up_to(1) == 1
    assert trio.current_time() == before
    await trio.sleep(3)
    assert not pacer.take_now(1)
    with trio.move_on_after(10) as scope:
        await pacer.acquire_up_to(1)
    assert scope.cancelled_caught


@pytest.mark.parametrize("share", [1, 3, 13, 49, 100, 397, 20_000])
async def test_97_percent_are_used_and_no_second_holds_more(share: int, autojump_clock: trio.testing.MockClock) -> None:
    pacer = LeasedPacer(share, steady_ms)
    pacer.lend(share, 10**9)
    start, grants = trio.current_time(), []
    while trio.current_time() < start + 20:
        n = await pacer.acquire_up_to(256)
        grants.append((trio.current_time(), n))
    assert busiest_second(grants) <= share
    assert sum(n for _, n in grants) >= 0.97 * share * 20


async def test_a_late_wake_up_loses_nothing(mock_clock: trio.testing.MockClock) -> None:
    # Given a machine so busy that each wake-up is 80 ms late
    pacer = LeasedPacer(400, steady_ms)
    pacer.lend(400, 10**9)
    grants: list[tuple[float, int]] = []

    async def lane() -> None:
        while trio.current_time() < 10:
            n = await pacer.acquire_up_to(256)
            grants.append((trio.current_time(), n))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane)
        while trio.current_time() < 10:
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.08)
    # Then the rate is kept and used all the same
    assert busiest_second(grants) <= 400
    assert sum(n for _, n in grants) >= 0.9 * 4_000


async def test_what_left_late_is_counted_when_it_left(autojump_clock: trio.testing.MockClock) -> None:
    # Given a hundred granted at once that left half a second later
    pacer = LeasedPacer(100, steady_ms, burst_share=1.0)
    pacer.lend(100, 10**9)
    taken = 0
    while taken < 100:
        taken += await pacer.acquire_up_to(100 - taken)
    grant = pacer.mark()
    assert grant is not None
    await trio.sleep(0.5)
    for _ in range(100):
        pacer.left(grant, trio.current_time())
    # Then the next one waits for the second of their leaving to end
    before = trio.current_time()
    await pacer.acquire_up_to(1)
    assert trio.current_time() - before == pytest.approx(WINDOW_SECONDS, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1.5), st.integers(0, 60)), max_size=20),
    pauses=st.lists(st.tuples(st.floats(0, 0.6), st.integers(1, 40), st.booleans()), max_size=60),
)
def test_no_second_holds_more_than_its_largest_share(
    changes: list[tuple[float, int]], pauses: list[tuple[float, int, bool]]
) -> None:
    grants: list[tuple[float, int]] = []
    shares = [(0.0, 30)]

    async def lane(pacer: LeasedPacer) -> None:
        for pause, n, gives_back in pauses:
            await trio.sleep(pause)
            granted = 0
            with trio.move_on_after(5):
                granted = await pacer.acquire_up_to(n)
            if granted and gives_back:
                pacer.give_back(1)
                granted -= 1
            grants.append((trio.current_time(), granted))

    async def main() -> None:
        pacer = LeasedPacer(60, steady_ms)
        pacer.lend(30, 10**9)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lane, pacer)
            for pause, share in changes:
                await trio.sleep(pause)
                pacer.lend(share, 10**9)
                shares.append((trio.current_time(), share))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    ends = [at for at, _ in shares[1:]] + [math.inf]
    for start, _ in grants:
        held = sum(n for at, n in grants if start <= at < start + 1)
        largest = max(share for (at, share), end in zip(shares, ends, strict=True) if at < start + 1 and end >= start)
        assert held <= largest


async def test_two_lanes_of_one_account_wait_for_one_share(autojump_clock: trio.testing.MockClock) -> None:
    # Given two lanes that wait for a share together, in a process that has used up what it had
    pacer = LeasedPacer(1_000, steady_ms)
    pacer.lend(1_000, 10**9)
    grants: list[tuple[float, int]] = []

    async def lane(number: int) -> None:
        while trio.current_time() < 10:
            n = await pacer.acquire_up_to(256)
            grants.append((trio.current_time(), n))
            taken[number] += n

    taken = [0, 0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane, 0)
        nursery.start_soon(lane, 1)
        for share in (1_000, 3, 500, 1, 40, 1_000):  # others decide on it all the time
            await trio.sleep(1.5)
            pacer.lend(share, 10**9)
    # Then both get their permits to the end, and no second holds more than the rate
    assert busiest_second(grants) <= 1_000
    assert min(taken) > 500
    assert max(at for at, _ in grants) > 9
