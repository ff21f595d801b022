"""Weights between two vendors: never all at once, never nothing, and back again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.weights import Weights, WeightSettings

SETTINGS = WeightSettings(home=10)


def live(weights: Weights, seconds: int, failing: tuple[float, float], start_ms: int, per_second: int = 20) -> int:
    """Traffic for so long, in which the given shares of each vendor's answers fail; returns the time at its end."""
    sent = [0, 0]
    for step in range(seconds * per_second):
        now_ms = start_ms + step * 1000 // per_second
        vendor = weights.pick(now_ms, (step * 0.618034) % 1.0)
        sent[vendor] += 1
        weights.saw(vendor, (sent[vendor] * failing[vendor]) % 1.0 + failing[vendor] >= 1.0, now_ms)
    return start_ms + seconds * 1000


def test_while_both_are_well_the_second_has_its_share() -> None:
    weights = Weights(SETTINGS, 0)
    live(weights, 120, (0.0, 0.0), 0)
    assert weights.share == 10


def test_the_share_moves_to_the_second_by_steps_and_back_when_the_first_is_well_again() -> None:
    # Given a first vendor that fails altogether
    weights = Weights(SETTINGS, 0)
    now_ms = live(weights, 21, (1.0, 0.0), 0)
    # Then after two intervals it has given two steps, and not its whole load
    assert weights.share == 30
    now_ms = live(weights, 120, (1.0, 0.0), now_ms)
    assert weights.share == 98
    # When it is well again, which its probes show, then the load comes back as slowly
    now_ms = live(weights, 45, (0.0, 0.0), now_ms)
    assert 60 <= weights.share <= 88
    live(weights, 120, (0.0, 0.0), now_ms)
    assert weights.share == 10


def test_a_second_that_fails_keeps_a_probe() -> None:
    weights = Weights(WeightSettings(home=50), 0)
    live(weights, 120, (0.0, 1.0), 0)
    assert weights.share == 2


def test_when_both_fail_the_weights_are_those_of_good_days() -> None:
    weights = Weights(SETTINGS, 0)
    now_ms = live(weights, 60, (1.0, 0.0), 0)
    live(weights, 120, (1.0, 1.0), now_ms)
    assert weights.share == 10
    assert (weights.failing(0), weights.failing(1)) == (True, True)


def test_a_few_failures_move_nothing() -> None:
    weights = Weights(SETTINGS, 0)
    live(weights, 120, (0.04, 0.0), 0)
    assert weights.share == 10


def test_a_vendor_that_was_not_heard_of_is_what_it_was() -> None:
    # Given a first vendor that failed, and then an hour without any message
    weights = Weights(SETTINGS, 0)
    now_ms = live(weights, 11, (1.0, 0.0), 0)
    share = weights.share
    weights.pick(now_ms + 3_600_000, 0.5)
    # Then that hour was one step, in the direction of what is known
    assert weights.share == share + 10
    assert weights.failing(0)


def test_one_good_answer_of_a_probe_does_not_bring_the_load_back() -> None:
    weights = Weights(SETTINGS, 0)
    now_ms = live(weights, 120, (1.0, 0.0), 0)
    for seconds in range(0, 90, 10):
        weights.saw(0, False, now_ms + seconds * 1000)
    assert weights.share == 98


@pytest.mark.parametrize(
    "wrong", [{"home": -1}, {"home": 101}, {"step": 0}, {"probe": 0}, {"probe": 50}, {"well": 0.5}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="weights need"):
        WeightSettings(**({"home": 10} | wrong))  # type: ignore[arg-type]


@given(
    home=st.integers(0, 100),
    looks=st.lists(
        st.tuples(st.integers(-60_000, 60_000), st.sampled_from([0, 1, None]), st.booleans(), st.floats(0, 0.999)),
        max_size=80,
    ),
)
def test_whatever_happens_a_step_is_small_and_rare_and_nobody_gets_nothing(
    home: int, looks: list[tuple[int, int | None, bool, float]]
) -> None:
    weights, now_ms = Weights(WeightSettings(home=home), 0), 0
    share, moved_ms = weights.share, 0
    for passed_ms, vendor, failed, draw in looks:
        now_ms += passed_ms
        moved_ms = min(moved_ms, now_ms)  # a clock that was set back begins an interval there
        if vendor is None:
            assert weights.pick(now_ms, draw) == (draw * 100 < weights.share)
        else:
            weights.saw(vendor, failed, now_ms)
        if weights.share != share:
            assert abs(weights.share - share) <= 10
            assert now_ms - moved_ms >= 10_000
            share, moved_ms = weights.share, now_ms
        assert 2 <= weights.share <= 98


@given(home=st.integers(0, 100), failing=st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.5, 0.0), (0.0, 0.3)]))
def test_the_traffic_leaves_a_failing_vendor_and_comes_home(home: int, failing: tuple[float, float]) -> None:
    weights = Weights(WeightSettings(home=home), 0)
    now_ms = live(weights, 130, failing, 0)
    assert weights.share == (98 if failing[0] else 2)
    live(weights, 400, (0.0, 0.0), now_ms)
    assert weights.share == min(max(home, 2), 98)
