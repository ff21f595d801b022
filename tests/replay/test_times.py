"""Times as people write them."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from replay.errors import PeriodError
from replay.times import local_text, moment_of, read_time

NOW = 1_793_500_000_123
"""2026-11-01T02:26:40.123Z, in ms."""


def test_a_time_with_a_zone_is_that_moment() -> None:
    # Given two spellings of one moment, When they are read, Then both are its epoch
    assert (
        read_time("2026-11-01T10:00:00.5+08:00", NOW) == read_time("2026-11-01T02:00:00.500Z", NOW) == 1_793_498_400_500
    )


def test_a_date_is_the_first_moment_of_its_day_where_the_reader_is() -> None:
    # Given the day on which New York's clocks go back, and the next one
    zone = ZoneInfo("America/New_York")
    first, second = (read_time(day, NOW, zone) for day in ("2026-11-01", "2026-11-02"))
    # Then they are 25 hours apart, and the first begins four hours after UTC's
    assert second - first == 25 * 3_600_000
    assert moment_of(first).isoformat() == "2026-11-01T04:00:00+00:00"


@pytest.mark.parametrize(
    ("text", "back_ms"),
    [("-90s", 90_000), ("-5m", 300_000), ("-2h", 7_200_000), ("-7d", 604_800_000), ("-1w", 604_800_000)],
)
def test_an_age_is_counted_back_from_now(text: str, back_ms: int) -> None:
    assert read_time(text, NOW) == NOW - back_ms


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "7d", "-7", "-7y", "2026-13-01", "2026-11-01T10:00:00", "0001-01-01", "-9999999d"),
        # Before the year 1 and after 9999 in UTC.
        *("-999999w", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    # A time without a zone is refused too: nobody could say which moment is meant
    with pytest.raises(PeriodError, match="allowed is a time with a zone such as 2026-11-01T10:00:00"):
        read_time(text, NOW, ZoneInfo("Asia/Shanghai"))


def test_milliseconds_survive_the_way_there_and_back() -> None:
    assert read_time(moment_of(NOW).isoformat(), 0) == NOW


def test_a_moment_is_shown_by_the_clock_of_its_reader() -> None:
    # Given a moment, Then New York reads it in the evening before, and a zone that does not exist in UTC
    assert local_text(NOW, "America/New_York") == "2026-10-31T22:26:40-04:00"
    assert local_text(NOW, "Mars/Olympus") == local_text(NOW, "UTC") == "2026-11-01T02:26:40+00:00"
