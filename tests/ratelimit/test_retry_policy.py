"""Backoff and retry as properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.retry import RetryPolicy, backoff_ms, next_retry

draws = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    lambda base, factor, attempts: RetryPolicy(base_seconds=base, cap_seconds=base * factor, max_attempts=attempts),
    st.floats(0.001, 1000),
    st.floats(1, 10_000),
    st.integers(1, 200),
)


@given(policy=policies, attempt=st.integers(1, 10_000), draw=draws)
def test_a_wait_is_below_the_doubled_base_and_the_cap(policy: RetryPolicy, attempt: int, draw: float) -> None:
    # Given any policy, when the wait after any attempt is drawn
    wait_ms = backoff_ms(policy, attempt, draw)
    # Then it is within the span, whose end doubles up to the cap
    assert 0 <= wait_ms <= policy.cap_seconds * 1000
    if attempt < 60:
        assert wait_ms <= policy.base_seconds * 2 ** (attempt - 1) * 1000


@given(policy=policies, attempt=st.integers(1, 10_000), draw=draws)
def test_a_larger_draw_or_a_later_attempt_never_waits_less(policy: RetryPolicy, attempt: int, draw: float) -> None:
    # Given any policy, when only the draw grows, or only the attempts, then the wait does not shrink
    wait_ms = backoff_ms(policy, attempt, draw)
    assert backoff_ms(policy, attempt, draw / 2) <= wait_ms <= backoff_ms(policy, attempt + 1, draw)


def test_the_whole_span_is_drawn() -> None:
    # Given the default policy, when draws cover 0 … 1, then waits cover nothing … half a second, and later 5
    # minutes
    policy = RetryPolicy()
    assert [backoff_ms(policy, 1, draw) for draw in (0, 0.5, 0.999)] == [0, 250, 499]
    assert [backoff_ms(policy, attempt, 0.5) for attempt in (2, 3, 4, 10, 11, 10_000)] == [
        500,
        1_000,
        2_000,
        128_000,
        150_000,
        150_000,
    ]


@given(
    policy=policies,
    attempt=st.integers(1, 300),
    now_ms=st.integers(0, 2**45),
    left_ms=st.integers(-(10**9), 10**9),
    pause_ms=st.integers(-10, 10**9),
    draw=draws,
)
def test_a_retry_obeys_the_pause_the_age_and_the_attempts(
    policy: RetryPolicy, attempt: int, now_ms: int, left_ms: int, pause_ms: int, draw: float
) -> None:
    # Given any failure with an alert's age limit and a provider's wish
    expires_ms = now_ms + left_ms
    due_ms = next_retry(policy, attempt=attempt, now_ms=now_ms, expires_at_ms=expires_ms, draw=draw, pause_ms=pause_ms)
    earliest_ms = now_ms + max(pause_ms, 0)
    if due_ms is not None:
        # Then a retry is neither too early nor too late nor one too many
        assert earliest_ms <= due_ms < expires_ms
        assert due_ms <= earliest_ms + policy.cap_seconds * 1000
        assert attempt < policy.max_attempts
    else:
        # And when there is none, then for one of two reasons
        too_late = earliest_ms + backoff_ms(policy, attempt, draw) >= expires_ms
        assert too_late or attempt >= policy.max_attempts


def test_the_last_attempt_is_the_last() -> None:
    # Given three attempts, when the second and the third have failed, then only one more is made
    policy = RetryPolicy(max_attempts=3)
    dues = [
        next_retry(policy, attempt=attempt, now_ms=1_000, expires_at_ms=10_000, draw=0.5, pause_ms=2_000)
        for attempt in (2, 3, 4)
    ]
    assert dues == [3_500, None, None]


@pytest.mark.parametrize(
    ("base", "cap", "attempts"),
    [(0, 1, 1), (2, 1, 1), (0.5, math.inf, 1), (math.nan, 1, 1), (0.5, math.nan, 1), (0.5, 1, 0), (-1, 1, 1)],
)
def test_a_policy_that_makes_no_sense_is_refused(base: float, cap: float, attempts: int) -> None:
    # Given figures that no backoff can be made of, when a policy is made of them, then it says so
    with pytest.raises(ValueError, match=r"backoff needs|max_attempts must"):
        RetryPolicy(base_seconds=base, cap_seconds=cap, max_attempts=attempts)
