"""Calendar days in a recipient's time zone, fast enough for every alert.

Pure but for the time zone database, which ``zoneinfo`` reads once per zone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from zoneinfo import ZoneInfo

import msgspec

DEFAULT_ZONE = "Asia/Shanghai"
"""Where a recipient is taken to live whose time zone is not in the time zone database."""

SLOT_MS = 15 * 60 * 1000
"""Every zone's offset is nowadays a multiple of 15 minutes, so its midnights fall between such slots of
UTC."""

MAX_SLOTS = 16_384
"""Remembered (zone, slot) pairs, about 7 MB: a hundred zones for a day and a half. When full it starts
afresh."""

MAX_ZONES = 1_024
"""Remembered zone names; the database knows about 600, the rest is room for names that are wrong."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = int((datetime(2, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * 1000
_LATEST = int((datetime(9998, 12, 31, tzinfo=UTC) - _EPOCH).total_seconds()) * 1000


class LocalDay(msgspec.Struct, frozen=True, gc=False):
    """A calendar day in a zone. ``day`` is ISO 8601, ``ends_ms`` epoch ms of its end (an hour late where
    midnight comes twice), ``label`` is zone and day.

    ``fallback`` says that the zone asked for does not exist and that ``zone`` is the default one.
    """

    zone: str
    day: str
    ends_ms: int
    label: str
    fallback: bool


class LocalDays:
    """Local days by zone and moment, remembered per quarter of an hour."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, int], LocalDay] = {}
        self._zones: dict[str, ZoneInfo | None] = {}
        self._default = ZoneInfo(DEFAULT_ZONE)

    def of(self, zone: str, at_ms: int) -> LocalDay:
        """The calendar day that ``at_ms`` (epoch ms) falls on in ``zone``; an unknown zone is the default
        one."""
        key = (zone, at_ms // SLOT_MS)
        day = self._slots.get(key)
        return self._look_up(key, at_ms) if day is None else day

    def info(self, zone: str) -> ZoneInfo:
        """The zone of that name; the default one when there is none."""
        return self._zone(zone) or self._default

    def _look_up(self, key: tuple[str, int], at_ms: int) -> LocalDay:
        zone, slot = key
        day = self._compute(zone, at_ms)
        first, last = slot * SLOT_MS, (slot + 1) * SLOT_MS - 1
        # A slot whose two ends lie on different days (offsets before 1972, a clock set back at one minute
        # past midnight) is not remembered, which keeps the answer exact for those as well.
        if self._compute(zone, first) == day == self._compute(zone, last):
            if len(self._slots) >= MAX_SLOTS:
                self._slots.clear()
            self._slots[key] = day
        return day

    def _compute(self, zone: str, at_ms: int) -> LocalDay:
        known = self._zone(zone)
        info = self._default if known is None else known
        at_ms = min(max(at_ms, _EARLIEST), _LATEST)  # years 1 and 9999 leave no room for an offset
        date = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(info).date()
        # Midnight may come twice or never; by the later reading of it the day is over in any case.
        midnight = datetime.combine(date + timedelta(days=1), time_of_day(), info)
        ends = max(midnight.timestamp(), midnight.replace(fold=1).timestamp())
        name = DEFAULT_ZONE if known is None else zone
        return LocalDay(name, date.isoformat(), int(ends * 1000), f"{name}|{date.isoformat()}", known is None)

    def _zone(self, name: str) -> ZoneInfo | None:
        if name in self._zones:
            return self._zones[name]
        try:
            info = ZoneInfo(name)
        # KeyError: not in the database; ValueError: a path, a NUL; OSError: a folder of the database, or too
        # long.
        except (KeyError, ValueError, OSError):
            info = None
        if len(self._zones) >= MAX_ZONES:
            self._zones.clear()
        self._zones[name] = info
        return info
