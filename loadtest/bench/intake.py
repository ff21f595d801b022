"""Events over HTTP and over the stream into `swipebell run`, until the last one is delivered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from typing import Final

import httpx

from loadtest.bench.clients import HttpPoster, stream_events
from loadtest.bench.contest import Bench
from loadtest.bench.figures import Failed, Figures, Kind
from loadtest.bench.programs import Program
from loadtest.bench.sends import ONE_PROCESS
from loadtest.bench.sinks import running_sink
from loadtest.bench.site import Site
from loadtest.bench.swipes import swipes

POST_CONNECTIONS: Final = 8
SINGLE_CONNECTIONS: Final = 32
LINES_A_POST: Final = 200
LOOK_S: Final = 0.1
"""Between two looks at the metrics, each of which lets the engine count its open alerts."""
DELIVER_S: Final = 120.0

Feed = Callable[[Site, list[bytes]], None]
"""Gives the lines (with newline) to the engine; returns when all are acknowledged."""


class Intake:
    """An engine of one process is started for each round, fed, and stopped when all is delivered.

    The rate counts from the first byte to the last delivery; ``acknowledged_per_second`` to the last acknowledgement.
    """

    kind: Kind = "rate"
    base: str | None = ONE_PROCESS

    def __init__(self, label: str, feed: Feed, *, single: bool = False) -> None:
        self.label = label
        self._feed = feed
        self._single = single

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site(self.label)
        self._site.configure(stack.enter_context(running_sink(bench.nginx, self._site.folder / "sink")))

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        count = bench.sizes.single_posts if self._single else bench.sizes.alerts
        site = self._site
        site.take_ledger(bench.ledgers.empty(bench.sizes.accounts))
        with site.run(1) as engine:
            site.wait_until_ready(engine)
            lines = [line + b"\n" for line in swipes(count, accounts=bench.sizes.accounts, batch=str(number))]
            cpu = engine.cpu_seconds()
            began = time.perf_counter()
            self._feed(site, lines)
            acknowledged = time.perf_counter()
            until_delivered(site, engine, count)
            ended = time.perf_counter()
            cpu = engine.cpu_seconds() - cpu
        return {
            self.label: {
                "per_second": count / (ended - began),
                "acknowledged_per_second": count / (acknowledged - began),
                "cpu_us": cpu / count * 1e6,
                "peak_mib": engine.peak_mib,
            }
        }


def until_delivered(site: Site, engine: Program, count: int) -> None:
    """Until the engine says that so many alerts were delivered since its start. Raises `Failed`."""
    deadline = time.monotonic() + DELIVER_S
    delivered = 0.0
    with httpx.Client(timeout=30, trust_env=False) as client:
        while time.monotonic() < deadline:
            engine.check_alive()
            text = client.get(f"http://127.0.0.1:{site.metrics_port}/metrics").text
            ended = {
                line.split('"')[1]: float(line.rpartition(" ")[2])
                for line in text.splitlines()
                if line.startswith("swipebell_alerts_ended_total{")
            }
            delivered = ended.pop("delivered", 0.0)
            if any(ended.values()):
                raise Failed(f"alerts ended as {', '.join(name for name, many in ended.items() if many)}")
            if delivered >= count:
                return
            time.sleep(LOOK_S)
    raise Failed(f"{count - delivered:,.0f} of {count:,} alerts were not delivered after {DELIVER_S:.0f} seconds")


def post_batches(site: Site, lines: list[bytes]) -> None:
    """Bodies of 200 lines."""
    poster = HttpPoster(site.http_port, POST_CONNECTIONS)
    poster.post(list(_bodies(lines)))
    _all_accepted(poster.accepted, len(lines))


def post_singly(site: Site, lines: list[bytes]) -> None:
    """A post for each line."""
    poster = HttpPoster(site.http_port, SINGLE_CONNECTIONS)
    poster.post(lines)
    _all_accepted(poster.accepted, len(lines))


def stream(site: Site, lines: list[bytes]) -> None:
    """One connection of the stream intake."""
    stream_events(site.stream_port, lines, len(lines))


def _bodies(lines: list[bytes]) -> Iterator[bytes]:
    waiting = iter(lines)
    while body := b"".join(islice(waiting, LINES_A_POST)):
        yield body


def _all_accepted(accepted: int, count: int) -> None:
    if accepted != count:
        raise Failed(f"{accepted:,} of {count:,} events were accepted")
