"""An overload of a few seconds against real processes: nothing is lost, and new swipes are fast again soon after."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.test_loadtest import loadtest, nothing_left

pytestmark = pytest.mark.alone
"""What a machine does beside it slows the swipes that are to be fast again."""


def test_three_times_what_the_provider_takes_is_slowed_and_not_lost_and_over_when_it_is_over(site: Any) -> None:
    # Given a provider that takes two hundred a second and a quarter of one for each answer, so that what is normal is
    # far above what a machine adds, and a moment of six hundred
    found, err = loadtest(
        site,
        *("--rate", "60:6,600:1.5,40:12", "--provider-rate", "200", "--latency", "250", "--accounts", "500"),
        *("--dir", "world", "--json"),
        *("--assert", "lost==0", "duplicates==0", "open==0", "abandoned==0", "recovery<=10s"),
    )
    events, test = found["events"], found["loadtest"]
    assert events["accepted"] == events["read"] == found["alerts"]["delivered"] > 1000
    assert [one["holds"] for one in test["verdicts"]] == [True] * 5
    # Then those who came in the overload waited, and those who came later did not
    recovery = test["recovery"]
    assert (recovery["overload_from"], recovery["overload_to"]) == (6.0, 7.5)
    assert test["intervals"][6]["p99_ms"] > 2 * recovery["limit_ms"]
    assert recovery["after_p99_ms"] <= recovery["limit_ms"]
    assert "again" in err
    assert "after the overload ended" in err
    assert nothing_left(site.folder)
