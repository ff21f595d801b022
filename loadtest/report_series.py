"""What the report draws of a run's intervals: groups of neighbours, so that a day has as few points as a minute.

A rate is the mean of its group. Of a latency, of the open alerts and of memory the extremes of each group are kept,
since a mean would hide the one bad second that the reader is looking for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from loadtest.result import Interval

MAX_GROUPS: Final = 720
"""Points of a line along the time: a chart is 1,050 pixels wide, and a day's page stays under 1 MB."""

MAX_COLUMNS: Final = 100
"""Columns of a chart of counts, which has half the width: 4 pixels each, so that their layers can be told apart."""

MAX_PERCENTILES: Final = 400
"""Points of one percentile line, for the same reason. HdrHistogram's own iteration gives about 100."""

MIN_SPAN_S: Final = 1.0
"""A rate is never taken over less: the last interval of an interrupted run may have lasted 10 ms, and its three
alerts would draw as 300 a second."""

Spot = tuple[float, float | None]
"""Seconds from the start, and the value then; None where there was none."""


class Group(msgspec.Struct, frozen=True):
    """Neighbouring intervals that share one point. ``since`` and ``at`` are seconds from the start."""

    since: float
    at: float
    intervals: Sequence[Interval]

    def total(self, field: str) -> int:
        """The sum of a count."""
        return sum(getattr(one, field) for one in self.intervals)

    def rate(self, field: str) -> float:
        """A count, per second."""
        return self.total(field) / self.span

    def retries(self) -> Counter[str]:
        """Attempts that were not accepted, by cause."""
        causes: Counter[str] = Counter()
        for one in self.intervals:
            causes.update(one.retries)
        return causes

    def peak(self, field: str) -> float | None:
        """The largest value of a field that is not a count; None when no interval has one."""
        return max((value for _, value in self._values(field)), default=None)

    def extremes(self, field: str) -> list[Spot]:
        """The smallest and the largest value, each where it was and in that order; one spot where they are one."""
        values = self._values(field)
        if not values:
            return [(self.at, None)]
        low = min(values, key=lambda spot: spot[1])
        high = max(values, key=lambda spot: spot[1])
        spots: list[Spot] = [low] if low[1] == high[1] else sorted([low, high])
        return spots

    @property
    def span(self) -> float:
        """Seconds by which a count is divided."""
        return max(self.at - self.since, MIN_SPAN_S)

    def _values(self, field: str) -> list[tuple[float, float]]:
        read = ((one.at, getattr(one, field)) for one in self.intervals)
        return [(at, float(value)) for at, value in read if value is not None and math.isfinite(value)]


def grouped(intervals: Sequence[Interval], most: int = MAX_GROUPS) -> list[Group]:
    """At most so many groups of equally many intervals (the last may have fewer), in order."""
    size = max(1, math.ceil(len(intervals) / most))
    ends = [0.0, *(one.at for one in intervals)]
    cuts = [*range(0, len(intervals), size), len(intervals)]
    return [Group(since=ends[a], at=ends[b], intervals=intervals[a:b]) for a, b in pairwise(cuts)]


def line_of(groups: Sequence[Group], field: str) -> list[Spot]:
    """A field that is not a count, along the time, with every group's extremes."""
    return [spot for group in groups for spot in group.extremes(field)]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``MAX_PERCENTILES`` of rising points, with the first and the last."""
    if len(points) <= MAX_PERCENTILES:
        return list(points)
    last = len(points) - 1
    kept = sorted({round(i * last / (MAX_PERCENTILES - 1)) for i in range(MAX_PERCENTILES)})
    return [points[i] for i in kept]


def value_at(points: Sequence[tuple[float, float]], percentile: float) -> float | None:
    """The value that so many per cent do not exceed, as HdrHistogram reads it; None without points."""
    for share, value in points:
        if share >= percentile:
            return value
    return points[-1][1] if points else None
