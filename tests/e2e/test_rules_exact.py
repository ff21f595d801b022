"""A cap is exact: whatever the number of processes, and when they are killed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes_kit import line, serving, until, written, zone_where_it_is_noon

CAP = 10
RULES = """\
version = 1
[[rule]]
id = "ten-a-day"
effect = "cap"
limit = 10
per = "account"
window = "day"
"""
PER_ACCOUNT = 1_000
POSTED = 25
SENDERS = 4
KILLED_AT = 180
"""Requests after which the sender is killed; there are 400 in all."""


@pytest.fixture(autouse=True)
def needs_proc() -> None:
    if not Path(f"/proc/{os.getpid()}/task").exists():
        pytest.skip("no /proc here, so nobody tells which processes a supervisor has started")


def capped(site: Any, provider: Any, accounts: Sequence[str]) -> None:
    """A site with the cap, and one recipient for each account."""
    site.configure(provider.url, sms=False, extra='[rules]\nfile = "rules.toml"\n')
    (site.folder / "rules.toml").write_text(RULES)
    lines = [
        json.dumps({"account": account, "openid": f"o-{account}", "timezone": zone_where_it_is_noon()})
        for account in accounts
    ]
    (site.folder / "recipients.ndjson").write_text("\n".join(lines) + "\n")
    site.run("recipients", "import", "recipients.ndjson")


def shown(provider: Any, ids: dict[str, list[str]]) -> Counter[str]:
    """How many different messages the provider has shown of each account, by its own book."""
    of_key = {
        blake2b(f"{account}\0primary\0{one}".encode(), digest_size=16).hexdigest(): account
        for account, several in ids.items()
        for one in several
    }
    return Counter(of_key[message["client_msg_id"]] for message in provider.messages("wechat"))


def in_the_ledger(site: Any) -> dict[tuple[str, str, str | None], int]:
    """How many alerts of an account have which state and reason."""
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        rows = connection.execute(
            "SELECT e.account, a.state, a.reason, count(*) FROM alerts a JOIN events e ON e.seq = a.id / 16"
            " GROUP BY 1, 2, 3"
        ).fetchall()
    return {tuple(row[:3]): row[3] for row in rows}


def test_two_processes_and_one_account_tell_ten_swipes_of_a_file(site: Any, providers: Callable[..., Any]) -> None:
    # Given a cap of ten a day and a file with thousands of swipes of one account
    provider = providers()
    capped(site, provider, ["A"])
    written(site, 3 * PER_ACCOUNT, account="A")

    # When two processes send it
    summary = site.send("events.ndjson", "--processes", "2")

    # Then ten are told, and every other one is in the books with the rule that kept it back
    assert summary["alerts"]["delivered"] == CAP
    assert summary["suppressed_by"] == {"ten-a-day": 3 * PER_ACCOUNT - CAP}
    assert summary["balanced"] is True
    assert in_the_ledger(site) == {
        ("A", "delivered", None): CAP,
        ("A", "suppressed", "ten-a-day"): 3 * PER_ACCOUNT - CAP,
    }
    assert shown(provider, {"A": [f"p-{number:06}" for number in range(3 * PER_ACCOUNT)]}) == {"A": CAP}


def test_two_processes_of_a_service_tell_ten_every_time(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service of two processes, and accounts with a thousand swipes each within a second
    provider = providers()
    accounts = ["A", "B", "C"]
    capped(site, provider, accounts)
    ids = {account: [f"{account}-{number}" for number in range(PER_ACCOUNT)] for account in accounts}
    with serving(site, free_port) as service, ThreadPoolExecutor(SENDERS) as senders:
        # When an account after the other swipes, over several connections that either process may take
        for account in accounts:
            batches = [
                [line(number, id=ids[account][number], account=account) for number in range(first, first + POSTED)]
                for first in range(0, PER_ACCOUNT, POSTED)
            ]
            for _ in senders.map(lambda batch: service.post(*batch), batches):
                pass
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        events = connection.execute("SELECT account FROM events ORDER BY seq").fetchall()
    # Then ten of each were told, by the ledger's books and by the provider's
    assert Counter(account for (account,) in events) == dict.fromkeys(accounts, PER_ACCOUNT)
    assert in_the_ledger(site) == dict(
        itertools.chain(
            (((account, "delivered", None), CAP) for account in accounts),
            (((account, "suppressed", "ten-a-day"), PER_ACCOUNT - CAP) for account in accounts),
        )
    )
    assert shown(provider, ids) == dict.fromkeys(accounts, CAP)


def test_two_processes_tell_ten_at_a_thousand_swipes_a_second(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a service of two processes, and an account that swipes a thousand times a second for three seconds
    provider = providers()
    capped(site, provider, ["A"])
    ids = [f"p-{number:06}" for number in range(3 * PER_ACCOUNT)]
    written(site, len(ids), account="A")
    with serving(site, free_port) as service:
        options = ("--events", "events.ndjson", "--rate", "1000", "--target", str(service.http.base_url), "--json")
        found = json.loads(site.run("loadtest", *options)[0])
        until(lambda: not service.scrape()["swipebell_open_alerts"], "the last alert")
    # Then they came at that rate, and ten are told by both books
    assert found["events"]["accepted"] == len(ids)
    assert found["seconds"] >= 2.9
    assert in_the_ledger(site) == {
        ("A", "delivered", None): CAP,
        ("A", "suppressed", "ten-a-day"): len(ids) - CAP,
    }
    assert shown(provider, {"A": ids}) == {"A": CAP}


def test_no_cap_is_exceeded_when_the_sender_is_killed(site: Any, providers: Callable[..., Any]) -> None:
    # Given forty accounts with a hundred swipes each, one account after the other, and a provider that takes its time
    accounts = [f"acc-{number:02}" for number in range(40)]
    provider = providers("--latency", "0.15")
    capped(site, provider, accounts)
    site.folder.joinpath("swipebell.toml").write_text(
        site.folder.joinpath("swipebell.toml").read_text().replace("connections = 32", "connections = 16")
    )
    events = written(site, 4_000, account=lambda number: accounts[number // 100])

    # When the sender is killed in the midst of it, and another one then runs to the end
    with site.start("send", str(events), "--restamp", "--json") as process:
        while provider.book()["wechat"]["requests"] < KILLED_AT and process.poll() is None:
            pass  # each look at the book is a request of its own, so this waits for the provider and not for time
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    summary = site.send(events)

    # Then each account was told ten times, and nothing is lost: every other swipe is in the books
    assert summary["balanced"] is True
    assert summary["alerts"]["open"] == 0
    assert in_the_ledger(site) == {
        **{(account, "delivered", None): CAP for account in accounts},
        **{(account, "suppressed", "ten-a-day"): 100 - CAP for account in accounts},
    }
    ids = {accounts[place]: [f"p-{100 * place + n:06}" for n in range(100)] for place in range(40)}
    assert shown(provider, ids) == dict.fromkeys(accounts, CAP)
    # The test is worth something only if the kill hit alerts in flight
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        unknown = connection.execute("SELECT count(*) FROM attempts WHERE outcome = 'unknown'").fetchone()[0]
    assert unknown
