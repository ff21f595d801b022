"""``make bench``: alerts a second of the real path into a static sink, beside the raw network in the same run.

The sink is a process of its own that answers at once; everything else is the product: decode, one durable transaction
a batch, rules, rendering, libcurl, outcomes recorded. The machine shares its cores with the sink, and is noisy: read
the ratio, and the median of the rounds.
"""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from dispatcher.config_load import load_config
from dispatcher.intake.feed import feed
from dispatcher.intake.ndjson import open_input
from dispatcher.ledger.worker import ThreadedLedger
from dispatcher.logs import configure_logs
from dispatcher.network.api import PoolSettings, Request, Response
from dispatcher.network.curl import CurlNetwork
from dispatcher.service import SWITCH_INTERVAL_S, service
from dispatcher.summary import summarize
from dispatcher.synth import synthesize

CONNECTIONS = 64
IN_FLIGHT = 2048
BODY_BYTES = 420
"""About what a WeChat template message has."""

ACCOUNTS = 20_000
MERCHANTS = (
    "海底捞火锅",
    "Lawson 便利店",
    "京东商城",
    "Starbucks Coffee",
    "中国石化加油站",
    "Din Tai Fung",
    "盒马鲜生",
)


def bench_events(count: int) -> Iterator[bytes]:
    """Plain purchases, no two alike, spread over ``ACCOUNTS`` accounts: the common case and nothing else. Their ids are
    random, as UUIDs are: for the ledger's index of ids the dearest kind."""
    for number in range(count):
        account = number * 7919 % ACCOUNTS
        digest = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
        yield (
            f'{{"id":"{digest}","account":"62200{account:07}",'
            f'"pan":"************{account % 10_000:04}","amount":{1000 + number * 37 % 500_000},"currency":"CNY",'
            f'"merchant":"{MERCHANTS[number % len(MERCHANTS)]}","mcc":"5812","city":"上海","country":"CN",'
            f'"time":"2026-01-01T12:00:00+08:00","type":"purchase"}}'
        ).encode()


@contextmanager
def static_sink() -> Iterator[str]:
    """A sink process on a free loopback port; yields its URL and stops it."""
    with subprocess.Popen(
        [sys.executable, "-m", "loadtest.sink", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "listening on " not in line:
                raise click.ClickException("the sink did not start")
            yield line.split("listening on ")[1].strip()
        finally:
            process.terminate()


async def raw_network(url: str, requests: int) -> float:
    """Requests a second of the network alone: a fixed body, answers counted and thrown away."""
    network = CurlNetwork({"raw": PoolSettings(connections=CONNECTIONS)})
    headers = ("Content-Type: application/json",)
    request = Request(pool="raw", url=f"{url}/cgi-bin/message/template/send", headers=headers, body=b"x" * BODY_BYTES)
    left, answered, done = requests, 0, trio.Event()

    def deliver(responses: list[Response]) -> None:
        nonlocal answered
        answered += len(responses)
        if any(response.status != 200 for response in responses):
            raise RuntimeError("the sink answered with an error")
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
    submit(IN_FLIGHT)
    await done.wait()
    seconds = time.perf_counter() - started
    await network.aclose()
    return requests / seconds


async def real_path(url: str, events: Path, folder: Path) -> dict[str, Any]:
    """The product's own path over ``events`` with a new ledger; its summary and processor time."""
    for old in sorted(folder.glob("ledger.db*")):  # noqa: ASYNC240 - before the clock starts
        old.unlink()
    (folder / "secret").write_text("bench-secret")
    (folder / "secret").chmod(0o600)
    (folder / "swipebell.toml").write_text(
        f'[channels.wechat]\nbase_url = "{url}"\nappid = "wxbench"\nsecret_file = "secret"\n'
        f"rate_per_second = 100000\nconnections = {CONNECTIONS}\n[engine]\nin_flight = {IN_FLIGHT}\n"
    )
    config = load_config(folder / "swipebell.toml", os.environ)
    ledger = ThreadedLedger(str(config.ledger.path))
    await ledger.import_recipients([synthesize(f"62200{n:07}") for n in range(ACCOUNTS)])
    await ledger.aclose()
    cpu = time.process_time()
    started = time.perf_counter()
    async with service(config, fail_fast=True) as running:
        with open_input(str(events)) as stream:
            await feed(running.engine, stream, restamped=True, on_rejected=print)
        await running.engine.idle()
        seconds = time.perf_counter() - started
        cpu = time.process_time() - cpu
        summary = summarize(running.meter, await running.ledger.books(), seconds)
    if not summary.balanced or summary.alerts["delivered"] != summary.events["read"]:
        raise RuntimeError(f"the books do not balance: {summary}")
    return {**msgspec.to_builtins(summary), "cpu_us_per_alert": round(cpu / summary.events["read"] * 1e6, 1)}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
    }


@click.command()
@click.option("--alerts", default=40_000, show_default=True, help="Events of each round.")
@click.option("--rounds", default=3, show_default=True, help="Rounds; raw network and real path take turns.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures to this file as well.")
def bench(alerts: int, rounds: int, path: Path | None) -> None:
    """Measure the real path and the raw network, in turns, and print both and their ratio."""
    configure_logs("warning")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    raws, paths = [], []
    with static_sink() as url, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        events = folder / "events.ndjson"
        events.write_bytes(b"\n".join(bench_events(alerts)) + b"\n")
        for number in range(1, rounds + 1):
            raws.append(trio.run(raw_network, url, alerts))
            paths.append(trio.run(real_path, url, events, folder))
            click.echo(
                f"round {number}: raw network {raws[-1]:,.0f}/s, real path {paths[-1]['alerts_per_second']:,.0f}/s,"
                f" {paths[-1]['cpu_us_per_alert']} µs of processor an alert"
            )
    raw = statistics.median(raws)
    rate = statistics.median(one["alerts_per_second"] for one in paths)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(f"{machine()}")
    click.echo("")
    click.echo("| what (median of the rounds) | a second |")
    click.echo("|---|---:|")
    click.echo(f"| raw network, requests into the static sink | {raw:,.0f} |")
    click.echo(f"| real path, durable alerts, one process | {rate:,.0f} |")
    click.echo(f"| ratio | {rate / raw:.2f} |")
    click.echo(
        f"| processor per alert, this process (µs) | {statistics.median(p['cpu_us_per_alert'] for p in paths)} |"
    )
    click.echo(f"| peak resident memory (MB) | {peak:,.0f} |")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = {"machine": machine(), "raw_per_second": raws, "rounds": paths, "peak_mb": round(peak)}
        path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2))
        click.echo(f"wrote {path}")


if __name__ == "__main__":
    bench()
