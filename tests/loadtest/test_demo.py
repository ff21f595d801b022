"""``swipebell demo`` as it is typed: a process that starts others, ends by itself and leaves nothing behind."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

MAIN = "from dispatcher.cli.main import main; main()"
PATIENCE_S = 60.0
DATE = "2099-11-17"
"""A day with broken lines and with cards that nobody masked, as not every one has; no swipe of it is too old."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", MAIN, *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> Sequence[str]:
    return "demo", "--events", "4000", "--accounts", "400", "--date", DATE, "--dir", str(folder)


@pytest.fixture(scope="module")
def as_json(demo: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return run(*demo, "--json")


def test_it_ends_well_with_one_json_object_and_nothing_else(as_json: subprocess.CompletedProcess[str]) -> None:
    assert (as_json.returncode, as_json.stderr) == (0, "")
    assert len(as_json.stdout.splitlines()) == 1
    found = json.loads(as_json.stdout)
    # Every line is accounted for
    events, generated = found["events"], found["generated"]
    assert events["read"] == 4000 == generated["lines"]
    assert [events[name] for name in ("accepted", "duplicate", "rejected")] == [
        generated[name] for name in ("good", "duplicate", "broken")
    ]
    assert generated["duplicate"] and generated["broken"] and generated["accounted_for"]  # noqa: PT018
    # The books balance, and the providers' own agree
    assert found["balanced"] is True
    assert found["alerts"]["open"] == 0
    assert found["providers"]["agree"] is True
    assert found["by_channel"]["wechat"]["delivered"] == found["providers"]["wechat"]["delivered"] > 3000
    assert found["providers"]["sms"]["delivered"] > 0
    # And it was no fair-weather run
    assert {"no-recipient", "sms-from-100"} <= found["suppressed_by"].keys()
    assert {"-1", "43004", "43101"} <= found["providers"]["wechat"]["refused"].keys()
    assert found["unknown_attempts"] > 0
    assert found["alerts"]["expired"] == 0


def test_no_full_card_number_is_in_the_ledger(as_json: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert as_json.returncode == 0
    full = re.compile(rb"400000[0-9]{10}")
    assert full.search((folder / "events.ndjson").read_bytes())
    for path in folder.glob("ledger.db*"):
        assert not full.search(path.read_bytes())


def test_again_in_the_same_folder_it_begins_anew_and_says_what_to_look_at(
    as_json: subprocess.CompletedProcess[str], demo: Sequence[str]
) -> None:
    assert as_json.returncode == 0
    ended = run(*demo)
    assert (ended.returncode, ended.stderr) == (0, "")
    read = json.loads(as_json.stdout)["events"]
    assert re.search(rf"accepted +{read['accepted']:,} ", ended.stdout)
    for words in (
        "balanced",
        "the providers' own book agrees",
        "every line met its end",
        "not JSON",
        "微信",
        "【示例银行】",
    ):
        assert words in ended.stdout
    # The hint can be pasted
    hint = re.search(r"# fell back to SMS\n.* explain (\S+) --config (\S+)", ended.stdout)
    assert hint is not None
    told = run("explain", hint[1], "--config", hint[2])
    assert told.returncode == 0
    assert "delivered by sms" in told.stdout
    assert re.search(r"attempt 1 .* wechat: refused", told.stdout)


def test_it_needs_no_folder() -> None:
    ended = run("demo", "--events", "20", "--accounts", "5", "--seed", "4")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Nothing was kept" in ended.stdout
    # And its swipes, which are those of yesterday, are not too old to be told
    assert re.search(r" delivered +[1-9]", ended.stdout)
    assert "expired" not in ended.stdout


def test_ctrl_c_stops_the_providers_and_is_one_line(tmp_path: Path) -> None:
    # Given a demonstration that would take an hour, once it has written where its providers listen
    with subprocess.Popen(
        command("demo", "--events", "3600", "--rate", "1", "--dir", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            port = _port_of_the_providers(process, tmp_path / "swipebell.toml")
            # When Ctrl-C comes
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    # Then it says so, and nobody listens any more
    assert (process.returncode, output) == (130, "")
    assert re.fullmatch(r"swipebell: the demonstration was stopped; what it had accepted is in .*\n", errors)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def _port_of_the_providers(process: subprocess.Popen[str], config: Path) -> int:
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        if config.exists() and (found := re.search(r'base_url = "http://127\.0\.0\.1:(\d+)"', config.read_text())):
            return int(found[1])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.02)
    raise AssertionError("it never wrote its configuration")
