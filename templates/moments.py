"""Times, days and durations as a cardholder reads them, each written out once and kept. Pure."""

from __future__ import annotations

import zoneinfo
from datetime import date, datetime, timedelta
from functools import lru_cache

from babel.dates import format_timedelta, get_month_names

from templates.errors import FieldRefused

DEFAULT_TIMEZONE = "Asia/Shanghai"

MAX_CACHED_ZONES = 1024
"""Time zones kept in memory; the tz database has about 600 names, and an unknown name takes a place, too."""

MAX_CACHED_MINUTES = 8192
"""Written-out minutes (times zone and language) kept, about 2 MB: swipes of one moment share theirs."""

MAX_CACHED_DURATIONS = 8_192
"""Written-out delays kept, below 1 MB: a backlog of two hours has seven thousand, and babel takes 20 µs for each."""

MAX_CACHED_DAYS = 2_048
"""Written-out days and months kept: due dates lie within a few months."""

_TWO_DIGITS = tuple(f"{number:02}" for number in range(60))
_ENGLISH_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LONG_MONTHS = tuple(get_month_names("wide", locale="en").values())


@lru_cache(maxsize=MAX_CACHED_ZONES)
def zone(name: str) -> zoneinfo.ZoneInfo:
    """The time zone of that name, or the default one: a recipient's odd setting must not cost the alert."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return zoneinfo.ZoneInfo(DEFAULT_TIMEZONE)


def local(minute: float, timezone: str) -> datetime:
    """That minute since the epoch in the recipient's zone. Raises ``FieldRefused`` beyond the calendar."""
    try:
        return datetime.fromtimestamp(minute * 60, zone(timezone))
    except (OverflowError, ValueError):
        raise FieldRefused("time", "is outside of the calendar") from None


@lru_cache(maxsize=MAX_CACHED_MINUTES)
def long_form(minute: float, timezone: str, language: str) -> str:
    """``2026年11月22日 13:05`` or ``2026-11-22 13:05``: what WeChat's ``time`` takes, a zero before a single digit."""
    at, two = local(minute, timezone), _TWO_DIGITS
    clock = f"{two[at.hour]}:{two[at.minute]}"
    if language == "zh":
        return f"{at.year:04}年{two[at.month]}月{two[at.day]}日 {clock}"
    return f"{at.year:04}-{two[at.month]}-{two[at.day]} {clock}"


@lru_cache(maxsize=MAX_CACHED_MINUTES)
def short_form(minute: float, timezone: str, language: str) -> str:
    """``11月22日13:05`` or ``22 Nov at 13:05``."""
    at = local(minute, timezone)
    if language == "zh":
        return f"{at.month}月{at.day}日{at.hour:02}:{at.minute:02}"
    return f"{at.day} {_ENGLISH_MONTHS[at.month - 1]} at {at.hour:02}:{at.minute:02}"


@lru_cache(maxsize=MAX_CACHED_DURATIONS)
def duration(seconds: int, babel: str) -> str:
    """``35分钟`` or ``35 min``; ``babel`` is the language's name there."""
    # Short, so that it finds room in one of WeChat's fields: "35 min", and in Chinese the same as the long form.
    return format_timedelta(timedelta(seconds=seconds), granularity="minute", format="short", locale=babel)


@lru_cache(maxsize=MAX_CACHED_DAYS)
def day_form(day: date, language: str) -> str:
    """``2026年11月25日`` or ``2026-11-25``: what WeChat's ``date`` takes."""
    if language == "zh":
        return f"{day.year:04}年{day.month:02}月{day.day:02}日"
    return day.isoformat()


@lru_cache(maxsize=MAX_CACHED_DAYS)
def short_day_form(day: date, language: str) -> str:
    """``11月25日`` or ``25 Nov``."""
    return f"{day.month}月{day.day}日" if language == "zh" else f"{day.day} {_ENGLISH_MONTHS[day.month - 1]}"


@lru_cache(maxsize=MAX_CACHED_DAYS)
def month_form(month: str, language: str) -> str:
    """``2026-10`` -> ``2026年10月`` or ``October 2026``."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year}年{number}月" if language == "zh" else f"{_LONG_MONTHS[number - 1]} {year}"
