"""How soon after an overload a new swipe is fast again."""

from __future__ import annotations

import pytest

from loadtest.load.plan import plan_profile, plan_rate
from loadtest.load.recovery import NORMAL_MS, SLOT_S, overload_of, recovery
from loadtest.load.tally import PER_MS

OVERLOAD = (10.0, 20.0)


def run_of(*parts: tuple[int, float], rate: int = 100) -> list[list[int]]:
    """Seconds of a run: so many of them, each with ``rate`` latencies of so many ms."""
    return [[int(ms * PER_MS)] * rate for seconds, ms in parts for _ in range(seconds)]


@pytest.mark.parametrize(
    ("rate", "overload"),
    [
        ("200:15,1800:120,100:270", (15.0, 135.0)),
        ("200:15,1800:60,1800:60,100:10,50:10", (15.0, 135.0)),
        ("200:15,1800:60,100:10,1800:20,50:10", (15.0, 105.0)),
        ("500", None),
        ("200:15,1800:120", None),
        ("1800:120,200:15", None),
        ("100:10,100:10,100:10", None),
    ],
)
def test_an_overload_is_the_highest_step_between_lower_ones(rate: str, overload: tuple[float, float] | None) -> None:
    assert plan_rate(rate, None).overload == overload


def test_a_day_has_its_peaks_and_no_overload() -> None:
    assert plan_profile("double-eleven", None, 60.0, 60.0).overload is None
    assert overload_of([]) is None


def test_it_recovers_with_the_first_slot_from_which_on_new_swipes_are_fast() -> None:
    seen = run_of((10, 40.0), (10, 60_000.0), (SLOT_S, 9_000.0), (SLOT_S, 300.0), (30, 50.0))
    found = recovery(OVERLOAD, seen)
    assert found is not None
    assert (found.before_p99_ms, found.limit_ms) == (40.0, NORMAL_MS)
    assert found.recovery_seconds == 2 * SLOT_S
    assert found.after_p99_ms == found.worst_slot_ms == 50.0


def test_normal_is_twice_what_it_was_before_and_the_cold_start_is_no_measure() -> None:
    found = recovery(OVERLOAD, run_of((5, 5_000.0), (5, 80.0), (10, 9_000.0), (10, 150.0)))
    assert found is not None
    assert (found.before_p99_ms, found.limit_ms, found.recovery_seconds) == (80.0, 160.0, 0.0)


def test_a_relapse_counts_and_a_mishap_does_not() -> None:
    # Given a good start, then a whole slot that is slow
    relapse = run_of((10, 40.0), (10, 9_000.0), (SLOT_S, 50.0), (SLOT_S, 500.0), (50, 50.0))
    found = recovery(OVERLOAD, relapse)
    assert found is not None
    assert found.recovery_seconds == 2 * SLOT_S
    # But less than one in a hundred is what a p99 allows, and is told of
    mishap = run_of((10, 40.0), (10, 9_000.0), (100, 50.0))
    mishap[60] = [500 * PER_MS] * 50 + mishap[60][50:]
    found = recovery(OVERLOAD, mishap)
    assert found is not None
    assert (found.recovery_seconds, found.after_p99_ms, found.worst_slot_ms) == (0.0, 50.0, 500.0)


def test_who_does_not_recover_has_no_time_for_it() -> None:
    found = recovery(OVERLOAD, run_of((10, 40.0), (10, 9_000.0), (30, 9_000.0)))
    assert found is not None
    assert (found.recovery_seconds, found.after_p99_ms) == (None, None)


@pytest.mark.parametrize("seen", [[], run_of((20, 40.0)), [[]] * 10 + run_of((20, 40.0))])
def test_a_run_that_saw_nothing_before_or_after_it_says_nothing(seen: list[list[int]]) -> None:
    assert recovery(OVERLOAD, seen) is None
