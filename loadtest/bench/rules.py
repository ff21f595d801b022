"""What the send rules cost: processor time of the decisions of a batch, for files of different size.

The decisions alone are timed without what they read of the ledger; the whole admission has that, and the rows that
it writes, but not the commit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from dispatcher.admission import Admitter
from dispatcher.events import Accepted, decode_lines
from dispatcher.ledger.sqlite import SqliteStore
from loadtest.bench.contest import Bench
from loadtest.bench.figures import Failed, Figures, Kind
from loadtest.bench.stages import BATCH, LEASE_MS, QUARTILE
from loadtest.bench.swipes import swipes
from ratelimit.rulefile import Rules, default_rules_text, load_rules
from templates.library import Library

CHANNELS: Final = {"wechat": False, "sms": True}
"""Whether a channel's alerts are fenced, as by default."""

BEFORE: Final = """\
version = 1
[[rule]]
id = "sms-from-100"
effect = "min_amount"
channel = "sms"
amounts = { CNY = 10000 }
[[rule]]
id = "swipe-expiry"
effect = "expire_after"
category = "swipe"
hours = 24
"""
"""A minimum and an age, which need no counter: what a decision costs at least."""

TWENTY: Final = (
    BEFORE
    + """\
[[rule]]
id = "alarm"
effect = "priority"
when = { currency = "CNY", amount_from = 2000000 }
[[rule]]
id = "storm"
effect = "storm"
when = { category = "swipe" }
fingerprint = ["merchant", "amount", "currency", "type"]
limit = 10
minutes = 10
sample = 10
[[rule]]
id = "account-day"
effect = "cap"
limit = 500
per = "account"
window = "day"
when = { category = "swipe" }
[[rule]]
id = "statement-month"
effect = "cap"
limit = 1
per = "recipient"
window = "month"
when = { category = "statement" }
[[rule]]
id = "repayment-month"
effect = "cap"
limit = 2
per = "recipient"
window = "month"
when = { category = "repayment" }
[[rule]]
id = "service-week"
effect = "cap"
limit = 2
per = "recipient"
window = "week"
when = { category = "service" }
[[rule]]
id = "service-gap"
effect = "min_gap"
hours = 4
when = { category = "service" }
[[rule]]
id = "broadcast-month"
effect = "cap"
limit = 4
per = "recipient"
window = "month"
when = { category = "broadcast" }
[[rule]]
id = "broadcast-once"
effect = "dedup"
hours = 24
fingerprint = ["category", "merchant"]
when = { category = "broadcast" }
[[rule]]
id = "promotion-consent"
effect = "consent"
category = "promotion"
mode = "opt-in"
[[rule]]
id = "promotion-sms"
effect = "consent"
category = "promotion"
channel = "sms"
mode = "opt-in"
[[rule]]
id = "promotion-week"
effect = "cap"
limit = 2
per = "recipient"
window = "week"
when = { category = "promotion" }
[[rule]]
id = "promotion-gap"
effect = "min_gap"
hours = 20
when = { category = "promotion" }
at_gap = "hold"
[[rule]]
id = "promotion-order"
effect = "route"
when = { category = "promotion" }
channels = ["wechat"]
[[rule]]
id = "promotion-expiry"
effect = "expire_after"
category = "promotion"
hours = 72
[[rule]]
id = "service-expiry"
effect = "expire_after"
category = "service"
hours = 48
[[rule]]
id = "promotion-hours"
effect = "quiet_hours"
from = "21:00"
to = "08:00"
when = { category = "promotion" }
[[rule]]
id = "service-hours"
effect = "quiet_hours"
from = "22:00"
to = "07:00"
when = { category = ["service", "broadcast"] }
"""
)
"""Twenty rules of a bank: five speak of every swipe, the others of what is not a swipe."""

TWENTY_OF_SWIPES: Final = (
    BEFORE
    + """\
[[rule]]
id = "alarm"
effect = "priority"
when = { currency = "CNY", amount_from = 2000000 }
[[rule]]
id = "order"
effect = "route"
when = { category = "swipe" }
channels = ["wechat", "sms"]
[[rule]]
id = "storm"
effect = "storm"
when = { category = "swipe" }
fingerprint = ["merchant", "amount", "currency", "type"]
limit = 10
minutes = 10
sample = 10
[[rule]]
id = "once"
effect = "dedup"
minutes = 2
[[rule]]
id = "small-at-night"
effect = "quiet_hours"
from = "00:00"
to = "00:01"
when = { currency = "CNY", amount_below = 100 }
[[rule]]
id = "account-day"
effect = "cap"
limit = 500
per = "account"
window = "day"
[[rule]]
id = "recipient-month"
effect = "cap"
limit = 5000
per = "recipient"
window = "month"
[[rule]]
id = "merchant-week"
effect = "cap"
limit = 900
per = ["account", "merchant"]
window = "week"
[[rule]]
id = "sms-day"
effect = "cap"
limit = 100
per = "account"
window = "day"
channel = "sms"
[[rule]]
id = "hour"
effect = "cap"
limit = 60
per = "recipient"
rolling_hours = 1
[[rule]]
id = "promotion-consent"
effect = "consent"
category = "promotion"
mode = "opt-in"
[[rule]]
id = "promotion-sms"
effect = "consent"
category = "promotion"
channel = "sms"
mode = "opt-in"
[[rule]]
id = "promotion-week"
effect = "cap"
limit = 2
per = "recipient"
window = "week"
when = { category = "promotion" }
[[rule]]
id = "promotion-gap"
effect = "min_gap"
hours = 20
when = { category = "promotion" }
at_gap = "hold"
[[rule]]
id = "promotion-order"
effect = "route"
when = { category = "promotion" }
channels = ["wechat"]
[[rule]]
id = "promotion-expiry"
effect = "expire_after"
category = "promotion"
hours = 72
[[rule]]
id = "service-expiry"
effect = "expire_after"
category = "service"
hours = 48
[[rule]]
id = "promotion-hours"
effect = "quiet_hours"
from = "21:00"
to = "08:00"
when = { category = "promotion" }
"""
)
"""Twenty rules of which ten speak of every swipe, with six counters and two lists of times: the dearest file."""

FILES: Final = {
    "a minimum and an age": BEFORE,
    "the shipped rules": default_rules_text(),
    "twenty rules": TWENTY,
    "twenty rules, ten of every swipe": TWENTY_OF_SWIPES,
}


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
    """µs an event, by the faster batches: ``decide_us`` alone, ``reads_us`` of the ledger for it, and ``admit_us`` with
    both and all rows. Raises `Failed` unless every swipe is told: then the files are not compared by the same work."""
    admitter = Admitter(rules, library, CHANNELS)
    store = SqliteStore(str(ledger))
    try:
        return _measured(store, admitter, rules, lines)
    finally:
        store.close()


def _measured(store: SqliteStore, admitter: Admitter, rules: Rules, lines: Sequence[bytes]) -> dict[str, float]:
    now_ms = time.time_ns() // 1_000_000
    store.begin()
    store.ruleset(rules.version_id, rules.content, now_ms)
    owner = store.register("bench", now_ms, now_ms + LEASE_MS)
    store.commit()
    batches: list[list[float]] = []
    for first in range(0, len(lines), BATCH):
        events: Sequence[Accepted] = decode_lines(list(enumerate(lines[first : first + BATCH], 1))).accepted
        watch = _Watch(admitter)
        store.begin()
        began = time.process_time()
        admission = store.admit(events, time.time_ns() // 1_000_000, owner, watch)
        took = time.process_time() - began
        store.commit()
        if len(admission.alerts) != len(events):
            raise Failed(f"of {len(events)} swipes {len(admission.alerts)} were told: {admission.ended}")
        batches.append([seconds / len(events) * 1e6 for seconds in (watch.deciding, watch.reading, took)])
    figures = {}
    for place, figure in enumerate(("decide_us", "reads_us", "admit_us")):
        figures[figure] = sorted(batch[place] for batch in batches)[len(batches) // QUARTILE]
    return figures


class _Watch:
    """The decisions of one batch, with the time that they took apart from that of their reading."""

    def __init__(self, admitter: Admitter) -> None:
        self.deciding = self.reading = 0.0
        self._admitter = admitter

    def __call__(self, batch: Any, recipients: Any, now_ms: int, counted: Any) -> Any:
        self._counted = counted
        began = time.process_time()
        decisions = self._admitter(batch, recipients, now_ms, self)
        self.deciding = time.process_time() - began - self.reading
        return decisions

    def counters(self, keys: Sequence[str]) -> Mapping[str, int]:
        """What the ledger has of them."""
        began = time.process_time()
        found: Mapping[str, int] = self._counted.counters(keys)
        self.reading += time.process_time() - began
        return found

    def marks(self, keys: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """The same of marks."""
        began = time.process_time()
        found: Mapping[str, Sequence[int]] = self._counted.marks(keys)
        self.reading += time.process_time() - began
        return found
