"""aiolimiter on trio's clock: order, cancellation, and figures that differ by a rounding error only."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ratelimit.pacing import TrioLimiter


async def test_the_limiter_runs_on_trios_clock(autojump_clock: trio.testing.MockClock) -> None:
    # Given ten permits a second and room for ten, when 25 are acquired one by one
    limiter = TrioLimiter(10, 1)
    times = []
    for _ in range(25):
        async with limiter:
            times.append(trio.current_time())
    # Then ten come at once and the others a tenth of a second apart
    assert times == pytest.approx([0] * 10 + [n / 10 for n in range(1, 16)], abs=1e-4)


async def test_waiters_of_one_size_are_served_in_order(autojump_clock: trio.testing.MockClock) -> None:
    # Given an empty limiter and five waiters
    limiter = TrioLimiter(1, 1)
    await limiter.acquire()
    order: list[tuple[int, float]] = []

    async def wait(number: int) -> None:
        await limiter.acquire()
        order.append((number, round(trio.current_time(), 3)))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
    # When all have been served, then it was in the order in which they came, a second apart
    assert order == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0)]


@pytest.mark.parametrize("given_up", [0, 1, 2])
async def test_any_waiter_may_give_up_and_the_others_move_up(
    given_up: int, autojump_clock: trio.testing.MockClock
) -> None:
    # Given three waiters
    limiter = TrioLimiter(1, 1)
    await limiter.acquire()
    scopes = [trio.CancelScope() for _ in range(3)]
    served: list[tuple[int, float]] = []

    async def wait(number: int) -> None:
        with scopes[number]:
            await limiter.acquire()
            served.append((number, round(trio.current_time(), 3)))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
        # When one of them gives up
        scopes[given_up].cancel()
    # Then the other two are served one and two seconds after the start: its share is not lost
    rest = [number for number in range(3) if number != given_up]
    assert served == [(rest[0], 1.0), (rest[1], 2.0)]


async def test_giving_up_at_the_very_moment_of_ones_turn_hangs_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Given two waiters, the first of which loses its patience exactly when its turn comes
    limiter = TrioLimiter(1, 1)
    await limiter.acquire()
    served: list[float] = []

    async def impatient() -> None:
        with trio.move_on_at(1.0):
            await limiter.acquire()
            served.append(trio.current_time())

    async def patient() -> None:
        await limiter.acquire()
        served.append(trio.current_time())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(patient)
    # Then whichever of the two the clock let win, the other came a second later or not at all
    assert served in ([pytest.approx(1.0, abs=1e-3)], [pytest.approx(1.0), pytest.approx(2.0, abs=1e-3)])


async def test_all_waiters_may_give_up_and_the_limiter_still_works(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Given waiters that all give up, so that only a stale timer is left
    limiter = TrioLimiter(1, 10)
    await limiter.acquire()
    for _ in range(3):
        with trio.move_on_after(1):
            await limiter.acquire()
    # When somebody asks again, before the stale timer and long after it
    await limiter.acquire()
    assert trio.current_time() == pytest.approx(10, abs=1e-3)
    await trio.sleep(100)
    await limiter.acquire()
    await limiter.acquire()
    # Then it is served on time
    assert trio.current_time() == pytest.approx(120, abs=1e-2)


async def test_rounding_cannot_stop_the_virtual_clock(autojump_clock: trio.testing.MockClock) -> None:
    # Given amounts whose sum is above the room by a rounding error only (0.1 + 0.2 > 0.3)
    limiter = TrioLimiter(0.3, 1)
    with trio.fail_after(100):
        # When they are acquired over and over, then time goes on
        for _ in range(50):
            await limiter.acquire(0.2)
            await limiter.acquire(0.1)
    assert trio.current_time() == pytest.approx(49, abs=0.1)


async def test_the_limiter_and_its_waker_agree_to_the_last_bit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Given figures for which `level + amount <= room` is false and `amount - room + level <= 0`, by which
    # waiters are woken, is true
    room, amount, level = 11.796352497378551, 2.531285011001745, 9.265067486376807
    assert level + amount > room
    assert amount - room + level <= 0
    limiter = TrioLimiter(room, 1)
    limiter._level = level
    # When a waiter with these is woken, then it sees the capacity too (or it would be woken again for ever)
    assert limiter.has_capacity(amount)


async def test_a_waiter_that_gave_up_is_forgotten_at_once(autojump_clock: trio.testing.MockClock) -> None:
    # Given a limiter on which a thousand lose their patience long before their turn
    limiter = TrioLimiter(1, 1_000_000)
    await limiter.acquire()
    for _ in range(1000):
        with trio.move_on_after(0.001):
            await limiter.acquire()
    # When they are gone, then nothing of them is kept
    assert limiter._waiters == []
