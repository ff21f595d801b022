"""The brown-out ladder and the day in China: pure, so they are tried out with numbers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.brownout import (
    DIGEST,
    EARLY,
    LADDER,
    RAISE_MINIMUM,
    SHIFT,
    BrownOutTerms,
    expected_need,
    next_level,
)
from ratelimit.quota import DAY_MS, china_day, next_midnight_ms, share_of_day


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


# ---- the day ------------------------------------------------------------------------------------------------------


def test_the_day_changes_at_midnight_in_china_wherever_the_machine_is() -> None:
    before, after = ms("2026-11-24T23:59:59.999+08:00"), ms("2026-11-25T00:00:00+08:00")
    assert china_day(after) == china_day(before) + 1
    assert next_midnight_ms(before) == after
    assert next_midnight_ms(after) == after + DAY_MS
    assert datetime.fromtimestamp(after / 1000, UTC).hour == 16


@given(st.integers(0, 4 * 10**12))
def test_the_next_midnight_is_the_first_moment_of_the_next_day(now_ms: int) -> None:
    midnight = next_midnight_ms(now_ms)
    assert now_ms < midnight <= now_ms + DAY_MS
    assert china_day(midnight) == china_day(now_ms) + 1 == china_day(midnight - 1) + 1


@given(st.integers(0, DAY_MS - 1), st.integers(0, DAY_MS - 1))
def test_the_share_of_the_day_only_grows(one: int, other: int) -> None:
    midnight = ms("2026-11-24T00:00:00+08:00")
    first, second = sorted((share_of_day(midnight + one), share_of_day(midnight + other)))
    assert 0.0 <= first <= second < 1.0
    assert (share_of_day(midnight + min(one, other)), share_of_day(midnight + max(one, other))) == (first, second)


def test_the_need_is_todays_pace_and_early_in_the_day_yesterdays() -> None:
    noon = ms("2026-11-24T12:00:00+08:00")
    over = share_of_day(noon)
    assert expected_need(1_000, 0, noon) == pytest.approx(1_000 / over * (1 - over))
    night = ms("2026-11-24T02:00:00+08:00")
    assert share_of_day(night) < EARLY
    # A burst at two in the morning says nothing of the day
    assert expected_need(5_000, 40_000, night) == pytest.approx(40_000 * (1 - share_of_day(night)))
    assert expected_need(5_000, 0, night) == 0.0


# ---- the ladder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remaining", "level"),
    [(1_000, 0), (999, RAISE_MINIMUM), (700, RAISE_MINIMUM), (699, DIGEST), (349, SHIFT), (0, SHIFT), (-5, SHIFT)],
)
def test_the_less_is_left_the_more_is_given_up(remaining: int, level: int) -> None:
    assert next_level(remaining, 1_000.0, 0) == level


def test_a_level_is_left_only_with_some_room() -> None:
    # Given level 1, entered just below what is needed
    assert next_level(999, 1_000.0, 0) == RAISE_MINIMUM
    # When there is a little more again, then it stays; with a fifth more it is left
    assert next_level(1_199, 1_000.0, RAISE_MINIMUM) == RAISE_MINIMUM
    assert next_level(1_200, 1_000.0, RAISE_MINIMUM) == 0
    # And from the top it goes down rung by rung
    assert [next_level(left, 1_000.0, SHIFT) for left in (499, 500, 849, 850, 1_199, 1_200)] == [3, 2, 2, 1, 1, 0]


def test_nothing_left_is_the_top_whatever_is_expected() -> None:
    assert next_level(0, 0.0, 0) == SHIFT
    assert next_level(1, 0.0, SHIFT) == 0


@given(st.integers(-10, 10**9), st.floats(0, 1e9), st.integers(0, 3))
def test_the_level_never_flutters(remaining: int, need: float, level: int) -> None:
    # When nothing changes, then neither does the level
    once = next_level(remaining, need, level)
    assert next_level(remaining, need, once) == once
    # And more room never means a higher one
    assert next_level(remaining + 1, need, level) <= once
    assert all(rung.enter < rung.leave for rung in LADDER)


TERMS = BrownOutTerms({"CNY": 10_000}, {"CNY": 30_000}, {"CNY": 500_000}, frozenset({"fraud"}))


@pytest.mark.parametrize(
    ("amount", "currency", "category", "reserved"),
    [
        (499_999, "CNY", "swipe", False),
        (500_000, "CNY", "swipe", True),
        (-500_000, "CNY", "swipe", True),
        (1, "CNY", "fraud", True),
        (10**12, "USD", "swipe", False),
        (1, "USD", "fraud", True),
    ],
)
def test_large_and_fraud_class_swipes_have_the_reserve(
    amount: int, currency: str, category: str, reserved: bool
) -> None:
    assert TERMS.is_reserved(amount, currency, category) == reserved
    # But where the rules say what is urgent, nothing else counts
    assert TERMS.is_reserved(amount, currency, category, True)
    assert not TERMS.is_reserved(amount, currency, category, False)


def test_what_is_small_grows_with_the_level() -> None:
    assert [TERMS.small_below(level, "CNY") for level in range(4)] == [0, 10_000, 30_000, 30_000]
    assert [TERMS.small_below(level, "USD") for level in range(4)] == [0, 0, 0, 0]
    # A digest amount below the minimum takes nothing back
    odd = BrownOutTerms({"CNY": 10_000}, {"CNY": 5}, {}, frozenset())
    assert odd.small_below(DIGEST, "CNY") == 10_000
