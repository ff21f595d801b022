"""Memory while a backlog grows: a provider that takes nothing, and a core that goes on for a million events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import trio

from dispatcher.ledger.worker import ThreadedLedger
from loadtest.bench.clients import stream_events
from loadtest.bench.contest import Bench
from loadtest.bench.figures import Failed, Figures, Kind
from loadtest.bench.sinks import running_sink
from loadtest.bench.site import Site
from loadtest.bench.swipes import swipes

PROCESSES: Final = 2
_RETRY: Final = "[retry]\nbase_seconds = 60\ncap_seconds = 3600\n"
"""Every alert comes back within a minute and then more and more seldom, as after an hour of a provider's failure."""


class Backlog:
    """A million events over the stream into two processes whose provider answers that it is busy, always."""

    kind: Kind = "memory"
    base: str | None = None

    def __init__(self, label: str) -> None:
        self.label = label

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site(self.label)
        sink = stack.enter_context(running_sink(bench.nginx, self._site.folder / "sink", "busy"))
        self._site.configure(sink, more=_RETRY)

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        count, accounts = bench.sizes.backlog, bench.sizes.accounts
        site = self._site
        site.take_ledger(bench.ledgers.empty(accounts))
        at_tenth = 0.0
        said_at = time.monotonic()
        with site.run(PROCESSES) as engine:
            site.wait_until_ready(engine)

            def on_ack(acknowledged: int) -> None:
                nonlocal at_tenth, said_at
                if acknowledged <= count / 10:
                    at_tenth = engine.peak_mib
                if time.monotonic() - said_at >= 10:
                    said_at = time.monotonic()
                    bench.say(f"{self.label}: {acknowledged:,} accepted, {engine.peak_mib:,.0f} MiB at most")

            lines = (line + b"\n" for line in swipes(count, accounts=accounts, batch=str(number)))
            began, ended = stream_events(site.stream_port, lines, count, on_ack)
            engine.check_alive()
            time.sleep(1.0)  # one more look at the memory
            resident = engine.resident_mib()
        open_alerts = trio.run(_open_alerts, site, count)
        return {
            self.label: {
                "open": open_alerts,
                "tenth_mib": at_tenth,
                "peak_mib": engine.peak_mib,
                "end_mib": resident,
                "per_second": count / (ended - began),
                "seconds": ended - began,
            }
        }


async def _open_alerts(site: Site, count: int) -> int:
    """Raises `Failed` when the books do not balance, or not every event is open."""
    ledger = ThreadedLedger(str(site.ledger))
    try:
        books = await ledger.books()
    finally:
        await ledger.aclose()
    if not books.balanced or books.open != count:
        raise Failed(f"of {count:,} alerts {books.open:,} are open, balanced: {books.balanced}")
    return books.open
