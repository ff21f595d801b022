"""Real input through the real programs: the ledger's books against the providers' own."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

LINES = None if os.environ.get("SWIPEBELL_SOAK") else 6_000
"""Lines of each file in the suite; `make soak` sends the whole of both."""

FILES = ("sparkov-2023h1.ndjson.gz", "birmingham-2014-2018.ndjson.gz")


def head_of(source: Path, target: Path, lines: int | None) -> int:
    with gzip.open(source, "rb") as stream, gzip.open(target, "wb") as out:
        count = 0
        for line in itertools.islice(stream, lines):
            out.write(line)
            count += 1
    return count


@pytest.mark.parametrize("name", FILES)
def test_two_independent_books_agree(name: str, shared_data: Path, site: Any, providers: Callable[..., Any]) -> None:
    # Given real card transactions, a recipient for each account, and providers that misbehave a little
    events = site.folder / "events.ndjson.gz"
    lines = head_of(shared_data / name, events, LINES)
    provider = providers("--faults", "busy=0.01,reset=0.01,unsubscribed=0.01,refused=0.01,bad_gateway=0.005")
    site.configure(provider.url)
    site.recipients_for(events)

    # When they are sent
    summary = site.send(events)

    # Then every line is accounted for and nothing is open
    counts = summary["events"]
    assert counts["read"] == lines
    assert counts["accepted"] + counts["duplicate"] + counts["rejected"] == counts["read"]
    assert summary["balanced"] is True
    assert summary["alerts"]["open"] == 0

    # And the providers' own record holds exactly the alerts that the ledger calls delivered, each once; more can only
    # be SMS whose answer was lost, which the ledger ended as unknown and did not repeat
    for channel in ("wechat", "sms"):
        sent = [message.get("client_msg_id") or message["id"] for message in provider.messages(channel)]
        assert len(set(sent)) == len(sent)
        assert set(sent) >= set(keys_in(site.folder / "ledger.db", channel, "delivered"))
        more = set(sent) - set(keys_in(site.folder / "ledger.db", channel, "delivered"))
        assert more <= set(keys_in(site.folder / "ledger.db", "sms", "failed", "unknown-outcome"))

    # And when the same file is sent again, every line is a duplicate and nothing is sent
    before = provider.book()
    again = site.send(events)
    assert again["events"] == {"read": lines, "accepted": 0, "duplicate": counts["accepted"], "rejected": 0}
    assert {channel: provider.book()[channel]["requests"] for channel in ("wechat", "sms")} == {
        channel: before[channel]["requests"] for channel in ("wechat", "sms")
    }


def keys_in(ledger: Path, channel: str, state: str, reason: str | None = None) -> list[str]:
    """The providers' key of every alert in a state, worked out from the ledger's rows alone."""
    with closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute(
            "SELECT e.account, r.role, e.id FROM alerts a JOIN events e ON e.seq = a.id / 16"
            " JOIN recipients r ON r.id = a.recipient WHERE a.channel = ? AND a.state = ? AND a.reason IS ?",
            (channel, state, reason),
        ).fetchall()
    return [hashlib.blake2b("\0".join(row).encode(), digest_size=16).hexdigest() for row in rows]


def test_explain_tells_what_happened_to_one_event(site: Any, providers: Callable[..., Any]) -> None:
    # Given a recipient whose WeChat is gone, and a swipe above the SMS minimum
    provider = providers("--faults", "unsubscribed=1")
    site.configure(provider.url)
    event = {
        "id": "e-1",
        "account": "a-1",
        "pan": "4000000000000002",
        "amount": 15_000,
        "currency": "CNY",
        "merchant": "书店",
        "time": "2026-11-22T10:00:00+08:00",
    }
    small = {**event, "id": "e-2", "amount": 5_000}
    (site.folder / "one.ndjson").write_text(json.dumps(event) + "\n" + json.dumps(small) + "\n")
    site.recipients_for(site.folder / "one.ndjson")

    # When both are sent and explained
    summary = site.send("one.ndjson")
    story, _ = site.run("explain", "e-1")
    other, _ = site.run("explain", "e-2")
    data = json.loads(site.run("explain", "e-1", "--json")[0])

    # Then the large one fell back to SMS, and the story says so, without phone, openid or card number
    assert summary["by_channel"]["sms"]["delivered"] == 1
    assert "delivered by sms" in story
    assert "[43004]" in story
    assert "************0002" in story
    assert "4000000000000002" not in story
    assert "+86" not in story
    assert data["alerts"][0]["attempts"][0]["code"] == "43004"
    # And the small one was not sent by SMS, with the reason in words
    assert "43004" in other or "sms-from-100" in other
