"""Whole runs through providers with a name for their weather; each time the ledger against what cardholders saw."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from dispatcher.config import RetryConfig
from loadtest.providers.seen import by_alert
from tests.e2e.fault_kit import SOAK, check_the_two_books, receiving, seen, write_events
from tests.e2e.processes_kit import COMMAND_S, until
from tests.e2e.test_fallback import route

ALERTS = 50_000 if SOAK else 3_000
LOST_S = 10 if SOAK else 4
"""After which a receipt counts as lost: far longer than one takes, yet this is what a test with lost ones takes."""


def test_lost_receipts_lead_to_one_text_message_at_most(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given providers that lose one receipt in five and double others, and an engine that waits for them
    count = ALERTS if SOAK else 500
    receipts = receiving(site, free_port, deadline_s=LOST_S)
    provider = providers("--faults", "lost-receipts", "--seed", "7", *receipts.options)
    site.configure(provider.url, extra=receipts.section)
    write_events(site, count)
    # When it sends
    summary = site.send("events.ndjson")
    # Then both books agree
    alerts = check_the_two_books(site, provider, summary, count)
    # And an alert went to SMS when WeChat's receipt had not come, and nobody was sent two
    wechat = {row["client_msg_id"]: row for row in provider.messages("wechat")}
    texts = {row["id"]: row for row in provider.messages("sms")}
    assert len(wechat) == count == provider.book()["wechat"]["delivered"]
    assert len(texts) == provider.book()["sms"]["delivered"]
    lost = {key for key, row in wechat.items() if row["report_lost"]}
    assert 0.15 * count < len(lost) < 0.25 * count
    assert lost <= set(texts) == {key for key, alert in alerts.items() if alert.channel == "sms"}
    # And what failed is what no receipt told of, on either channel
    for key, alert in alerts.items():
        heard = not texts[key]["report_lost"] if key in texts else not wechat[key]["report_lost"]
        assert (alert.state, alert.reason) == (("delivered", None) if heard else ("failed", "no-receipt"))


def test_resets_after_acceptance_ring_nobody_twice(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given providers that reset one connection in five after they took the message, at each try anew
    receipts = receiving(site, free_port)
    provider = providers("--faults", "reset-after-accept", "--seed", "7", *receipts.options)
    site.configure(provider.url, extra=receipts.section)
    write_events(site, ALERTS)
    # When it sends
    summary = site.send("events.ndjson")
    # Then both books agree, and everybody has the alert by WeChat, once
    check_the_two_books(site, provider, summary, ALERTS)
    book = provider.book()["wechat"]
    assert summary["by_channel"]["wechat"]["delivered"] == ALERTS == book["delivered"]
    assert not provider.messages("sms")
    # And each reset was an attempt of unknown outcome, and the next one was recognised
    assert book["resets"] == book["deduplicated"] > 0.15 * ALERTS
    assert summary["by_channel"]["wechat"]["attempts"] == book["requests"]


GENEROUS = 1_000
"""What was cut off comes back at once: the budget would make thousands of alerts take minutes."""
SHIPPED = int(RetryConfig().budget_per_second)


def test_a_text_message_whose_answer_was_lost_is_not_sent_again(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given users who have all left WeChat, and a gateway that resets every fourth connection after it took the message
    receipts = receiving(site, free_port)
    provider = providers("--faults", "reset=0.25,unsubscribed=1", *receipts.options)
    site.configure(provider.url, extra=receipts.section)
    write_events(site, 300)
    # When it sends
    summary = site.send("events.ndjson")
    # Then both books agree: the receipt says what the answer could not
    check_the_two_books(site, provider, summary, 300)
    assert summary["alerts"]["delivered"] == 300 == provider.book()["sms"]["requests"]
    assert 50 < provider.book()["sms"]["resets"] < 100  # half of them would look like an outage to the breaker


def test_receipts_that_name_no_message_cost_a_text_message_and_no_more(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given a WeChat whose events name msgid 0, as was observed where messages have a client_msg_id; it has a second
    receipts = receiving(site, free_port)
    provider = providers("--duplicate-answer", "zero", *receipts.options)
    site.configure(provider.url, extra=receipts.section + route(site, '["wechat", "sms"]', "deadline_seconds = 1"))
    write_events(site, 50)
    # When it sends, then each alert was seen once on each channel, and the SMS receipt has the last word
    summary = site.send("events.ndjson")
    check_the_two_books(site, provider, summary, 50)
    assert {(shown.wechat, shown.sms) for shown in by_alert(seen(provider)).values()} == {(1, 1)}
    assert summary["by_channel"]["sms"]["delivered"] == 50


def crowd(site: Any) -> None:
    """Let 500 requests be on their way at a time."""
    config = (site.folder / "swipebell.toml").read_text()
    (site.folder / "swipebell.toml").write_text(config.replace("connections = 32", "connections = 500"))


def test_token_chaos_is_one_refresh_per_expiry(site: Any, providers: Callable[..., Any]) -> None:
    # Given a WeChat whose tokens die without a word, and 500 alerts on their way at a time. At most three rounds fit
    # into a token's life, so that two tokens are not enough; and what the death of one has caught is sent again within
    # two rounds, long before the next one dies: a second refusal would cost it a retry.
    provider = providers("--faults", "token-chaos,token_seconds=2.3", "--latency", "0.8")
    site.configure(provider.url)
    crowd(site)
    write_events(site, ALERTS)
    # When they are sent
    summary = site.send("events.ndjson")
    check_the_two_books(site, provider, summary, ALERTS)
    book = provider.book()["wechat"]
    # Then tokens died under hundreds of them
    assert book["tokens_refused"] >= 2
    assert sum(book["refused"].values()) > 100 * book["tokens_refused"]
    # And each that died was followed by one refresh, the first by none
    assert book["token_requests"] == book["tokens_issued"] == book["tokens_refused"] + 1
    assert summary["alerts"]["delivered"] == ALERTS == book["delivered"]


@pytest.mark.parametrize(
    ("count", "budget", "latency"),
    # Few alerts must still be coming when somebody has looked at the book and taken the provider down.
    [(ALERTS, GENEROUS, "0.02"), (200, SHIPPED, "0.25")],
    ids=["generous-budget", "shipped-budget"],
)
def test_a_provider_that_was_down_loses_nothing(
    site: Any, providers: Callable[..., Any], count: int, budget: int, latency: str
) -> None:
    # Given a run that is under way
    provider = providers("--latency", latency)
    site.configure(provider.url, sms=False, retry_budget=budget)
    write_events(site, count)
    with site.start("send", "events.ndjson", "--restamp", "--json") as process:
        while provider.book()["wechat"]["delivered"] < count // 20:
            assert process.poll() is None
            time.sleep(0.01)
        # When the provider is down for a second: every call is cut off, tokens too
        provider.http.post("/_faults", json={"down_to": 1.0})
        out, err = process.communicate(timeout=COMMAND_S)
    assert process.returncode == 0, err
    # Then nothing was lost, and nobody was rung twice
    summary = json.loads(out)
    check_the_two_books(site, provider, summary, count)
    assert summary["alerts"]["delivered"] == count == provider.book()["wechat"]["delivered"]
    assert provider.book()["wechat"]["down"] > 0


def test_with_both_providers_down_every_alert_ends_honestly(site: Any, providers: Callable[..., Any]) -> None:
    # Given users of whom every second has left, and both providers down while their alerts are sent
    provider = providers("--faults", "unsubscribed=0.5", "--latency", "0.2")
    site.configure(provider.url, retry_budget=GENEROUS)
    write_events(site, 600)
    with site.start("send", "events.ndjson", "--restamp", "--json") as process:
        while provider.book()["sms"]["delivered"] < 50:
            assert process.poll() is None
            time.sleep(0.01)
        provider.http.post("/_faults", json={"unsubscribed": 0.5, "down_to": 1.0})
        out, err = process.communicate(timeout=COMMAND_S)
    assert process.returncode == 0, err
    # Then a text message that was cut off is of unknown outcome and not repeated, and all others are delivered
    alerts = check_the_two_books(site, provider, json.loads(out), 600)
    failed = [alert for alert in alerts.values() if alert.state == "failed"]
    assert {(alert.channel, alert.reason) for alert in failed} == {("sms", "unknown-outcome")}
    assert 0 < len(failed) <= provider.book()["sms"]["down"]


def test_a_users_limit_holds_that_user_for_a_minute_and_nobody_else(site: Any, providers: Callable[..., Any]) -> None:
    # Given a WeChat that says of one send in five that its user has had too many
    count = 200
    provider = providers("--faults", "user_limit=0.2", "--seed", "3")
    site.configure(provider.url, sms=False)
    write_events(site, count)
    # When everybody was tried once, and the process is asked to end
    with site.start("send", "events.ndjson", "--restamp", "--json") as process:
        until(lambda: provider.book()["wechat"]["requests"] == count, "a send for everybody")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=COMMAND_S)
    assert process.returncode == 130, err
    # Then all others have their alert
    book = provider.book()["wechat"]
    limited = book["refused"]["43117"]
    assert book["refused"] == {"43117": limited}
    assert 20 < limited < 60
    with closing(sqlite3.connect(site.folder / "ledger.db")) as connection:
        rows = connection.execute(
            "SELECT a.state, a.due_at - t.at FROM alerts a LEFT JOIN attempts t ON t.alert = a.id"
        ).fetchall()
    assert Counter(state for state, _ in rows) == {"delivered": count - limited, "retrying": limited}
    # And theirs is kept, and was not to be tried again before a minute was over
    assert min(pause for state, pause in rows if state == "retrying") >= 60_000


def test_rush_hour_ends_with_everybody_told(site: Any, providers: Callable[..., Any]) -> None:
    # Given a WeChat that is out of breath: -1, 45011, 43117, 502, late answers; and 500 requests on their way at a time
    count = 5_000 if SOAK else 800
    provider = providers(
        "--faults",
        "rush-hour,slow_seconds=0.5" if SOAK else "rush-hour,slow_seconds=0.5,user_limit=0",
        "--latency",
        "2.0",  # so long that hundreds wait for their answer at a time on a slow machine, too
        "--seed",
        "3",
    )
    site.configure(provider.url, sms=False)
    crowd(site)
    write_events(site, count)
    # When it sends
    summary = site.send("events.ndjson")
    # Then every alert is delivered, once
    check_the_two_books(site, provider, summary, count)
    book = provider.book()["wechat"]
    assert book["crowded"] > 0
    # A user's limit holds that user for a minute
    assert {"-1", "45011", "http502"} | ({"43117"} if SOAK else set()) <= set(book["refused"])
    assert summary["alerts"]["delivered"] == count == book["delivered"]
