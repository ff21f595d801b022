"""Weeks, months and quiet hours in every zone, against a naive walk through the minutes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import windows as windows_module
from ratelimit.localday import LocalDays
from ratelimit.windows import Windows, at_local
from tests.ratelimit.book_kit import DAY_MS, MINUTE_MS, at

ZONES = (
    "Asia/Shanghai",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Havana",
    "Asia/Beirut",
    "Pacific/Apia",
    "Asia/Kathmandu",
)
CORNERS = tuple(
    at(text)
    for text in (
        "2026-11-01T06:00Z",  # New York sets its clock back
        "2026-03-08T07:00Z",  # and forward
        "2026-10-31T22:00Z",
        "2026-03-28T22:00Z",  # Beirut has no midnight
        "2026-11-01T05:00Z",  # Havana has two
        "2011-12-30T10:00Z",  # Apia leaves out a day
        "2026-04-04T15:00Z",  # Lord Howe, by half an hour
        "2026-12-31T20:00Z",
        "2026-06-14T12:00Z",
    )
)
moments = st.builds(
    lambda corner, minutes: corner + minutes * MINUTE_MS,
    st.sampled_from(CORNERS),
    st.integers(-30 * 60, 30 * 60) | st.integers(-2, 2),
)
clocks = st.builds(lambda hour, minute: f"{hour:02d}:{minute:02d}", st.integers(0, 23), st.sampled_from([0, 15, 30]))


def local(zone: str, at_ms: int) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone))


def first_quarter(zone: str, moment: datetime) -> int:
    """Naive: the first quarter of an hour at which the clock on the wall shows this or something later. All times of
    these tests are such quarters, and all changes of the clocks."""
    start = round((moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)) - DAY_MS
    quarter = start
    while local(zone, quarter).replace(tzinfo=None) < moment:
        quarter += 15 * MINUTE_MS
    return quarter


@settings(max_examples=25, deadline=None)
@given(zone=st.sampled_from(ZONES), at_ms=moments, clock=clocks)
def test_a_local_time_is_the_first_moment_that_shows_it_or_more(zone: str, at_ms: int, clock: str) -> None:
    # Given a time of day on a day near a change of the clocks
    wanted = datetime.combine(local(zone, at_ms).date(), time.fromisoformat(clock))
    # When it is looked up, then it is the first quarter that shows it, or the first after a gap
    assert at_local(ZoneInfo(zone), wanted) == first_quarter(zone, wanted)


LABELS = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}


def naive_label(kind: str, day: date) -> str:
    return day.strftime(LABELS[kind])


@settings(max_examples=60, deadline=None)
@given(zone=st.sampled_from(ZONES), at_ms=moments, kind=st.sampled_from(["day", "week", "month"]))
def test_a_window_is_the_calendars(zone: str, at_ms: int, kind: windows_module.WindowKind) -> None:
    # Given a moment, when its window is asked for
    windows = Windows(LocalDays())
    day = windows.days.of(zone, at_ms)
    window = windows.of(kind, day)
    # Then it has the calendar's name, and is over when the next begins
    assert window.label == naive_label(kind, local(zone, at_ms).date())
    assert naive_label(kind, local(zone, window.ends_ms).date()) > window.label
    # And the next one begins at a moment of its own, before which there is none
    starts = windows.next_start(kind, zone, at_ms)
    assert at_ms < starts <= window.ends_ms
    assert naive_label(kind, local(zone, starts).date()) > window.label
    before = local(zone, starts - 1).date()
    assert naive_label(kind, before) == window.label


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    at_ms=moments,
    hours=st.tuples(clocks, clocks).filter(lambda pair: pair[0] != pair[1]),
    days=st.sampled_from([(), ("sat", "sun"), ("fri",)]),
)
def test_quiet_hours_last_from_one_first_moment_to_the_next(
    zone: str, at_ms: int, hours: tuple[str, str], days: tuple[str, ...]
) -> None:
    # Given quiet hours and a moment near a change of the clocks
    start, end = (time.fromisoformat(clock) for clock in hours)
    today = local(zone, at_ms).date()
    naive = None
    for day in (today - timedelta(days=1), today, today + timedelta(days=1)):
        if days and day.strftime("%a").lower() not in days:
            continue
        over = day if end > start else day + timedelta(days=1)
        begins, ends = (first_quarter(zone, datetime.combine(*pair)) for pair in ((day, start), (over, end)))
        if begins <= at_ms < ends:
            naive = ends
    # When it is asked until when it is quiet, then the answer is the naive one
    assert Windows(LocalDays()).quiet_until(*hours, days, zone, at_ms) == naive


CHANGES = [
    ("2026-11-01T04:00Z", "2026-11-02T05:00Z"),  # 25 hours
    ("2026-03-08T05:00Z", "2026-03-09T04:00Z"),  # 23 hours
]


@pytest.mark.parametrize(("begins", "ends"), CHANGES)
def test_the_long_and_the_short_day_of_new_york_are_one_window_each(begins: str, ends: str) -> None:
    # Given the day of a clock change, when every half hour of it is asked for
    windows = Windows(LocalDays())
    labels = {
        windows.of("day", windows.days.of("America/New_York", each)).label
        for each in range(at(begins), at(ends), 30 * MINUTE_MS)
    }
    # Then all are one day, which begins and ends where the next ones do
    assert len(labels) == 1
    assert windows.next_start("day", "America/New_York", at(begins) - 1) == at(begins)
    assert windows.next_start("day", "America/New_York", at(begins)) == at(ends)


@pytest.mark.parametrize(
    ("now", "time_of_day", "next_one"),
    [
        ("2026-06-30T11:59Z", "20:00", "2026-06-30T12:00Z"),
        ("2026-06-30T12:00Z", "20:00", "2026-07-01T12:00Z"),
        ("2026-06-30T23:00Z", "20:00", "2026-07-01T12:00Z"),
    ],
)
def test_the_next_time_of_day_is_later_than_now(now: str, time_of_day: str, next_one: str) -> None:
    # Given a time of day, when the next one is asked for, then it is strictly later
    assert Windows(LocalDays()).next_time(time_of_day, "Asia/Shanghai", at(now)) == at(next_one)


def test_what_is_remembered_of_windows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given room for 3
    monkeypatch.setattr(windows_module, "MAX_WINDOWS", 3)
    windows = Windows(LocalDays())
    # When more are asked for, then the answers stay right and the memory small
    for number in range(9):
        day = windows.days.of("Asia/Shanghai", number * DAY_MS)
        assert windows.of("month", day).label == "1970-01"
        assert windows.quiet_until("22:00", "08:00", (), "Asia/Shanghai", number * DAY_MS + 15 * 3_600_000) is not None
        assert len(windows._windows) <= 3
        assert len(windows._quiet) <= 3
