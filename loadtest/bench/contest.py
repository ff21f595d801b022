"""Contestants that take turns, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import SubprocessError
from typing import Final, Protocol

import msgspec

from dispatcher.errors import SwipebellError
from loadtest.bench.figures import Failed, Figures, Kind, Results, Row
from loadtest.bench.programs import Finished
from loadtest.bench.site import Ledgers, Site
from loadtest.bench.swipes import write_swipes

EXPECTED: Final = (Failed, SwipebellError, OSError, SubprocessError, msgspec.MsgspecError)
"""What fails one contestant and not the run."""

Say = Callable[[str], None]


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything; ``QUICK`` shows only that it works."""

    alerts: int = 40_000
    rounds: int = 3
    accounts: int = 20_000
    all_accounts: int = 1_200_000
    past_alerts: int = 10_000_000
    single_posts: int = 2_000
    """Posts of one line: a twentieth of the rate of larger ones is enough to wait for."""
    load_seconds: float = 10.0
    lone_swipes: int = 100
    backlog: int = 1_000_000
    stage_alerts: int = 25_600


QUICK: Final = Sizes(
    alerts=400,
    rounds=1,
    accounts=200,
    all_accounts=1000,
    past_alerts=2000,
    single_posts=20,
    load_seconds=2.0,
    lone_swipes=3,
    backlog=2000,
    stage_alerts=512,
)


class Bench:
    """What the contestants of a run share. ``nginx`` None: the sink of this project instead."""

    def __init__(self, folder: Path, sizes: Sizes, *, nginx: str | None, full_ledger: Path | None, say: Say) -> None:
        self.folder = folder
        self.sizes = sizes
        self.nginx = nginx
        self.full_ledger = full_ledger
        self.say = say
        self.ledgers = Ledgers(folder / "ledgers")
        self.results: Results | None = None
        self._events: dict[tuple[int, int, str, int], Path] = {}
        self._start_costs: dict[int, Finished] = {}

    def site(self, name: str) -> Site:
        """A folder of that name for one contestant."""
        return Site(self.folder / name.replace(" ", "-").replace(",", ""))

    def events(self, count: int, accounts: int, batch: str = "", first: int = 0) -> Path:
        """A file of so many swipes, made once. Files of different ``batch`` have no id in common.

        ``first`` is the number of the first one, see `swipes`.
        """
        key = count, accounts, batch, first
        if key not in self._events:
            path = self._events[key] = self.folder / f"events-{count}-{accounts}-{batch}-{first}.ndjson"
            write_swipes(path, count, accounts=accounts, batch=batch, first=first)
        return self._events[key]

    def start_cost(self, site: Site, processes: int) -> Finished:
        """`send` with a single event: the interpreters' start, which is no cost of an alert.

        Measured once for each number of processes, in a configured site, whose ledger is used up by that.
        """
        if processes not in self._start_costs:
            one = self.events(1, self.sizes.accounts, "start")
            site.take_ledger(self.ledgers.empty(self.sizes.accounts))
            site.send(one, processes)  # the first start reads the files, the second is like the ones to come
            site.take_ledger(self.ledgers.empty(self.sizes.accounts))
            self._start_costs[processes] = site.send(one, processes)[1]
        return self._start_costs[processes]


class Contestant(Protocol):
    """Something to measure."""

    label: str
    kind: Kind
    base: str | None

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """Prepare what every round needs, once; ``stack`` is closed after the last round. May raise `Failed`."""

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """Round ``number`` (from 1): figures by label, most often one, the contestant's own. May raise `Failed`."""


def compete(contestants: Sequence[tuple[str, Contestant]], rounds: int, bench: Bench) -> None:
    """Let contestants, each with the name of its scenario, take turns; their rows are added to the bench's results.

    One that fails is out, with its reason in its row.
    """
    results = bench.results
    assert results is not None
    with ExitStack() as stack:
        ready = []
        for scenario, one in contestants:
            try:
                one.open(bench, stack)
            except EXPECTED as error:
                _fail(results, _row(scenario, one), error, bench)
            else:
                ready.append((scenario, one))
        for number in range(1, rounds + 1):
            for scenario, one in [pair for pair in ready if not _has_failed(results, pair[1].label)]:
                row = _row(scenario, one)
                try:
                    found = one.measure(bench, number)
                except EXPECTED as error:
                    _fail(results, row, error, bench)
                    continue
                for label, figures in found.items():
                    _keep(results, msgspec.structs.replace(row, label=label, samples=[]), figures)
                    shown = ", ".join(f"{name} {value:,.1f}" for name, value in figures.items())
                    bench.say(f"round {number}: {label}: {shown}")


def _row(scenario: str, one: Contestant) -> Row:
    return Row(scenario=scenario, label=one.label, kind=one.kind, base=one.base)


def _has_failed(results: Results, label: str) -> bool:
    row = results.row(label)
    return row is not None and row.failed is not None


def _keep(results: Results, row: Row, figures: Figures) -> None:
    known = results.row(row.label)
    if known is None:
        results.rows.append(row)
        known = row
    known.samples.append(dict(figures))


def _fail(results: Results, row: Row, error: BaseException, bench: Bench) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    known = results.row(row.label)
    if known is None:
        results.rows.append(row)
        known = row
    known.failed = reason
    bench.say(f"{row.label}: failed: {reason}")
