"""When events arrive: a Poisson process along a curve of rates, the same arrivals for the same seed. Pure.

The load test is an open loop: what is scheduled here is due at its time, whether or not the engine keeps up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random

from loadtest.load.profiles import DAY_S, Profile

Curve = Sequence[tuple[float, float]]
"""Pieces of (seconds, events a second), one after the other."""


def profile_curve(profile: Profile, *, start_s: float, duration_s: float, speedup: float) -> Curve:
    """``duration_s`` seconds of a day that begins at its second ``start_s`` and passes ``speedup`` times as fast."""
    pieces: list[tuple[float, float]] = []
    left = duration_s
    at = start_s % DAY_S
    while left > 1e-9:
        step = int(at / profile.step_s + 1e-9)
        until_next = ((step + 1) * profile.step_s - at) / speedup
        seconds = min(left, until_next)
        pieces.append((seconds, profile.rates[step % len(profile.rates)] * speedup))
        left -= seconds
        at = (step + 1) * profile.step_s % DAY_S
    return pieces


def expected(curve: Curve) -> float:
    """Mean number of arrivals."""
    return sum(seconds * rate for seconds, rate in curve)


def duration(curve: Curve) -> float:
    """Seconds from its begin to its end."""
    return sum(seconds for seconds, _ in curve)


def peak(curve: Curve) -> float:
    """The highest rate, events a second."""
    return max((rate for seconds, rate in curve if seconds > 0), default=0.0)


def most(curve: Curve) -> int:
    """More arrivals than this the curve does not give: ten standard deviations above the mean."""
    mean = expected(curve)
    return int(mean + 10 * mean**0.5 + 100)


def parse_steps(text: str) -> list[tuple[float | None, float]]:
    """``N`` or ``N:SECONDS,N:SECONDS,…`` as (seconds, rate); a single N lasts as long as the run (None).

    Raises ``ValueError`` with what is allowed.
    """
    allowed = "N events a second, such as 500, or steps N:SECONDS,N:SECONDS,… such as 500:30,1500:120,500:60"
    steps: list[tuple[float | None, float]] = []
    parts = text.split(",")
    for part in parts:
        rate_text, colon, seconds_text = part.partition(":")
        if len(parts) > 1 and not colon:
            raise ValueError(f"allowed is {allowed}")
        try:
            rate = float(rate_text)
            seconds = float(seconds_text) if colon else None
        except ValueError:
            raise ValueError(f"allowed is {allowed}") from None
        if not 0.0 < rate < math.inf:
            raise ValueError(f"a rate must be above 0; allowed is {allowed}")
        if seconds is not None and not 0.0 < seconds <= DAY_S:
            raise ValueError(f"a step lasts more than 0 and at most {DAY_S:,} seconds; allowed is {allowed}")
        steps.append((seconds, rate))
    return steps


def poisson(curve: Curve, seed: int) -> Iterator[float]:
    """Seconds from the begin of each arrival, rising.

    Unit exponential gaps are laid along the curve's running total, so that each piece has its own rate and no arrival
    is lost at a border.
    """
    gap = Random(f"arrivals/{seed}").expovariate  # noqa: S311 - repeatable is the point
    begin = 0.0
    mass_before = 0.0
    mass = gap(1.0)
    for seconds, rate in curve:
        mass_after = mass_before + seconds * rate
        while mass < mass_after:
            yield begin + (mass - mass_before) / rate
            mass += gap(1.0)
        begin += seconds
        mass_before = mass_after


class Arrivals:
    """What is due by when. ``next_at`` is the next arrival's time in seconds from the begin, None at the end."""

    def __init__(self, times: Iterator[float]) -> None:
        self._times = times
        self.next_at: float | None = next(times, None)

    def due(self, until: float, limit: int) -> list[float]:
        """The arrivals up to a time, at most ``limit`` of them, each given once."""
        if self.next_at is None or self.next_at > until:
            return []
        found = [self.next_at]
        for at in islice(self._times, limit - 1):
            if at > until:
                self.next_at = at
                return found
            found.append(at)
        self.next_at = next(self._times, None)
        return found
