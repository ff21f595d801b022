"""One line of progress on stderr, only when that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dispatcher.totals import Totals

REFRESH_S = 0.25
STALE_S = 1.5
"""A fleet's counts come once a second; when they have not grown for longer, nothing is being delivered."""


async def show_progress(totals: Callable[[], Totals]) -> None:
    """Show rate, delivered, retries and p99 until cancelled, of one process or a fleet. Does nothing when stderr is
    not a terminal."""
    if not sys.stderr.isatty():
        return
    console = Console(stderr=True)
    with Live(console=console, refresh_per_second=1 / REFRESH_S, transient=True, auto_refresh=False) as live:
        before, before_at = 0, trio.current_time()
        rate = 0.0
        while True:
            await trio.sleep(REFRESH_S)
            meter = totals()
            now = trio.current_time()
            delivered = meter.ended["delivered"]
            if delivered != before or now - before_at > STALE_S:
                # Half the old rate, half the new one: readable without lagging behind.
                rate = rate / 2 + (delivered - before) / (now - before_at) / 2
                before, before_at = delivered, now
            queued = sum(map(sum, meter.lanes.values()))
            live.update(
                Text.assemble(
                    ("read ", "dim"),
                    f"{meter.events['read']:>9,}  ",
                    ("delivered ", "dim"),
                    (f"{delivered:>9,}", "green"),
                    (f"  {rate:>7,.0f}/s", "bold"),
                    ("  in lanes ", "dim"),
                    f"{queued:>6,}",
                    ("  retries ", "dim"),
                    f"{meter.retries:>6,}",
                    ("  rejected ", "dim"),
                    f"{meter.events['rejected']:>4,}",
                    ("  p99 ", "dim"),
                    f"{meter.latencies.summary()['p99']:>6,.0f} ms",
                ),
                refresh=True,
            )
