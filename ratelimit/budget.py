"""The retry budget: how many second and further attempts a provider may get. Pure: time is an argument.

Retries are what keeps a provider down that has just come back: each failure adds to the load that made it. So there may
be no more of them than a part of the first attempts and a few a second (`RetryPolicy.budget_share`,
``budget_per_second``). First attempts never wait for it.
"""

from __future__ import annotations

from ratelimit.retry import RetryPolicy

SAVED_SECONDS = 10.0
"""So many seconds' worth of ``budget_per_second`` may gather while nothing is retried: at the default a hundred, so
that the few failures of an ordinary bad moment, go at once."""

LONGEST_SECONDS = 60.0
"""A retry is put off by this at a time, then it is asked again: the budget may have grown meanwhile."""


class RetryBudget:
    """A bucket of retries. Seconds of any clock that does not go back.

    Over any stretch of s seconds with f first attempts at most ``SAVED_SECONDS`` x r + share x f + s x r retries are
    granted, where r is ``budget_per_second`` x ``part``; ``part`` is this process's part of the channel's rate, so that
    the fleet keeps the budget together.
    """

    def __init__(self) -> None:
        self._saved: float | None = None
        self._at = 0.0
        self._slot = 0.0
        self._firsts = 0

    def first_attempts(self, count: int) -> None:
        """So many alerts left for the first time."""
        self._firsts += count

    def take(self, policy: RetryPolicy, now: float, part: float = 1.0) -> bool:
        """Whether one retry may leave now."""
        rate = policy.budget_per_second * part
        bound = max(rate * SAVED_SECONDS, 1.0)
        if self._saved is None:
            self._saved, self._at = bound, now
        gained = max(now - self._at, 0.0) * rate + self._firsts * policy.budget_share
        self._saved = min(self._saved + gained, bound)
        self._at, self._firsts = max(now, self._at), 0
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True

    def put_off_seconds(self, policy: RetryPolicy, now: float, draw: float, part: float = 1.0) -> float:
        """How long a retry that got nothing waits before it asks again. ``draw`` in [0, 1), for the jitter.

        Each is given a place behind the one before, as fast as the budget lets them go, so that they do not all come
        back at once.
        """
        rate = max(policy.budget_per_second * part, 1 / LONGEST_SECONDS)
        self._slot = max(self._slot, now) + 1 / rate
        wait = min(self._slot - now, LONGEST_SECONDS)
        self._slot = now + wait
        return wait + draw * min(wait, 1.0)
