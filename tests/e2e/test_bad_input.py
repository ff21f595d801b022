"""Whatever is wrong ends in one line that says what to do, and leaves everything else delivered."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes_kit import COMMAND_S, until

GOOD = {
    "id": "good-1",
    "account": "acc-1",
    "pan": "************0426",
    "amount": 12_345,
    "currency": "CNY",
    "merchant": "海底捞",
    "time": "2026-11-22T10:00:00+08:00",
}


def variant(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}, ensure_ascii=False).encode()


def without(field: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != field}).encode()


BAD_LINES = [
    (b"this is not JSON", "JSON"),
    (b'{"id":"\xff\xfe"}', "UTF-8"),
    (b"[" * 10_000 + b"]" * 10_000, "nest"),
    (variant(id="long", note="x" * 70_000), "65,536"),
    *[(without(field), field) for field in ("id", "account", "time", "amount", "currency")],
    *[(variant(**{field: ""}), field) for field in ("id", "account", "time")],
    (variant(id="b1", amount=1.5), "amount"),
    (variant(id="b2", amount="100"), "amount"),
    (variant(id="b3", amount=True), "amount"),
    (variant(id="b4", amount=2**63), "amount"),
    (variant(id="b5", currency="ZZZ"), "currency"),
    (variant(id="b6", time="2026-11-22T10:00:00"), "time"),
    (variant(id="b7", time="0000-11-22T10:00:00Z"), "time"),
    (variant(id="b8", time="2016-12-31T23:59:60Z"), "time"),
    (variant(id="b9", merchant="a\0b"), "merchant"),
    (variant(id="b10", merchant="a\r\nb"), "merchant"),
    (variant(id="b11")[:-1] + b',"amount":1}', "amount"),
    (variant(id="x" * 129), "id"),
    (variant(id="good-1", amount=1), "other content"),
]


def test_each_bad_line_is_named_and_everything_else_is_delivered(site: Any, providers: Callable[..., Any]) -> None:
    # Given a good line, every kind of bad line, a full card number, and another good line
    lines = [variant(), *(bad for bad, _ in BAD_LINES), variant(id="card", pan="4000 0000 0000 0002"), variant(id="z")]
    (site.folder / "events.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    provider = providers()
    site.configure(provider.url)
    site.recipients_for(site.folder / "events.ndjson")

    # When the file is sent
    out, err = site.run("send", "events.ndjson", "--restamp", "--json", "--rejected", "bad.ndjson", status=3)

    # Then the three good ones are delivered and every bad one is counted
    summary = json.loads(out)
    assert summary["events"] == {"read": len(lines), "accepted": 3, "duplicate": 0, "rejected": len(BAD_LINES)}
    assert summary["alerts"]["delivered"] == 3
    assert summary["balanced"] is True
    # And each refusal names line and reason; the first ones are on the terminal, all of them in the file
    refused = [json.loads(line) for line in (site.folder / "bad.ndjson").read_text().splitlines()]
    assert [one["line"] for one in refused] == list(range(2, 2 + len(BAD_LINES)))
    for one, (_, word) in zip(refused, BAD_LINES, strict=True):
        assert word in f"{one['field']} {one['error']}", one
    assert "line 2" in err
    # And the card number was masked before it was stored
    stored = b"".join(path.read_bytes() for path in site.folder.glob("ledger.db*"))
    assert b"4000 0000 0000 0002" not in stored
    assert b"4000000000000002" not in stored
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        payload = connection.execute("SELECT payload FROM events WHERE id='card'").fetchone()[0]
    assert "0002" in json.loads(payload)["pan"]


def test_a_broken_recipient_line_is_named_and_the_rest_is_imported(site: Any) -> None:
    site.configure("http://127.0.0.1:1")
    lines = [
        '{"account":"a","openid":"o1"}',
        "{broken",
        '{"account":"b","phone":"12345"}',
        '{"account":"c","phone":"+8613800000001","timezone":"Mars/Olympus"}',
        '{"account":"d","phone":"+8613800000002","nickname":"x"}',
    ]
    (site.folder / "r.ndjson").write_text("\n".join(lines))
    out, err = site.run("recipients", "import", "r.ndjson", status=3)
    assert "2 added" in out
    assert "3 rejected" in out
    assert all(f"line {number}" in err for number in (2, 3, 4))
    assert "nickname" in err
    assert "12345" not in err
    assert "13800000001" not in err
    # And importing again changes nothing
    assert "2 as before" in site.run("recipients", "import", "r.ndjson", status=3)[0]


def one_line(err: str) -> str:
    said = [line for line in err.splitlines() if line.startswith("swipebell: ")]
    assert len(said) == 1, err
    return said[0]


def test_a_missing_file(site: Any, providers: Callable[..., Any]) -> None:
    site.configure(providers().url)
    _, err = site.run("send", "nowhere.ndjson", status=1)
    assert "nowhere.ndjson" in one_line(err)


def test_no_configuration(site: Any) -> None:
    _, err = site.run("send", "-", status=2)
    assert "swipebell init" in one_line(err)


def test_an_unknown_key_names_the_nearest_one(site: Any) -> None:
    site.configure("http://127.0.0.1:1", extra="[engine]\nlane_capcity = 5\n")
    _, err = site.run("send", "-", status=2)
    assert "lane_capcity" in one_line(err)
    assert "lane_capacity" in err


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"this is a text and no database at all, however long it may be" * 40, "not a ledger"), (None, "folder")],
)
def test_an_unreadable_ledger(site: Any, content: bytes | None, word: str) -> None:
    url = "sqlite:///broken.db" if content else "sqlite:///no/such/folder/ledger.db"
    site.configure("http://127.0.0.1:1", extra=f'[ledger]\nurl = "{url}"\n')
    if content:
        (site.folder / "broken.db").write_bytes(content)
    (site.folder / "e.ndjson").write_bytes(variant())
    _, err = site.run("send", "e.ndjson", status=1)
    assert word in one_line(err)


def test_a_wrong_secret(site: Any, providers: Callable[..., Any]) -> None:
    site.configure(providers("--secret", "another").url)
    (site.folder / "e.ndjson").write_bytes(variant())
    _, err = site.run("send", "e.ndjson", status=2)
    assert "secret_file" in one_line(err)
    assert "simulated-secret" not in err


def test_a_wrong_secret_of_the_sms_gateway_stops_the_run_and_loses_nothing(
    site: Any, providers: Callable[..., Any]
) -> None:
    # Given a recipient with a phone only, and a gateway that wants another secret
    provider = providers("--sms-secret", "another")
    site.configure(provider.url)
    (site.folder / "e.ndjson").write_bytes(variant())
    (site.folder / "r.ndjson").write_text('{"account":"acc-1","phone":"+8613800000001","channels":["sms"]}')
    site.run("recipients", "import", "r.ndjson")
    # When a swipe is sent
    _, err = site.run("send", "e.ndjson", "--restamp", status=2)
    assert "sms" in one_line(err)
    # Then, with the secret mended, it is still there to be delivered
    (site.folder / "secret2").write_text("another")
    text = (site.folder / "swipebell.toml").read_text()
    head, sms = text.split("[channels.sms]")
    (site.folder / "swipebell.toml").write_text(
        head + "[channels.sms]" + sms.replace('secret_file = "secret"', 'secret_file = "secret2"')
    )
    deadline = site.send("e.ndjson")
    assert deadline["events"]["duplicate"] == 1
    assert deadline["alerts"]["delivered"] == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.name != "posix", reason="needs tmpfs")
def test_a_full_disk_is_one_line_and_nothing_accepted_is_lost(
    site: Any, providers: Callable[..., Any], small_disk: Path
) -> None:
    # Given a ledger on a disk that fills up in mid-run
    provider = providers()
    site.configure(provider.url, extra=f'[ledger]\nurl = "sqlite:///{small_disk}/ledger.db"\n')
    events = site.folder / "events.ndjson"
    events.write_bytes(b"\n".join(variant(id=f"disk-{n}", note="x" * 400) for n in range(6_000)) + b"\n")
    # When a file is sent that does not fit
    _, err = site.run("send", str(events), "--restamp", status=1)
    # Then one line says so
    assert "disk is full" in one_line(err)
    # And once there is room, the same command finishes the job: every event once, none delivered twice
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    site.recipients_for(events)
    summary = site.send(events)
    assert summary["ledger"]["events"] == 6_000
    assert summary["balanced"] is True


def test_interrupted_says_how_to_go_on(site: Any, providers: Callable[..., Any]) -> None:
    # Given an alert on its way to a slow provider, and more to come
    provider = providers("--latency", "0.5")
    site.configure(provider.url)
    (site.folder / "e.ndjson").write_bytes(variant())
    site.recipients_for(site.folder / "e.ndjson")
    with site.start("send", "-", "--restamp", stdin=subprocess.PIPE) as process:
        process.stdin.write(variant().decode() + "\n")
        process.stdin.flush()
        until(lambda: provider.book()["wechat"]["requests"], "the alert's request")
        # When it is interrupted
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=COMMAND_S)
    # Then it says so in one line, and how to go on
    assert process.returncode == 130
    assert one_line(err) == "swipebell: interrupted; what was accepted is in the ledger, start again to go on"
    assert "Traceback" not in err
