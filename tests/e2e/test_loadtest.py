"""``swipebell loadtest`` as it is typed: its own engine, a running one, an interrupt, and bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtest.load.machine import ProcessTree

SHORT = ("--rate", "300", "--duration", "4", "--accounts", "500", "--json")
PATIENCE_S = 60.0


def loadtest(site: Any, *options: str, status: int = 0) -> tuple[dict[str, Any], str]:
    out, err = site.run("loadtest", *options, status=status)
    found: dict[str, Any] = json.loads(out)
    return found, err


def swipes(count: int, *, amount: int) -> list[dict[str, Any]]:
    """As many swipes of this amount, in fen, of seven accounts."""
    return [
        {
            "id": f"r{n}",
            "account": f"A{n % 7}",
            "amount": amount,
            "currency": "CNY",
            "time": f"2020-01-01T00:00:{n % 60:02}Z",
        }
        for n in range(count)
    ]


def nothing_left(folder: Path) -> bool:
    """Whether no process works in this folder any more; what a load test starts inherits it."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and (entry / "cwd").readlink() == folder:
                return False
        except OSError:  # it has just ended, or is another user's
            continue
    return True


@contextmanager
def started(site: Any, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A load test in the folder ``world`` that is not left running, whatever the test finds."""
    process: subprocess.Popen[str] = site.start("loadtest", *options, "--dir", "world", "--accounts", "100", "--json")
    try:
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    for _ in range(2):  # the second does not wait for anything any more
                        process.send_signal(signal.SIGINT)
                        time.sleep(0.5)
    finally:
        process.kill()


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def flowing(site: Any) -> bool:
    """Whether events have been flowing for a while."""
    log = site.folder / "world" / "ledger.db-wal"
    return log.exists() and log.stat().st_size > 400_000


@pytest.mark.parametrize("processes", [1, 2])
def test_every_event_of_an_open_loop_is_delivered_and_both_books_say_so(site: Any, processes: int) -> None:
    report = site.folder / "f.html"
    found, _ = loadtest(
        site,
        *(*SHORT, "--processes", str(processes), "--dir", "world", "--report", str(report)),
        *("--assert", "lost==0", "duplicates==0", "--assert", "p99<5s", "mb<400"),
    )
    events, test = found["events"], found["loadtest"]
    # About 300 a second for 4 seconds, all of them accepted, delivered and shown
    assert 1000 < events["read"] < 1400
    assert events["accepted"] == events["read"] == found["alerts"]["delivered"]
    assert test["books"]["providers_delivered"] == test["books"]["accepted"] == events["read"]
    assert (test["books"]["lost"], test["books"]["duplicates"], test["books"]["open"]) == (0, 0, 0)
    assert found["balanced"] is True
    assert [one["holds"] for one in test["verdicts"]] == [True] * 4
    # From the schedule to the answer of a provider that takes 20 ms
    assert 20 <= found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert [one["name"] for one in test["latencies"]] == ["accepted by the provider", "acknowledged"]
    assert test["generator"]["scheduled"] == events["read"]
    page = report.read_text()
    assert "<html" in page.lower()
    # The kept folder explains each of them, and nothing runs any more
    assert (site.folder / "world" / "ledger.db").exists()
    assert nothing_left(site.folder)


def test_faults_and_a_process_killed_in_mid_run_lose_nothing(site: Any) -> None:
    found, _ = loadtest(
        site,
        *("--rate", "100", "--duration", "9", "--accounts", "200", "--json"),
        *("--faults", "lossy", "--kill-every", "4", "--assert", "lost==0"),
    )
    test = found["loadtest"]
    assert test["generator"]["kills"] >= 1
    assert test["generator"]["reconnected"] >= 1
    assert test["books"]["lost"] == 0
    assert test["books"]["duplicates"] <= test["books"]["unknown"]
    assert test["retries"]["no answer"] > 0
    assert found["alerts"]["open"] == 0


def test_text_messages_of_the_fallback_are_no_duplicates(site: Any) -> None:
    # Given 200 swipes of 200 yuan, large enough for a text message each, and providers that lose half of all reports
    (site.folder / "e.ndjson").write_text("".join(json.dumps(swipe) + "\n" for swipe in swipes(200, amount=20_000)))
    found, _ = loadtest(
        site,
        *("--events", "e.ndjson", "--rate", "100", "--json"),
        *("--faults", "lost-receipts,receipt_lost=0.5", "--assert", "lost==0", "duplicates==0"),
    )
    events, books = found["events"]["read"], found["loadtest"]["books"]
    # Then each is one message of WeChat, and those that are sent besides (about half: seven standard deviations either
    # way) are counted as nothing else
    texts = found["by_channel"]["sms"]["attempts"]
    assert events // 4 < texts < events * 3 // 4
    assert found["by_channel"]["wechat"]["attempts"] == books["providers_delivered"] == events == 200
    assert (books["lost"], books["duplicates"], books["open"]) == (0, 0, 0)


def test_an_assertion_that_does_not_hold_is_status_1_and_said(site: Any) -> None:
    found, err = loadtest(site, *SHORT, "--assert", "p99<1ms", "--assert", "lost==0", status=1)
    assert [one["holds"] for one in found["loadtest"]["verdicts"]] == [False, True]
    assert "p99<1ms does not hold" in err


def test_recorded_events_are_played_and_broken_lines_named(site: Any) -> None:
    texts = [json.dumps(swipe) for swipe in swipes(200, amount=100)]
    texts[50:50] = ["this is no JSON", '{"id":"x"}', texts[3]]
    (site.folder / "e.ndjson").write_text("\n".join(texts) + "\n")
    found, err = loadtest(site, "--events", "e.ndjson", "--rate", "200", "--json", status=3)
    assert found["events"] == {"read": 203, "accepted": 200, "duplicate": 1, "rejected": 2}
    assert found["alerts"]["delivered"] == 200
    assert "line 51: not JSON" in err
    assert "line 52: field account: missing" in err
    assert "2 broken lines were not played" in err


def test_an_interrupt_ends_the_arrivals_and_writes_what_was_seen(site: Any) -> None:
    report = site.folder / "i.html"
    with started(site, "--rate", "200", "--duration", "600", "--report", str(report)) as process:
        wait_until(process, lambda: flowing(site))
        assert not nothing_left(site.folder)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    found = json.loads(out)
    assert found["loadtest"]["interrupted"] is True
    assert found["loadtest"]["books"]["lost"] == 0
    assert found["alerts"]["delivered"] > 0
    assert found["seconds"] < 60
    assert "interrupted after" in err
    assert report.exists()
    assert nothing_left(site.folder)


def test_an_interrupt_before_the_first_arrival_is_one_line_and_leaves_nothing_running(site: Any) -> None:
    with started(site, "--rate", "200", "--duration", "600") as process:
        wait_until(process, (site.folder / "world" / "providers.log").exists)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert err.strip() == "swipebell: the load test was stopped before it had seen anything; nothing was kept"
    assert nothing_left(site.folder)


def test_an_engine_that_ends_by_itself_ends_the_load_test_with_what_was_seen(site: Any) -> None:
    with started(site, "--rate", "200", "--duration", "600") as process:
        wait_until(process, lambda: flowing(site))
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in ProcessTree(process.pid).workers()}
        (engine,) = [pid for pid, command in commands.items() if "dispatcher" in command.split("\0")]
        os.kill(engine, signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert json.loads(out)["loadtest"]["books"]["lost"] == 0
    assert "the engine ended by itself, killed by SIGKILL" in err
    assert nothing_left(site.folder)


class TestARunningEngine:
    @contextmanager
    def engine(self, site: Any, url: str, free_port: Callable[[], int]) -> Iterator[tuple[int, int, int]]:
        http, stream, metrics = free_port(), free_port(), free_port()
        (site.folder / "token").write_text("t-o-k")
        (site.folder / "token").chmod(0o600)
        site.configure(
            url,
            extra=f'[intake.http]\nlisten = "127.0.0.1:{http}"\ntoken_file = "token"\n[intake.stream]\n'
            f'listen = "127.0.0.1:{stream}"\ntoken_file = "token"\n[metrics]\nlisten = "127.0.0.1:{metrics}"\n',
        )
        site.run("loadtest", *SHORT[:-1], "--write-recipients", "people.ndjson")
        site.run("recipients", "import", "people.ndjson")
        process: subprocess.Popen[str] = site.start("run")
        try:
            assert process.stderr is not None
            assert any('"listening"' in line for line in process.stderr)
            yield http, stream, metrics
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)

    def test_it_is_measured_by_its_providers_or_by_its_acknowledgements_alone(
        self, site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
    ) -> None:
        simulated = providers("--latency", "0.02")
        with self.engine(site, simulated.url, free_port) as (http, stream, metrics):
            watched = ("--token-file", "token", "--metrics", f"http://127.0.0.1:{metrics}")
            # When it is loaded over the stream, with a look into the providers' book
            found, err = loadtest(
                site,
                *(*SHORT, *watched, "--target", f"tcp://127.0.0.1:{stream}", "--providers", simulated.url),
                *("--assert", "p99<5s", "--assert", "open==0"),
            )
            read = found["events"]["read"]
            assert found["loadtest"]["books"]["providers_delivered"] == found["alerts"]["delivered"] == read > 1000
            assert found["latency_ms"]["p50"] >= 20
            assert "not measured" not in err
            # And over HTTP, without: then it says that the provider side was not measured
            found, err = loadtest(
                site, *SHORT, *watched, "--target", f"http://127.0.0.1:{http}", "--assert", "ack_p99<5s"
            )
            assert found["events"]["accepted"] == found["events"]["read"] > 1000
            assert [one["name"] for one in found["loadtest"]["latencies"]] == ["acknowledged"]
            assert "the provider side was not measured" in err

            # A wrong token is said before anything is sent
            for target in (f"tcp://127.0.0.1:{stream}", f"http://127.0.0.1:{http}"):
                _, err = site.run("loadtest", *SHORT, "--target", target, status=2)
                assert "--token-file" in err


BAD = [
    (("--rate", "0"), 2, "a rate must be above 0"),
    (("--rate", "5000000"), 2, "the generator, not the engine, would be the limit"),
    (("--rate", "500", "--duration", "80000"), 2, "a run can keep account of 2,000,000"),
    (("--duration", "0"), 2, "--duration 0: allowed is above 0"),
    (("--duration", "-1"), 2, "--duration -1"),
    (("--profile", "xmas"), 2, "known are cmb-2013"),
    (("--profile", "flat", "--rate", "5"), 2, "keep one of the two"),
    (("--profile", "flat", "--start", "24:00"), 2, "allowed is HH:MM"),
    (("--faults", "stormy"), 2, "known are calm"),
    (("--assert", "p99<200"), 2, "needs its unit"),
    (("--assert", "lost=0"), 2, "allowed is METRIC OPERATOR VALUE"),
    (("--assert", "lost==0", "p99"), 2, "allowed is METRIC OPERATOR VALUE"),
    (("lost==0",), 2, "belongs behind --assert"),
    (("--accounts", "10000001"), 2, "allowed is 1 to 10,000,000"),
    (("--accounts", "0"), 2, "allowed is 1 to 10,000,000"),
    (("--report", "no/such/folder/f.html"), 2, "does not exist; name another file"),
    (("--report", "."), 2, "cannot be written: Is a directory"),
    (("--events", "missing.ndjson"), 1, "missing.ndjson: no such file"),
    (("--events", "empty"), 1, "holds no event; it is empty"),
    (("--target", "tcp://127.0.0.1:1"), 1, "cannot be reached (connection refused)"),
    (("--target", "http://127.0.0.1:1"), 1, "cannot be reached"),
    (("--target", "ftp://x"), 2, "allowed is http://HOST:PORT"),
    (("--target", "tcp://h:1", "--assert", "p99<1s"), 2, "not measured here"),
    (("--target", "tcp://h:1", "--kill-every", "5"), 2, "leave it or --target away"),
    (("--providers", "http://127.0.0.1:1"), 2, "belongs to a --target"),
]


@pytest.mark.parametrize(("options", "status", "words"), BAD, ids=[" ".join(options) for options, _, _ in BAD])
def test_bad_input_is_one_line_before_anything_is_started(
    site: Any, options: tuple[str, ...], status: int, words: str
) -> None:
    (site.folder / "empty").touch()
    before = sorted(site.folder.iterdir())
    out, err = site.run("loadtest", *options, status=status)
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("swipebell: ")
    assert words in err
    assert sorted(site.folder.iterdir()) == before
