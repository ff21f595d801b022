"""The command: chooses scenarios, lets them compete, and writes the table and the JSON."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from dispatcher.logs import configure_logs
from loadtest.bench.contest import QUICK, Bench, Contestant, Sizes, compete
from loadtest.bench.figures import Results, as_data
from loadtest.bench.scenarios import SCENARIOS, choose
from loadtest.bench.sinks import describe, find_nginx
from loadtest.bench.table import tables
from loadtest.load.machine import machine

_NAMES: Final = "\n".join(
    f"  {name:<10} {one.what}{' (minutes: --all or --only)' if one.heavy else ''}" for name, one in SCENARIOS.items()
)
_HELP: Final = f"""Measure the engine's whole path beside the raw network, in turns, and print the figures as a table.

\b
{_NAMES}

Exit status: 0 all measured; 1 something failed (the rest is measured all the same); 2 usage.
"""
_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@click.command(help=_HELP)
@click.option(
    "--only", multiple=True, type=click.Choice(list(SCENARIOS)), help="Repeatable.  [default: the light ones]"
)
@click.option("--all", "everything", is_flag=True, help="The heavy ones too.")
@click.option("--alerts", type=click.IntRange(1, 10_000_000), help=f"Of each round.  [default: {Sizes().alerts:,}]")
@click.option("--rounds", type=click.IntRange(1, 100), help=f"Of each contestant.  [default: {Sizes().rounds}]")
@click.option("--backlog", type=click.IntRange(1, 100_000_000), help=f"Events.  [default: {Sizes().backlog:,}]")
@click.option("--quick", is_flag=True, help="A handful of everything: shows that it works, and measures nothing.")
@click.option("--sink", type=click.Choice(["nginx", "python"]), help="[default: nginx where it is installed]")
@click.option(
    "--full-ledger",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A ledger made before by loadtest.fill, to copy instead of filling one; it is not changed.",
)
@click.option("--dir", "folder", type=click.Path(file_okay=False, path_type=Path), help="Keep the files here.")
@click.option("--json", "json_path", type=_FILE, default=Path("build/bench.json"), show_default=True)
@click.option("--table", "table_path", type=_FILE, help="Write the tables to this file as well.")
def bench(
    only: tuple[str, ...],
    everything: bool,
    alerts: int | None,
    rounds: int | None,
    backlog: int | None,
    quick: bool,
    sink: str | None,
    full_ledger: Path | None,
    folder: Path | None,
    json_path: Path,
    table_path: Path | None,
) -> None:
    """See ``_HELP``."""
    configure_logs("error")
    signal.signal(signal.SIGTERM, _end)
    given = {"alerts": alerts, "rounds": rounds, "backlog": backlog}
    sizes = msgspec.structs.replace(
        QUICK if quick else Sizes(), **{name: value for name, value in given.items() if value is not None}
    )
    nginx = None if sink == "python" else find_nginx()
    if sink == "nginx" and nginx is None:
        raise click.UsageError("--sink nginx: nginx is not installed; leave the option away for the one in Python")
    with _folder(folder) as place:
        run = Bench(place, sizes, nginx=nginx, full_ledger=full_ledger, say=_say)
        results = Results(machine=machine(), sink=describe(nginx), alerts=sizes.alerts, rounds=sizes.rounds)
        run.results = results
        try:
            perform(choose(only, everything), run)
        finally:  # what was measured before an interruption too
            _write(results, json_path, table_path)
    sys.exit(1 if results.failures else 0)


def perform(names: Sequence[str], run: Bench) -> None:
    """Run the scenarios: first those whose contestants take turns together, then the others by themselves."""
    together: list[tuple[str, Contestant]] = []
    for name in names:
        if not SCENARIOS[name].alone:
            together += [(name, one) for one in SCENARIOS[name].contestants()]
    if together:
        compete(together, run.sizes.rounds, run)
    for name in names:
        scenario = SCENARIOS[name]
        if scenario.alone:
            rounds = 1 if scenario.once else run.sizes.rounds
            compete([(name, one) for one in scenario.contestants()], rounds, run)


def _write(results: Results, json_path: Path, table_path: Path | None) -> None:
    text = tables(results)
    click.echo(text)
    data = msgspec.json.format(msgspec.json.encode(as_data(results)), indent=2) + b"\n"
    for path, content in ((json_path, data), (table_path, text.encode())):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            _say(f"wrote {path}")


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="swipebell-bench-") as temporary:
        yield Path(temporary)


def _end(number: int, _frame: object) -> None:
    """As Ctrl-C does: what was started is stopped on the way out, and what was measured is written."""
    sys.exit(128 + number)


def _say(text: str) -> None:
    click.echo(text, err=True)
