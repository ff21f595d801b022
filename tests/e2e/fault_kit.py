"""Two books of one run: the ledger's rows, and what the providers say that each cardholder saw."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

from loadtest.providers.seen import Shown, by_alert, doubles, read_shown
from tests.e2e.processes_kit import large, written

SOAK = bool(os.environ.get("SWIPEBELL_SOAK"))
ACCOUNTS = 997
DEADLINE_S = 60
"""Until which a receipt must have come: it takes a fifth of a second, so none is missed, however busy the machine."""


def write_events(site: Any, count: int) -> None:
    """``count`` swipes, each large enough for an SMS, and a recipient for every account."""
    site.recipients_for(written(site, count, account=lambda number: f"acc-{number % ACCOUNTS}", amount=large))


class Receiving(NamedTuple):
    """What the providers and the configuration are told, so that receipts come."""

    options: tuple[str, ...]
    section: str


def receiving(site: Any, free_port: Callable[[], int], *, deadline_s: int = DEADLINE_S) -> Receiving:
    """Receipts of both channels, within a fifth of a second."""
    port = free_port()
    (site.folder / "receipts-token").write_text("receipt-token")
    options = (
        *("--receipts-url", f"http://127.0.0.1:{port}/wechat", "--sms-receipts-url", f"http://127.0.0.1:{port}/sms"),
        *("--receipts-token", "receipt-token", "--receipts-delay", "0.0", "0.2"),
    )
    section = f'[receipts]\nlisten = "127.0.0.1:{port}"\ntoken_file = "receipts-token"\n'
    return Receiving(options, section + f"deadline_seconds = {deadline_s}\n")


class Alert(NamedTuple):
    """A row of the ledger."""

    channel: str
    state: str
    reason: str | None


def alerts_of(site: Any) -> dict[str, Alert]:
    """The ledger's alerts by the key that providers know them by, worked out without the product's code."""
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        rows = connection.execute(
            "SELECT e.account, r.role, e.id, a.channel, a.state, a.reason FROM alerts a"
            " JOIN events e ON e.seq = a.id / 16 JOIN recipients r ON r.id = a.recipient"
        ).fetchall()
    return {hashlib.blake2b("\0".join(row[:3]).encode(), digest_size=16).hexdigest(): Alert(*row[3:]) for row in rows}


def seen(provider: Any) -> list[Shown]:
    """What cardholders saw, asked page by page."""
    shown: list[Shown] = []
    for channel in ("wechat", "sms"):
        offset = 0
        while page := read_shown(
            provider.http.get("/_book/seen", params={"channel": channel, "offset": offset, "limit": 20_000}).content
        ):
            shown += page
            offset += len(page)
    return shown


def check_the_two_books(site: Any, provider: Any, summary: dict[str, Any], count: int) -> dict[str, Alert]:
    """What holds in any weather: the books balance, nobody saw an alert twice on one channel, and what the ledger calls
    delivered was seen. Returns the ledger's alerts."""
    alerts, shown = alerts_of(site), seen(provider)
    shown_by_alert = by_alert(shown)
    assert summary["balanced"] is True
    assert len(alerts) == count == sum(summary["alerts"].values())
    assert summary["alerts"]["open"] == 0
    assert {alert.state for alert in alerts.values()} <= {"delivered", "failed"}
    # No cardholder saw an alert twice, on WeChat or as SMS
    assert not list(doubles(shown))
    # What was seen are alerts, and the delivered ones were seen where the ledger says
    assert set(shown_by_alert) <= set(alerts)
    for key, alert in alerts.items():
        if alert.state == "delivered":
            assert getattr(shown_by_alert[key], alert.channel) == 1
        else:
            assert alert.reason
    return alerts
