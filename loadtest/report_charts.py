"""Axes and SVG paths of the report's charts. The markup around them is in report.html, where it is escaped.

Made by hand, although the house takes plots from a library, because none fits one page that has to open from a disk
without a network, with scripting off, at any width, and be mailed: Plotly's script alone is 3.5 to 4.6 MB inside
each report; Altair and Vega load theirs from elsewhere; matplotlib (with numpy and Pillow, 60 MB for one command)
and Pygal draw pictures of fixed size whose letters shrink to 4 pixels on a phone, and with colours that cannot follow
the reader's dark mode. What is needed is four kinds of axis and three kinds of path, on one file.

A path lives on a square of ``FULL`` units, which the page stretches to the plot's size; letters and line widths do
not stretch. The origin is top left, as in all SVG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from loadtest.report_text import show_clock

FULL: Final = 10_000
"""Units a side: ten a pixel on the widest plot, so that rounding to integers does not show."""

MAX_TICKS: Final = 5
"""Labels of a vertical axis at most, but for decades; a plot is 180 to 260 pixels high."""

MAX_TIME_TICKS: Final = 10

TIME_STEPS_S: Final = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400),
)

MAX_FINE_DECADES: Final = 3.1
"""Decades of a logarithmic axis up to which 2 and 5 are labelled between 1 and 10: ten labels. A longer one begins and
ends with a power of ten."""

PERCENTILES: Final = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999, 99.99999)
"""Labels of the percentile plot. Seven nines need ten million latencies, beyond what a run makes."""

Spots = Sequence[tuple[float, float | None]]


class Tick(msgspec.Struct, frozen=True):
    """A label and its place in per cent of the plot, from the left or from the top. ``odd`` ones may be hidden."""

    at: float
    label: str
    odd: bool = False


class Axis(msgspec.Struct, frozen=True):
    """``place`` gives 0.0 for the low end and 1.0 for the high end; values beyond an end are put on it."""

    place: Callable[[float], float]
    ticks: list[tuple[float, str]]

    def x(self, value: float) -> int:
        """Units from the left."""
        return round(FULL * self.place(value))

    def y(self, value: float) -> int:
        """Units from the top."""
        return FULL - self.x(value)

    def ticks_below(self) -> list[Tick]:
        """Labels of a horizontal axis."""
        return [Tick(round(100 * self.place(v), 3), text, i % 2 == 1) for i, (v, text) in enumerate(self.ticks)]

    def ticks_beside(self) -> list[Tick]:
        """Labels of a vertical axis."""
        return [Tick(round(100 - 100 * self.place(v), 3), text) for v, text in self.ticks]


class Step(msgspec.Struct, frozen=True):
    """One column: its span of time in seconds, and from where to where it reaches."""

    since: float
    at: float
    low: float
    high: float


class Mark(msgspec.Struct, frozen=True):
    """One drawn thing: its SVG path, how it is drawn (``line``, ``area``, ``band``) and its colour's name."""

    path: str
    kind: str
    colour: str


class Key(msgspec.Struct, frozen=True):
    """One entry of a legend."""

    name: str
    kind: str
    colour: str


class Chart(msgspec.Struct, kw_only=True):
    """All that report.html needs to draw one chart. ``hover`` is what the page's script shows under the pointer."""

    id: str
    title: str
    note: str
    describe: str
    across: list[Tick]
    across_title: str
    up: list[Tick]
    marks: list[Mark]
    keys: list[Key]
    hover: dict[str, Any]
    size: str = "half"
    empty: str | None = None


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))


def _nice_step(high: float, most: int) -> float:
    rough = high / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def linear_axis(high: float, show: Callable[[float], str], *, whole: bool = False) -> Axis:
    """From 0 to the first tick that is not below ``high``; ``whole`` has no ticks between whole numbers."""
    step = _nice_step(high, MAX_TICKS) if high > 0 else 1.0
    step = max(step, 1.0) if whole else step
    count = max(1, math.ceil(high / step - 1e-9))
    top = step * count
    return Axis(place=lambda value: _within(value / top), ticks=[(i * step, show(i * step)) for i in range(count + 1)])


def log_axis(values: Sequence[float], show: Callable[[float], str]) -> Axis:
    """Logarithmic over all positive values, ends at 1, 2 or 5 times a power of ten; 0 is put on the low end."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = _round_down(min(positive)), _round_up(max(positive))
    if high <= low:
        high = _round_up(low * 1.5)
    factors: tuple[int, ...] = (1, 2, 5)
    if math.log10(high / low) > MAX_FINE_DECADES:
        factors = (1,)
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
    start, span = math.log10(low), math.log10(high / low)
    powers = range(math.floor(start), math.ceil(start + span) + 1)
    ticks = [10.0**power * factor for power in powers for factor in factors]
    return Axis(
        place=lambda value: _within((math.log10(value) - start) / span) if value > 0 else 0.0,
        ticks=[(tick, show(tick)) for tick in ticks if low * 0.999 <= tick <= high * 1.001],
    )


def _round_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max((power * factor for factor in (1, 2, 5) if power * factor <= value * (1 + 1e-9)), default=power)


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * (1 - 1e-9))


def time_axis(seconds: float) -> Axis:
    """From 0 to ``seconds``, labelled ``m:ss``, or ``h:mm`` from an hour on."""
    end = max(seconds, 1.0)
    step = next((step for step in TIME_STEPS_S if end / step <= MAX_TIME_TICKS), TIME_STEPS_S[-1])
    step = step * math.ceil(end / step / MAX_TIME_TICKS)
    ticks = [float(i * step) for i in range(math.floor(end / step + 1e-9) + 1)]
    return Axis(place=lambda at: _within(at / end), ticks=[(at, show_clock(at, end)) for at in ticks])


def percentile_axis(reach: float) -> Axis:
    """``log10(1 / (1 - p))`` for percentiles: every further nine takes as much room as the one before.

    ``reach`` is how many of those powers of ten are shown; percentile 100, which has no place, is put on the end.
    """
    end = max(reach, 1.0)
    ticks = [p for p in PERCENTILES if nines(p) <= end + 1e-9]
    return Axis(place=lambda p: _within(nines(p) / end), ticks=[(p, f"{p:.10g}%") for p in ticks])


def nines(percentile: float) -> float:
    """0 for 0, 1 for 90, 2 for 99 …; infinite for 100."""
    return -math.log10(1 - percentile / 100) if percentile < 100 else math.inf


def line_path(spots: Spots, across: Axis, up: Axis) -> str:
    """A line that is broken where there is no value; a value alone is a dot (round caps make it one)."""
    parts: list[str] = []
    pen_down = False
    for i, (at, value) in enumerate(spots):
        if value is None:
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{across.x(at)} {up.y(value)}")
        if not pen_down and (i + 1 == len(spots) or spots[i + 1][1] is None):
            parts.append("h0")
        pen_down = True
    return "".join(parts)


def area_path(spots: Sequence[tuple[float, float]], across: Axis, up: Axis) -> str:
    """The area under a line, down to 0."""
    if not spots:
        return ""
    line = "L".join(f"{across.x(at)} {up.y(value)}" for at, value in spots)
    return f"M{across.x(spots[0][0])} {up.y(0)}L{line}V{up.y(0)}Z"


def steps_path(steps: Sequence[Step], across: Axis, up: Axis) -> str:
    """Columns from ``low`` to ``high``; neighbours are drawn as one shape, so that no seam shows between them."""
    shown = [step for step in steps if step.high > step.low]
    runs: list[list[Step]] = []
    for step in shown:
        if runs and runs[-1][-1].at == step.since:
            runs[-1].append(step)
        else:
            runs.append([step])
    return "".join(_outline(run, across, up) for run in runs)


def _outline(run: Sequence[Step], across: Axis, up: Axis) -> str:
    there = "".join(f"V{up.y(step.high)}H{across.x(step.at)}" for step in run)
    back = "".join(f"V{up.y(step.low)}H{across.x(step.since)}" for step in reversed(run))
    return f"M{across.x(run[0].since)} {up.y(run[0].low)}{there}{back}Z"
