"""Times as people write them on the command line and in scenarios. Pure: now is an argument."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import time as time_of_day
from zoneinfo import ZoneInfo

from dispatcher.events import epoch_ms
from replay.errors import PeriodError

ALLOWED = "a time with a zone such as 2026-11-01T10:00:00+08:00, a date such as 2026-11-01, or an age such as -7d"

_AGE = re.compile(r"-([0-9]{1,6})([smhdw])")
_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999 of UTC, beyond which there is no calendar."""


def moment_of(epoch_ms: int) -> datetime:
    """Epoch milliseconds as a time in UTC, exactly."""
    return _EPOCH + timedelta(milliseconds=epoch_ms)


def is_moment(epoch_ms: int) -> bool:
    """Whether `moment_of` has a time for it: in UTC it lies in the years 1 to 9999."""
    return _FIRST_MS <= epoch_ms <= _LAST_MS


def read_moment(text: str) -> int | None:
    """A time of ISO 8601 with a zone in epoch ms; None when it is not one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    found = None if moment.tzinfo is None else epoch_ms(moment)
    return found if found is not None and is_moment(found) else None


def read_time(text: str, now_ms: int, zone: tzinfo | None = None) -> int:
    """``text`` in epoch ms: ISO 8601 with a zone, a date (its first moment in ``zone``, None: this machine's), or an
    age before ``now_ms`` (``-90m``, ``-7d``). Raises `PeriodError`."""
    age = _AGE.fullmatch(text)
    if age is not None:
        if is_moment(found := now_ms - int(age[1]) * _UNITS[age[2]]):
            return found
    elif _DATE.fullmatch(text):
        try:
            return epoch_ms(datetime.combine(date.fromisoformat(text), time_of_day(), zone).astimezone(UTC))
        except (ValueError, OverflowError):
            pass
    elif (moment := read_moment(text)) is not None:
        return moment
    raise PeriodError(f"{text!r} is not understood; allowed is {ALLOWED}")


def local_text(epoch_ms: int, zone: str) -> str:
    """A moment to the second, by the clock of a zone; of one that does not exist, by UTC."""
    moment = moment_of(epoch_ms)
    with suppress(KeyError, ValueError, OSError, OverflowError):
        moment = moment.astimezone(ZoneInfo(zone))
    return moment.isoformat(timespec="seconds")
