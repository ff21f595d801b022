"""A breaker: stops the sending to a provider that is down, and feels its way back. Pure: time is an argument.

    closed ──too many failures──▶ open ──interval over──▶ half-open ──successes──▶ closed
                                   ▲                          │
                                   └──────a failure───────────┘  (the interval doubles, up to a cap)

Each process has its own. What one process sees of a provider the others see too within seconds, so a common one would
gain little; and it would have to be agreed about through the ledger on every change, where the answers of a process
that alone has lost its way (a broken route, a full table of sockets) would silence all others.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

import msgspec


class BreakerState(StrEnum):
    """Where a breaker is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerPolicy(msgspec.Struct, frozen=True):
    """When it opens and how it closes. Seconds.

    It opens when half of the answers of the last five seconds are failures, so half that long after a provider went
    down; five failures at least, so that a bad answer or two on a quiet night do not count as one. The first interval
    is short, since most outages are a restart; at the cap one small group of probes goes out every half minute.
    """

    window_seconds: float = 5.0
    failed_part: float = 0.5
    min_failures: int = 5
    first_open_seconds: float = 1.0
    cap_open_seconds: float = 30.0
    probes: int = 3
    successes_to_close: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.first_open_seconds <= self.cap_open_seconds or self.window_seconds <= 0:
            raise ValueError("a breaker needs 0 < first_open_seconds <= cap_open_seconds and a window above 0")
        if not 0 < self.failed_part <= 1 or min(self.min_failures, self.probes, self.successes_to_close) < 1:
            raise ValueError("a breaker needs 0 < failed_part <= 1, and 1 or more failures, probes and successes")


SLICES = 10
"""The window moves on by a tenth of itself; what is remembered is bounded by this, whatever the rate."""


class Breaker:
    """See the module. Times are seconds of any clock that does not go back."""

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self.policy = policy or BreakerPolicy()
        self.state = BreakerState.CLOSED
        self.open_until = 0.0
        self.probing = 0
        self._interval = 0.0
        self._successes = 0
        self._slices: deque[list[float]] = deque(maxlen=SLICES + 1)  # [number, succeeded, failed]

    def allowance(self, now: float) -> int | None:
        """How many may leave now; None: as many as you like. Ends an open interval that is over."""
        if self.state is BreakerState.CLOSED:
            return None
        if self.state is BreakerState.OPEN:
            if now < self.open_until:
                return 0
            self.state, self._successes, self.probing = BreakerState.HALF_OPEN, 0, 0
        return self.policy.probes - self.probing

    def sent_probes(self, count: int) -> None:
        """So many left while it was half-open; each is answered with `probe_answered`."""
        self.probing += count

    def probe_answered(self, now: float, succeeded: bool) -> None:
        """A probe's answer. One that comes after the state has changed says nothing new."""
        if self.state is not BreakerState.HALF_OPEN:
            return
        self.probing = max(self.probing - 1, 0)
        if not succeeded:
            self._open(now)
            return
        self._successes += 1
        if self._successes >= self.policy.successes_to_close:
            self.state = BreakerState.CLOSED
            self._interval = 0.0
            self._slices.clear()

    def answered(self, now: float, succeeded: int, failed: int) -> None:
        """Answers to what left while it was closed."""
        if self.state is not BreakerState.CLOSED or not (succeeded or failed):
            return
        number = now // (self.policy.window_seconds / SLICES)
        slices = self._slices
        if slices and slices[-1][0] >= number:
            slices[-1][1] += succeeded
            slices[-1][2] += failed
        else:
            slices.append([number, succeeded, failed])
        if not failed:
            return
        good = bad = 0.0
        for at, well, badly in slices:
            if at > number - SLICES:
                good, bad = good + well, bad + badly
        if bad >= self.policy.min_failures and bad >= self.policy.failed_part * (good + bad):
            self._open(now)

    def _open(self, now: float) -> None:
        policy = self.policy
        self._interval = min(self._interval * 2 or policy.first_open_seconds, policy.cap_open_seconds)
        self.state = BreakerState.OPEN
        self.open_until = now + self._interval
        self._slices.clear()
