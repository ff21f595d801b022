"""The result of a load test as tables on a terminal."""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from dispatcher.cli.common import print_summary
from loadtest.load.outcome import Outcome
from loadtest.result import LoadResult

SHOWN_PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)


def print_outcome(outcome: Outcome) -> None:
    """What was asked, how late it was, the two books, the verdicts, and all that is to be said in words."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without Unicode shows question marks rather than a traceback.
        sys.stdout.reconfigure(errors="replace")
    console = Console()
    result = outcome.result
    console.print("The load", style="bold")
    for name, text in result.scenario.items():
        console.print(f"  {name:<20}{text}", highlight=False, markup=False)
    console.print()
    console.print(_latencies(result))
    console.print(_generator(outcome.generator))
    console.print(_books(result))
    print_summary(outcome.summary, console, since="the scheduled arrival")
    if result.retries:
        console.print(
            "not accepted at first: "
            + ", ".join(f"{cause} {count:,}" for cause, count in sorted(result.retries.items())),
            highlight=False,
            markup=False,
        )
    for verdict in result.verdicts:
        sign, style = ("holds", "green") if verdict.holds else ("DOES NOT HOLD", "bold red")
        console.print(f"{verdict.text}: {sign} ({verdict.measured})", style=style, highlight=False, markup=False)
    for text in outcome.remarks:
        console.print(text, style="yellow", highlight=False, markup=False)
    for text in outcome.failures:
        console.print(text, style="bold red", highlight=False, markup=False)


def _latencies(result: LoadResult) -> Table:
    title = "Latency from the scheduled arrival, ms"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for percentile in SHOWN_PERCENTILES:
        table.add_column("max" if percentile == 100.0 else f"p{percentile:g}", justify="right", header_style="dim")
    for latency in result.latencies:
        cells = [_at(latency.points, percentile) for percentile in SHOWN_PERCENTILES]
        table.add_row(latency.name, *cells)
    return table


def _generator(generator: dict[str, Any]) -> Table:
    table = Table(title="The generator", title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(width=20)
    table.add_column(justify="right")
    for name in ("scheduled", "pushed_back", "abandoned", "unsent", "unanswered", "reconnected", "kills"):
        count = generator[name]
        bad = count and name in ("abandoned", "unsent", "unanswered")
        if count or name in ("scheduled", "pushed_back"):
            table.add_row(name.replace("_", " "), f"{count:,}", style="bold red" if bad else "")
    table.add_row("late at p99", f"{generator['late_ms']['p99']:,.1f} ms")
    return table


def _at(points: list[tuple[float, float]], wanted: float) -> str:
    value = next((ms for percentile, ms in points if percentile >= wanted), None)
    return "–" if value is None else f"{value:,.1f}"


def _books(result: LoadResult) -> Table:
    table = Table(title="The two books", title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(width=20)
    table.add_column(justify="right")
    for name, count in result.books.items():
        bad = count and name in ("lost", "duplicates", "open")
        table.add_row(name.replace("_", " "), f"{count:,}", style="bold red" if bad else "")
    return table
