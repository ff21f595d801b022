"""Days, weeks, months and quiet hours in a recipient's time zone, as stretches of UTC. Pure.

A local time that the clock skips stands for the first moment that exists after it; one that comes twice for the first
of the two. All times are epoch ms.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from ratelimit.localday import LocalDay, LocalDays

WindowKind = Literal["day", "week", "month"]

MAX_WINDOWS = 8_192
"""Remembered windows and quiet hours, some 2 MB: of a hundred zones some days, and some days ahead for what is held.
When full they start afresh."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_LAST_DAY = date(9998, 12, 1)
"""Later days are taken for this one: the calendar has no room for the next month."""


class Window(msgspec.Struct, frozen=True, gc=False):
    """A calendar window: its ``label`` without the zone, and when it is over in any case (where midnight comes twice,
    by the later one)."""

    label: str
    ends_ms: int


def at_local(info: ZoneInfo, moment: datetime) -> int:
    """Epoch ms of a naive local time: of one that is skipped the first moment after, of a double one the first."""
    first = round((moment.replace(tzinfo=info, fold=0) - _EPOCH) / timedelta(milliseconds=1))
    second = round((moment.replace(tzinfo=info, fold=1) - _EPOCH) / timedelta(milliseconds=1))
    if first <= second:
        return first
    # Skipped: the clock changes between the two readings, which differ by what is skipped.
    before = _offset(info, second)
    low, high = second, first  # the offset is still the old one at low, and the new one at high
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(info, middle) == before:
            low = middle
        else:
            high = middle
    return high


def _offset(info: ZoneInfo, at_ms: int) -> timedelta | None:
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(info).utcoffset()


class Windows:
    """The calendar of every zone, remembered."""

    def __init__(self, days: LocalDays) -> None:
        self.days = days
        self._windows: dict[tuple[str, WindowKind], Window] = {}
        self._quiet: dict[tuple[str, str, str, tuple[str, ...]], tuple[tuple[int, int], ...]] = {}

    def of(self, kind: WindowKind, day: LocalDay) -> Window:
        """The window that a day belongs to."""
        key = (day.label, kind)
        window = self._windows.get(key)
        if window is None:
            window = self._compute(kind, day)
            if len(self._windows) >= MAX_WINDOWS:
                self._windows.clear()
            self._windows[key] = window
        return window

    def next_start(self, kind: WindowKind, zone: str, at_ms: int) -> int:
        """The first moment after ``at_ms`` that belongs to another, later window.

        A clock that is set back across midnight comes to a window a second time; such a moment counts too.
        """
        day = self.days.of(zone, at_ms)
        first = _first_of_next(kind, date.fromisoformat(day.day))
        info = self.days.info(zone)
        midnight = datetime.combine(first, time_of_day())
        starts = at_local(info, midnight)
        if starts > at_ms:
            return starts
        # The clock was set back over midnight, which is behind us and will come again.
        return round((midnight.replace(tzinfo=info, fold=1) - _EPOCH) / timedelta(milliseconds=1))

    def quiet_until(self, start: str, end: str, days: tuple[str, ...], zone: str, at_ms: int) -> int | None:
        """When the quiet hours that ``at_ms`` lies in are over; None when it lies in none.

        They go from the first moment of local time ``start`` on one of ``days`` (none: every day) to the first moment
        of ``end`` after it, on that day or the next.
        """
        day = self.days.of(zone, at_ms)
        key = (day.label, start, end, days)
        periods = self._quiet.get(key)
        if periods is None:
            periods = self._periods(date.fromisoformat(day.day), self.days.info(zone), start, end, days)
            if len(self._quiet) >= MAX_WINDOWS:
                self._quiet.clear()
            self._quiet[key] = periods
        for begins_ms, ends_ms in periods:
            if begins_ms <= at_ms < ends_ms:
                return ends_ms
        return None

    @staticmethod
    def _periods(
        today: date, info: ZoneInfo, start: str, end: str, days: tuple[str, ...]
    ) -> tuple[tuple[int, int], ...]:
        """Those that may hold a moment of the day: of the day before, of itself, and of the next one, which has begun
        already when the clock is set back over midnight. The one that ends last comes first."""
        begins, over = time_of_day.fromisoformat(start), time_of_day.fromisoformat(end)
        periods = []
        for day in (today + _DAY, today, today - _DAY):
            if days and _WEEKDAYS[day.weekday()] not in days:
                continue
            until = day if over > begins else day + _DAY
            periods.append(
                (at_local(info, datetime.combine(day, begins)), at_local(info, datetime.combine(until, over)))
            )
        return tuple(periods)

    def next_time(self, time: str, zone: str, after_ms: int) -> int:
        """The first moment of a local time of day after ``after_ms``."""
        info = self.days.info(zone)
        today = date.fromisoformat(self.days.of(zone, after_ms).day)
        clock = time_of_day.fromisoformat(time)
        several = (at_local(info, datetime.combine(today + ahead * _DAY, clock)) for ahead in range(-1, 3))
        return min(moment for moment in several if moment > after_ms)

    def _compute(self, kind: WindowKind, day: LocalDay) -> Window:
        if kind == "day":
            return Window(day.day, day.ends_ms)
        today = date.fromisoformat(day.day)
        first = datetime.combine(_first_of_next(kind, today), time_of_day())
        info = self.days.info(day.zone)
        ends = max(first.replace(tzinfo=info, fold=fold).timestamp() for fold in (0, 1))
        return Window(_LABELS[kind](today), int(ends * 1000))


def _first_of_next(kind: WindowKind, day: date) -> date:
    day = min(day, _LAST_DAY)
    if kind == "day":
        return day + _DAY
    if kind == "week":
        return day + timedelta(days=7 - day.weekday())
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def _week(day: date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year:04d}-W{week:02d}"


_LABELS: dict[WindowKind, Callable[[date], str]] = {
    "day": date.isoformat,
    "week": _week,
    "month": lambda day: f"{day.year:04d}-{day.month:02d}",
}
