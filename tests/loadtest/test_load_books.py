"""Two books held against each other: what is lost, shown twice, open, and what the verdict makes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from dispatcher.ledger.api import Books
from dispatcher.ledger.stories import AlertStory, EventStory
from dispatcher.model.alert import State
from loadtest.load import books as module
from loadtest.load.assertions import parse_assertion
from loadtest.load.books import Comparison, compare
from loadtest.load.outcome import Outcome, judge
from loadtest.load.plan import Plan, plan_rate
from loadtest.load.run import Seen
from loadtest.load.tally import Tally
from loadtest.load.watch import Sampler
from tests.loadtest.load_kit import Numbers


def tally_of(events: int, *, acknowledged: int | None = None) -> Tally:
    """So many events a tenth of a second apart, all sent, the first ``acknowledged`` of them acknowledged at once."""
    tally = Tally()
    times = [number / 10 for number in range(events)]
    tally.arrive(times)
    _, keys = Numbers().build(0, times, 0.0)
    tally.build(keys)
    count = events if acknowledged is None else acknowledged
    tally.answer(0, count, 0.0, duplicate=0, rejected={})
    return tally


def shown(tally: Tally, *numbers: int, channel: str = "wechat") -> None:
    tally.show(channel, [f"k{number}" for number in numbers], [number / 10 + 0.02 for number in numbers])


class Stories:
    """A fabricated ledger: the states of each event's alerts."""

    def __init__(self, **states: State) -> None:
        self._states = states

    async def explain(self, event_id: str) -> EventStory | None:
        state = self._states.get(event_id)
        if state is None:
            return None
        alert = AlertStory(
            *(1, "primary", "swipe@1", "r", ["wechat"], "wechat", state, None, None, None, 0, None, None, [], [])
        )
        return EventStory(event_id, "A", 0, 0, "{}", [alert])


def ledger_of(**states: int) -> Books:
    return Books(
        events=sum(states.values()),
        recipients=1,
        states=states,  # type: ignore[arg-type]
        suppressed_by={},
        failed_by={},
        unknown_attempts=0,
        attempts={"wechat": sum(states.values())},
        without_alert=0,
    )


async def test_an_event_is_lost_when_neither_book_has_it_or_the_ledger_says_delivered_and_nobody_saw_it() -> None:
    # Given ten acknowledged events of which a provider showed six, and a ledger with its own word about the others
    tally = tally_of(10)
    shown(tally, 0, 1, 2, 3, 4, 5)
    ledger = Stories(e6="suppressed", e7="retrying", e8="delivered")
    # Then e6 has its end, e7 is held, e8 was said to be delivered, and of e9 nobody knows
    assert await compare(ledger, ledger_of(delivered=7, suppressed=1, retrying=1), tally, Numbers()) == Comparison(
        lost=2, ended=1, open=1
    )


async def test_what_was_never_acknowledged_cannot_be_lost() -> None:
    tally = tally_of(10, acknowledged=4)
    shown(tally, 0, 1, 2, 3)
    assert (await compare(Stories(), ledger_of(delivered=4), tally, Numbers())).lost == 0


async def test_of_too_many_the_totals_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EXPLAINED", 3)
    tally = tally_of(10)
    shown(tally, 0, 1, 2)
    # Seven were not shown; the ledger knows four other ends and two open ones
    found = await compare(Stories(), ledger_of(delivered=4, failed=4, queued=2), tally, Numbers())
    assert found == Comparison(lost=1, ended=4, open=2, exact=False)


def test_a_message_that_one_provider_shows_twice_is_a_duplicate_and_the_first_by_another_is_the_fallback() -> None:
    alone = tally_of(3)
    shown(alone, 0, 1, 2)
    # Given alerts that went to SMS as well, each of them is one more message and no duplicate
    shown(alone, 1, 2, channel="sms")
    assert (alone.shown, alone.shown_twice, alone.foreign) == (3, 0, 0)
    # And a second one on either channel is one
    shown(alone, 1, channel="sms")
    assert alone.shown_twice == 1
    shown(alone, 1)
    assert (alone.shown, alone.shown_twice, alone.foreign) == (3, 2, 0)


def test_the_text_message_may_be_seen_before_the_one_that_it_follows() -> None:
    # Given that the two lists are read one after the other
    tally = tally_of(1)
    shown(tally, 0, channel="sms")
    shown(tally, 0)
    assert (tally.shown, tally.shown_twice) == (1, 0)
    shown(tally, 0)
    assert tally.shown_twice == 1


def test_a_strange_message_is_a_duplicate_only_where_nobody_else_sends() -> None:
    alone = tally_of(3)
    shown(alone, 0, 1, 2, 77)
    assert (alone.shown, alone.shown_twice, alone.foreign) == (3, 1, 0)
    shared = Tally(exclusive=False)
    shared.arrive([0.0])
    shared.build(["k0"])
    shown(shared, 0, 77, 0)
    assert (shared.shown, shared.shown_twice, shared.foreign) == (1, 1, 1)


def test_latencies_count_from_the_schedule_and_fall_into_the_second_of_their_acceptance() -> None:
    tally = tally_of(30)
    tally.show("wechat", [f"k{n}" for n in range(20)], [n / 10 + 0.5 for n in range(20)])
    tally.close(2)
    seconds = tally.intervals()
    assert [one.delivered for one in seconds] == [5, 10, 5]
    assert (seconds[0].p50_ms, seconds[0].max_ms) == (500.0, 500.0)
    assert seconds[2].p50_ms is None  # not closed yet
    assert tally.delivered.at(50) == pytest.approx(500, rel=0.01)


def test_in_the_end_a_second_tells_of_the_arrivals_that_were_scheduled_in_it() -> None:
    # Given a swipe of each second, of which the first one's alert came last
    tally = Tally()
    tally.arrive([0.5, 1.5, 2.5])
    tally.build(["k0", "k1", "k2"])
    tally.show("wechat", ["k1", "k2", "k0"], [1.6, 2.6, 9.5])
    tally.close(10)
    tally.finish()
    seconds = tally.intervals()
    assert [one.p99_ms for one in seconds[:3]] == [pytest.approx(9000), pytest.approx(100), pytest.approx(100)]
    assert {one.p99_ms for one in seconds[3:]} == {None}
    assert [one.delivered for one in seconds] == [0, 1, 1, 0, 0, 0, 0, 0, 0, 1]


def test_percentile_points_rise_and_end_at_the_largest() -> None:
    tally = tally_of(1)
    tally.delivered.add(range(1, 10_001))
    points = tally.delivered.points()
    assert points == sorted(points)
    assert points[0][0] == 0.0
    assert points[-1] == (100.0, pytest.approx(1000, rel=0.01))
    at = {round(percentile, 6): ms for percentile, ms in points}
    assert at[50.0] == pytest.approx(500, rel=0.01)
    assert at[75.0] == pytest.approx(750, rel=0.01)
    # No finer than there are values to tell apart
    assert points[-2][0] < 100 - 100 / 20_000


def judged(tally: Tally, comparison: Comparison, ledger: Books, *asserted: str, **changes: Any) -> Outcome:
    plan = Plan(
        load=plan_rate("10", float(changes.pop("duration", 3))),
        seed=1,
        accounts=1,
        assertions=[parse_assertion(text) for text in asserted],
        scenario={},
        settle_s=5,
    )
    sampler = Sampler(tally, lambda: 3.0, metrics_url=None, tree=lambda: None, measured=True)
    seen = Seen(
        started=datetime(2026, 11, 11, tzinfo=UTC),
        seconds=4.0,
        played_s=3.0,
        tally=tally,
        sampler=sampler,
        reconnected=0,
        settled=True,
        books=ledger,
        comparison=comparison,
    )
    return judge(plan, msgspec.structs.replace(seen, **changes))


class TestTheVerdict:
    def test_all_well(self) -> None:
        tally = tally_of(30)
        shown(tally, *range(30))
        outcome = judged(tally, Comparison(), ledger_of(delivered=30), "lost==0", "p99<50ms", "rate_out>=9")
        assert (outcome.failures, outcome.remarks) == ([], [])
        assert outcome.summary.balanced
        assert outcome.result.summary["latency_ms"]["p50"] == pytest.approx(20, rel=0.01)
        books = outcome.result.books
        assert (books["accepted"], books["ended"], books["providers_delivered"], books["lost"]) == (30, 30, 30, 0)

    def test_an_assertion_that_does_not_hold_is_a_failure_in_words(self) -> None:
        tally = tally_of(30)
        shown(tally, *range(30))
        outcome = judged(tally, Comparison(), ledger_of(delivered=30), "p99<10ms", "delivered==30")
        assert [one.holds for one in outcome.result.verdicts] == [False, True]
        assert outcome.failures == ["p99<10ms does not hold: 20.0 ms"]

    def test_something_lost_is_a_failure_without_being_asked_for(self) -> None:
        tally = tally_of(30)
        shown(tally, *range(29))
        outcome = judged(tally, Comparison(lost=1), ledger_of(delivered=29), "lost==0")
        assert not outcome.summary.balanced
        assert [text for text in outcome.failures if "1 acknowledged events are lost" in text]
        assert not outcome.result.verdicts[0].holds

    def test_more_duplicates_than_unknown_attempts_are_a_failure(self) -> None:
        tally = tally_of(3)
        shown(tally, 0, 1, 2, 2)
        ledger = ledger_of(delivered=3)
        assert judged(tally, Comparison(), ledger).failures
        assert not judged(tally, Comparison(), msgspec.structs.replace(ledger, unknown_attempts=1)).failures

    def test_what_is_open_at_the_end_is_a_failure_but_not_after_an_interrupt(self) -> None:
        tally = tally_of(30)
        shown(tally, *range(29))
        ledger, comparison = ledger_of(delivered=29, retrying=1), Comparison(open=1)
        assert judged(tally, comparison, ledger).failures == [
            "1 alerts were still open 5 seconds after the last arrival"
        ]
        interrupted = judged(tally, comparison, ledger, interrupted=True)
        assert interrupted.failures == []
        assert "interrupted after 3.0 of 3.0 seconds" in interrupted.remarks[0]

    def test_a_schedule_that_the_generator_could_not_play_is_its_own_failure(self) -> None:
        tally = tally_of(30)
        shown(tally, *range(30))
        tally.lateness.add([900 * 10] * 30)
        outcome = judged(tally, Comparison(), ledger_of(delivered=30), played_s=9.0)
        assert outcome.failures == [
            "the generator, not the engine, was the limit: a schedule of 3.0 seconds took it 9.0"
        ]
        assert outcome.result.generator_note is not None
        assert "the generator, not the engine, was the limit" in outcome.result.generator_note
