"""Helpers for tests of several processes: lines, workers, and a service of two."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

EVENTS = 3_000
COMMAND_S = 900 if os.environ.get("SWIPEBELL_SOAK") else 120
"""Longest that any command of a test may take; none comes near it."""
END_S = 90
"""Longest that anything else here is waited for; nothing comes near it."""


def line(number: int, **changes: Any) -> str:
    event = {
        "id": f"p-{number:06}",
        "account": f"acc-{number % 97}",
        "pan": f"************{number % 10_000:04}",
        "amount": 9_000 + number % 4_000,
        "currency": "CNY",
        "merchant": f"店铺 {number % 50}",
        "time": "2099-11-22T10:00:00+08:00",
        **changes,
    }
    return json.dumps(event, ensure_ascii=False)


def large(number: int) -> int:
    """An amount that is large enough for an SMS."""
    return 20_000 + number


def written(site: Any, count: int = EVENTS, name: str = "events.ndjson", **changes: Any) -> Path:
    """A file of so many swipes. A change that can be called gives each number's own value."""

    def changed(number: int) -> str:
        return line(number, **{field: value(number) if callable(value) else value for field, value in changes.items()})

    path: Path = site.folder / name
    path.write_text("\n".join(map(changed, range(count))) + "\n")
    return path


def zone_where_it_is_noon() -> str:
    """So that no day ends while a test runs."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+}"


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that live."""
    # Each thread has its own: trio starts processes from a thread of its pool.
    lists = [thread.joinpath("children").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    return sorted(int(one) for text in lists for one in text.split())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(condition: Callable[[], Any], what: str) -> float:
    """Look again and again until it is so; returns the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < END_S, f"waited {END_S} s for {what}"
        time.sleep(0.01)
    return time.monotonic() - started


def delivered(site: Any) -> set[str]:
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        rows = connection.execute(
            "SELECT e.id FROM alerts a JOIN events e ON e.seq = a.id / 16 WHERE a.state = 'delivered'"
        )
        return {row[0] for row in rows}


def key_of(number: int) -> str:
    """The provider's key of an alert, worked out without the product's code."""
    return hashlib.blake2b(f"acc-{number % 97}\0primary\0p-{number:06}".encode(), digest_size=16).hexdigest()


class Service:
    def __init__(self, process: subprocess.Popen[str], intake: str, metrics: str) -> None:
        self.process = process
        self.http = httpx.Client(base_url=intake, timeout=END_S)
        self.metrics = httpx.Client(base_url=metrics, timeout=END_S)
        self.log: list[str] = []

    @property
    def workers(self) -> list[int]:
        return children(self.process.pid)

    def scrape(self) -> dict[str, float]:
        samples = {}
        for sample in self.metrics.get("/metrics").text.splitlines():
            if not sample.startswith("#"):
                name, _, value = sample.rpartition(" ")
                samples[name] = float(value)
        return samples

    def post(self, *events: str) -> None:
        # A connection of its own each time, so that any worker may take it.
        answer = self.http.post("/v1/events", content="\n".join(events).encode(), headers={"Connection": "close"})
        assert answer.status_code == 202, answer.text
        assert answer.json() == {"accepted": len(events), "duplicate": 0, "rejected": []}

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=END_S)
        return "".join(self.log) + rest


@contextmanager
def serving(site: Any, free_port: Callable[[], int], extra: str = "", **options: Any) -> Iterator[Service]:
    intake, metrics = free_port(), free_port()
    text = (site.folder / "swipebell.toml").read_text()
    text += f'[intake.http]\nlisten = "127.0.0.1:{intake}"\n[metrics]\nlisten = "127.0.0.1:{metrics}"\n{extra}'
    (site.folder / "swipebell.toml").write_text(text)
    process = site.start("run", "--processes", "2", **options)
    service = Service(process, f"http://127.0.0.1:{intake}", f"http://127.0.0.1:{metrics}")
    workers: list[int] = []
    try:
        assert process.stderr is not None
        for told in process.stderr:
            service.log.append(told)
            if '"listening"' in told:
                break
        else:
            pytest.fail("the service ended: " + "".join(service.log))
        workers = service.workers
        assert len(workers) == 2
        yield service
    finally:
        service.http.close()
        service.metrics.close()
        workers += children(process.pid) if process.poll() is None else []
        if process.poll() is None:
            process.kill()
            process.communicate()
        until(lambda: not any(map(alive, workers)), "the workers' end")


class Feed:
    """A connection to the stream listener that stays open."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=END_S)
        self.answers = self.socket.makefile()

    def send(self, *lines: str) -> None:
        """Send lines and wait until they are durable."""
        self.socket.sendall("".join(f"{one}\n" for one in lines).encode())
        accepted = 0
        while accepted < len(lines):
            accepted += json.loads(self.answers.readline())["accepted"]

    def close(self) -> None:
        self.answers.close()
        self.socket.close()


def established(pid: int, port: int) -> int:
    """How many connections to a local port a process holds."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" and row[9] in inodes for row in rows)


def owned(site: Any) -> list[tuple[int, int]]:
    """(owner, alerts it holds)."""
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        return connection.execute(
            "SELECT owner, count(*) FROM alerts WHERE owner IS NOT NULL AND ended_at IS NULL GROUP BY owner"
        ).fetchall()


def owners(site: Any) -> dict[int, str]:
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        return dict(connection.execute("SELECT id, name FROM processes").fetchall())


def fail_writes(pid: int, *, beyond: int) -> None:
    """From now on no file may grow beyond so many bytes in this process; what tries fails with EFBIG."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (beyond, beyond))


def with_error(service: Service, event: str) -> None:
    """Post an event to a service that may be ending."""
    try:
        service.http.post("/v1/events", content=event.encode(), headers={"Connection": "close"})
    except httpx.HTTPError:
        time.sleep(0.05)
