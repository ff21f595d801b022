"""Several processes as one: `send --processes` and `run --processes`, with real processes that are really killed."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

EVENTS = 3_000
END_S = 30
"""Longest that anything here is waited for; nothing comes near it."""


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


def written(site: Any, count: int = EVENTS, name: str = "events.ndjson") -> Path:
    path: Path = site.folder / name
    path.write_text("\n".join(map(line, range(count))) + "\n")
    return path


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


@pytest.fixture(autouse=True)
def needs_proc() -> None:
    if not Path(f"/proc/{os.getpid()}/task").exists():
        pytest.skip("no /proc here, so nobody tells which processes a supervisor has started")


# ---- send ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["file", "gzip", "stdin"])
def test_two_processes_deliver_a_file_and_the_books_balance(
    site: Any, providers: Callable[..., Any], source: str
) -> None:
    # Given a file with a few lines that are no events, and one event twice, as a file, gzipped, or piped in
    provider = providers("--latency", "0.002", "--faults", "busy=0.01")
    site.configure(provider.url, sms=False)
    events = written(site)
    site.recipients_for(events)
    lines = events.read_text().splitlines()
    lines[7], lines[2_500] = "this is no event", line(2_500, amount=1.5)
    lines[1] = ""
    text = ("\n".join(lines) + "\n" + line(3)).encode()
    options: dict[str, Any] = {}
    name = "mixed.ndjson"
    (site.folder / name).write_bytes(gzip.compress(text) if source == "gzip" else text)
    if source == "stdin":
        options["stdin"] = (site.folder / name).open("rb")
        name = "-"

    # When it is sent by two processes
    out, err = site.run(
        *("send", name, "--restamp", "--json", "--processes", "2", "--rejected", "rejected.ndjson"), status=3, **options
    )
    if source == "stdin":
        options["stdin"].close()

    # Then every line is accounted for, and the rejected ones are named by their number in the file
    summary = json.loads(out)
    good = EVENTS - 3
    assert summary["events"] == {"read": EVENTS, "accepted": good, "duplicate": 1, "rejected": 2}
    rejected = [json.loads(one) for one in (site.folder / "rejected.ndjson").read_text().splitlines()]
    assert sorted((one["line"], one["id"], one["field"]) for one in rejected) == [
        (8, None, None),
        (2_501, "p-002500", "amount"),
    ]
    assert "line 2,501 (id p-002500): field amount" in err
    # And the summary, the ledger's books and the provider's agree
    assert summary["balanced"] is True
    assert summary["alerts"]["delivered"] == good
    assert summary["alerts"]["open"] == 0
    assert summary["by_channel"]["wechat"]["delivered"] == good
    assert summary["by_channel"]["wechat"]["attempts"] >= provider.book()["wechat"]["delivered"] == good
    assert summary["latency_ms"]["p50"] >= 2
    shown = Counter(message["client_msg_id"] for message in provider.messages("wechat"))
    assert shown == Counter({key_of(number): 1 for number in range(EVENTS) if number not in (1, 7, 2_500)})
    # And both processes had a part in it
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (good,)
    # When the same is sent again, then nobody is told twice
    again = site.send(name if name != "-" else "mixed.ndjson", "--processes", "2", status=3)
    assert again["events"] == {"read": EVENTS, "accepted": 0, "duplicate": good + 1, "rejected": 2}
    assert again["alerts"]["delivered"] == 0


def test_a_worker_killed_in_mid_send_loses_nothing(site: Any, providers: Callable[..., Any]) -> None:
    # Given two processes in the middle of a file, with a provider that takes its time
    provider = providers("--latency", "0.03")
    site.configure(provider.url, sms=False)
    events = written(site)
    site.recipients_for(events)
    with site.start("send", str(events), "--restamp", "--json", "--processes", "2") as process:
        until(lambda: provider.book()["wechat"]["delivered"] > EVENTS // 8, "the first alerts")
        # When one of them is killed
        victim = children(process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        out, err = process.communicate(timeout=END_S)
    assert process.returncode == 0, err

    # Then another was started, and every line of the file is in the books once
    assert '"worker_ended"' in err
    assert "SIGKILL" in err
    summary = json.loads(out)
    assert summary["events"] == {"read": EVENTS, "accepted": EVENTS, "duplicate": 0, "rejected": 0}
    assert summary["balanced"] is True
    assert summary["alerts"] == {
        **dict.fromkeys(("suppressed", "failed", "expired", "cancelled", "open"), 0),
        "delivered": EVENTS,
    }
    assert delivered(site) == {f"p-{number:06}" for number in range(EVENTS)}
    # And no cardholder saw an alert twice; what the provider was asked twice is marked unknown
    messages = provider.messages("wechat")
    assert Counter(one["client_msg_id"] for one in messages) == Counter(key_of(number) for number in range(EVENTS))
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        unknown = {
            row[0]
            for row in connection.execute(
                "SELECT e.id FROM attempts t JOIN events e ON e.seq = t.alert / 16 WHERE t.outcome = 'unknown'"
            )
        }
    twice = {one["client_msg_id"] for one in messages if one["times_seen"] > 1}
    assert twice <= {key_of(int(one.removeprefix("p-"))) for one in unknown}
    assert unknown  # or the kill hit nothing in flight, and this test showed nothing
    assert summary["unknown_attempts"] == len(unknown)


def test_ctrl_c_ends_a_send_in_good_order(site: Any, providers: Callable[..., Any]) -> None:
    # Given two processes in the middle of a file
    provider = providers("--latency", "0.03")
    site.configure(provider.url, sms=False)
    events = written(site)
    site.recipients_for(events)
    with site.start("send", str(events), "--restamp", "--json", "--processes", "2") as process:
        until(lambda: provider.book()["wechat"]["delivered"] > 100, "the first alerts")
        workers = children(process.pid)
        # When the operator interrupts it
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=END_S)
    # Then it says so, and what was in flight has been recorded
    assert (process.returncode, out) == (130, "")
    assert "interrupted; what was accepted is in the ledger" in err
    assert not any(map(alive, workers))
    # And the same command goes on where it stopped, nothing of unknown outcome
    summary = site.send(events, "--processes", "2")
    assert summary["ledger"]["alerts"]["delivered"] == EVENTS
    assert summary["ledger"]["unknown_attempts"] == 0
    assert provider.book()["wechat"]["requests"] == EVENTS


def test_an_input_that_breaks_off_is_told_after_what_came_before(site: Any, providers: Callable[..., Any]) -> None:
    provider = providers()
    site.configure(provider.url, sms=False)
    events = written(site, 2_000)
    site.recipients_for(events)
    (site.folder / "cut.gz").write_bytes(gzip.compress(events.read_bytes())[:-2_000])
    _, err = site.run("send", "cut.gz", "--restamp", "--processes", "2", status=1)
    assert "cut.gz: the gzip data is cut off at line " in err
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        (taken,) = connection.execute("SELECT count(*) FROM events").fetchone()
    assert f"at line {taken + 1:,};" in err


@pytest.mark.parametrize("command", [("run",), ("send", "events.ndjson")])
def test_a_wrong_number_of_processes_is_refused(site: Any, providers: Callable[..., Any], command: tuple[str]) -> None:
    site.configure("http://127.0.0.1:1", sms=False, extra="")
    written(site, 1)
    for wrong in ("0", "65", "two"):
        _, err = site.run(*command, "--processes", wrong, status=2)
        assert "--processes" in err
        assert "1<=x<=64" in err or "not a valid integer" in err
    # And so are more than a channel's limits can be shared by
    config = site.folder / "swipebell.toml"
    config.write_text(config.read_text().replace("connections = 32", "connections = 2"))
    _, err = site.run(*command, "--processes", "3", status=2)
    assert "channels.wechat.connections is 2" in err


def test_a_wrong_secret_ends_all_with_one_line(site: Any, providers: Callable[..., Any]) -> None:
    provider = providers()
    site.configure(provider.url, sms=False)
    site.secret.write_text("wrong")
    written(site, 10)
    for command in (("send", "events.ndjson"), ("run",)):
        _, err = site.run(*command, "--processes", "2", status=2)
        assert err.count("swipebell: channel wechat:") == 1


def test_a_file_that_is_no_ledger_is_one_line(site: Any, providers: Callable[..., Any]) -> None:
    provider = providers()
    site.configure(provider.url, sms=False)
    written(site, 10)
    (site.folder / "ledger.db").write_bytes(b"no ledger at all" * 1000)
    _, err = site.run("send", "events.ndjson", "--processes", "2", status=1)
    assert "is not a ledger" in err
    assert len(err.splitlines()) == 1


# ---- run ----------------------------------------------------------------------------------------------------------


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


def test_one_address_answers_for_all_processes(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service of two processes
    provider = providers()
    site.configure(provider.url, sms=False)
    site.recipients_for(written(site, 200))
    (site.folder / "token").write_text("scrape-me")
    with serving(site, free_port) as service:
        # When many connections bring events, then both processes have some, and /metrics knows all of them
        for number in range(0, 200, 4):
            service.post(*map(line, range(number, number + 4)))
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
        samples = service.scrape()
        assert samples['swipebell_events_total{result="accepted"}'] == 200
        assert samples['swipebell_alerts_ended_total{state="delivered"}'] == 200
        assert samples["swipebell_delivery_latency_seconds_count"] == 200
        assert samples["swipebell_swipe_to_acceptance_seconds_count"] == 200
        assert samples['swipebell_lane_queued_alerts{channel="wechat"}'] == 0
        assert samples["swipebell_processes_ready"] == 2
        assert service.metrics.get("/healthz").json() == {"status": "ok", "processes": {"wanted": 2, "ready": 2}}
        assert service.http.get("/healthz").status_code == 200
        assert provider.book()["wechat"]["delivered"] == 200

        # When one process is killed, then no sum goes down, and another takes its place
        survivor, victim = service.workers
        os.kill(victim, signal.SIGKILL)
        seen = [service.scrape()]
        until(lambda: seen.append(service.scrape()) or seen[-1]["swipebell_process_deaths_total"] == 1, "the death")
        until(lambda: seen.append(service.scrape()) or seen[-1]["swipebell_processes_ready"] == 2, "the new process")
        for number in range(200, 220):
            service.post(line(number))
            seen.append(service.scrape())
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
        seen.append(service.scrape())
        sums = [name for name in samples if "_total" in name or name.endswith(("_count", "_sum"))]
        assert len(sums) > 8
        for before, after in itertools.pairwise(seen):
            assert [name for name in sums if after[name] < before[name]] == []
        assert seen[-1]['swipebell_events_total{result="accepted"}'] == 220
        assert seen[-1]['swipebell_alerts_ended_total{state="delivered"}'] == 220
        assert seen[-1]["swipebell_process_deaths_total"] == 1
        assert survivor in service.workers
        # And all end in good order
        log = service.end()
        assert service.process.returncode == 0, log
    assert "Traceback" not in log
    assert "店铺" not in log


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


def test_connections_that_stay_open_are_shared_too(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service of two processes with a stream listener
    provider = providers()
    site.configure(provider.url, sms=False)
    site.recipients_for(written(site, 100))
    stream = free_port()
    with (
        serving(site, free_port, f'[intake.stream]\nlisten = "127.0.0.1:{stream}"\n') as service,
        ExitStack() as open_ones,
    ):
        # When ten connections are opened, bring ten lines each, and stay
        for number in range(10):
            feed = open_ones.enter_context(closing(Feed(stream)))
            feed.send(*map(line, range(number * 10, number * 10 + 10)))
        # Then each process has its part of them
        counts = [established(pid, stream) for pid in service.workers]
        assert sum(counts) == 10
        assert min(counts) >= 2, counts
        # And all are delivered and counted
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
        assert service.scrape()['swipebell_alerts_ended_total{state="delivered"}'] == 100
        assert provider.book()["wechat"]["delivered"] == 100
        service.end()
        assert service.process.returncode == 0


def established(pid: int, port: int) -> int:
    """How many connections to a local port a process holds."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" and row[9] in inodes for row in rows)


def test_metrics_want_their_token(site: Any, providers: Callable[..., Any], free_port: Callable[[], int]) -> None:
    site.configure(providers().url, sms=False)
    (site.folder / "token").write_text("scrape-me")
    (site.folder / "token").chmod(0o600)
    with serving(site, free_port, 'token_file = "token"\n') as service:
        assert service.metrics.get("/metrics").status_code == 401
        with_token = service.metrics.get("/metrics", headers={"Authorization": "Bearer scrape-me"})
        assert with_token.status_code == 200
        service.end()
        assert service.process.returncode == 0


def test_what_a_dead_process_held_is_taken_over_within_ten_seconds(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service whose two processes hold alerts that their lanes will send for a long time
    provider = providers()
    site.configure(provider.url, sms=False)
    config = site.folder / "swipebell.toml"
    config.write_text(config.read_text().replace("rate_per_second = 50000", "rate_per_second = 40"))
    site.recipients_for(written(site, 150))
    stream = free_port()
    with (
        serving(site, free_port, f'[intake.stream]\nlisten = "127.0.0.1:{stream}"\n') as service,
        ExitStack() as open_ones,
    ):
        feeds = []
        while not all(established(pid, stream) for pid in service.workers):
            feeds.append(open_ones.enter_context(closing(Feed(stream))))
            feeds[-1].send(line(len(feeds)))
        assert len(feeds) < 20
        for number in range(20, 150):
            feeds[number % len(feeds)].send(line(number))
        held = dict(owned(site))
        assert len(held) == 2, held
        # When one is killed
        victim = service.workers[0]
        os.kill(victim, signal.SIGKILL)
        dead = next(owner for owner, name in owners(site).items() if name.endswith(f":{victim}"))
        # Then soon none of its alerts is leased to it any more
        seconds = until(lambda: dead not in dict(owned(site)), "the take-over")
        assert seconds < 10
        # And all are delivered
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
        sent = {key_of(number) for number in (*range(1, len(feeds) + 1), *range(20, 150))}
        assert provider.book()["wechat"]["delivered"] == len(sent)
        assert {m["client_msg_id"] for m in provider.messages("wechat")} == sent
        service.end()
        assert service.process.returncode == 0


def owned(site: Any) -> list[tuple[int, int]]:
    """(owner, alerts it holds)."""
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        return connection.execute(
            "SELECT owner, count(*) FROM alerts WHERE owner IS NOT NULL AND ended_at IS NULL GROUP BY owner"
        ).fetchall()


def owners(site: Any) -> dict[int, str]:
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        return dict(connection.execute("SELECT id, name FROM processes").fetchall())


def test_sigterm_drains_all_processes(site: Any, providers: Callable[..., Any], free_port: Callable[[], int]) -> None:
    # Given two processes with alerts in flight at a slow provider, and more waiting
    provider = providers("--latency", "0.5")
    site.configure(provider.url, sms=False)
    site.recipients_for(written(site, 200))
    with serving(site, free_port) as service:
        for start in range(0, 200, 20):
            service.post(*map(line, range(start, start + 20)))
        # When the supervisor is told to stop
        log = service.end()
        assert service.process.returncode == 0, log
    assert '"worker_ended"' not in log
    # Then every answer that was under way was taken, and the rest was given back untouched
    events = site.folder / "none.ndjson"
    events.write_text("")
    summary = site.send(events, "--processes", "2")
    assert summary["ledger"]["alerts"]["delivered"] == 200
    assert summary["ledger"]["unknown_attempts"] == 0
    assert provider.book()["wechat"]["requests"] == 200


def test_a_second_signal_does_not_wait_for_the_drain(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given alerts in flight at a provider that answers in half a minute
    provider = providers("--latency", "30")
    site.configure(provider.url, sms=False)
    config = site.folder / "swipebell.toml"
    config.write_text(config.read_text().replace("connections = 32", "connections = 32\ntimeout_seconds = 60"))
    site.recipients_for(written(site, 4))
    with serving(site, free_port) as service:
        service.post(*map(line, range(4)))
        until(lambda: provider.book()["wechat"]["requests"] == 4, "the requests")
        workers = service.workers
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stderr is not None
        until(lambda: '"stopping"' in service.process.stderr.readline(), "the first signal")  # type: ignore[union-attr]
        # When the operator insists
        started = time.monotonic()
        log = service.end(signal.SIGINT)
        # Then it ends at once
        assert time.monotonic() - started < 5
    assert '"killing"' in log
    assert not any(map(alive, workers))


def test_workers_end_by_themselves_when_the_supervisor_is_killed(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service with alerts in flight
    provider = providers("--latency", "0.3")
    site.configure(provider.url, sms=False)
    site.recipients_for(written(site, 100))
    with serving(site, free_port) as service:
        for start in range(0, 100, 10):
            service.post(*map(line, range(start, start + 10)))
        workers = service.workers
        # When the supervisor is killed
        service.process.kill()
        service.process.communicate()
        until(lambda: not any(map(alive, workers)), "the workers' end")
        port = service.http.base_url.port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port or 0), timeout=5)
    # Then they had drained: nothing is lost, nothing is of unknown outcome
    (site.folder / "none.ndjson").write_text("")
    summary = site.send("none.ndjson")
    assert summary["ledger"]["alerts"]["delivered"] == 100
    assert summary["ledger"]["unknown_attempts"] == 0


def test_one_whose_disk_fails_stops_all(site: Any, providers: Callable[..., Any], free_port: Callable[[], int]) -> None:
    # Given a service
    site.configure(providers().url, sms=False)
    site.recipients_for(written(site, 200))
    with serving(site, free_port) as service:
        service.post(*map(line, range(10)))
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the first alerts")
        workers = service.workers
        # When for one of its processes every write to the ledger's log fails from now on
        victim = workers[0]
        fail_writes(victim, beyond=(site.folder / "ledger.db-wal").stat().st_size)
        for number in range(10, 200):
            with_error(service, line(number))
            if service.process.poll() is not None:
                break
        _, rest = service.process.communicate(timeout=END_S)
    # Then both end, with the reason in one line and the exit status of a failure
    assert service.process.returncode == 1, rest
    last = rest.splitlines()[-1]
    assert last.startswith(f"swipebell: ledger {site.folder}/ledger.db: the disk failed (SQLITE_IOERR")
    assert rest.count("swipebell: ledger") == 1
    assert not any(map(alive, workers))


def fail_writes(pid: int, *, beyond: int) -> None:
    """From now on no file may grow beyond so many bytes in this process; what tries fails with EFBIG."""
    import resource

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (beyond, beyond))


def with_error(service: Service, event: str) -> None:
    """Post an event to a service that may be ending."""
    try:
        service.http.post("/v1/events", content=event.encode(), headers={"Connection": "close"}, timeout=5)
    except httpx.HTTPError:
        time.sleep(0.05)


# ---- a worker by itself --------------------------------------------------------------------------------------------


def test_a_worker_is_not_started_by_hand(site: Any) -> None:
    command = [sys.executable, "-m", "dispatcher.fleet.worker"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "swipebell: this module is started by swipebell run --processes and swipebell send --processes\n"
    )
