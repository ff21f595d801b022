"""Local days are exact in spite of being remembered by the quarter of an hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import localday
from ratelimit.localday import SLOT_MS, LocalDays

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = sorted(available_timezones())


def epoch_ms(text: str) -> int:
    return round((datetime.fromisoformat(text) - EPOCH) / timedelta(milliseconds=1))


def exact(zone: str, at_ms: int) -> str:
    return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone)).date().isoformat()


def test_remembering_a_slot_is_exact_for_every_zone_and_every_change_of_its_clock() -> None:
    # Given every zone of the database and every change of its clock from 2018 to 2024
    first, last, step = epoch_ms("2018-01-01T00:00Z"), epoch_ms("2024-12-31T00:00Z"), 14 * 24 * 3600 * 1000
    changes = 0
    for zone in ZONES:
        info = ZoneInfo(zone)

        def offset_seconds(at_ms: int, info: ZoneInfo = info) -> int:
            offset = datetime.fromtimestamp(at_ms // 1000, info).utcoffset()
            assert offset is not None
            return int(offset.total_seconds())

        before = offset_seconds(first)
        for at_ms in range(first, last, step):
            after = offset_seconds(at_ms + step)
            # Then the offset is a whole number of slots, so that a day begins between two of them
            assert after % (SLOT_MS // 1000) == 0, zone
            if after == before:
                continue
            # But where the clock is changed inside a slot (Casey does so at 00:01)
            changes += 1
            low, high = at_ms, at_ms + step
            while high - low > 1000:
                middle = (low + high) // 2000 * 1000
                low, high = (middle, high) if offset_seconds(middle) == before else (low, middle)
            start = high // SLOT_MS * SLOT_MS
            days = LocalDays()
            # Then the day is right on both sides of the change and at both ends of the slot
            for each in (start, high - 1, high, start + SLOT_MS - 1, start - 1):
                assert days.of(zone, each).day == exact(zone, each)
            before = after
    assert changes > 500


@settings(max_examples=300, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    slot=st.integers(epoch_ms("1900-01-01T00:00Z") // SLOT_MS, epoch_ms("2100-01-01T00:00Z") // SLOT_MS),
    within=st.lists(st.integers(0, SLOT_MS - 1), min_size=1, max_size=3),
)
def test_every_moment_of_a_slot_gets_its_own_day(zone: str, slot: int, within: list[int]) -> None:
    # Given any zone at any time since 1900, old offsets of odd seconds too, and several moments of one slot
    days = LocalDays()
    # When their days are asked for one after the other, then each is what the database says
    for ms in within:
        assert days.of(zone, slot * SLOT_MS + ms).day == exact(zone, slot * SLOT_MS + ms)


CORNERS = [
    ("America/St_Johns", "2010-11-07T02:31Z"),  # set back from 00:01 to 23:01 of the day before
    ("Africa/Monrovia", "1971-06-01T00:44:30Z"),  # 44 minutes and 30 seconds behind Greenwich until 1972
    ("Pacific/Apia", "2011-12-30T10:00Z"),  # 30 December 2011 did not take place
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),  # a change of half an hour
    ("Asia/Kathmandu", "2026-01-01T18:15Z"),
    ("Asia/Kolkata", "2026-01-01T18:30Z"),
    ("America/Havana", "2026-11-01T05:00Z"),  # midnight comes twice
    ("Asia/Beirut", "2026-03-28T22:00Z"),  # midnight does not come
]


@pytest.mark.parametrize(("zone", "moment"), CORNERS)
def test_the_corners_are_exact(zone: str, moment: str) -> None:
    # Given a moment at which something odd happens, and its neighbourhood, asked for from either side
    at_ms = epoch_ms(moment)
    around = [at_ms + delta for delta in (-3_600_000, -60_000, -1, 0, 1, 59_999, 60_000, 3_600_000)]
    for order in (around, around[::-1]):
        days = LocalDays()
        # When the days are asked for, then each is exact
        assert [days.of(zone, each).day for each in order] == [exact(zone, each) for each in order]


ENDS = [
    ("Asia/Shanghai", "2026-01-01T08:00Z", "2026-01-01T16:00Z"),
    ("America/New_York", "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
    ("America/New_York", "2026-03-08T05:00Z", "2026-03-09T04:00Z"),
    ("Pacific/Apia", "2011-12-30T09:00Z", "2011-12-30T10:00Z"),
    ("America/Havana", "2026-11-01T03:00Z", "2026-11-01T05:00Z"),  # midnight comes twice: the later one
    ("Asia/Beirut", "2026-03-28T12:00Z", "2026-03-28T22:00Z"),
]


@pytest.mark.parametrize(("zone", "moment", "end"), ENDS)
def test_a_day_ends_when_the_next_one_begins(zone: str, moment: str, end: str) -> None:
    # Given a moment, when its day is asked for, then it ends at the next local midnight
    assert LocalDays().of(zone, epoch_ms(moment)).ends_ms == epoch_ms(end)


WRONG = [
    "",
    "Mars/Olympus",
    "America",
    "../../etc/passwd",
    "/etc/localtime",
    "a\0b",
    "x" * 5000,
    "\ud800",
    "Asia",
]


@pytest.mark.parametrize("zone", WRONG)
def test_a_zone_that_does_not_exist_is_the_default_one_and_marked(zone: str) -> None:
    # Given a name that is no zone, when its day is asked for twice, then it is Shanghai's, and says so
    days = LocalDays()
    for _ in range(2):
        day = days.of(zone, epoch_ms("2026-01-01T17:00Z"))
        assert (day.zone, day.day, day.fallback) == ("Asia/Shanghai", "2026-01-02", True)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"])
def test_the_ends_of_the_calendar_do_not_fail(moment: str) -> None:
    # Given the first and the last moment that a datetime can hold, when their days are asked for, then there
    # is one
    for zone in ("America/New_York", "Pacific/Kiritimati"):
        assert len(LocalDays().of(zone, epoch_ms(moment)).day) == 10


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given room for 3 slots and 2 zones
    monkeypatch.setattr(localday, "MAX_SLOTS", 3)
    monkeypatch.setattr(localday, "MAX_ZONES", 2)
    days = LocalDays()
    # When more are asked for, then the answers stay right and the memory small
    for number in range(20):
        assert days.of(f"No/Zone-{number % 7}", number * SLOT_MS).day == "1970-01-01"
        assert len(days._slots) <= 3
        assert len(days._zones) <= 2
