"""What cardholders saw: shown once or not at all, whatever was answered and reported."""

from __future__ import annotations

import json

import pytest

from dispatcher.httpd import Request
from loadtest.providers.book import Book
from loadtest.providers.faults import Faults
from loadtest.providers.seen import AlertShown, by_alert, doubles, read_shown, shown_on
from tests.loadtest.test_provider_wechat import OPENID, Platform, message

BEARER = "Bearer simulated-secret"


def text(platform: Platform, key: str, to: str = "+8613800138000") -> None:
    body = json.dumps({"id": key, "to": to, "text": "x"}).encode()
    platform.providers.answer(Request("POST", "/sms", "", body, BEARER))


def seen(platform: Platform, query: str) -> list[tuple[str, str, str | None]]:
    answer = platform.ask("/_book/seen", method="GET", query=query)
    assert answer.status == 200
    return [(one.channel, one.recipient, one.key) for one in read_shown(answer.body)]


def test_a_message_that_came_twice_was_shown_once() -> None:
    platform = Platform()
    platform.send()
    platform.now += 599.0
    platform.send()
    assert seen(platform, "channel=wechat") == [("wechat", OPENID, "alert-1")]
    # And after ten minutes WeChat does not know it any more: that is a double, and it is found
    platform.now += 1.0
    platform.send()
    assert list(doubles(shown_on(platform.providers.book, "wechat"))) == [("alert-1", AlertShown(wechat=2))]


def test_a_reset_after_acceptance_was_shown_and_a_refusal_was_not() -> None:
    platform = Platform(faults=Faults(reset=1.0))
    assert platform.send_raw(json.dumps(message()).encode()).reset
    platform.send(touser="not an openid")
    platform.send_raw(b"{")
    assert seen(platform, "") == [("wechat", OPENID, "alert-1")]


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (None, 1),
        ("success", 1),
        ("failed:user block", 0),
        ("failed: system failed", 0),
        ("failed:freq limit", 0),
    ],
)
def test_a_message_whose_report_says_that_it_failed_was_not_shown(status: str | None, shown: int) -> None:
    book = Book(keep_bodies=0)
    row = book.deliver_wechat(openid="o1", client_msg_id="a1", msgid=1, data={}, now=5.0)
    row.status = status
    row.report_lost = True  # whether anybody hears of it is another matter
    assert len(shown_on(book, "wechat")) == shown


def test_a_text_message_that_came_twice_was_shown_twice() -> None:
    platform = Platform()
    text(platform, "a1")
    text(platform, "a1")
    text(platform, "a2", "+8613800138001")
    platform.providers.book.sms_messages[0].status = "delivered"
    assert seen(platform, "channel=sms&offset=1") == [
        ("sms", "+8613800138000", "a1"),
        ("sms", "+8613800138001", "a2"),
    ]
    assert seen(platform, "channel=sms&limit=1") == [("sms", "+8613800138000", "a1")]
    assert seen(platform, "channel=sms&recipient=%2B8613800138001") == [("sms", "+8613800138001", "a2")]
    platform.providers.book.sms_messages[1].status = "failed"
    assert len(seen(platform, "channel=sms")) == 2


def test_each_alert_is_told_by_channel() -> None:
    platform = Platform()
    platform.send(client_msg_id="a1")
    platform.send(client_msg_id=None)
    text(platform, "a1")
    book = platform.providers.book
    told = by_alert([*shown_on(book, "wechat"), *shown_on(book, "sms")])
    assert told == {"a1": AlertShown(1, 1), None: AlertShown(1, 0)}
    assert not list(doubles([*shown_on(book, "wechat"), *shown_on(book, "sms")]))
    assert platform.ask("/_book/seen", method="POST").status == 405
    assert platform.ask("/_book/seen", method="GET", query="channel=pigeon").status == 400


def test_what_was_shown_does_not_print_to_whom() -> None:
    platform = Platform()
    platform.send()
    (one,) = shown_on(platform.providers.book, "wechat")
    assert repr([one]) == "[<Shown on wechat>]"
