"""A pacer whose rate is a share of a larger one, lent for a time (`ratelimit.shares`). On trio's clock."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ratelimit.pacing import Pacer

LEASED_LEAK_SHARE = 0.965
"""A little more than a pacer alone uses, because idle processes keep a permit each; with the burst it makes 98.5 %, and
the rest covers 15 ms of difference between the delays of two requests."""

MEMORY_TICKS = 6
"""Looks at the demand that are remembered, three seconds: a share moves between processes with a loss (`GAP_MS`), so it
does not follow every pause of a stream."""

BUSY_PART = 0.8
"""A process that has work waiting and used so much of its share is held back by it, and wants all it can get."""


class LeasedPacer:
    """Grants permits of a share that others decide on; before the first share there are none. One task may wait.

    ``steady_ms`` is the clock in which shares run out. The guarantee is the pacer's, for the largest share of each
    second, and after a share has run out nothing is granted.
    """

    def __init__(self, rate_per_second: int, steady_ms: Callable[[], int]) -> None:
        self.rate_per_second = rate_per_second
        self.share = 0
        self._until_ms = 0
        self._steady_ms = steady_ms
        self._pacer = Pacer(rate_per_second, leak_share=LEASED_LEAK_SHARE)
        self._fresh = True
        self._changed = trio.Event()
        self._waiting: trio.CancelScope | None = None
        self._granted = 0
        self._wants = [rate_per_second] * MEMORY_TICKS  # until it is known better

    @property
    def burst(self) -> int:
        """Most permits at once."""
        return self._pacer.burst

    @property
    def part(self) -> float:
        """The share as a part of the whole rate."""
        return self.share / self.rate_per_second

    def usable(self) -> bool:
        """Whether there is a share, and it has not run out."""
        return self.share > 0 and self._steady_ms() < self._until_ms

    def lend(self, share: int, until_ms: int) -> None:
        """Use ``share`` from now on, until ``until_ms`` of the steady clock."""
        self._until_ms = until_ms
        if share != self.share or self._fresh:
            self.share = share
            if share and self._fresh:
                self._fresh = False
                self._pacer = Pacer(share, leak_share=LEASED_LEAK_SHARE)
            elif share:
                self._wake()  # it may wait for more than the new burst will ever hold
                self._pacer.change(share)
        self._changed.set()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    async def acquire_up_to(self, n: int) -> int:
        """See `Pacer.acquire_up_to`; also waits for a share."""
        while True:
            while not self.usable():
                self._changed = trio.Event()
                await self._changed.wait()
            granted = 0
            with trio.CancelScope() as scope:
                self._waiting = scope
                try:
                    granted = await self._pacer.acquire_up_to(n)
                finally:
                    self._waiting = None
            if granted and self.usable():
                self._granted += granted
                return granted
            if granted:  # it ran out while this process stood still
                self._pacer.give_back(granted)

    def take_now(self, n: int) -> bool:
        """Take ``n`` permits if they are there; never waits."""
        if not self.usable() or n > self._pacer.burst or not self._pacer.take_now(n):
            return False
        self._granted += n
        return True

    def give_back(self, n: int) -> None:
        """Return permits that were granted and not used."""
        self._pacer.give_back(n)
        self._granted -= n

    def retake(self, n: int) -> None:
        """See `Pacer.retake`."""
        self._pacer.retake(n)

    def demand(self, waiting: bool, seconds: float) -> int:
        """What this process could use, permits a second; ``waiting``: work is there. To be asked every ``seconds``.

        All of the rate when its share holds it back; else twice what it used, in steps of two, so that a stream which
        swells has room and the answer does not change all the time.
        """
        used = self._granted / seconds
        self._granted = 0
        if waiting and used >= BUSY_PART * self.share:
            want = self.rate_per_second
        else:
            want = min(1 << int(2 * used).bit_length(), self.rate_per_second) if used > 0 else 0
        self._wants = [*self._wants[1:], want]
        return max(self._wants)
