"""Pacing: never more than the provider's rate in any one second, granted by the batch.

aiolimiter's leaky bucket is written for asyncio but needs only four things of a loop, so here they come from
trio (through trio-asyncio an acquire costs 53 µs). Then trio's MockClock drives it as well.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Generator
from typing import Any, cast

import trio
from aiolimiter import AsyncLimiter

MIN_WAIT_SECONDS = 1e-6
"""A timer is never set for less: rounding can leave a need of 1e-17 permits, and a virtual clock that is
asked to advance by nothing would not advance at all."""

BURST_SHARE = 0.02
"""Share of a second's permits that may leave at once, 20 ms worth: at most 50 wake-ups a second under full
load."""

LEAK_SHARE = 0.96
"""Share of the rate that leaks. With the burst it makes 98 %: the provider counts arrivals, not departures,
and the last 2 % cover 20 ms of difference between the delays of two requests."""

WHOLE_RATE_SHARE = 0.99
"""For rates that are nearly whole numbers below 25: keeps the next permit clear of the second's end in spite
of rounding."""


class _Timer:
    """What ``call_at`` returns."""

    __slots__ = ("_at", "_cancelled", "callback")

    def __init__(self, at: float, callback: Callable[[], object]) -> None:
        self._at = at
        self._cancelled = False
        self.callback = callback

    def when(self) -> float:
        return self._at

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled


class _Future:
    """The part of ``asyncio.Future`` that the limiter uses: one task waits, one call ends the wait.

    Its callback is called only when the waiter gives up. aiolimiter registers it to wake the next in line; a
    waiter that got its turn does that itself after it has taken its share, and doing it before would wake
    somebody for capacity that is already spoken for.
    """

    __slots__ = ("_callbacks", "_done", "_task")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], object]] = []
        self._done = False
        self._task: trio.lowlevel.Task | None = None

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)

    def done(self) -> bool:
        return self._done

    def set_result(self, _result: None) -> None:
        self._done = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        if self._done:
            return
        self._task = trio.lowlevel.current_task()
        try:
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        except BaseException:
            for callback in self._callbacks:
                callback(self)
            raise

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        # At once and not when the task runs again: in between nobody may hand it the turn that it no longer
        # wants.
        self._done = True
        return trio.lowlevel.Abort.SUCCEEDED


class _TrioLoop:
    """The part of ``asyncio.AbstractEventLoop`` that the limiter uses. It has one timer set at a time."""

    __slots__ = ("_running", "_scope", "_timer")

    def __init__(self) -> None:
        self._timer: _Timer | None = None
        self._scope = trio.CancelScope()
        self._running = False

    def is_closed(self) -> bool:
        return False

    def time(self) -> float:
        return trio.current_time()

    def create_future(self) -> _Future:
        return _Future()

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        callback(*args)

    def call_at(self, when: float, callback: Callable[[], object]) -> _Timer:
        timer = _Timer(max(when, trio.current_time() + MIN_WAIT_SECONDS), callback)
        self._timer = timer
        if self._running:
            # One task sleeps for all timers, by moving its deadline: most are replaced before they are due.
            self._scope.deadline = timer.when()
        else:
            self._running = True
            self._scope = trio.CancelScope(deadline=timer.when())
            trio.lowlevel.spawn_system_task(self._sleep)
        return timer

    async def _sleep(self) -> None:
        try:
            while True:
                with self._scope:
                    await trio.sleep_forever()
                timer = self._timer
                if timer is None or timer.cancelled():
                    return
                if timer.when() > trio.current_time():  # replaced after the scope had been cancelled
                    self._scope = trio.CancelScope(deadline=timer.when())
                    continue
                self._timer = None
                self._scope = trio.CancelScope(deadline=math.inf)
                timer.callback()
                if self._timer is None:
                    return
        finally:
            self._running = False


class TrioLimiter(AsyncLimiter):
    """aiolimiter's leaky bucket on trio's clock; belongs to one ``trio.run``.

    At most ``max_rate`` permits at once, and over any stretch of ``s`` seconds at most ``max_rate`` + s x
    ``max_rate`` / ``time_period``. ``acquire`` is a checkpoint only when it waits. A cancelled ``acquire``
    has taken nothing, and the next in line takes its place. Small requests go before large ones (aiolimiter's
    order); `Pacer` is fair.
    """

    __slots__ = ()

    def __init__(self, max_rate: float, time_period: float = 60) -> None:
        super().__init__(max_rate, time_period)
        self._event_loop = cast("asyncio.AbstractEventLoop", _TrioLoop())

    def has_capacity(self, amount: float = 1) -> bool:
        """Whether ``amount`` permits are there now."""
        self._leak()
        # Word for word what the waker computes: aiolimiter's own form differs from it by a rounding error,
        # and a waiter that is woken for capacity which it then does not see would be woken again for ever.
        return amount - self.max_rate + self._level <= 0

    def available(self) -> float:
        """How many permits are there now."""
        self._leak()
        return self.max_rate - self._level

    def give_back(self, amount: float) -> None:
        """Return permits that were acquired and not used. Exact when nobody else acquired in between."""
        self._leak()
        self._level = max(self._level - amount, 0.0)
        self._wake_next()

    def take(self, amount: float) -> None:
        """Take permits without waiting, into debt where there are not enough: later ones wait for it."""
        self._leak()
        self._level += amount
        self._wake_next()

    def change(self, max_rate: float, time_period: float) -> None:
        """Go on with another size and rate. What is there stays there, as far as it fits in: a change by itself
        grants nothing, so that over a change no more comes out than the larger of the two would have let."""
        available = self.available()
        self.max_rate = max_rate
        self.time_period = time_period
        self._rate_per_sec = max_rate / time_period
        self._level = max_rate - min(available, max_rate)
        self._wake_next()


class Pacer:
    """A provider's rate, granted by the batch. Belongs to one ``trio.run``.

    The guarantee, for permits used when they are granted: in any half-open stretch of one second at most
    ``rate_per_second`` (below 1: at most one in any 1 / ``rate_per_second`` seconds), and never more than
    ``burst`` at once. Under full load it grants ``leak_per_second``, 96 % of the rate (see ``LEAK_SHARE``; of
    a fractional rate only the whole part counts, since a second holds whole messages).

    Waiters are served in the order in which they came.
    """

    def __init__(
        self, rate_per_second: float, *, burst_share: float = BURST_SHARE, leak_share: float = LEAK_SHARE
    ) -> None:
        """Other shares than the usual ones are for a caller that keeps the second itself (`ratelimit.leased`)."""
        self._burst_share, self._leak_share = burst_share, leak_share
        burst, leak = self._set(rate_per_second)
        self._limiter = TrioLimiter(burst, burst / leak)
        self._lock = trio.Lock()

    def change(self, rate_per_second: float) -> None:
        """Go on with another rate. The guarantee holds across the change with the larger of the two rates: a second
        that contains it, and any number of others, holds no more than the highest rate of that second.

        Nobody may be waiting: one that waits for more than the new burst would wait for ever.
        """
        burst, leak = self._set(rate_per_second)
        self._limiter.change(burst, burst / leak)

    def _set(self, rate_per_second: float) -> tuple[float, float]:
        if not 0 < rate_per_second < math.inf:
            raise ValueError(f"a rate must be above 0 and finite, not {rate_per_second}")
        self.rate_per_second = rate_per_second
        burst = max(1.0, rate_per_second * self._burst_share)
        # n permits in a stretch shorter than a second fulfil n < burst + leak, so burst + leak may reach the
        # whole rate plus one and no more.
        leak = rate_per_second
        if rate_per_second >= 1:
            leak = min(rate_per_second * self._leak_share, math.floor(rate_per_second) * WHOLE_RATE_SHARE)
        self.burst = int(burst)
        self.leak_per_second = leak
        # Half a usual burst, so that a wake-up that comes late finds the bucket not yet full and loses nothing.
        self._quantum = max(1, min(self.burst, int(rate_per_second * BURST_SHARE)) // 2)
        return burst, leak

    async def acquire(self, n: int) -> None:
        """Wait for ``n`` permits (0 or more). Beyond ``burst`` they gather while it waits.

        Whoever then uses more than ``burst`` at once exceeds the guarantee by as many; a lane that sends what
        it is granted uses ``acquire_up_to``. Cancelled, it has taken nothing. Looks for a cancellation in any
        case; other tasks run only when it waits.
        """
        if n < 0:
            raise ValueError(f"cannot acquire {n} permits")
        if n <= self.burst and await self._at_once(n):
            return
        async with self._lock:
            taken = 0
            try:
                while taken < n:
                    part = min(n - taken, self.burst)
                    await self._limiter.acquire(part)
                    taken += part
            except BaseException:
                self._limiter.give_back(taken)
                raise

    async def acquire_up_to(self, n: int) -> int:
        """Wait until there are permits, and take as many as there are: 1 … min(``n``, ``burst``).

        Under load it waits for half a burst (10 ms worth) rather than waking up for single permits.
        Cancelled, it has taken nothing. Looks for a cancellation in any case; other tasks run only when it
        waits.
        """
        if n < 1:
            raise ValueError(f"cannot acquire up to {n} permits")
        least = min(n, self._quantum)
        if not await self._at_once(least):
            async with self._lock:
                await self._limiter.acquire(least)
        # No checkpoint from here on: what was taken is handed over.
        more = 0 if self._lock.locked() else min(n - least, int(self._limiter.available()))
        if more > 0:
            await self._limiter.acquire(more)
        return least + more

    def take_now(self, n: int) -> bool:
        """Take ``n`` permits if they are there and nobody waits; never waits."""
        if self._lock.locked() or not self._limiter.has_capacity(n):
            return False
        self._limiter.take(n)
        return True

    def give_back(self, n: int) -> None:
        """Return permits that were granted and not used."""
        self._limiter.give_back(n)

    def retake(self, n: int) -> None:
        """Move ``n`` permits from the moment at which they were granted to this one, at which they are used."""
        self._limiter.give_back(n)
        self._limiter.take(n)

    async def _at_once(self, n: int) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._lock.locked() or not self._limiter.has_capacity(n):
            return False
        await self._limiter.acquire(n)
        return True
