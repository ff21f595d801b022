"""A provider's day: WeChat counts from midnight to midnight in China (providers.md section 1). Pure."""

from __future__ import annotations

DAY_MS = 86_400_000

CHINA_MS = 8 * 3_600_000
"""China has had one time zone without daylight saving since 1991, so no database is asked."""


def china_day(now_ms: int) -> int:
    """The day in China as a number that goes up by one at each midnight there."""
    return (now_ms + CHINA_MS) // DAY_MS


def next_midnight_ms(now_ms: int) -> int:
    """Epoch ms of the next midnight in China, always after ``now_ms``."""
    return (china_day(now_ms) + 1) * DAY_MS - CHINA_MS


def share_of_day(now_ms: int) -> float:
    """How much of China's day is over, 0 to 1, by ``HOURS``: a minute at noon weighs more than one at night."""
    passed_ms = (now_ms + CHINA_MS) % DAY_MS
    hour, within = divmod(passed_ms, 3_600_000)
    return (sum(HOURS[:hour]) + HOURS[hour] * within / 3_600_000) / sum(HOURS)


HOURS = (6, 3, 2, 1, 1, 3, 9, 22, 38, 48, 56, 64, 76, 66, 58, 58, 60, 70, 84, 90, 80, 60, 32, 14)
"""Card swipes by hour of the day in relation to each other, a proposal of ours: nothing at night, lunch, the evening.
It is wrong for every single bank and still far better than taking the day as flat."""
