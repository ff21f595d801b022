"""What the send rules cost: processor time of the decisions of a batch, for files of different size.

The rules alone are what is decided by them for every swipe of a batch, from the counters at hand; then with the drafts
that admission makes of it; and the whole admission, with what it reads of the ledger and writes there, but its commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from dispatcher.admission import Admitter
from dispatcher.events import Accepted, decode_lines
from dispatcher.ledger.api import Counted, Decisions
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import Admitting
from dispatcher.model.recipient import Recipient
from loadtest.bench.contest import Bench
from loadtest.bench.figures import Failed, Figures, Kind
from loadtest.bench.rule_files import FILES
from loadtest.bench.stages import BATCH, LEASE_MS, QUARTILE
from loadtest.bench.swipes import swipes
from ratelimit.decision import DayTotal
from ratelimit.rules import Decider, Rules, Tally, load_rules
from ratelimit.tally import keys_of
from templates.library import Library

CHANNELS: Final = {"wechat": False, "sms": True}
"""Whether a channel's alerts are fenced, as by default."""


class Rulings:
    """A row for each rule file."""

    label = "send rules"
    kind: Kind = "rules"
    base: str | None = None

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site(self.label)
        self._library = Library.load()

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        sizes = bench.sizes
        found: dict[str, Figures] = {}
        for name, text in FILES.items():
            self._site.take_ledger(bench.ledgers.empty(sizes.accounts))
            lines = list(swipes(sizes.stage_alerts, accounts=sizes.accounts, batch=f"{name}-{number}"))
            rules = load_rules(text, name)
            found[name] = measure_rules(self._site.ledger, rules, self._library, lines)
        return found


def measure_rules(ledger: Path, rules: Rules, library: Library, lines: Sequence[bytes]) -> dict[str, float]:
    """µs an event, by the faster batches: ``rules_us`` the decisions alone, ``drafts_us`` with what admission makes of
    them, ``reads_us`` of the ledger for it, and ``admit_us`` all of the admission but its commit.

    Raises `Failed` unless every swipe is told: then the files are not compared by the same work.
    """
    store = SqliteStore(str(ledger))
    try:
        return _measured(store, rules, Admitter(rules, library, CHANNELS), lines)
    finally:
        store.close()


def _measured(store: SqliteStore, rules: Rules, admitter: Admitter, lines: Sequence[bytes]) -> dict[str, float]:
    now_ms = time.time_ns() // 1_000_000
    store.begin()
    store.ruleset(rules.version_id, rules.content, now_ms)
    owner = store.register("bench", now_ms, now_ms + LEASE_MS)
    store.commit()
    watch = _Watch(admitter, Decider(rules, CHANNELS))
    batches: list[dict[str, float]] = []
    for first in range(0, len(lines), BATCH):
        events = decode_lines(list(enumerate(lines[first : first + BATCH], 1))).accepted
        admitting = Admitting(events, time.time_ns() // 1_000_000, owner, watch)
        began = time.process_time()
        store.prepare(admitting)
        store.begin()
        admission = store.admit(admitting)
        took = time.process_time() - began
        store.commit()
        if len(admission.alerts) != len(events):
            raise Failed(f"of {len(events)} swipes {len(admission.alerts)} were told: {admission.ended}")
        found = {"rules_us": watch.again(), "drafts_us": watch.deciding, "reads_us": watch.reading, "admit_us": took}
        batches.append({name: seconds / len(events) * 1e6 for name, seconds in found.items()})
    return {name: sorted(one[name] for one in batches)[len(batches) // QUARTILE] for name in batches[0]}


class _Watch:
    """The decisions of a batch, with the time that they took apart from that of their reading."""

    def __init__(self, admitter: Admitter, decider: Decider) -> None:
        self.planning = self.deciding = self.reading = 0.0
        self._admitter = admitter
        self._decider = decider

    def __call__(
        self, batch: Sequence[Accepted], recipients: Mapping[str, Sequence[Recipient]], now_ms: int
    ) -> Callable[[Counted], Decisions]:
        self._asked = batch, recipients, now_ms
        began = time.process_time()
        decide = self._admitter(batch, recipients, now_ms)
        self.planning = time.process_time() - began
        return lambda counted: self._decided(decide, counted)

    def _decided(self, decide: Callable[[Counted], Decisions], counted: Counted) -> Decisions:
        self._counted = counted
        self._counters: dict[str, int] = {}
        self._marks: dict[str, Sequence[int]] = {}
        self._totals: dict[str, DayTotal] = {}
        self.reading = 0.0
        began = time.process_time()
        decisions = decide(self)
        self.deciding = self.planning + time.process_time() - began - self.reading
        return decisions

    def counters(self, keys: Sequence[str]) -> Mapping[str, int]:
        """What the ledger has of them."""
        began = time.process_time()
        found = self._counted.counters(keys)
        self._counters.update(found)
        self.reading += time.process_time() - began
        return found

    def totals(self, keys: Sequence[str]) -> Mapping[str, DayTotal]:
        """The same of day totals."""
        began = time.process_time()
        found = self._counted.totals(keys)
        self._totals.update(found)
        self.reading += time.process_time() - began
        return found

    def marks(self, keys: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """The same of marks."""
        began = time.process_time()
        found = self._counted.marks(keys)
        self._marks.update(found)
        self.reading += time.process_time() - began
        return found

    def again(self) -> float:
        """Seconds that the rules alone take for the batch, with what was read for it at hand."""
        batch, recipients, now_ms = self._asked
        plan = self._decider.plan
        began = time.process_time()
        planned = [
            [plan(one.event, one.swiped_ms, to, now_ms, "swipe") for to in recipients[one.event.account]]
            for one in batch
        ]
        tally = Tally(lambda _keys: self._counters, lambda _keys: self._marks, lambda _keys: self._totals)
        tally.prefetch(keys_of(planned))
        for one, plans in zip(batch, planned, strict=True):
            tally.decide_event(one.event, plans)
        return time.process_time() - began
