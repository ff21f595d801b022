"""The generated day of swipes: repeatable, shaped like a day, and counted as it is made."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import orjson
import pytest

from dispatcher.cards import passes_luhn
from dispatcher.events import Accepted, Rejected, decode_event
from dispatcher.model.event import Event
from loadtest.traffic import TEST_RANGE, Day, Made, accounts_of, generate, luhn_digit

DAY = Day(accounts=500, events=10_000, seed=7, date=date(2026, 11, 21))


@pytest.fixture(scope="module")
def day() -> tuple[list[bytes], Made]:
    """The lines, and what their maker counted, which is nothing before they are made."""
    made = Made()
    return list(generate(DAY, made)), made


@pytest.fixture(scope="module")
def made(day: tuple[list[bytes], Made]) -> Made:
    return day[1]


@pytest.fixture(scope="module")
def lines(day: tuple[list[bytes], Made]) -> list[bytes]:
    return day[0]


@pytest.fixture(scope="module")
def decoded(lines: list[bytes]) -> list[Accepted | Rejected]:
    return [decode_event(line.rstrip(b"\n"), number) for number, line in enumerate(lines, 1)]


@pytest.fixture(scope="module")
def events(lines: list[bytes], decoded: list[Accepted | Rejected]) -> list[Accepted]:
    """Each good line once, in the order of the day."""
    first: dict[str, Accepted] = {}
    for one in decoded:
        if isinstance(one, Accepted):
            first.setdefault(one.event.id, one)
    return list(first.values())


def test_the_same_seed_is_the_same_day(lines: list[bytes]) -> None:
    assert list(generate(DAY, Made())) == lines
    other = Day(accounts=500, events=10_000, seed=8, date=DAY.date)
    assert not set(generate(other, Made())) & set(lines)


def test_what_was_made_is_what_the_door_finds(
    made: Made, lines: list[bytes], decoded: list[Accepted | Rejected], events: list[Accepted]
) -> None:
    assert made.lines == len(lines) == DAY.events
    assert made.good == len(events)
    assert made.broken == sum(isinstance(one, Rejected) for one in decoded)
    assert made.duplicate == len(lines) - made.good - made.broken
    assert made.types == Counter(one.event.type for one in events)
    assert sum(made.by_minute) == len(lines)


def test_repeated_lines_are_the_same_bytes_later(made: Made, lines: list[bytes]) -> None:
    times = Counter(lines)
    assert sum(count - 1 for count in times.values()) == made.duplicate > 20
    assert max(times.values()) == 2


def test_broken_lines_show_every_fault(made: Made, decoded: list[Accepted | Rejected]) -> None:
    assert set(made.broken_by) == {
        "not-json",
        "missing-id",
        "unknown-currency",
        "time-without-zone",
        "fractional-amount",
    }
    said = " ".join(one.error for one in decoded if isinstance(one, Rejected))
    for words in ("not JSON", "field id: missing", "unknown ISO 4217 code", "no time zone", "got float"):
        assert words in said


def test_lines_come_in_the_order_of_their_time_within_one_local_day(events: list[Accepted]) -> None:
    times = [one.event.time for one in events]
    assert times == sorted(times)
    assert {time.astimezone(ZoneInfo(DAY.zone)).date() for time in times} == {DAY.date}


def test_a_day_on_which_clocks_change_is_filled_to_its_end() -> None:
    # Given a day of 23 hours, with lines enough for each of them
    berlin = Day(accounts=10, events=2_000, seed=1, date=date(2026, 3, 29), zone="Europe/Berlin")
    found = [decode_event(line.strip(), 1) for line in generate(berlin, Made())]
    times = [one.event.time.astimezone(UTC) for one in found if isinstance(one, Accepted)]
    # Then it begins at one midnight and ends at the next
    assert min(times) >= datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert datetime(2026, 3, 29, 21, tzinfo=UTC) < max(times) < datetime(2026, 3, 29, 22, tzinfo=UTC)


def test_the_day_has_a_quiet_night_a_lunch_and_an_evening_peak(made: Made) -> None:
    hours = [sum(made.by_minute[hour * 60 : hour * 60 + 60]) for hour in range(24)]
    assert max(hours[:6]) * 5 < min(hours[11:14])
    assert hours[12] > hours[10] and hours[12] > 1.5 * hours[15]  # noqa: PT018 - one peak, two slopes
    assert max(range(24), key=hours.__getitem__) in (18, 19)


def test_few_merchants_and_accounts_have_much_of_the_trade(events: list[Accepted]) -> None:
    for counts in (
        Counter(one.event.merchant for one in events),
        Counter(one.event.account for one in events),
    ):
        ranked = [count for _, count in counts.most_common()]
        tenth = sum(ranked[: len(ranked) // 10])
        assert 0.2 * len(events) < tenth < 0.8 * len(events)
        assert ranked[0] > 10 * ranked[len(ranked) * 3 // 4]


def test_accounts_are_the_ones_that_are_named(events: list[Accepted]) -> None:
    names = accounts_of(DAY)
    assert len(set(names)) == DAY.accounts
    assert {one.event.account for one in events} <= set(names)


def test_refunds_belong_to_an_earlier_purchase_and_are_not_larger(events: list[Accepted]) -> None:
    seen: dict[str, Event] = {}
    refunds = 0
    for one in events:
        event = one.event
        if event.type == "refund":
            refunds += 1
            assert event.refers_to is not None
            purchase = seen[event.refers_to]
            assert purchase.type == "purchase"
            assert -purchase.amount <= event.amount < 0
            assert (event.account, event.merchant, event.currency) == (
                purchase.account,
                purchase.merchant,
                purchase.currency,
            )
        else:
            assert event.amount > 0
            seen[event.id] = event
    assert 50 < refunds < 200


def test_declines_say_why(events: list[Accepted]) -> None:
    declines = [one.event for one in events if one.event.type == "decline"]
    assert 50 < len(declines) < 200
    assert all((one.status or "").startswith("declined: ") for one in declines)


def test_purchases_abroad_come_in_both_ways(made: Made, events: list[Accepted]) -> None:
    currencies = {one.event.currency for one in events}
    originals = {one.event.orig_currency for one in events if one.event.orig_currency}
    assert currencies >= {"CNY", "JPY", "KRW", "USD", "EUR", "HKD", "KWD"}
    assert len(originals) > 3
    assert all(one.event.currency == "CNY" for one in events if one.event.orig_currency)
    assert made.abroad == sum(one.event.currency != "CNY" or one.event.orig_currency is not None for one in events)


def test_full_card_numbers_are_of_the_test_range_and_masked_at_the_door(
    made: Made, lines: list[bytes], decoded: list[Accepted | Rejected]
) -> None:
    full = [orjson.loads(line)["pan"] for line in lines if f'"pan":"{TEST_RANGE}'.encode() in line]
    assert len(set(full)) >= 1
    assert made.unmasked <= len(full)
    assert all(len(number) == 16 and passes_luhn(number) for number in full)
    stored = b"".join(one.payload for one in decoded if isinstance(one, Accepted))
    assert not any(number.encode() in stored for number in full)


def test_the_check_digit_is_the_standards() -> None:
    # The example of ISO/IEC 7812-1 annex B.
    assert luhn_digit("7992739871") == 3
