"""Fresh or late: the split of a batch, and the hint from a line that nobody has decoded yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from dispatcher.freshness import FRESH_S, Split, looks_late

NOW = datetime(2026, 11, 22, 4, 0, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


class _Event(msgspec.Struct):
    time: datetime


class _Alert(msgspec.Struct):
    event: _Event


def alert(seconds_ago: float, hours_east: int = 8) -> Any:
    time = (NOW - timedelta(seconds=seconds_ago)).astimezone(timezone(timedelta(hours=hours_east)))
    return _Alert(_Event(time))


def test_a_batch_is_split_by_age_whatever_the_zones_and_each_part_keeps_its_order() -> None:
    batch = [alert(1), alert(11), alert(0, -5), alert(3600, 0), alert(FRESH_S), alert(-30)]
    fresh, late = Split(NOW_MS).batch(batch)
    assert list(fresh) == [batch[0], batch[2], batch[4], batch[5]]
    assert list(late) == [batch[1], batch[3]]


def test_a_batch_of_fresh_ones_is_handed_on_as_it_is() -> None:
    batch = [alert(1), alert(2)]
    fresh, late = Split(NOW_MS).batch(batch)
    assert fresh is batch
    assert not late
    assert Split(NOW_MS).batch([]) == ([], ())


@pytest.mark.parametrize(
    ("line", "late"),
    [
        (b'{"id":"1","time":"2026-11-22T04:00:00Z"}', False),
        (b'{"id":"1","time":"2026-11-22T11:59:49.9+08:00"}', True),
        (b'{"id":"1","time" : "2026-11-22T11:59:50.1+08:00"}', False),
        (b'{"id":"1","time":"2026-11-22t03:59:00z"}', True),
        # What tells nothing is not called late: the hint only chooses the queue
        (b'{"id":"1"}', False),
        (b'{"id":"1","time":"2026-11-22T03:59:00"}', False),
        (b'{"id":"1","time":"2026-13-22T03:59:00Z.........."}', False),
        (b'{"id":"1","time":"9999-12-31T23:59:59-23:59"}', False),
        (b'{"id":"1","time":17}', False),
        (b"\xff\x00", False),
        (b"", False),
    ],
)
def test_a_line_that_is_not_decoded_yet_gives_a_hint(line: bytes, late: bool) -> None:
    assert looks_late(line, NOW_MS) is late
