"""A pacer whose rate is a share of a larger one, lent for a time (`ratelimit.shares`). On trio's clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from ratelimit.pacing import MIN_WAIT_SECONDS, Pacer

WINDOW_SECONDS = 1.02
"""The stretch that is kept: the provider's second, and 20 ms of difference between the delays of two requests. So 98 %
of a share can be used."""

BURST_SHARE = 0.1
"""Permits that gather while nobody asks, 100 ms worth: so late may a busy machine wake us without a loss. That they
come out together breaks nothing, because the window is kept."""

POLLED_BURST_SHARE = 0.5
"""The same where nobody waits for permits but comes by five times a second: what gathers meanwhile must not be lost."""

LEAK_SHARE = 1.0
"""The bucket only smooths what the window would let out in one go."""

MEMORY_TICKS = 6
"""Looks at the demand that are remembered, three seconds: a share moves between processes with a loss (`GAP_MS`), so it
does not follow every pause of a stream."""

BUSY_PART = 0.8
"""A process that has work waiting and used so much of its share is held back by it, and wants all it can get."""


LATE_SECONDS = 0.005
"""What leaves so much later than it was granted is counted when it left. A delay that all have does not matter."""

SAME_MOMENT_SECONDS = 0.002

EXACT_BELOW = 2_000
"""Shares from this on are not followed message by message: it costs time, and a burst of so fast a rate is spread over
its connections anyway."""

Grant = list[float]
"""[when, how many]"""


class Window:
    """What was granted in the last ``WINDOW_SECONDS``. Bounded by the grants of that time, a hundred or so."""

    def __init__(self) -> None:
        self.count = 0
        self._grants: deque[Grant] = deque()  # oldest first

    def forget(self, now: float) -> None:
        """Let go of what is older."""
        grants = self._grants
        while grants and grants[0][0] + WINDOW_SECONDS <= now:
            gone = grants.popleft()
            self.count -= int(gone[1])
            gone[1] = 0

    def add(self, now: float, n: int) -> None:
        """``n`` are granted now."""
        self.count += n
        self._grants.append([now, n])

    def take_back(self, n: int) -> None:
        """The last ``n`` were not used."""
        grants = self._grants
        while n and grants:
            part = min(n, int(grants[-1][1]))
            grants[-1][1] -= part
            self.count -= part
            n -= part
            if not grants[-1][1]:
                grants.pop()

    @property
    def newest(self) -> Grant:
        """The last grant."""
        return self._grants[-1]

    def move(self, grant: Grant, when: float) -> None:
        """One of ``grant`` was used only at ``when``, which is later."""
        if grant[1]:
            grant[1] -= 1
        else:  # forgotten already
            self.count += 1
        at = len(self._grants)
        while at and self._grants[at - 1][0] > when:
            at -= 1
        if at and self._grants[at - 1][0] > when - SAME_MOMENT_SECONDS:
            self._grants[at - 1][1] += 1
            self._grants[at - 1][0] = when
        else:
            self._grants.insert(at, [when, 1])

    def free_at(self, surplus: int) -> float:
        """When ``surplus`` of them, 1 or more, will have become old."""
        for when, n in self._grants:
            surplus -= int(n)
            if surplus <= 0:
                return when + WINDOW_SECONDS
        return 0.0


class LeasedPacer:
    """Grants permits of a share that others decide on; before the first share there are none. Who waits is served in
    the order in which it came: the lanes of one account have one pacer.

    ``steady_ms`` is the clock in which shares run out. The guarantee: whenever something is granted, no more than the
    present share was granted in the last ``WINDOW_SECONDS``; so no second holds more than its largest share, however
    often that changed in it. After a share has run out nothing is granted.
    """

    def __init__(self, rate_per_second: int, steady_ms: Callable[[], int], *, burst_share: float = BURST_SHARE) -> None:
        self.rate_per_second = rate_per_second
        self.share = 0
        self._until_ms = 0
        self._steady_ms = steady_ms
        self._pacer = Pacer(rate_per_second, burst_share=burst_share, leak_share=LEAK_SHARE)
        self._window = Window()
        self._changed = trio.Event()
        self._turn = trio.Lock()
        self._waiting: trio.CancelScope | None = None
        self._granted = 0
        self._wants = [rate_per_second] * MEMORY_TICKS  # until it is known better

    @property
    def burst(self) -> int:
        """What may leave later than it was granted without harm: a hundredth of a second's worth, 1 at least."""
        return max(self.share // 100, 1)

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
        if share != self.share:
            self.share = share
            if share:
                self._wake()  # it may wait for more than the new burst will ever hold
                self._pacer.change(share)
        self._changed.set()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    async def acquire_up_to(self, n: int) -> int:
        """See `Pacer.acquire_up_to`; also waits for a share."""
        async with self._turn:  # one at a time below: a change of the share wakes the one that waits for permits
            return await self._acquire_up_to(n)

    async def _acquire_up_to(self, n: int) -> int:
        while True:
            while not self.usable():
                self._changed = trio.Event()
                await self._changed.wait()
            granted = 0
            with trio.CancelScope() as scope:
                self._waiting = scope
                try:
                    room = await self._room(n)
                    granted = await self._pacer.acquire_up_to(room)
                finally:
                    self._waiting = None
            # No checkpoint from here on. While it waited its share may have become smaller, or run out.
            kept = min(granted, self.share - self._window.count) if self.usable() else 0
            if kept < granted:
                self._pacer.give_back(granted - max(kept, 0))
            if kept > 0:
                self._count(kept)
                return kept

    async def _room(self, n: int) -> int:
        """Wait until the window has room for a good part of ``n``; returns for how many."""
        least = min(n, self.burst)
        while True:
            now = trio.current_time()
            self._window.forget(now)
            room = self.share - self._window.count
            if room >= least:
                return min(n, room)
            await trio.sleep_until(max(self._window.free_at(least - room), now + MIN_WAIT_SECONDS))

    def _count(self, n: int) -> None:
        self._window.add(trio.current_time(), n)
        self._granted += n

    def take_now(self, n: int) -> bool:
        """Take ``n`` permits if they are there; never waits."""
        self._window.forget(trio.current_time())
        if not self.usable() or n > self.share - self._window.count or not self._pacer.take_now(n):
            return False
        self._count(n)
        return True

    def give_back(self, n: int) -> None:
        """Return permits that were granted and not used."""
        self._pacer.give_back(n)
        self._window.take_back(n)
        self._granted -= n

    def retake(self, n: int) -> None:
        """See `Pacer.retake`."""
        self._pacer.retake(n)
        self._window.take_back(n)
        self._window.add(trio.current_time(), n)

    def mark(self) -> Grant | None:
        """To be kept with each message of what was granted last, and shown to `left` when it is known when it left;
        None: this rate is not followed so closely."""
        return self._window.newest if 0 < self.share < EXACT_BELOW and self._window.count else None

    def left(self, grant: Grant, when: float) -> None:
        """A message of ``grant`` left only at ``when`` (trio's clock): a busy machine does not start every request at
        once, and the provider counts when they come."""
        if when > grant[0] + LATE_SECONDS and when + WINDOW_SECONDS > trio.current_time():
            self._window.move(grant, when)

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
