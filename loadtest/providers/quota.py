"""How much a provider lets through: calls a second and calls a day. Pure; ``now`` is epoch seconds."""

from __future__ import annotations

from typing import Final

CHINA_OFFSET_SECONDS: Final = 8 * 3600
"""WeChat's counters start anew at midnight in China (providers.md section 1)."""
_DAY_SECONDS: Final = 86_400
_DAYS_PER_CLEARING_PERIOD: Final = 30


class Bucket:
    """A token bucket that holds one second of its rate; a rate of 0 is unlimited."""

    def __init__(self, rate_per_second: float) -> None:
        self._rate = rate_per_second
        self._size = max(1.0, rate_per_second)
        self._level = self._size
        self._filled_at: float | None = None

    def take(self, now: float) -> bool:
        """One call; False when it is too many."""
        if self._rate <= 0.0:
            return True
        if self._filled_at is not None and now > self._filled_at:
            self._level = min(self._size, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True


class Daily:
    """Calls of one path in the current Chinese day; a limit of None is none."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._used = 0
        self._day = 0

    def take(self, now: float) -> bool:
        """One call; False, uncounted, when the day's quota is used up."""
        if self.limit is not None and self.used(now) >= self.limit:
            return False
        self._roll(now)
        self._used += 1
        return True

    def used(self, now: float) -> int:
        """Calls counted today."""
        self._roll(now)
        return self._used

    def clear(self) -> None:
        """Back to 0."""
        self._used = 0

    def _roll(self, now: float) -> None:
        day = int(now + CHINA_OFFSET_SECONDS) // _DAY_SECONDS
        if day != self._day:
            self._day = day
            self._used = 0


class Clearings:
    """How often quotas were cleared: at most ten times in a month (here: 30 days)."""

    MAX: Final = 10

    def __init__(self) -> None:
        self._period = 0
        self._used = 0

    def take(self, now: float) -> bool:
        """One clearing; False when the month has no more."""
        period = int(now + CHINA_OFFSET_SECONDS) // (_DAY_SECONDS * _DAYS_PER_CLEARING_PERIOD)
        if period != self._period:
            self._period, self._used = period, 0
        self._used += 1
        return self._used <= self.MAX
