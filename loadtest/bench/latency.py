"""How long an alert takes: at half load, into simulated providers, and a lone swipe on an idle engine."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import msgspec

from dispatcher.model.alert import ALERT_ID_BITS
from loadtest.bench.clients import HttpLines, StreamLines
from loadtest.bench.contest import Bench
from loadtest.bench.figures import Failed, Figures, Kind
from loadtest.bench.programs import Program
from loadtest.bench.sends import TWO_PROCESSES, Send
from loadtest.bench.sinks import running_sink
from loadtest.bench.site import SEND_S, Site
from loadtest.bench.swipes import swipes
from loadtest.bench.wire import WireSink, wire_sink

PROVIDER_RATE: Final = 2000
"""A second; the simulated providers check and remember every message, and so take a good part of the cores."""
PROVIDER_MS: Final = 20
SETTLE_S: Final = 2.0
LONE_PAUSE_S: Final = 0.1
"""Between two lone swipes: the one before has been recorded and the engine is idle again."""

TO_WIRE: Final = (
    "SELECT a.first_at - e.accepted_at FROM alerts a JOIN events e ON e.seq = a.id >> ? WHERE a.first_at IS NOT NULL"
)
"""From acceptance to the first request, ms. The ledger knows when the answer was looked at and how long the request
took, so what the answer waited to be looked at is in it: the truth is less."""
ACCEPTED_AT: Final = "SELECT id, accepted_at FROM events"


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99, max and count. Raises `Failed` for nothing."""
    if not values:
        raise Failed("nothing was measured")
    ordered = sorted(values)
    found = {name: ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {**found, "max": ordered[-1], "count": float(len(ordered))}


class HalfLoad:
    """Half of what two processes came to in this run, arriving at random times over the stream, into the static sink.

    Measured from the scheduled arrival to the acknowledgement (the load test's own figure), and from acceptance to the
    wire (the ledger's).
    """

    label = "half load"
    kind: Kind = "latency"
    base: str | None = None

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`. Measures two processes when nobody has."""
        self._rate = max(1, int(_two_processes(bench, stack) / 2))
        self._site = site = bench.site(self.label)
        site.configure(stack.enter_context(running_sink(bench.nginx, site.folder / "sink")))
        sizes = bench.sizes
        load = {"rate": self._rate, "duration": sizes.load_seconds, "accounts": sizes.accounts, "seed": 1}
        self._load = [word for name, value in load.items() for word in (f"--{name}", str(value))]
        _call(site, "loadtest", *self._load, "--write-recipients", "people.ndjson")

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        site = self._site
        site.drop_ledger()
        _call(site, "recipients", "import", "people.ndjson")
        with site.run(2) as engine:
            site.wait_until_ready(engine)
            target = ("--target", f"tcp://127.0.0.1:{site.stream_port}")
            metrics = ("--metrics", f"http://127.0.0.1:{site.metrics_port}")
            told = _call(site, "loadtest", *self._load, *target, *metrics, "--json")
            engine.check_alive()
            time.sleep(SETTLE_S)
        accepted = told["events"]["accepted"]
        to_wire = percentiles([float(ms) for (ms,) in _read(site, TO_WIRE, ALERT_ID_BITS)])
        if to_wire["count"] != accepted:
            raise Failed(f"of {accepted:,} accepted events {to_wire['count']:,.0f} reached the provider")
        where = f"half load, {self._rate:,} a second:"
        return {
            f"{where} accepted → wire": to_wire,
            f"{where} scheduled → acknowledged": _told(told),
        }


class IntoProviders:
    """The load test as it comes, with its own engine of two processes and simulated providers that take 20 ms."""

    label = "simulated providers"
    kind: Kind = "latency"
    base: str | None = None

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site("providers")

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        sizes = bench.sizes
        rate = min(PROVIDER_RATE, sizes.alerts)
        load = ("--rate", str(rate), "--duration", str(sizes.load_seconds), "--accounts", str(sizes.accounts))
        engine = ("--processes", "2", "--latency", str(PROVIDER_MS))
        label = f"{rate:,} a second, the provider takes {PROVIDER_MS} ms: scheduled → accepted by it"
        return {label: _told(_call(self._site, "loadtest", *load, *engine, "--json"))}


class LoneSwipes:
    """Swipes one by one, over HTTP and over the stream, into a sink that notes when they come off the wire."""

    label = "lone swipe"
    kind: Kind = "latency"
    base: str | None = None

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site(self.label)
        self._wire = stack.enter_context(wire_sink())
        self._site.configure(self._wire.sink)

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        sizes, site = bench.sizes, self._site
        site.take_ledger(bench.ledgers.empty(sizes.accounts))
        lines = [line + b"\n" for line in swipes(2 * sizes.lone_swipes, accounts=sizes.accounts, batch=str(number))]
        half = sizes.lone_swipes
        with site.run(1) as engine, ExitStack() as stack:
            site.wait_until_ready(engine)
            http = stack.enter_context(HttpLines(site.http_port))
            stream = stack.enter_context(StreamLines(site.stream_port))
            sent = {
                "over HTTP": _one_by_one(lines[:half], http.write, self._wire, engine),
                "over the stream": _one_by_one(lines[half:], stream.write, self._wire, engine),
            }
        accepted = dict(_read(site, ACCEPTED_AT))
        found: dict[str, Figures] = {}
        for way, times in sent.items():
            name = f"lone swipe {way}:"
            found[f"{name} sent → wire"] = percentiles([(arrived - at) / 1e6 for _, at, arrived in times])
            # The ledger's time is the millisecond in which it was accepted: up to one less than this.
            found[f"{name} accepted → wire"] = percentiles([arrived / 1e6 - accepted[key] for key, _, arrived in times])
        return found


def _one_by_one(
    lines: Sequence[bytes], send: Callable[[bytes], None], wire: WireSink, engine: Program
) -> list[tuple[str, int, int]]:
    """(event id, sent at, arrived at) of each, epoch nanoseconds."""
    times = []
    for line in lines:
        time.sleep(LONE_PAUSE_S)
        engine.check_alive()
        at = time.time_ns()
        send(line)
        arrived = wire.arrival_ns()
        if arrived < at:
            raise Failed("a message came off the wire before its swipe was sent: it was another one's")
        times.append((msgspec.json.decode(line)["id"], at, arrived))
    return times


def _two_processes(bench: Bench, stack: ExitStack) -> float:
    assert bench.results is not None
    row = bench.results.row(TWO_PROCESSES)
    rate = None if row is None else row.median("per_second")
    if rate is None:
        two = Send(TWO_PROCESSES, 2)
        two.open(bench, stack)
        rate = two.measure(bench, 1)[TWO_PROCESSES]["per_second"]
    return rate


def _call(site: Site, *command: str) -> dict[str, Any]:
    """A command of ours to its end; what it tells with ``--json``. Raises `Failed` when it fails."""
    with Program("dispatcher", *command, folder=site.folder, log="command.log") as program:
        finished = program.finish(SEND_S)
        if finished.status:
            raise Failed(f"{command[0]} ended with status {finished.status}: {program.last_words()}")
    told: dict[str, Any] = msgspec.json.decode(finished.output) if "--json" in command else {}
    return told


def _told(summary: Mapping[str, Any]) -> dict[str, float]:
    latency = summary["latency_ms"]
    return {**{name: float(latency[name]) for name in ("p50", "p99", "max")}, "count": summary["events"]["accepted"]}


def _read(site: Site, query: str, *parameters: int) -> list[Any]:
    with closing(sqlite3.connect(f"{Path(site.ledger).as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query, parameters).fetchall()
