"""WeChat first, SMS when no word came: at most once, whatever is lost, late or killed."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.processes_kit import END_S, key_of, large, line, until, written

SECRET = "receipt-token"


def route(site: Any, channels: str, more: str = "") -> str:
    """Write rules that give swipes these channels; the section of the configuration that names them."""
    rule = f'[[rule]]\nid = "swipe-route"\neffect = "route"\nwhen = {{ category = "swipe" }}\nchannels = {channels}\n'
    (site.folder / "rules.toml").write_text(f"version = 1\n{rule}{more}\n")
    return '[rules]\nfile = "rules.toml"\n'


def configure(site: Any, url: str, port: int, *, first: int = 1, last: float = 30.0, sms_rate: int = 5000) -> None:
    (site.folder / "token").write_text(SECRET)
    extra = (
        f'[receipts]\nlisten = "127.0.0.1:{port}"\ntoken_file = "token"\ndeadline_seconds = {last}\n'
        "[engine]\nlease_seconds = 1.0\n"
    ) + route(site, '["wechat", "sms"]', f"deadline_seconds = {first}")
    site.configure(url, extra=extra)
    text = (site.folder / "swipebell.toml").read_text()
    text = text.replace("rate_per_second = 5000\n", f"rate_per_second = {sms_rate}\n")
    (site.folder / "swipebell.toml").write_text(text)


def reports(port: int, *options: str, wechat: bool = True, sms: bool = True) -> list[str]:
    given = ["--receipts-token", SECRET, *options]
    given += ["--receipts-url", f"http://127.0.0.1:{port}/wechat"] if wechat else []
    return given + (["--sms-receipts-url", f"http://127.0.0.1:{port}/sms"] if sms else [])


def rows(site: Any, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=END_S)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_lost_receipt_is_one_sms(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int], processes: int
) -> None:
    # Given a provider that loses half of all reports and says others twice
    count, port = 300, free_port()
    written(site, count, amount=large)
    provider = providers(
        *reports(port, "--receipts-delay", "0.0", "0.3", "--receipts-lost", "0.5", "--receipts-twice", "0.3")
    )
    configure(site, provider.url, port, first=3, last=3.0)
    site.recipients_for(site.folder / "events.ndjson")

    # When all of it is sent
    summary = site.send("events.ndjson", "--processes", str(processes))

    # Then everybody was shown it once on WeChat, and whose receipt was lost got exactly one SMS besides
    assert (summary["balanced"], summary["alerts"]["open"]) == (True, 0)
    shown = Counter(message["client_msg_id"] for message in provider.messages("wechat"))
    texts = Counter(message["id"] for message in provider.messages("sms"))
    assert shown == dict.fromkeys(map(key_of, range(count)), 1)
    assert set(texts.values()) == {1}
    assert {row["client_msg_id"] for row in provider.messages("wechat") if row["report_lost"]} <= set(texts)
    fallen = rows(site, "SELECT e.id FROM alerts a JOIN events e ON e.seq = a.id / 16 WHERE a.channel = 'sms'")
    assert set(texts) == {key_of(int(event[2:])) for (event,) in fallen}
    assert count // 4 < len(texts) < count * 3 // 4
    # And an SMS whose report was lost, too, ends honestly
    ended = summary["alerts"]
    assert ended["delivered"] + ended["failed"] == count
    assert summary["failed_by"] == {"no-receipt": ended["failed"]}


def test_a_success_that_comes_late_is_a_known_double(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given reports that take longer than the category's deadline
    count, port = 60, free_port()
    written(site, count, amount=large)
    provider = providers(*reports(port, "--receipts-delay", "4.5", "5.0", "--receipts-twice", "0.5"))
    configure(site, provider.url, port, first=2)
    site.recipients_for(site.folder / "events.ndjson")

    # When all of it is sent
    summary = site.send("events.ndjson")

    # Then each went out by SMS once, WeChat's success changed no end, and each is counted once
    assert (summary["balanced"], summary["alerts"]["open"]) == (True, 0)
    assert (summary["alerts"]["delivered"], summary["by_channel"]["sms"]["delivered"]) == (count, count)
    assert Counter(message["id"] for message in provider.messages("sms")) == dict.fromkeys(map(key_of, range(count)), 1)
    assert (summary["known_doubles"], summary["ledger"]["known_doubles"]) == (count, count)
    # And the story says so
    story, _ = site.run("explain", "p-000007")
    assert "fallback from wechat to sms, decided once: wechat had accepted it and gave no receipt by the dead" in story
    assert "wechat reported success after that: a known double" in story


def test_sigkill_after_the_fence_and_before_the_sms_is_still_one_sms(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given an SMS lane that lets one a second go, and WeChat without any report
    count, port = 60, free_port()
    written(site, count, amount=large)
    provider = providers(*reports(port, "--receipts-delay", "0.0", "0.1", wechat=False))
    configure(site, provider.url, port, sms_rate=1)
    site.recipients_for(site.folder / "events.ndjson")

    # When the process is killed as soon as all alerts have passed the fence: their SMS are decided and not sent
    fenced = "SELECT count(*) FROM alerts WHERE channel = 'sms'"
    with site.start("send", "events.ndjson", "--restamp", "--json") as process:
        until(lambda: process.poll() is not None or (ready(site) and rows(site, fenced) == [(count,)]), "the fence")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    sent = len(provider.messages("sms"))
    assert sent < count // 2

    # And another one takes over
    configure(site, provider.url, port, last=3.0)
    summary = site.send("events.ndjson")

    # Then nobody got two, and nobody none but where the process died with the SMS perhaps on the wire
    assert (summary["balanced"], summary["alerts"]["open"]) == (True, 0)
    texts = Counter(message["id"] for message in provider.messages("sms"))
    assert set(texts.values()) == {1}
    lost = {
        key_of(int(event[2:]))
        for (event,) in rows(
            site, "SELECT e.id FROM attempts t JOIN events e ON e.seq = t.alert / 16 WHERE t.outcome = 'unknown'"
        )
    }
    assert len(lost) <= 2
    assert set(map(key_of, range(count))) - set(texts) <= lost
    assert len(texts) > sent
    assert {message["times_seen"] for message in provider.messages("wechat")} == {1}


def ready(site: Any) -> bool:
    """The ledger has its tables."""
    path = site.folder / "ledger.db"
    return path.exists() and bool(rows(site, "SELECT 1 FROM sqlite_schema WHERE name = 'alerts'"))


def test_a_reversal_of_what_waits_is_told_to_nobody_and_one_of_what_left_is_the_correction(
    site: Any, providers: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    # Given recipients by SMS alone, and a lane that lets one a second go
    provider = providers()
    site.configure(provider.url)
    text = (site.folder / "swipebell.toml").read_text()
    text = text.replace("rate_per_second = 5000\n", "rate_per_second = 1\n")
    text += route(site, '["sms"]')
    (site.folder / "swipebell.toml").write_text(text)
    swipes = [line(number, amount=large(number)) for number in range(4)]
    back = [
        line(0, id=f"back-{n}", account=f"acc-{n}", amount=-20_000 - n, type="reversal", refers_to=f"p-00000{n}")
        for n in (0, 3)
    ]
    (site.folder / "swipes.ndjson").write_text("\n".join(swipes) + "\n")
    site.recipients_for(site.folder / "swipes.ndjson")
    (site.folder / "first.ndjson").write_text(swipes[0] + "\n")
    (site.folder / "rest.ndjson").write_text("\n".join([*swipes, *back]) + "\n")

    # When the first swipe was sent before its reversal came, and the last one comes with its reversal
    site.send("first.ndjson")
    summary = site.send("rest.ndjson")

    # Then the first is corrected, and of the last nobody hears
    assert (summary["balanced"], summary["alerts"]["open"]) == (True, 0)
    assert (summary["alerts"]["cancelled"], summary["suppressed_by"]) == (1, {"reversed-before-sending": 1})
    assert [one["attempts"] for one in (summary["by_channel"]["sms"],)] == [3]
    bodies = [message["text"] for message in provider.messages("sms")]
    assert sum("撤销交易" in body or "Reversal of" in body for body in bodies) == 1
    told = {message["id"] for message in provider.messages("sms")}
    assert {key_of(0), key_of(1), key_of(2)} < told
    assert key_of(3) not in told
    assert "cancelled by event back-3, which took it back before it was sent," in site.run("explain", "p-000003")[0]
    assert "belongs to event p-000003" in site.run("explain", "back-3")[0]
