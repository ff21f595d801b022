"""What several commands share: the configuration option, running trio, printing results."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import trio
from rich.console import Console
from rich.table import Table

from dispatcher.config import Config
from dispatcher.config_load import load_config
from dispatcher.errors import ConfigurationError, Interrupted
from dispatcher.fleet.share import MAX_PROCESSES
from dispatcher.logs import configure_logs
from dispatcher.summary import Summary

DEFAULT_CONFIG = "swipebell.toml"

config_option = click.option(
    "--config",
    "-c",
    "config_path",
    type=click.Path(path_type=Path),
    help=f"Configuration file. Default: {DEFAULT_CONFIG} in this folder.",
)
processes_option = click.option(
    "--processes",
    type=click.IntRange(1, MAX_PROCESSES),
    default=1,
    show_default=True,
    metavar="N",
    help=f"Equal processes that share the work, 1 to {MAX_PROCESSES}; one a core is enough.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")


def load(path: Path | None, *, secrets: bool = True) -> Config:
    """The configuration of ``path`` or of this folder. Raises `ConfigurationError`. Sets up the log."""
    if path is None:
        path = Path(DEFAULT_CONFIG)
        if not path.exists():
            raise ConfigurationError(
                f"there is no {DEFAULT_CONFIG} here; name one with --config, or write one with: swipebell init ."
            )
    config = load_config(path, os.environ if secrets else None)
    configure_logs(config.log.level)
    for warning in config.warnings:
        click.echo(f"swipebell: warning: {warning}", err=True)
    return config


def warn_of_processes(processes: int) -> None:
    """Say so when there are more processes than cores for them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if processes > cores:
        click.echo(
            f"swipebell: warning: --processes {processes} on {cores} cores: more than one a core only costs memory",
            err=True,
        )


def run_trio(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """`trio.run`, with Ctrl-C and SIGTERM turned into `Interrupted` after an orderly end."""

    async def watched() -> Any:
        result: list[Any] = []
        stopped = False
        async with trio.open_nursery() as nursery:

            async def watch_signals() -> None:
                nonlocal stopped
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    async for _ in signals:
                        stopped = True
                        nursery.cancel_scope.cancel()

            nursery.start_soon(watch_signals)
            result.append(await function(*arguments))
            nursery.cancel_scope.cancel()
        if stopped and not result:
            raise Interrupted
        return result[0]

    return trio.run(watched)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_summary(summary: Summary, console: Console, *, since: str = "acceptance") -> None:
    """The books as a small table; ``since`` says from when its latencies count."""
    table = Table(title="The books", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    events = summary.events
    table.add_row("events read", f"{events['read']:,}", "")
    for name, note in (
        ("accepted", "durable, each has its alerts"),
        ("duplicate", "seen before, not told again"),
        ("rejected", "refused with a reason"),
    ):
        table.add_row(f"  {name}", f"{events[name]:,}", note)
    alerts = summary.alerts
    table.add_row("alerts", f"{sum(alerts.values()):,}", "")
    notes = {
        "delivered": ", ".join(f"{name} {counts['delivered']:,}" for name, counts in summary.by_channel.items()),
        "suppressed": _reasons(summary.suppressed_by),
        "failed": _reasons(summary.failed_by),
        "open": f"not ended yet; {summary.held:,} held until later by a rule" if summary.held else "not ended yet",
    }
    for state, count in alerts.items():
        if count or state in ("delivered", "open"):
            table.add_row(f"  {state}", f"{count:,}", notes.get(state, ""))
    attempts = sum(counts["attempts"] for counts in summary.by_channel.values())
    table.add_row("attempts", f"{attempts:,}", f"{summary.unknown_attempts:,} of unknown outcome")
    if summary.ledger["folded"]:
        states = ", ".join(f"{count:,} {state}" for state, count in summary.ledger["digests"].items())
        table.add_row("folded alerts", f"{summary.ledger['folded']:,}", f"in all, in digests: {states}")
    if summary.known_doubles:
        table.add_row("known doubles", f"{summary.known_doubles:,}", "seen on a channel after they rang on the next")
    console.print(table)
    verdict = "[green]balanced[/green]" if summary.balanced else "[red]NOT BALANCED[/red]"
    latency = summary.latency_ms
    console.print(
        f"{verdict}: accepted = ended + open\n{summary.seconds:,.1f} s, {summary.alerts_per_second:,.0f} alerts/s,"
        f" from {since} p50 {latency['p50']:,.0f} ms, p99 {latency['p99']:,.0f} ms",
        highlight=False,
    )


def _reasons(counts: dict[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason} {count:,}" for reason, count in ranked[:4])
