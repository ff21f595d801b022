"""Throughput with the ledger of a whole bank after months, against an empty one; swipes of all accounts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from loadtest.bench.contest import Bench
from loadtest.bench.figures import Failed, Figures, Kind
from loadtest.bench.sends import send_figures
from loadtest.bench.sinks import running_sink

EMPTY_ALL: Final = "empty ledger, all recipients"
EMPTY_FEW: Final = "empty ledger, few recipients"
FULL: Final = "full ledger"


class EmptyLedger:
    """A new ledger each round, with the recipients of all accounts or of few."""

    kind: Kind = "rate"

    def __init__(self, processes: int, *, few: bool = False) -> None:
        self.label = labelled(EMPTY_FEW if few else EMPTY_ALL, processes)
        self.base = labelled(EMPTY_ALL, processes) if few else None
        self._processes = processes
        self._few = few

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._accounts = bench.sizes.accounts if self._few else bench.sizes.all_accounts
        self._site = bench.site(self.label)
        self._site.configure(stack.enter_context(running_sink(bench.nginx, self._site.folder / "sink")))
        self._start = bench.start_cost(self._site, self._processes)
        bench.ledgers.empty(self._accounts)

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        self._site.take_ledger(bench.ledgers.empty(self._accounts))
        _settle()
        events = bench.events(bench.sizes.alerts, self._accounts, f"full-{number}")
        return {self.label: send_figures(self._site, events, self._processes, self._start, workers_only=True)}


class FullLedger:
    """One copy of the full ledger for all rounds: what a round adds to it is a two-hundredth."""

    label: str
    kind: Kind = "rate"

    def __init__(self, processes: int) -> None:
        self.label = labelled(FULL, processes)
        self.base: str | None = labelled(EMPTY_ALL, processes)
        self._processes = processes

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site(self.label)
        self._site.configure(stack.enter_context(running_sink(bench.nginx, self._site.folder / "sink")))
        self._site.take_ledger(self.source(bench))
        _settle()
        # Not a part of the figures: the first pages of a file that has just been copied.
        self._site.send(bench.events(bench.sizes.alerts, bench.sizes.all_accounts, "warm"), self._processes)
        # Its own, since a process reads the known ids when it starts.
        self._start = self._site.send(bench.events(1, bench.sizes.accounts, "start"), self._processes)[1]

    def source(self, bench: Bench) -> Path:
        """The ledger to copy: the one that was given, or one that is filled now. Raises `Failed`."""
        if (given := bench.full_ledger) is not None:
            wal = given.with_name(given.name + "-wal")
            if wal.exists() and wal.stat().st_size:
                raise Failed(f"{given} is in use, or was not closed: what is in its -wal would be missing from a copy")
            return given
        sizes = bench.sizes
        bench.say(f"filling a ledger with {sizes.past_alerts:,} past alerts: minutes, and 6 GB for ten million")
        return bench.ledgers.filled(sizes.all_accounts, sizes.past_alerts)

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        _settle()
        events = bench.events(bench.sizes.alerts, bench.sizes.all_accounts, f"full-{self._processes}-{number}")
        return {self.label: send_figures(self._site, events, self._processes, self._start, workers_only=True)}


def labelled(what: str, processes: int) -> str:
    """The label of a row about ``what``."""
    return f"{what}, {'one process' if processes == 1 else 'two processes'}"


def _settle() -> None:
    """Let the kernel write what was copied, or it would do so while the engine waits for its fsync."""
    os.sync()
