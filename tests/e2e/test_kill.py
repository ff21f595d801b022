"""SIGKILL at random moments: nothing lost, and nothing seen twice but what the ledger marks unknown."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

KILLS = 10
EVENTS = 16_000
KILLED_WITHIN = 12_000
"""Requests within which all kills come, so that the last one meets a run that is far from its end."""


def line(number: int) -> str:
    event = {
        "id": f"kill-{number:06}",
        "account": f"acc-{number % 97}",
        "pan": f"************{number % 10_000:04}",
        "amount": 9_000 + number % 4_000,
        "currency": "CNY",
        "merchant": f"店铺 {number % 50}",
        "time": "2026-11-22T10:00:00+08:00",
    }
    return json.dumps(event, ensure_ascii=False)


def test_sigkill_loses_nothing_and_rings_nobody_twice(site: Any, providers: Callable[..., Any]) -> None:
    # Given a file of events and providers that also lose some of their own answers
    events = site.folder / "events.ndjson"
    events.write_text("\n".join(map(line, range(EVENTS))) + "\n")
    provider = providers("--latency", "0.005", "--faults", "reset=0.002,busy=0.005,unsubscribed=0.02")
    site.configure(provider.url)
    site.recipients_for(events)
    moments = sorted(random.Random(20261122).sample(range(KILLED_WITHIN // 40, KILLED_WITHIN * 9 // 10), KILLS))

    # When the sender is killed at ten moments, each time when the provider has seen so many requests
    killed = 0
    for moment in moments:
        with site.start("send", str(events), "--restamp", "--json") as process:
            while provider.book()["wechat"]["requests"] < moment and process.poll() is None:
                pass  # each look at the book is a request of its own, so this waits for the provider and not for time
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
    assert killed == KILLS

    # And then is let run to its end with the same file
    summary = site.send(events)

    # Then the books balance, nothing is open, and every event of the file was accepted once
    assert summary["balanced"] is True
    assert summary["alerts"]["open"] == 0
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM events")]
        unknown = {
            row[0]
            for row in connection.execute(
                "SELECT e.id FROM attempts t JOIN events e ON e.seq = t.alert / 16 WHERE t.outcome = 'unknown'"
            )
        }
        ended = dict(connection.execute("SELECT state, count(*) FROM alerts GROUP BY state").fetchall())
    assert sorted(ids) == [f"kill-{number:06}" for number in range(EVENTS)]
    assert sum(ended.values()) == EVENTS

    # And no cardholder saw a WeChat alert twice, and each alert that the ledger calls delivered was shown to one
    shown = Counter(message["client_msg_id"] for message in provider.messages("wechat"))
    assert set(shown.values()) == {1}
    texts = Counter(message["id"] for message in provider.messages("sms"))
    keys = key_of_events(site)
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        delivered = {
            row[0]
            for row in connection.execute(
                "SELECT e.id FROM alerts a JOIN events e ON e.seq = a.id / 16 WHERE a.state = 'delivered'"
            )
        }
    assert delivered <= {keys[key] for key in (*shown, *texts)}

    # And whatever a provider received more than once is marked unknown in the ledger
    seen_twice = [m["client_msg_id"] for m in provider.messages("wechat") if m["times_seen"] > 1]
    seen_twice += [m["id"] for m in provider.messages("sms") if m["times_seen"] > 1]
    assert {keys[key] for key in seen_twice} <= unknown
    # The test is worth something only if kills did hit alerts in flight
    assert seen_twice
    assert unknown


def key_of_events(site: Any) -> dict[str, str]:
    """The providers' key of each alert -> its event's id, worked out without the product's code."""
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        rows = connection.execute(
            "SELECT e.account, r.role, e.id FROM alerts a JOIN events e ON e.seq = a.id / 16"
            " JOIN recipients r ON r.id = a.recipient"
        ).fetchall()
    return {hashlib.blake2b("\0".join(row).encode(), digest_size=16).hexdigest(): row[2] for row in rows}
