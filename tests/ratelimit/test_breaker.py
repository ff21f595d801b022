"""The breaker: when it opens, what it lets out, and how it closes. Time is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ratelimit.breaker import Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy()


@given(rate=st.integers(2, 2_000))
def test_it_opens_within_five_seconds_at_any_rate(rate: int) -> None:
    # Given a provider that has been well for a minute
    breaker, now = Breaker(), 0.0
    for _ in range(600):
        breaker.answered(now, rate // 10 or 1, 0)
        now += 0.1
    # When from now on it answers nothing but failures
    down = now
    while breaker.state is BreakerState.CLOSED:
        now += max(0.1, 1 / rate)
        breaker.answered(now, 0, max(rate // 10, 1))
        assert now - down <= 5.0
    # Then nothing leaves any more
    assert breaker.allowance(now) == 0


def test_a_few_bad_answers_do_not_open_it() -> None:
    breaker = Breaker()
    # Given a quiet night, when four answers in a row are bad, and later four more
    for start in (0.0, 60.0):
        for second in range(4):
            breaker.answered(start + second, 0, 1)
    assert breaker.state is BreakerState.CLOSED
    # And with many good ones a third of failures is not an outage
    for second in range(100):
        breaker.answered(100.0 + second / 10, 20, 10)
    assert breaker.state is BreakerState.CLOSED


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    breaker.answered(at, 0, 5)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_probes_decide() -> None:
    # Given an open breaker whose interval is over, then so many probes leave and no more
    breaker = opened()
    assert breaker.allowance(0.99) == 0
    assert breaker.allowance(1.0) == POLICY.probes
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.sent_probes(POLICY.probes)
    assert breaker.allowance(1.0) == 0
    # When they succeed it closes
    for _ in range(POLICY.successes_to_close):
        breaker.probe_answered(1.1, True)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.allowance(1.1) is None


def test_each_failed_probe_doubles_the_interval_up_to_the_cap() -> None:
    breaker, now, intervals = opened(), 0.0, []
    for _ in range(8):
        intervals.append(breaker.open_until - now)
        now = breaker.open_until
        assert breaker.allowance(now) == POLICY.probes
        breaker.sent_probes(1)
        breaker.probe_answered(now, False)
    assert intervals == [1, 2, 4, 8, 16, 30, 30, 30]
    # And after it was closed it begins anew
    now = breaker.open_until
    breaker.allowance(now)
    for _ in range(POLICY.successes_to_close):
        breaker.probe_answered(now, True)
    breaker.answered(now, 0, 5)
    assert breaker.open_until - now == 1


@pytest.mark.parametrize(
    "wrong", [{"first_open_seconds": 0}, {"cap_open_seconds": 0.5}, {"failed_part": 0}, {"min_failures": 0}]
)
def test_a_policy_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a breaker needs"):
        BreakerPolicy(**wrong)  # type: ignore[arg-type]


class Machine(RuleBasedStateMachine):
    """Answers, probes and waits in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 0.0
        self.probes = 0
        self.before = BreakerState.CLOSED

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(succeeded=st.integers(0, 20), failed=st.integers(0, 20))
    def answers_come(self, succeeded: int, failed: int) -> None:
        self.breaker.answered(self.now, succeeded, failed)
        if failed < POLICY.min_failures and self.before is BreakerState.CLOSED and not self.recent(failed):
            assert self.breaker.state is BreakerState.CLOSED

    def recent(self, failed: int) -> bool:
        return sum(int(one[2]) for one in self.breaker._slices) + failed >= POLICY.min_failures or (
            self.breaker.state is not BreakerState.CLOSED
        )

    @rule(wanted=st.integers(1, 5))
    def some_leave(self, wanted: int) -> None:
        allowed = self.breaker.allowance(self.now)
        if self.breaker.state is BreakerState.HALF_OPEN:
            assert allowed is not None
            if allowed == POLICY.probes:
                self.probes = 0  # those of an earlier half-open time are forgotten
            count = min(wanted, allowed)
            self.breaker.sent_probes(count)
            self.probes += count

    @rule(succeeded=st.booleans())
    def a_probe_is_answered(self, succeeded: bool) -> None:
        if self.probes:
            self.probes -= 1
            half_open = self.breaker.state is BreakerState.HALF_OPEN
            self.breaker.probe_answered(self.now, succeeded)
            if half_open and not succeeded:
                assert self.breaker.state is BreakerState.OPEN

    @invariant()
    def it_is_what_it_says(self) -> None:
        breaker = self.breaker
        assert 0 <= breaker.probing <= POLICY.probes
        assert len(breaker._slices) <= 11
        if breaker.state is BreakerState.OPEN:
            assert breaker.open_until <= self.now + POLICY.cap_open_seconds
            # An open one never closes but by way of probes
            assert breaker.allowance(min(self.now, breaker.open_until - 0.001)) == 0
        if self.before is BreakerState.OPEN:
            assert breaker.state is not BreakerState.CLOSED
        self.before = breaker.state


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
