"""Days that are longer or shorter than others, minute by minute: a daily cap counts one day each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.rules import Decider, Decision, Tally, load_rules
from ratelimit.tally import keys_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
LIMIT = 3
RULES = """\
version = 1
[[rule]]
id = "age"
effect = "expire_after"
category = "swipe"
hours = 200
[[rule]]
id = "three-a-day"
effect = "cap"
limit = 3
per = "recipient"
window = "day"
at_cap = "{at_cap}"
"""

DAYS = [
    pytest.param("America/New_York", "2026-11-01T04:00Z", 25, id="25 hours"),
    pytest.param("America/New_York", "2026-03-08T05:00Z", 23, id="23 hours"),
    pytest.param("America/Havana", "2026-11-01T04:00Z", 25, id="midnight comes twice"),
    pytest.param("America/Havana", "2026-03-08T05:00Z", 23, id="midnight is left out"),
    pytest.param("America/Santiago", "2026-04-04T03:00Z", 25, id="the hour before midnight comes twice"),
    pytest.param("Asia/Shanghai", "2026-11-01T16:00Z", 24, id="24 hours"),
]


class Book:
    """One process's decisions, an alert a batch; what they counted outlives each."""

    def __init__(self, zone: str, at_cap: str = "suppress") -> None:
        self.decider = Decider(load_rules(RULES.format(at_cap=at_cap), "rules.toml"), ("wechat",))
        self.recipient = Recipient(id=1, account="A", openid="o", timezone=zone)
        self.counters: dict[str, int] = {}

    def decide(self, now_ms: int) -> Decision:
        time = EPOCH + timedelta(milliseconds=now_ms)
        event = Event(id="e", account="A", amount=1, currency="USD", time=time)
        plan = self.decider.plan(event, now_ms, self.recipient, now_ms)
        tally = Tally(self._read, _no_marks, lambda _keys: {})
        tally.prefetch(keys_of([[plan]]))
        (decision,) = tally.decide_event(event, [plan])
        self.counters.update((key, value) for key, (value, _) in tally.changed.items())
        return decision

    def _read(self, keys: Sequence[str]) -> Mapping[str, int]:
        return {key: self.counters[key] for key in keys if key in self.counters}


def _no_marks(_keys: Sequence[str]) -> Mapping[str, Sequence[int]]:
    return {}


@pytest.mark.parametrize(("zone", "begins", "hours"), DAYS)
def test_a_daily_cap_counts_one_day_whatever_its_hours(zone: str, begins: str, hours: int) -> None:
    # Given a cap of three a day and a swipe in every minute, from shortly before the day until shortly after it
    first = round((datetime.fromisoformat(begins) - EPOCH).total_seconds() * 1000)
    book = Book(zone)
    told = [minute for minute in range(-9, hours * 60 + 9) if book.decide(first + minute * MINUTE_MS).state == "send"]
    # Then three are told in the last minutes of the day before, three from its first minute on, and three from the
    # first minute of the next day
    end = hours * 60
    assert told == [-9, -8, -7, 0, 1, 2, end, end + 1, end + 2]


@pytest.mark.parametrize(("zone", "begins", "hours"), DAYS)
def test_what_is_held_at_a_daily_cap_leaves_when_the_next_days_begin(zone: str, begins: str, hours: int) -> None:
    # Given a cap of three a day that holds, and nine swipes at the day's beginning
    first = round((datetime.fromisoformat(begins) - EPOCH).total_seconds() * 1000)
    book = Book(zone, "hold")
    decided = [book.decide(first + minute * MINUTE_MS) for minute in range(3 * LIMIT)]
    # Then three are sent, and three each leave with the first moment of the next day and of that after it
    assert [one.state for one in decided] == ["send"] * LIMIT + ["held"] * 2 * LIMIT
    tomorrow = first + hours * HOUR_MS
    assert [one.send_ms for one in decided[LIMIT:]] == [tomorrow] * LIMIT + [tomorrow + 24 * HOUR_MS] * LIMIT
