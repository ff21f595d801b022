"""When a load test's events arrive: days that add up, a spike that is what it says, arrivals that repeat."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import ConfigurationError
from loadtest.load.plan import plan_profile, plan_rate
from loadtest.load.profiles import DAY_S, PILOT_A_DAY, PROFILES, Profile
from loadtest.load.schedule import Arrivals, duration, expected, most, parse_steps, peak, poisson, profile_curve


class TestTheDays:
    @pytest.mark.parametrize(
        ("name", "a_day"), [("cmb-2013", 400_000), ("cmb-10x", 4_000_000), ("payday", 800_000), ("flat", 400_000)]
    )
    def test_a_day_adds_up_to_what_it_promises(self, name: str, a_day: int) -> None:
        assert PROFILES[name].a_day == pytest.approx(a_day, rel=1e-12)

    def test_the_spike_is_twenty_times_the_mean_and_halves_every_ten_minutes(self) -> None:
        day, ordinary = PROFILES["double-eleven"], PROFILES["cmb-2013"]
        mean = PILOT_A_DAY / DAY_S
        assert day.rate_at(0) == pytest.approx(20 * mean, rel=1e-12)
        above = [day.rate_at(minute * 60) - ordinary.rate_at(minute * 60) for minute in (0, 10, 20, 60)]
        assert [above[0] / one for one in above] == pytest.approx([1, 2, 4, 64])
        # Before midnight it is an ordinary evening
        assert day.rate_at(DAY_S - 60) == pytest.approx(ordinary.rate_at(DAY_S - 60))

    def test_payday_is_heavy_when_salaries_are_booked_and_in_the_evening(self) -> None:
        day, ordinary = PROFILES["payday"], PROFILES["cmb-2013"]
        share = {hour: day.rate_at(hour * 3600) / ordinary.rate_at(hour * 3600) for hour in (3, 9.5, 19)}
        assert share[9.5] == pytest.approx(8 * share[3])
        assert share[19] == pytest.approx(2.5 * share[3])

    def test_the_busiest_window_holds_more_than_any_other_of_its_length(self) -> None:
        # Given a day with one busy hour of twenty-four
        day = Profile("x", "", tuple(10.0 if hour == 15 else 1.0 for hour in range(24)))
        assert day.busiest(3600) == 15 * 3600
        # A longer window begins a tenth of itself early
        long = Profile("x", "", tuple(10.0 if 100 <= step < 200 else 1.0 for step in range(1440)))
        assert long.busiest(100 * 60) == 90 * 60
        assert day.busiest(DAY_S) == 0

    def test_a_sharp_moment_is_seen_from_shortly_before(self) -> None:
        assert PROFILES["double-eleven"].busiest(3600) == DAY_S - 360


class TestCurves:
    @given(
        st.floats(0, DAY_S - 1),
        st.floats(1, 5000),
        st.sampled_from([1.0, 7.5, 60.0]),
        st.sampled_from(sorted(PROFILES)),
    )
    def test_a_curve_is_as_long_as_the_run_and_meets_what_the_day_has_there(
        self, start: float, seconds: float, speedup: float, name: str
    ) -> None:
        profile = PROFILES[name]
        curve = profile_curve(profile, start_s=start, duration_s=seconds, speedup=speedup)
        assert duration(curve) == pytest.approx(seconds)
        # The same number arrives, only faster: held against sums over small steps of the day
        steps = 2000
        width = seconds * speedup / steps
        summed = sum(profile.rate_at(start + (step + 0.5) * width) * width for step in range(steps))
        assert expected(curve) == pytest.approx(summed, rel=0.02)

    def test_a_whole_day_at_any_speed_is_the_day(self) -> None:
        profile = PROFILES["cmb-2013"]
        curve = profile_curve(profile, start_s=12_345, duration_s=DAY_S / 60, speedup=60)
        assert expected(curve) == pytest.approx(400_000)
        assert peak(curve) == pytest.approx(60 * max(profile.rates))

    @pytest.mark.parametrize(
        ("text", "steps"),
        [
            ("500", [(None, 500)]),
            ("0.5", [(None, 0.5)]),
            ("500:30", [(30, 500)]),
            ("500:30,1500:120,500:60", [(30, 500), (120, 1500), (60, 500)]),
        ],
    )
    def test_rates_and_steps(self, text: str, steps: list[tuple[float | None, float]]) -> None:
        assert parse_steps(text) == steps

    @pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "x", "5:0", "5:-1", "5:x", "5,6", "5:1,", "5:1:2"])
    def test_what_is_no_rate_is_refused_with_what_is_allowed(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"--rate .*500:30,1500:120,500:60"):
            plan_rate(text, None)

    def test_a_profile_that_nobody_knows_is_refused_with_those_that_are_known(self) -> None:
        with pytest.raises(ConfigurationError, match="cmb-2013, cmb-10x, payday, double-eleven, flat"):
            plan_profile("christmas", None, 10, 1)

    def test_a_speedup_that_would_let_years_pass_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="allowed are 31"):
            plan_profile("flat", None, 3600, 1000)


CURVE = [(5.0, 100.0), (5.0, 1000.0), (10.0, 0.0), (5.0, 10.0)]


class TestArrivals:
    def test_the_same_seed_gives_the_same_arrivals_and_another_one_others(self) -> None:
        first, again, other = (list(poisson(CURVE, seed)) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    def test_each_piece_has_its_own_rate(self) -> None:
        # Over 200 seeds the mean of each piece is its rate times its length, within five standard errors
        counts = Counter(int(at // 5) for seed in range(200) for at in poisson(CURVE, seed))
        for piece, mean in ((0, 500), (1, 5000), (4, 50)):
            assert abs(counts[piece] / 200 - mean) < 5 * math.sqrt(mean / 200)
        assert counts[2] == counts[3] == 0

    def test_gaps_are_those_of_a_poisson_process(self) -> None:
        times = list(poisson([(1000.0, 50.0)], 3))
        gaps = [after - before for before, after in pairwise(times)]
        mean = sum(gaps) / len(gaps)
        variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
        assert mean == pytest.approx(1 / 50, rel=0.02)
        # An exponential distribution's standard deviation is its mean; evenly spaced arrivals would have none
        assert math.sqrt(variance) == pytest.approx(mean, rel=0.03)

    def test_how_they_are_taken_changes_nothing(self) -> None:
        whole = list(poisson(CURVE, 7))
        arrivals = Arrivals(poisson(CURVE, 7))
        taken: list[float] = []
        now = 0.0
        while arrivals.next_at is not None:
            now += 0.013
            while part := arrivals.due(now, 5):
                taken += part
            assert arrivals.next_at is None or arrivals.next_at > now
        assert taken == whole

    def test_more_than_most_never_arrive(self) -> None:
        assert all(len(list(poisson(CURVE, seed))) < most(CURVE) for seed in range(50))
