"""The report's charts, one function each: what is drawn, in which colour, and what is said to who cannot see it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

from loadtest.report_charts import (
    FULL,
    Axis,
    Chart,
    Key,
    Mark,
    Spots,
    Step,
    area_path,
    dots_path,
    line_path,
    linear_axis,
    log_axis,
    nines,
    percentile_axis,
    steps_path,
    time_axis,
)
from loadtest.report_series import MAX_COLUMNS, grouped, line_of, thinned
from loadtest.report_text import clock_unit, show_axis, show_clock, show_count, show_duration, show_ms, show_rate
from loadtest.result import Interval, LoadResult, Percentiles

CAUSE_COLOURS: Final = ("c1", "c2", "c3", "c4")
"""Told apart by colour-blind readers too; more would not be, so further causes are drawn as one in grey."""

OTHER_CAUSES: Final = "other causes"

MAX_LATENCIES: Final = 4
"""Lines of the percentile plot, for the same reason."""

LATENCY_LINES: Final = (
    ("p50_ms", "p50", "p50"),
    ("p90_ms", "p90", "p90"),
    ("p99_ms", "p99", "p99"),
    ("max_ms", "max", "pmax"),
)

NOTHING: Final = "Nothing was measured."


class Times:
    """What all charts along the time share: ``groups`` are the points of lines, ``columns`` those of counts."""

    def __init__(self, intervals: Sequence[Interval], seconds: float) -> None:
        self.groups = grouped(intervals)
        self.columns = grouped(intervals, MAX_COLUMNS)
        self.end = max(seconds, intervals[-1].at if intervals else 0.0, 1.0)
        self.axis = time_axis(self.end)
        width = max((len(column.intervals) for column in self.columns), default=1)
        self.column_note = f", mean of {show_duration(width)}" if width > 1 else ""

    def hover(
        self, unit: str, series: list[tuple[str, str, list[float | None]]], *, columns: bool = False
    ) -> dict[str, Any]:
        """For the page's script: one value for each group at its end, or for each column in its middle."""
        groups = self.columns if columns else self.groups
        return {
            "unit": unit,
            "places": [self.axis.x((one.since + one.at) / 2 if columns else one.at) for one in groups],
            "labels": [
                f"{show_clock(one.since, self.end)}–{show_clock(one.at, self.end)}"
                if columns
                else show_clock(one.at, self.end)
                for one in groups
            ],
            "series": [
                {"name": name, "colour": colour, "values": [_short(value) for value in values]}
                for name, colour, values in series
            ],
        }

    def chart(self, id_: str, title: str, up: Axis, marks: list[Mark], hover: dict[str, Any], **rest: Any) -> Chart:
        """A chart along the time; one without groups says so instead."""
        empty = None if self.groups else NOTHING
        return Chart(
            id=id_,
            title=title,
            across=self.axis.ticks_below(),
            across_title=f"{clock_unit(self.end)} from the start",
            up=up.ticks_beside(),
            marks=[mark for mark in marks if mark.path],
            hover=hover,
            **{"empty": empty, **rest},
        )


def _short(value: float | None) -> float | None:
    """Three decimals: a thousandth of a millisecond, or of an alert a second."""
    return None if value is None else round(value, 3)


def _high(values: Sequence[float | None] | Sequence[float]) -> float:
    return max((value for value in values if value is not None), default=0.0)


def _line(spots: Spots, across: Axis, up: Axis, colour: str) -> list[Mark]:
    return [Mark(line_path(spots, across, up), "line", colour), Mark(dots_path(spots, across, up), "dot", colour)]


def rates(times: Times) -> Chart:
    """Arrivals that were due, events that became durable, alerts that a provider took."""
    fields = (
        ("scheduled", "scheduled", "demand"),
        ("acknowledged", "acknowledged", "c1"),
        ("delivered", "delivered", "c2"),
    )
    values = {field: [group.rate(field) for group in times.groups] for field, _, _ in fields}
    up = linear_axis(_high([rate for line in values.values() for rate in line]), show_axis)
    spots = {field: [(g.at, rate) for g, rate in zip(times.groups, values[field], strict=True)] for field in values}
    marks = [Mark(_pushed_back_band(times), "band", "pushed")]
    marks.append(Mark(area_path(spots["scheduled"], times.axis, up), "area", "demand"))
    marks += [mark for field, _, colour in fields for mark in _line(spots[field], times.axis, up, colour)]
    keys = [Key(name, "line", colour) for _, name, colour in fields]
    if marks[0].path:
        keys.append(Key("intake pushed back", "band", "pushed"))
    return times.chart(
        "rates",
        "Rate in and out",
        up,
        marks,
        times.hover("rate", [(name, colour, [*values[field]]) for field, name, colour in fields]),
        note="Per second: arrivals that were due, events acknowledged as durable, alerts accepted by a provider",
        describe="; ".join(f"{name}: at most {show_rate(_high(values[field]))} a second" for field, name, _ in fields),
        keys=keys,
        size="wide",
    )


def _pushed_back_band(times: Times) -> str:
    return "".join(
        f"M{times.axis.x(group.since)} 0H{times.axis.x(group.at)}V{FULL}H{times.axis.x(group.since)}Z"
        for group in times.groups
        if group.total("pushed_back")
    )


def latencies(times: Times) -> Chart:
    """p50, p90, p99 and the worst, along the time; of each group the best and the worst interval."""
    spots = {field: line_of(times.groups, field) for field, _, _ in LATENCY_LINES}
    seen = [value for line in spots.values() for _, value in line if value is not None]
    up = log_axis(seen, show_ms)
    # The worst lies at the back: it is the most restless.
    marks = [m for field, _, colour in LATENCY_LINES[::-1] for m in _line(spots[field], times.axis, up, colour)]
    return times.chart(
        "latencies",
        "Latency over time",
        up,
        marks,
        times.hover("ms", [(name, colour, _peaks(times, field)) for field, name, colour in LATENCY_LINES]),
        note="From the scheduled arrival to the provider's acceptance, by the second of the arrival; logarithmic",
        describe="; ".join(
            f"{name}: at worst {show_ms(_high([value for _, value in spots[field]]))}"
            for field, name, _ in LATENCY_LINES
        ),
        keys=[Key(name, "line", colour) for _, name, colour in LATENCY_LINES],
        size="wide",
        dense=len(times.groups) < len(spots["max_ms"]),
        empty=None if seen else "No alert was accepted by a provider, so there is no latency.",
    )


def _peaks(times: Times, field: str) -> list[float | None]:
    return [group.peak(field) for group in times.groups]


def percentile_plot(found: Sequence[Percentiles]) -> Chart:
    """HdrHistogram's plot: each further nine of the percentile takes as much room as the one before."""
    shown = [one for one in found if one.points][:MAX_LATENCIES]
    lines = [(one.name, thinned(one.points)) for one in shown]
    reach = max((_reach(one) for one in shown), default=2.0)
    across = percentile_axis(reach)
    up = log_axis([value for _, points in lines for _, value in points], show_ms)
    coloured = [(name, colour, points) for (name, points), colour in zip(lines, CAUSE_COLOURS, strict=False)]
    return Chart(
        id="percentiles",
        title="Latency by percentile",
        note="How slow the slowest one in ten, in a hundred, in a thousand … was",
        describe="; ".join(f"{name}: at most {show_ms(points[-1][1])}" for name, _, points in coloured),
        across=across.ticks_below(),
        across_title="percentile",
        up=up.ticks_beside(),
        marks=[mark for _, colour, points in coloured for mark in _line(points, across, up, colour) if mark.path],
        keys=[Key(name, "line", colour) for name, colour, _ in coloured],
        hover={
            "unit": "ms",
            "series": [
                {
                    "name": name,
                    "colour": colour,
                    "places": [across.x(p) for p, _ in points],
                    "labels": [f"{p:.10g}%" for p, _ in points],
                    "values": [_short(value) for _, value in points],
                }
                for name, colour, points in coloured
            ],
        },
        size="wide",
        empty=None if shown else "No latency was measured.",
    )


def _reach(one: Percentiles) -> float:
    """Powers of ten up to where the largest of ``count`` latencies stands, which has no percentile of its own."""
    last = max((nines(p) for p, _ in one.points if p < 100), default=0.0)
    return max(last, math.log10(max(one.count, 1)))


def open_alerts(times: Times) -> Chart:
    """Alerts that have not ended, with each group's least and most."""
    spots = line_of(times.groups, "open")
    return _one_area(times, spots, "open", "Open alerts", "Accepted, and not ended yet", show_axis, "c1", unit="count")


def pushed_back(times: Times) -> Chart:
    """Arrivals that met a 429 or a reader that was slowed."""
    values = [group.rate("pushed_back") for group in times.columns]
    up = linear_axis(_high(values), show_axis)
    steps = [Step(group.since, group.at, 0.0, value) for group, value in zip(times.columns, values, strict=True)]
    total = sum(group.total("pushed_back") for group in times.columns)
    return times.chart(
        "pushed_back",
        "Pushed back",
        up,
        [Mark(steps_path(steps, times.axis, up), "area", "pushed")],
        times.hover("rate", [("pushed back", "pushed", [*values])], columns=True),
        note=f"Arrivals a second that met a 429 or a slowed reader{times.column_note}",
        describe=f"{show_count(total)} arrivals in all",
        keys=[],
    )


def retries(times: Times) -> Chart:
    """Attempts that were not accepted, one cause on top of the other."""
    by_group = [group.retries() for group in times.columns]
    ranked = [cause for cause, _ in sum(by_group, Counter[str]()).most_common()]
    named, others = ranked[: len(CAUSE_COLOURS)], ranked[len(CAUSE_COLOURS) :]
    layers = {cause: [cause] for cause in named} | ({OTHER_CAUSES: others} if others else {})
    values = {
        name: [sum(found[cause] for cause in causes) / g.span for g, found in zip(times.columns, by_group, strict=True)]
        for name, causes in layers.items()
    }
    colours = dict(zip(layers, (*CAUSE_COLOURS[: len(named)], "demand"), strict=False))
    edges = list(accumulate(values.values(), _added, initial=[0.0] * len(times.columns)))
    up = linear_axis(_high(edges[-1]), show_axis)
    marks = []
    for name, (below, above) in zip(values, pairwise(edges), strict=True):
        steps = [Step(g.since, g.at, low, high) for g, low, high in zip(times.columns, below, above, strict=True)]
        marks.append(Mark(steps_path(steps, times.axis, up), "layer", colours[name]))
    return times.chart(
        "retries",
        "Retries by cause",
        up,
        marks,
        times.hover("rate", [(name, colours[name], [*line]) for name, line in values.items()], columns=True),
        note=f"Attempts a second that were not accepted{times.column_note}",
        describe="; ".join(f"{name}: at most {show_rate(_high(line))} a second" for name, line in values.items())
        or "none",
        keys=[Key(name, "layer", colours[name]) for name in layers],
        size="tall",
    )


def _added(below: list[float], layer: list[float]) -> list[float]:
    return [low + more for low, more in zip(below, layer, strict=True)]


def cores(times: Times) -> Chart:
    """Processor time over wall time of all engine processes."""
    spots = line_of(times.groups, "engine_cores")
    note = "Processor time over wall time, all engine processes"
    return _one_area(times, spots, "engine_cores", "Engine cores", note, show_axis, "c1", unit="cores")


def memory(times: Times) -> Chart:
    """Resident memory of the largest engine process."""
    spots = line_of(times.groups, "engine_mb")
    note = "Resident, the largest engine process, MB"
    return _one_area(times, spots, "engine_mb", "Engine memory", note, show_axis, "c1", unit="mb")


def _one_area(
    times: Times,
    spots: Sequence[tuple[float, float | None]],
    field: str,
    title: str,
    note: str,
    show: Callable[[float], str],
    colour: str,
    *,
    unit: str,
) -> Chart:
    known = [(at, value) for at, value in spots if value is not None]
    up = linear_axis(_high([value for _, value in known]), show, whole=unit == "count")
    return times.chart(
        field,
        title,
        up,
        [
            Mark(area_path(known, times.axis, up), "area", colour),
            *_line(spots, times.axis, up, colour),
        ],
        times.hover(unit, [(title.lower(), colour, _peaks(times, field))]),
        note=note,
        describe=f"at most {show(_high([value for _, value in known]))}",
        keys=[],
        empty=None if known else NOTHING,
    )


def along_the_time(result: LoadResult) -> dict[str, Chart]:
    """Every chart that has the run's time across, by name."""
    times = Times(result.intervals, result.seconds)
    drawn = [plot(times) for plot in (rates, latencies, open_alerts, pushed_back, retries, cores, memory)]
    return {chart.id: chart for chart in drawn}
