"""The whole path of `swipebell send` into a sink, in different circumstances; and the raw network beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trio

from dispatcher.network.api import PoolSettings, Request, Response
from dispatcher.network.curl import CurlNetwork
from dispatcher.service import SWITCH_INTERVAL_S
from loadtest.bench.contest import Bench
from loadtest.bench.figures import RAW, Failed, Figures, Kind
from loadtest.bench.programs import Finished
from loadtest.bench.sinks import Answers, reporting_sink, running_sink
from loadtest.bench.site import CONNECTIONS, Site

IN_FLIGHT: Final = 2048
BODY_BYTES: Final = 420
"""About what a WeChat template message has."""
ONE_PROCESS: Final = "one process"
TWO_PROCESSES: Final = "two processes"
FEW_RULES: Final = "one process, a minimum and an age"


class RawNetwork:
    """Requests a second of the network alone: a fixed body, answers counted and thrown away."""

    label = RAW
    kind: Kind = "rate"
    base: str | None = None

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._url = stack.enter_context(running_sink(bench.nginx, bench.folder / "raw")).url

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        count = bench.sizes.alerts
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)  # as in the engine
        try:
            cpu = time.process_time()
            seconds = trio.run(raw_network, self._url, count)
            cpu = time.process_time() - cpu
        finally:
            sys.setswitchinterval(before)
        return {self.label: {"per_second": count / seconds, "cpu_us": cpu / count * 1e6}}


async def raw_network(url: str, requests: int) -> float:
    """Seconds that so many requests take. Raises `Failed` when the sink answers with an error."""
    network = CurlNetwork({"raw": PoolSettings(connections=CONNECTIONS)})
    headers = ("Content-Type: application/json",)
    request = Request(pool="raw", url=f"{url}/cgi-bin/message/template/send", headers=headers, body=b"x" * BODY_BYTES)
    left, answered, refused, done = requests, 0, 0, trio.Event()

    def deliver(responses: list[Response]) -> None:
        nonlocal answered, refused
        answered += len(responses)
        refused += sum(response.status != 200 for response in responses)
        submit(len(responses))
        if answered == requests:
            done.set()

    def submit(count: int) -> None:
        nonlocal left
        count = min(count, left)
        left -= count
        if count:
            network.submit([request] * count, deliver)

    started = time.perf_counter()
    try:
        submit(IN_FLIGHT)
        await done.wait()
        seconds = time.perf_counter() - started
    finally:
        await network.aclose()
    if refused:
        raise Failed(f"{refused:,} of {requests:,} requests were not answered with 200")
    return seconds


class Send:
    """A file through `swipebell send` with a new ledger each round: everything durable, everything recorded.

    ``receipts``: the sink posts a receipt for every message, and an alert ends when that is in the ledger. ``rules``
    is the text of a rule file to go by, None: the shipped one.
    """

    kind: Kind = "rate"

    def __init__(
        self,
        label: str,
        processes: int,
        *,
        base: str | None = None,
        answers: Answers = "ok",
        tls: bool = False,
        receipts: bool = False,
        rules: str | None = None,
    ) -> None:
        self.label = label
        self.base = base
        self._processes = processes
        self._answers: Answers = answers
        self._tls = tls
        self._receipts = receipts
        self._rules = rules

    def open(self, bench: Bench, stack: ExitStack) -> None:
        """See `Contestant.open`."""
        self._site = bench.site(self.label)
        folder = self._site.folder / "sink"
        if self._receipts:
            sink = stack.enter_context(reporting_sink(folder, self._site.receipts_url))
        else:
            sink = stack.enter_context(running_sink(bench.nginx, folder, self._answers, tls=self._tls))
        more = ""
        if self._rules is not None:
            (self._site.folder / "rules.toml").write_text(self._rules)
            more = '[rules]\nfile = "rules.toml"\n'
        self._site.configure(sink, receipts=self._receipts, more=more)
        self._start = bench.start_cost(self._site, self._processes)

    def measure(self, bench: Bench, number: int) -> Mapping[str, Figures]:
        """See `Contestant.measure`."""
        sizes = bench.sizes
        self._site.take_ledger(bench.ledgers.empty(sizes.accounts))
        # With receipts everything takes several times as long; half of the alerts measure the rate as well.
        events = bench.events(max(1, sizes.alerts // 2) if self._receipts else sizes.alerts, sizes.accounts)
        return {self.label: send_figures(self._site, events, self._processes, self._start)}


def send_figures(
    site: Site, events: Path, processes: int, start: Finished, *, workers_only: bool = False
) -> dict[str, float]:
    """The figures of one `send`; ``start`` is what its start alone costs.

    ``workers_only`` leaves the supervisor's processor time out, which proves the books of the whole ledger.
    """
    summary, finished = site.send(events, processes)
    cpu = finished.cpu_seconds - start.cpu_seconds
    if workers_only:
        cpu = finished.workers_cpu_seconds - start.workers_cpu_seconds
    alerts = summary["alerts"]["delivered"]
    attempts = sum(counts["attempts"] for counts in summary["by_channel"].values())
    return {
        "per_second": summary["alerts_per_second"],
        "cpu_us": max(cpu, 0.0) / alerts * 1e6,
        "peak_mib": finished.peak_mib,
        **({"workers_mib": finished.workers_mib} if processes > 1 else {}),
        "seconds": summary["seconds"],
        "attempts": attempts,
        "unknown_attempts": summary["unknown_attempts"],
    }
