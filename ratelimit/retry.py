"""When to try again: exponential backoff with full jitter, as data. Pure: time and chance are arguments."""

from __future__ import annotations

import math

import msgspec

MIN_BASE_SECONDS = 0.001
"""Below a millisecond, the unit of every due time, a backoff is none."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """How long to wait after a failed attempt, and how often.

    Half a second first: most failures are one bad connection or one busy provider node. Five minutes at most,
    so that an alert leaves soon after a long outage has ended. A hundred attempts because the age limit of
    the category is what ends an alert's tries; the number only bounds what a recipient that always fails can
    cost.

    Of all retries of a channel no more leave than ``budget_share`` of its first attempts and
    ``budget_per_second``; what is beyond waits (`ratelimit.budget`). Both are of the whole fleet.
    """

    base_seconds: float = 0.5
    cap_seconds: float = 300.0
    max_attempts: int = 100
    budget_share: float = 0.2
    budget_per_second: float = 10.0

    def __post_init__(self) -> None:
        if not MIN_BASE_SECONDS <= self.base_seconds <= self.cap_seconds < math.inf:
            raise ValueError(f"backoff needs {MIN_BASE_SECONDS} <= base_seconds <= cap_seconds, both finite")
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be 1 or more")
        if not 0 <= self.budget_share < math.inf or not 0 < self.budget_per_second < math.inf:
            raise ValueError("a retry budget needs budget_share >= 0 and budget_per_second > 0, both finite")


def backoff_ms(policy: RetryPolicy, attempt: int, draw: float) -> int:
    """Milliseconds to wait after the ``attempt``-th attempt (from 1) failed.

    Full jitter: uniform in 0 … min(cap, base x 2^(attempt - 1)), by ``draw`` in [0, 1). The whole span is
    drawn, so that alerts which failed together do not come back together
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    doublings = max(attempt - 1, 0)
    # Compared as logarithms: 2^9999 is no float.
    if doublings >= math.log2(policy.cap_seconds / policy.base_seconds):
        ceiling = policy.cap_seconds
    else:
        ceiling = policy.base_seconds * 2.0**doublings
    return int(draw * ceiling * 1000)


def next_retry(
    policy: RetryPolicy, *, attempt: int, now_ms: int, expires_at_ms: int, draw: float, pause_ms: int = 0
) -> int | None:
    """When to try again (epoch ms) after the ``attempt``-th attempt (from 1) failed; None when it should end.

    It ends when the attempts are used up or the next one would come at ``expires_at_ms`` or later.
    ``pause_ms`` is what the provider asked for (Retry-After, a throttle answer): never earlier than that, and
    the jitter comes on top, because everyone who was throttled was told the same moment.
    """
    if attempt >= policy.max_attempts:
        return None
    due_ms = now_ms + max(pause_ms, 0) + backoff_ms(policy, attempt, draw)
    return due_ms if due_ms < expires_at_ms else None
