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
    """A new ledger each round, with the recipients of few accounts."""

    kind: Kind = "rate"

    def __init__(self, processes: int) -> None:
        self.label = labelled(EMPTY_FEW, processes)
        self.base: str | None = labelled(EMPTY_ALL, processes)
        self._processes = processes

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site(self.label)
        self._site.configure(stack.enter_context(running_sink(bench.nginx, self._site.folder / "sink")))
        self._start = bench.start_cost(self._site, self._processes)
        bench.ledgers.empty(bench.sizes.accounts)

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        self._site.take_ledger(bench.ledgers.empty(bench.sizes.accounts))
        _settle()
        events = bench.events(bench.sizes.alerts, bench.sizes.accounts, f"few-{number}")
        return {self.label: send_figures(self._site, events, self._processes, self._start, workers_only=True)}


class BankLedger:
    """The recipients of all accounts, with months of past alerts or with none; one copy for all rounds.

    Every round has accounts of its own, so that in each ledger it is the same time of day: how many of today's totals
    there are, and how many swipes an account has had, counts for more than all the past.
    """

    kind: Kind = "rate"

    def __init__(self, processes: int, *, full: bool) -> None:
        self.label = labelled(FULL if full else EMPTY_ALL, processes)
        self.base = labelled(EMPTY_ALL, processes) if full else None
        self._processes = processes
        self._full = full

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site(self.label)
        self._site.configure(stack.enter_context(running_sink(bench.nginx, self._site.folder / "sink")))
        self._site.take_ledger(self.source(bench))
        _settle()
        # Not a part of the figures: the first pages of a file that has just been copied.
        self._site.send(self._events(bench, 0), self._processes)
        # Its own, since a process reads the known ids when it starts.
        self._start = self._site.send(bench.events(1, bench.sizes.accounts, "start"), self._processes)[1]

    def source(self, bench: Bench) -> Path:
        """The ledger to copy: for a full one that which was given, or one that is filled now. Raises `Failed`."""
        sizes = bench.sizes
        if not self._full:
            return bench.ledgers.empty(sizes.all_accounts)
        if (given := bench.full_ledger) is not None:
            wal = given.with_name(given.name + "-wal")
            if wal.exists() and wal.stat().st_size:
                raise Failed(f"{given} is in use, or was not closed: what is in its -wal would be missing from a copy")
            return given
        bench.say(f"filling a ledger with {sizes.past_alerts:,} past alerts: minutes, and 6 GB for ten million")
        return bench.ledgers.filled(sizes.all_accounts, sizes.past_alerts)

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        _settle()
        events = self._events(bench, number)
        return {self.label: send_figures(self._site, events, self._processes, self._start, workers_only=True)}

    def _events(self, bench: Bench, number: int) -> Path:
        count = bench.sizes.alerts
        return bench.events(count, bench.sizes.all_accounts, f"bank-{number}", number * count)


def labelled(what: str, processes: int) -> str:
    """The label of a row about ``what``."""
    return f"{what}, {'one process' if processes == 1 else 'two processes'}"


def _settle() -> None:
    """Let the kernel write what was copied, or it would do so while the engine waits for its fsync."""
    os.sync()
