"""`send --processes`: several processes deliver one file, and are really killed."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes_kit import END_S, EVENTS, alive, children, delivered, key_of, line, until, written


@pytest.fixture(autouse=True)
def needs_proc() -> None:
    if not Path(f"/proc/{os.getpid()}/task").exists():
        pytest.skip("no /proc here, so nobody tells which processes a supervisor has started")


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


def test_a_worker_is_not_started_by_hand(site: Any) -> None:
    command = [sys.executable, "-m", "dispatcher.fleet.worker"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "swipebell: this module is started by swipebell run --processes and swipebell send --processes\n"
    )
