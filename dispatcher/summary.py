"""The summary that ``send``, ``demo`` and ``loadtest`` share (design.md section 4), as data and as a table."""

from __future__ import annotations

from typing import Any

import msgspec

from dispatcher.ledger.api import Books
from dispatcher.metrics import Meter
from dispatcher.totals import Totals

ENDS = ("delivered", "suppressed", "failed", "expired", "cancelled")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What one run did. ``alerts`` counts those that ended during the run (also ones that an earlier run had left),
    ``open`` those that the ledger still holds, ``held`` the part of them that a send rule keeps until later;
    ``ledger`` has the totals since it was made."""

    events: dict[str, int]
    alerts: dict[str, int]
    by_channel: dict[str, dict[str, int]]
    suppressed_by: dict[str, int]
    failed_by: dict[str, int]
    unknown_attempts: int
    balanced: bool
    seconds: float
    alerts_per_second: float
    latency_ms: dict[str, float]
    ledger: dict[str, Any]
    known_doubles: int = 0
    held: int = 0


def summarize(counted: Meter | Totals, books: Books, seconds: float) -> Summary:
    """Put the counts of a run (of one process, or of all together) and the ledger's books side by side.

    ``balanced``: every line that was read is accounted for, and in the ledger every accepted event has its alerts,
    each of them open or ended once, and every folded one in a digest.
    """
    meter = counted.totals if isinstance(counted, Meter) else counted
    events = {name: meter.events[name] for name in ("read", "accepted", "duplicate", "rejected")}
    ended = {state: meter.ended[state] for state in ENDS}  # type: ignore[index]
    delivered = ended["delivered"]
    read_balances = events["read"] == events["accepted"] + events["duplicate"] + events["rejected"]
    return Summary(
        events=events,
        alerts={**ended, "open": books.open},
        by_channel={
            channel: {"attempts": meter.attempts[channel], "delivered": meter.delivered_by[channel]}
            for channel in sorted(meter.attempts)
        },
        suppressed_by=dict(meter.suppressed_by),
        failed_by=dict(meter.failed_by),
        unknown_attempts=sum(count for (_, outcome), count in meter.outcomes.items() if outcome == "unknown"),
        known_doubles=meter.known_doubles,
        held=books.states.get("held", 0),
        balanced=books.balanced and read_balances,
        seconds=round(seconds, 3),
        alerts_per_second=round(delivered / seconds, 1) if seconds > 0 else 0.0,
        latency_ms=meter.latencies.summary(),
        ledger={
            "events": books.events,
            "alerts": {**{state: books.states.get(state, 0) for state in ENDS}, "open": books.open},  # type: ignore[call-overload]
            "unknown_attempts": books.unknown_attempts,
            "known_doubles": books.known_doubles,
            "folded": books.digests.folded,
            "digests": books.digests.states,
        },
    )
