"""What a load test shows while it runs: on stderr, and only when that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtest.demo_screen import MARGIN, chart, sparkline
from loadtest.load.generator import LATE_S, Generator
from loadtest.load.plan import Plan
from loadtest.load.profiles import DAY_S
from loadtest.load.schedule import Curve
from loadtest.load.tally import Tally
from loadtest.load.watch import Sampler
from loadtest.result import Interval

REFRESH_S: Final = 0.25
MIN_COLUMNS: Final = 60
MAX_COLUMNS: Final = 140
NAME_COLUMNS: Final = 12
VALUE_COLUMNS: Final = 12
RECENT_SECONDS: Final = 3
"""Seconds of which the shown rates are the mean: one alone is as restless as its arrivals."""


class Screen:
    """The live display. ``stage`` is a line that says what goes on before the first arrival and after the last."""

    def __init__(self, plan: Plan) -> None:
        self.stage = "starting"
        self._plan = plan
        self._parts: tuple[Tally, Generator, Sampler] | None = None
        self.ended: Callable[[], bool] = lambda: False

    def watch(self, tally: Tally, generator: Generator, sampler: Sampler) -> None:
        """From now on show this run."""
        self._parts = tally, generator, sampler

    async def show(self) -> None:
        """Refresh the display until cancelled, then take it away. Does nothing when stderr is not a terminal."""
        if not sys.stderr.isatty():
            return
        console = Console(stderr=True)
        with Live(console=console, transient=True, auto_refresh=False) as live:
            while True:
                live.update(self.render(console.width), refresh=True)
                await trio.sleep(REFRESH_S)

    def render(self, width: int) -> RenderableType:
        """The display for a terminal of ``width`` columns."""
        if self._parts is None:
            return Text.assemble(("Swipebell  ", "bold"), (f"{self.stage} …", "dim"))
        tally, generator, sampler = self._parts
        columns = max(min(width - 2 * MARGIN, MAX_COLUMNS), MIN_COLUMNS)
        load = self._plan.load
        now = min(generator.now, load.seconds)
        intervals = tally.intervals()[: max(int(generator.now), 0)]
        rows: list[Text] = [
            self._head(now, columns),
            *chart(_sampled(load.curve, columns), columns, min(int(now / load.seconds * columns), columns - 1)),
            _axis(load.seconds, load.start_s, load.speedup, columns),
            Text(),
        ]
        rows += _lines(intervals, columns)
        return Group(
            *(Text(" " * MARGIN).append_text(row) for row in rows),
            Text(),
            self._figures(tally, generator, sampler),
            *([Text(f"\n{' ' * MARGIN}{self.stage} …", "yellow")] if self.stage else []),
        )

    def _head(self, now: float, columns: int) -> Text:
        load = self._plan.load
        speed = f" × {load.speedup:g}" if load.speedup != 1 else ""
        left = Text.assemble(("Swipebell  ", "bold"), (f"load test: {load.words}{speed}", "dim"))
        clock = f"{_minutes(now)} of {_minutes(load.seconds)}"
        left.truncate(max(columns - len(clock) - 1, 0))
        return left.append(" " * max(1, columns - left.cell_len - len(clock))).append(clock, "bold cyan")

    def _figures(self, tally: Tally, generator: Generator, sampler: Sampler) -> RenderableType:
        metrics, usage = sampler.metrics, sampler.usage
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=MARGIN + NAME_COLUMNS, justify="right", style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_row(
            "events",
            _pairs(
                ("scheduled", f"{len(tally.scheduled) + tally.abandoned:,}", "bold"),
                ("acknowledged", f"{tally.accepted + tally.duplicate:,}", "bold"),
                ("rejected", f"{tally.rejected:,}", "red" if tally.rejected else ""),
            ),
        )
        delivered = tally.shown if self._plan.measured else metrics.ended["delivered"]
        table.add_row(
            "alerts",
            _pairs(
                ("delivered", f"{delivered:,}", "bold green"),
                ("open", f"{metrics.open:,}", ""),
                ("failed", f"{metrics.ended['failed']:,}", "red" if metrics.ended["failed"] else ""),
            ),
        )
        latency = tally.delivered if self._plan.measured else tally.acknowledged
        table.add_row(
            "latency",
            _pairs(
                *((name, _ms(latency.at(at)), "bold") for name, at in (("p50", 50.0), ("p99", 99.0), ("max", 100.0)))
            ),
        )
        table.add_row("retries", _pairs(*((cause, f"{n:,}", "") for cause, n in sorted(metrics.retries.items()))))
        waiting = tally.waiting
        table.add_row(
            "pushed back",
            _pairs(
                ("arrivals", f"{tally.pushed_back:,}", "yellow" if tally.pushed_back else ""),
                ("waiting now", f"{waiting:,}", "yellow" if waiting else ""),
                ("abandoned", f"{tally.abandoned:,}", "red" if tally.abandoned else ""),
            ),
        )
        if usage is not None:
            table.add_row(
                "engine",
                _pairs(("cores", f"{usage.cores:.2f}", ""), ("MB", f"{usage.largest_mb:,.0f}", "")),
            )
        late = tally.lateness.at(99.0)
        table.add_row("generator", _pairs(("late p99", _ms(late), "red" if late > LATE_S * 1000 else "")))
        return table


def _lines(intervals: Sequence[Interval], columns: int) -> list[Text]:
    """A sparkline a row: what arrives, what is durable, what a provider has, and how late."""
    room = max(columns - NAME_COLUMNS - VALUE_COLUMNS - 4, 10)
    recent = intervals[-room:]
    mean = intervals[-RECENT_SECONDS:]
    rows = []
    for name, field, style in (
        ("scheduled", "scheduled", "white"),
        ("acknowledged", "acknowledged", "cyan"),
        ("delivered", "delivered", "green"),
    ):
        rate = sum(getattr(one, field) for one in mean) / len(mean) if mean else 0.0
        rows.append(_line(name, [float(getattr(one, field)) for one in recent], f"{rate:,.0f}/s", style, room))
    latencies = [one.p99_ms for one in recent if one.p99_ms is not None]
    if latencies:
        rows.append(_line("p99", latencies, _ms(latencies[-1]), "magenta", room))
    return rows


def _line(name: str, values: Sequence[float], value: str, style: str, room: int) -> Text:
    line = Text.assemble((f"{name:>{NAME_COLUMNS}}  ", "dim"), (f"{value:>{VALUE_COLUMNS}}  ", "bold"))
    return line.append(sparkline(values, room), style)


def _sampled(curve: Curve, columns: int) -> list[int]:
    """The curve's rate at the middle of each column, in thousandths of an event a second."""
    total = sum(seconds for seconds, _ in curve)
    found: list[int] = []
    end = 0.0
    for seconds, rate in curve:
        end += seconds
        while len(found) < columns and (len(found) + 0.5) * total / columns < end:
            found.append(round(rate * 1000))
    return found + [0] * (columns - len(found))


def _axis(seconds: float, start_s: float | None, speedup: float, columns: int) -> Text:
    """Times below the chart: of the day where there is one, otherwise since the begin."""
    marks = 6
    text = ""
    for mark in range(marks):
        at = mark / marks * seconds
        words = _minutes(at) if start_s is None else _of_day(start_s + at * speedup)
        text = text.ljust(mark * columns // marks) + words
    return Text(text, "dim")


def _of_day(second: float) -> str:
    minutes = int(second % DAY_S) // 60
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _ms(value: float) -> str:
    return f"{value:,.1f} ms" if value < 1000 else f"{value / 1000:,.2f} s"


def _pairs(*pairs: tuple[str, str, str]) -> Text:
    text = Text()
    for name, value, style in pairs:
        text.append(f"{name} ", "dim").append(value, style).append("   ")
    return text
