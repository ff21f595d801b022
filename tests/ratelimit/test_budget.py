"""The retry budget and the pauses of recipients. Time is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.budget import LONGEST_SECONDS, SAVED_SECONDS, RetryBudget
from ratelimit.recipients import MAX_RECIPIENTS, MINUTE_MS, RecipientPauses
from ratelimit.retry import RetryPolicy

POLICY = RetryPolicy()


@settings(max_examples=200, deadline=None)
@given(
    part=st.floats(0.01, 1.0),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50), st.integers(0, 200)), max_size=40),
)
def test_no_stretch_holds_more_retries_than_its_budget(part: float, steps: list[tuple[float, int, int]]) -> None:
    budget, now = RetryBudget(), 1_000.0
    granted: list[tuple[float, int, int]] = []  # (when, firsts before, retries)
    for pause, firsts, wanted in steps:
        now += pause
        budget.first_attempts(firsts)
        granted.append((now, firsts, sum(budget.take(POLICY, now, part) for _ in range(wanted))))
    rate = POLICY.budget_per_second * part
    for begin in range(len(granted)):
        for end in range(begin, len(granted)):
            stretch = granted[begin : end + 1]
            firsts = sum(one[1] for one in stretch)
            most = max(rate * SAVED_SECONDS, 1) + 0.2 * firsts + rate * (stretch[-1][0] - stretch[0][0])
            assert sum(one[2] for one in stretch) <= most + 1e-6


def test_the_parts_of_a_fleet_are_the_whole_budget() -> None:
    # Given four processes with a part each, when they retry as much as they can for a hundred seconds
    budgets = [RetryBudget() for _ in range(4)]
    retries = sum(
        budget.take(POLICY, second / 10, part)
        for second in range(1_000)
        for budget, part in zip(budgets, (0.7, 0.1, 0.1, 0.1), strict=True)
        for _ in range(50)
    )
    # Then together they made what one would have been allowed
    assert retries == pytest.approx(10 * SAVED_SECONDS + 10 * 99.9, abs=4)


def test_what_is_put_off_comes_back_as_fast_as_the_budget_lets_it_go() -> None:
    budget = RetryBudget()
    waits = [budget.put_off_seconds(POLICY, 0.0, 0.0) for _ in range(100)]
    assert waits == pytest.approx([(place + 1) / 10 for place in range(100)])
    # And nobody waits longer than the longest at a time, the jitter apart
    for _ in range(1_000):
        last = budget.put_off_seconds(POLICY, 0.0, 0.999)
    assert LONGEST_SECONDS <= last < LONGEST_SECONDS + 1


def test_without_any_part_of_the_rate_a_retry_still_has_its_time() -> None:
    budget = RetryBudget()
    assert budget.take(POLICY, 0.0, 0.0)
    assert not budget.take(POLICY, 0.0, 0.0)
    assert budget.put_off_seconds(POLICY, 0.0, 0.0, 0.0) == LONGEST_SECONDS


@pytest.mark.parametrize("wrong", [{"budget_share": -0.1}, {"budget_per_second": 0.0}])
def test_a_budget_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a retry budget needs"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_a_paused_recipient_waits_and_others_do_not() -> None:
    pauses = RecipientPauses()
    assert not pauses
    pauses.pause(7, 5_000)
    assert pauses
    assert pauses.wait_until(7, 1_000) == 5_000
    assert pauses.wait_until(8, 1_000) == 1_000
    # A shorter pause that comes later takes nothing away
    pauses.pause(7, 3_000)
    assert pauses.wait_until(7, 1_000) == 5_000
    # And when it is over it is forgotten
    assert pauses.wait_until(7, 5_000) == 5_000
    assert not pauses


def test_a_recipient_gets_so_many_a_minute_and_no_more() -> None:
    pauses = RecipientPauses(per_minute=2)
    for now_ms in (0, 10_000):
        assert pauses.wait_until(7, now_ms) == now_ms
        pauses.sent(7, now_ms)
    assert pauses.wait_until(7, 20_000) == MINUTE_MS
    pauses.sent(7, MINUTE_MS)
    assert pauses.wait_until(7, MINUTE_MS) == 10_000 + MINUTE_MS


def test_the_tables_are_bounded() -> None:
    pauses = RecipientPauses(per_minute=1)
    for recipient in range(MAX_RECIPIENTS + 10):
        pauses.pause(recipient, 5_000)
        pauses.sent(recipient, 1_000)
    assert len(pauses) == MAX_RECIPIENTS
    # The oldest is the one that is forgotten
    assert pauses.wait_until(0, 1_000) == 1_000
    assert pauses.wait_until(MAX_RECIPIENTS, 1_000) > 1_000
