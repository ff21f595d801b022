"""Deduplication, and rules with more conditions than category, type and currency."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.ratelimit.book_kit import DAY_MS, HOUR_MS, MINUTE_MS, Book, a_recipient, an_event, at, rule

NIGHT = rule("quiet_hours", from_='"22:00"', to='"08:00"')
NOW = at("2026-11-28T04:00Z")  # noon in Shanghai

DUPLICATES = [
    ("the same", {}, 9 * MINUTE_MS, "suppressed"),
    ("another amount", {"amount": 12_301}, 0, "send"),
    ("another merchant", {"merchant": None}, 0, "send"),
    ("another city, which is not looked at", {"city": "Wuhan"}, 0, "suppressed"),
    ("the same, too late", {}, 10 * MINUTE_MS, "send"),
]


@pytest.mark.parametrize(("_said", "event", "later_ms", "state"), DUPLICATES, ids=[row[0] for row in DUPLICATES])
def test_a_duplicate_is_told_once(_said: str, event: dict[str, str], later_ms: int, state: str) -> None:
    # Given deduplication of ten minutes and a swipe that was told
    book = Book(rule("dedup", minutes="10"))
    assert book.one(NOW).state == "send"
    # When another comes, then it is told unless it is the same
    assert book.one(NOW + later_ms, event=an_event(id="e2", **event)).state == state
    # And other recipients are told of their own
    assert book.one(NOW, a_recipient(id=2)).state == "send"


def test_duplicates_are_found_among_what_is_held() -> None:
    # Given quiet hours, deduplication of ten minutes, and a swipe that is held until the morning
    book = Book(NIGHT, rule("dedup", minutes="10"))
    assert book.one(at("2026-11-28T15:00Z")).state == "held"
    # When the same comes an hour later, then both would leave at once, and only one does
    decision = book.one(at("2026-11-28T16:00Z"))
    assert (decision.state, decision.rule) == ("suppressed", "dedup")


def test_a_mark_needs_nothing_but_a_fingerprint_that_can_be_read() -> None:
    # Given an event with half a character in its merchant's name, when its mark is made, then there is one
    book = Book(rule("dedup", minutes="10"))
    assert [book.one(NOW, event=an_event(merchant="\ud800")).state for _ in range(2)] == ["send", "suppressed"]


def test_a_rule_with_more_conditions_is_asked_of_what_meets_them_only() -> None:
    # Given rules of every kind for a restaurant abroad, told to a supplementary card's holder
    when = '{ mcc = "58xx", foreign = true, role = "supplementary", currency = "CNY", amount_from = 100 }'
    book = Book(
        rule("cap", limit="1", per='"account"', window='"day"', when=when),
        rule("min_gap", seconds="1", when=when),
        rule("dedup", seconds="1", when=when),
        rule("quiet_hours", from_='"12:00"', to='"11:59"', then='"suppress"', when=when),
    )
    meant: dict[str, Any] = {
        "event": an_event(mcc="5812", orig_currency="THB"),
        "recipient": a_recipient(role="supplementary"),
    }
    assert book.one(NOW, **meant).state == "suppressed"
    # Then whatever differs in one of them is not looked at
    for other in (
        {"event": an_event(mcc="5411", orig_currency="THB")},
        {"event": an_event(mcc="5812")},
        {"event": an_event(mcc="5812", orig_currency="THB", amount=99)},
        {"recipient": a_recipient()},
    ):
        assert [book.one(NOW, **(meant | other)).state for _ in range(3)] == ["send"] * 3
    assert (book.counters, book.marks) == ({}, {})
    assert book.totals.keys() == {"day|Asia/Shanghai|2026-11-28|CNY|A1"}


def test_an_unknown_zone_counts_and_rests_by_the_default_one() -> None:
    # Given a recipient in no zone, quiet hours and a weekly cap
    book = Book(NIGHT, rule("cap", limit="1", per='"account"', window='"week"'))
    decision = book.one(at("2026-11-28T15:00Z"), a_recipient(timezone="Mars/Olympus"))
    # Then Shanghai's clock holds, and the decision says that it is not the recipient's own
    assert (decision.state, decision.send_ms) == ("held", at("2026-11-29T00:00Z"))
    assert decision.zone_fallback
    assert decision.saw is not None
    assert decision.saw["zone/Asia/Shanghai"] == 0


def test_a_swipe_of_yesterday_is_counted_on_the_day_it_leaves() -> None:
    # Given a daily cap of 1 that is full for yesterday, when a swipe of yesterday comes today, then there is room
    book = Book(rule("cap", limit="1", per='"account"', window='"day"'))
    assert book.one(NOW - DAY_MS).state == "send"
    late = an_event(time=datetime(2026, 11, 27, 4, tzinfo=UTC))
    assert book.one(NOW, event=late, swiped_ms=NOW - DAY_MS + HOUR_MS).state == "send"
