"""Quiet hours, gaps and caps that hold, suppress or fold: when an alert leaves."""

from __future__ import annotations

import pytest

from ratelimit.asked import MAX_MOVES, MAX_RESERVED
from ratelimit.rules import Fold
from tests.ratelimit.book_kit import HOUR_MS, MINUTE_MS, Book, a_recipient, an_event, at, rule

NEW_YORK = a_recipient(timezone="America/New_York")
NIGHT = rule("quiet_hours", from_='"22:00"', to='"08:00"')
MONTH = rule("expire_after", id='"age"', category='"swipe"', hours="744")
NOW = at("2026-11-28T04:00Z")  # noon in Shanghai, a Saturday

QUIET = [
    ("before they begin", "2026-11-28T13:59Z", "", "send", None),
    ("from their first moment", "2026-11-28T14:00Z", "", "held", "2026-11-29T00:00Z"),
    ("after midnight", "2026-11-28T23:59:59.999Z", "", "held", "2026-11-29T00:00Z"),
    ("to their last", "2026-11-29T00:00Z", "", "send", None),
    ("on a day that they begin on", "2026-11-28T14:00Z", 'days = ["sat"]\n', "held", "2026-11-29T00:00Z"),
    ("and the night after it", "2026-11-28T23:00Z", 'days = "sat"\n', "held", "2026-11-29T00:00Z"),
    ("not on another", "2026-11-29T14:00Z", 'days = ["sat"]\n', "send", None),
]


@pytest.mark.parametrize(("_said", "now", "more", "state", "until"), QUIET, ids=[row[0] for row in QUIET])
def test_quiet_hours_hold_until_they_are_over(_said: str, now: str, more: str, state: str, until: str | None) -> None:
    # Given quiet hours across midnight, when an alert comes, then it leaves at once or at their end
    decision = Book(NIGHT + more).one(at(now))
    assert (decision.state, decision.send_ms) == (state, at(until or now))
    assert decision.rule == ("quiet-hours" if state == "held" else "")


DST = [
    ("the night is an hour longer", "22:00", "08:00", "2026-11-01T03:00Z", "2026-11-01T13:00Z"),
    ("and an hour shorter", "22:00", "08:00", "2026-03-08T04:00Z", "2026-03-08T12:00Z"),
    ("an end that the clock skips is the moment after", "22:00", "02:30", "2026-03-08T04:00Z", "2026-03-08T07:00Z"),
    ("an end that comes twice is the first", "22:00", "01:30", "2026-11-01T03:00Z", "2026-11-01T05:30Z"),
]


@pytest.mark.parametrize(("_said", "start", "end", "now", "until"), DST, ids=[row[0] for row in DST])
def test_quiet_hours_end_by_the_clock_on_the_wall(_said: str, start: str, end: str, now: str, until: str) -> None:
    # Given quiet hours in New York over a change of its clocks, when an alert comes, then it is held to their end
    book = Book(rule("quiet_hours", from_=f'"{start}"', to=f'"{end}"'))
    assert book.one(at(now), NEW_YORK).send_ms == at(until)
    # And one that comes then leaves at once, even if the clock shows such a time once more
    assert book.one(at(until), NEW_YORK).state == "send"
    assert book.one(at(until) + 20 * MINUTE_MS, NEW_YORK).state == "send"


def test_quiet_hours_may_suppress() -> None:
    # Given quiet hours that suppress, when an alert comes in them, then it ends, and says what was seen
    decision = Book(NIGHT + 'then = "suppress"\n').one(at("2026-11-28T15:10Z"))
    assert (decision.state, decision.rule, decision.route) == ("suppressed", "quiet-hours", ())
    assert decision.saw == {
        "quiet_at_ms": at("2026-11-28T15:10Z"),
        "from_minute": 22 * 60,
        "to_minute": 8 * 60,
        "zone/Asia/Shanghai": 1,
    }


def test_what_passes_is_exempt_from_later_quiet_hours_only() -> None:
    # Given quiet hours that let cash pass, and others before and after
    early = rule("quiet_hours", id='"siesta"', from_='"12:00"', to='"13:00"')
    passes = rule("quiet_hours", id='"cash"', from_='"12:00"', to='"08:00"', then='"pass"', when='{ type = "cash" }')
    book = Book(early, passes, NIGHT)
    night = at("2026-11-28T15:00Z")
    # Then cash passes at night and a purchase does not
    assert book.one(night, event=an_event(type="cash")).state == "send"
    assert book.one(night).state == "held"
    # And the quiet hours before it hold for cash too
    assert book.one(NOW, event=an_event(type="cash")).rule == "siesta"


def test_a_hold_beyond_the_expiry_is_no_hold() -> None:
    # Given an age of one hour and quiet hours of ten
    book = Book(rule("expire_after", category='"swipe"', hours="1"), NIGHT)
    # When an alert comes that would be stale in the morning
    now = at("2026-11-28T14:00Z")
    decision = book.one(now)
    # Then it is suppressed by what would have held it, and says until when
    assert (decision.state, decision.rule) == ("suppressed", "quiet-hours")
    assert decision.saw is not None
    assert (decision.saw["held_until_ms"], decision.saw["expires_ms"]) == (at("2026-11-29T00:00Z"), now + HOUR_MS)
    # And one that expires at the very end of them too
    assert book.one(at("2026-11-28T23:00Z")).state == "suppressed"
    assert book.one(at("2026-11-28T23:00:00.001Z")).state == "held"


WINDOWS = [
    ("day", "2026-11-28T16:00Z", ("held", "2026-11-29T16:00Z")),
    ("week", "2026-11-29T16:00Z", ("held", "2026-12-06T16:00Z")),
    ("month", "2026-11-30T16:00Z", ("suppressed", "2026-11-28T04:00Z")),
]


@pytest.mark.parametrize(("window", "starts", "fifth"), WINDOWS)
def test_a_full_calendar_cap_holds_until_the_next_window_that_has_room(
    window: str, starts: str, fifth: tuple[str, str]
) -> None:
    # Given a cap of 2 that holds, in a window of Shanghai's calendar
    cap = rule("cap", limit="2", per='"account"', window=f'"{window}"', at_cap='"hold"')
    book = Book(cap, MONTH)
    # When three alerts come, then the third waits for the next window, and the fourth with it
    states = [book.one(NOW) for _ in range(4)]
    assert [decision.state for decision in states] == ["send", "send", "held", "held"]
    assert [decision.send_ms for decision in states[2:]] == [at(starts), at(starts)]
    # And that one is full then: a fifth waits for the one after it, unless it expires before
    decision = book.one(NOW)
    assert (decision.state, decision.send_ms) == (fifth[0], at(fifth[1]))


def test_a_week_begins_on_monday_in_the_recipients_zone() -> None:
    # Given a cap of 1 a week and Sunday evening in Shanghai, which is Sunday noon in New York
    book = Book(rule("cap", limit="1", per='"recipient"', window='"week"'))
    sunday = at("2026-11-29T15:59Z")
    assert book.one(sunday).state == "send"
    # Then a minute later it is Monday in Shanghai and there is room again
    assert [book.one(sunday + MINUTE_MS).state for _ in range(2)] == ["send", "suppressed"]
    # And in New York the week goes on
    other = a_recipient(id=2, timezone="America/New_York")
    assert [book.one(sunday + ms, other).state for ms in (0, MINUTE_MS)] == ["send", "suppressed"]


@pytest.mark.parametrize(("first", "hours"), [("2026-11-01T04:00Z", 25), ("2026-03-08T05:00Z", 23)])
def test_a_long_and_a_short_day_of_new_york_are_one_day_of_the_cap(first: str, hours: int) -> None:
    # Given a cap of 10 a day, and an alert every quarter of an hour of a day of New York and of the next
    book = Book(rule("cap", limit="10", per='"account"', window='"day"'))
    sent = [
        quarter
        for quarter in range(4 * (hours + 24))
        if book.one(at(first) + quarter * 15 * MINUTE_MS, NEW_YORK).state == "send"
    ]
    # Then each day has its ten, the second when the first is over
    assert sent == [*range(10), *range(4 * hours, 4 * hours + 10)]


def test_a_clock_that_jumps_back_across_midnight_finds_the_old_day_full() -> None:
    # Given a cap of 1 a day that is full, and a new day that is full too
    book = Book(rule("cap", limit="1", per='"account"', window='"day"'))
    midnight = at("2026-11-28T16:00Z")
    assert [book.one(midnight - 1).state, book.one(midnight).state] == ["send", "send"]
    # When the clock is set back over midnight, then neither day has room for one more
    assert [book.one(midnight - HOUR_MS).state, book.one(midnight).state] == ["suppressed", "suppressed"]


def test_a_rolling_cap_has_room_again_when_the_oldest_is_a_window_away() -> None:
    # Given at most 2 in any hour
    book = Book(rule("cap", limit="2", per='"account"', rolling_minutes="60"))
    states = [book.one(NOW + minute * MINUTE_MS).state for minute in (0, 30, 59, 60, 61, 90)]
    # Then the third waits in vain until the first is an hour old, and so on
    assert states == ["send", "send", "suppressed", "send", "suppressed", "send"]


def test_a_rolling_cap_that_holds_spaces_out_what_it_holds() -> None:
    # Given at most 2 in any hour, and a burst of 6
    book = Book(rule("cap", limit="2", per='"account"', rolling_hours="1", at_cap='"hold"'))
    sent = [book.one(NOW).send_ms - NOW for _ in range(6)]
    # Then two leave each hour
    assert sent == [0, 0, HOUR_MS, HOUR_MS, 2 * HOUR_MS, 2 * HOUR_MS]
    # And it says what it saw
    saw = book.one(NOW).saw
    assert saw is not None
    assert (saw["counter"], saw["limit"], saw["window_s"], saw["by/cap"]) == (2, 2, 3600, 1)


def test_of_the_past_no_more_is_remembered_than_a_cap_needs() -> None:
    # Given at most 3 in any minute, when 10 alerts leave a minute apart, then 3 times are kept
    book = Book(rule("cap", limit="3", per='"account"', rolling_minutes="1"))
    for minute in range(10):
        assert book.one(NOW + minute * MINUTE_MS).state == "send"
    assert book.marks == {"roll|cap|A1": tuple(NOW + minute * MINUTE_MS for minute in (7, 8, 9))}


def test_nobody_is_held_behind_too_many() -> None:
    # Given a cap of 1 a minute that holds, and as many held as are remembered
    book = Book(rule("cap", limit="1", per='"account"', rolling_minutes="1", at_cap='"hold"'), MONTH)
    book.marks["roll|cap|A1"] = tuple(NOW + minute * MINUTE_MS for minute in range(MAX_RESERVED + 1))
    # Then one more is not held
    assert book.one(NOW).state == "suppressed"
    assert book.one(NOW + MINUTE_MS).state == "held"


def test_a_gap_is_kept_before_and_after_what_is_reserved() -> None:
    # Given a gap of 10 minutes that holds
    book = Book(rule("min_gap", minutes="10", at_gap='"hold"'))
    sent = [(book.one(NOW + minute * MINUTE_MS).send_ms - NOW) // MINUTE_MS for minute in (0, 1, 2, 35, 41)]
    # Then each leaves ten minutes or more from all others
    assert sent == [0, 10, 20, 35, 45]


def test_a_gap_may_suppress_and_is_each_recipients_own() -> None:
    # Given a gap of a minute
    book = Book(rule("min_gap", seconds="60"))
    first, second = a_recipient(), a_recipient(id=2)
    # When two are told twice, then each is told once
    assert [each.state for each in book.tell(NOW, first, second)] == ["send", "send"]
    states = [each.state for each in book.tell(NOW + MINUTE_MS - 1, first, second)]
    assert states == ["suppressed", "suppressed"]
    assert book.one(NOW + MINUTE_MS, first).state == "send"


DIGESTS = [
    ("", Fold("cap", at("2026-11-28T12:00Z"))),
    ('digest = { at = "11:30", count = 5 }\n', Fold("cap", at("2026-11-29T03:30Z"), 5)),
    ("digest = { after_minutes = 90 }\n", Fold("cap", NOW + 90 * MINUTE_MS)),
]


@pytest.mark.parametrize(("more", "fold"), DIGESTS)
def test_what_a_full_cap_folds_goes_into_a_digest(more: str, fold: Fold) -> None:
    # Given a cap of 1 that folds, and is full
    book = Book(rule("cap", limit="1", per='"account"', window='"day"', at_cap='"digest"') + more)
    assert book.one(NOW).state == "send"
    # When one more comes
    decision = book.one(NOW)
    # Then it becomes a member of a digest, and counts nothing
    assert (decision.state, decision.rule, decision.fold, decision.route) == ("folded", "cap", fold, ())
    assert (decision.increments, decision.times) == ((), ())
    assert decision.saw is not None
    assert decision.saw["digest_due_ms"] == fold.due_ms


def test_what_tells_a_digest_is_never_folded() -> None:
    # Given rules that fold everything beyond the first
    cap = rule("cap", limit="1", per='"account"', window='"day"', at_cap='"digest"')
    book = Book(cap, rule("min_gap", hours="1", at_gap='"digest"'))
    # When digests come, then all are sent, and count for neither rule
    assert [book.one(NOW, event=an_event(category="digest", type="digest")).state for _ in range(3)] == ["send"] * 3
    assert book.one(NOW).state == "send"


def test_rules_are_asked_again_for_the_time_that_a_later_one_has_moved_to() -> None:
    # Given quiet hours, and then a gap of nine hours that holds
    book = Book(NIGHT, rule("min_gap", hours="9", at_gap='"hold"'))
    # When the second of two comes in the afternoon, when the gap would end at night
    assert book.one(at("2026-11-28T06:00Z")).state == "send"
    decision = book.one(at("2026-11-28T07:00Z"))
    # Then it leaves in the morning, and the quiet hours are named: they moved it last
    assert (decision.state, decision.rule, decision.send_ms) == ("held", "quiet-hours", at("2026-11-29T00:00Z"))
    assert decision.saw is not None
    assert decision.saw["moves"] == 2
    # And it is counted at that time
    assert book.marks["gap|min-gap|1"][-1] == at("2026-11-29T00:00Z")


def test_an_alert_is_not_moved_for_ever() -> None:
    # Given a daily cap that holds, and as many full days ahead as an alert may be moved over
    cap = rule("cap", limit="1", per='"account"', window='"day"', at_cap='"hold"')
    gap = rule("min_gap", minutes="1", at_gap='"hold"')
    book = Book(cap, gap, MONTH)
    book.marks["gap|min-gap|1"] = tuple(NOW + minute * MINUTE_MS for minute in range(MAX_MOVES))
    # When it can be moved so often, then it is held
    assert book.one(NOW).send_ms == NOW + MAX_MOVES * MINUTE_MS
    # And with one more it is given up, by the rule that moved it last
    other = Book(cap, gap, MONTH)
    other.marks["gap|min-gap|1"] = tuple(NOW + minute * MINUTE_MS for minute in range(MAX_MOVES + 1))
    decision = other.one(NOW)
    assert (decision.state, decision.rule) == ("suppressed", "min-gap")
    assert decision.saw is not None
    assert decision.saw["moves"] == MAX_MOVES
