"""Days of arrivals: how many events a second at which hour. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Final

import msgspec

from loadtest.traffic import STEPS_AN_HOUR, ordinary_hours

DAY_S: Final = 86_400

PILOT_A_DAY: Final = 400_000
"""Alerts a day of the pilot of 2013, and the ten times of it that were planned."""
PLANNED_A_DAY: Final = 10 * PILOT_A_DAY

PAYDAY_A_DAY: Final = 2 * PILOT_A_DAY
SALARIES_AT_H: Final = (9.0, 10.5)
SALARIES_TIMES: Final = 8.0
"""Salaries are booked in a batch when the branches open, and each is an alert."""
EVENING_AT_H: Final = (17.5, 22.0)
EVENING_TIMES: Final = 2.5
"""And the evening they are spent."""

SPIKE_TIMES: Final = 20
SPIKE_HALF_LIFE_S: Final = 600
"""At 00:00 of 11 November so many times the pilot's mean rate; what is above the ordinary halves every ten minutes."""

SHOWN_BEFORE: Final = 0.1
"""A window at the busiest time begins so much of its length early: one wants to see the rise too."""


class Profile(msgspec.Struct, frozen=True):
    """One day. ``rates`` are events a second in equal steps from 00:00; ``what`` is a line for the help.

    ``sharp_at`` is the second of the day of a moment that a run wants to see, whatever is busier over time.
    """

    name: str
    what: str
    rates: tuple[float, ...]
    sharp_at: float | None = None

    @property
    def step_s(self) -> float:
        """Seconds of one step."""
        return DAY_S / len(self.rates)

    @property
    def a_day(self) -> float:
        """Expected events of the whole day."""
        return sum(self.rates) * self.step_s

    def rate_at(self, second: float) -> float:
        """Events a second at a second of the day; the day repeats."""
        return self.rates[int(second % DAY_S / self.step_s) % len(self.rates)]

    def busiest(self, length_s: float) -> float:
        """The second of the day at which a window of this length begins that meets the most events.

        It begins a little before them, or before the sharp moment (``SHOWN_BEFORE``), on a full step; 0 when the window
        holds a whole day.
        """
        steps = len(self.rates)
        width = max(1, round(length_s / self.step_s))
        if width >= steps:
            return 0.0
        if self.sharp_at is not None:
            best = int(self.sharp_at / self.step_s)
        else:
            sums = [0.0, *accumulate(self.rates * 2)]
            best = max(range(steps), key=lambda at: sums[at + width] - sums[at])
        return (best - round(SHOWN_BEFORE * width)) % steps * self.step_s


def _scaled(weights: list[float], a_day: float) -> tuple[float, ...]:
    factor = a_day / (sum(weights) * DAY_S / len(weights))
    return tuple(weight * factor for weight in weights)


def _ordinary(a_day: float, times: Callable[[float], float] = lambda _hour: 1.0) -> tuple[float, ...]:
    """The hours of an ordinary day, each step ``times`` as busy, scaled to a day's total."""
    weights = [weight * times((step + 0.5) / STEPS_AN_HOUR) for step, weight in enumerate(ordinary_hours())]
    return _scaled(weights, a_day)


def _payday_times(hour: float) -> float:
    if SALARIES_AT_H[0] <= hour < SALARIES_AT_H[1]:
        return SALARIES_TIMES
    return EVENING_TIMES if EVENING_AT_H[0] <= hour < EVENING_AT_H[1] else 1.0


def _double_eleven() -> tuple[float, ...]:
    minutes_a_step = 60 // STEPS_AN_HOUR
    ordinary = [rate for rate in _ordinary(PILOT_A_DAY) for _ in range(minutes_a_step)]
    above = SPIKE_TIMES * PILOT_A_DAY / DAY_S - ordinary[0]
    return tuple(rate + above * 0.5 ** (minute * 60 / SPIKE_HALF_LIFE_S) for minute, rate in enumerate(ordinary))


PROFILES: Final = {
    one.name: one
    for one in (
        Profile("cmb-2013", "400,000 a day with the hours of card swipes", _ordinary(PILOT_A_DAY)),
        Profile("cmb-10x", "the same hours, 4,000,000 a day", _ordinary(PLANNED_A_DAY)),
        Profile(
            "payday", "800,000 a day: salaries from 09:00, a heavy evening", _ordinary(PAYDAY_A_DAY, _payday_times)
        ),
        Profile("double-eleven", "an ordinary day after a spike of 20 times the mean at 00:00", _double_eleven(), 0.0),
        Profile("flat", "400,000 a day, evenly", (PILOT_A_DAY / DAY_S,)),
    )
}
"""By name. Each is a day of the pilot's size or ten times that; ``--speedup`` makes it as fast as one likes."""
