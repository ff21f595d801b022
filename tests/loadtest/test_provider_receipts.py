"""Delivery reports: signed, on time, tried three times, lost and doubled on purpose."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import defusedxml.ElementTree
import pytest
import trio

from loadtest.poster import Target, signature
from loadtest.providers.book import Book, ReceiptCounts
from loadtest.providers.receipts import CONNECTIONS, Receipts
from loadtest.providers.settings import ReceiptSettings
from tests.dispatcher.network_kit import Conversation, Seen, serving

Respond = Callable[[Conversation, Seen], Awaitable[None]]


class Receiver:
    """The bank's side: remembers each report and when it came, and answers as the test says."""

    def __init__(self, respond: Respond | None = None) -> None:
        self.requests: list[Seen] = []
        self.times: list[float] = []
        self._respond = respond

    async def __call__(self, talk: Conversation) -> None:
        while (request := await talk.read()) is not None:
            self.requests.append(request)
            self.times.append(trio.current_time())
            if self._respond is not None:
                await self._respond(talk, request)
            else:
                await talk.answer(b"success")


def query_of(request: Seen) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}


@asynccontextmanager
async def reporting(receiver: Receiver, **settings: Any) -> AsyncIterator[tuple[Receipts, Book]]:
    book = Book(keep_bodies=10)
    async with serving(receiver) as server:
        urls = {"wechat_url": f"{server.url}/wechat", "sms_url": f"{server.url}/sms"}
        receipts = Receipts(ReceiptSettings(**{**urls, **settings}), book, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receipts.run)
            yield receipts, book
            nursery.cancel_scope.cancel()


def deliver(book: Book, receipts: Receipts, *, count: int = 1) -> None:
    for number in range(count):
        receipts.wechat(
            book.deliver_wechat(
                openid="oABC",
                client_msg_id=f"a{number}",
                msgid=7_000_000_000 + number,
                data={},
                now=1795356300.4,
            )
        )


@pytest.mark.parametrize(
    ("timestamp", "nonce", "expected"),
    [
        ("1714037059", "486452656", "899cf89e464efb63f54ddac96b0a0a235f53aa78"),
        ("1714036504", "1514711492", "f464b24fc39322e44b38aa78f5edd27bd1441696"),
    ],
)
def test_the_signature_is_the_one_of_the_documentation(timestamp: str, nonce: str, expected: str) -> None:
    assert signature("AAAAA", timestamp, nonce) == expected


async def test_a_delivered_message_is_reported_as_signed_xml(socket_clock: trio.testing.MockClock) -> None:
    receiver = Receiver()
    async with reporting(receiver) as (receipts, book):
        deliver(book, receipts)
        await trio.sleep(6.0)
    (request,) = receiver.requests
    query = query_of(request)
    assert urlsplit(request.target).path == "/wechat"
    assert query["openid"] == "oABC"
    assert query["signature"] == signature("simulated-token", query["timestamp"], query["nonce"])
    assert ("Content-Type", "text/xml") in request.headers
    assert request.body.decode() == (
        "<xml><ToUserName><![CDATA[gh_simulated0000]]></ToUserName>\n"
        "<FromUserName><![CDATA[oABC]]></FromUserName><CreateTime>1795356300</CreateTime>\n"
        "<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[TEMPLATESENDJOBFINISH]]></Event>\n"
        "<MsgID>7000000000</MsgID><Status><![CDATA[success]]></Status></xml>"
    )
    assert defusedxml.ElementTree.fromstring(request.body).findtext("Status") == "success"
    assert book.wechat_messages[0].status == "success"
    assert book.wechat.receipts == ReceiptCounts(planned=1, posted=1)


async def test_reports_come_within_their_time_and_not_in_order(
    socket_clock: trio.testing.MockClock,
) -> None:
    receiver = Receiver()
    async with reporting(receiver, earliest_seconds=1.0, latest_seconds=3.0) as (receipts, book):
        started = trio.current_time()
        deliver(book, receipts, count=50)
        await trio.sleep(4.0)
    assert len(receiver.times) == 50
    assert 1.0 <= min(receiver.times) - started < max(receiver.times) - started <= 3.1
    order = [defusedxml.ElementTree.fromstring(request.body).findtext("MsgID") for request in receiver.requests]
    assert order != sorted(order)


async def test_each_status_has_the_text_of_the_platform(socket_clock: trio.testing.MockClock) -> None:
    receiver = Receiver()
    weights = {"success": 1.0, "user-block": 1.0, "system-failed": 1.0, "freq-limit": 1.0}
    async with reporting(receiver, weights=weights) as (receipts, book):
        deliver(book, receipts, count=100)
        await trio.sleep(6.0)
    reported = {defusedxml.ElementTree.fromstring(request.body).findtext("Status") for request in receiver.requests}
    assert reported == {"success", "failed:user block", "failed: system failed", "failed:freq limit"}
    assert {row.status for row in book.wechat_messages} == reported


async def test_a_refused_report_is_tried_three_times(socket_clock: trio.testing.MockClock) -> None:
    async def refuse(talk: Conversation, _request: Seen) -> None:
        await talk.answer(b"success", status="500 Oops")

    receiver = Receiver(refuse)
    async with reporting(receiver) as (receipts, book):
        deliver(book, receipts)
        await trio.sleep(30.0)
    assert len(receiver.requests) == 3
    assert len({request.body for request in receiver.requests}) == 1
    assert book.wechat.receipts == ReceiptCounts(planned=1, retried=2, given_up=1)


async def test_a_wrong_answer_or_a_broken_connection_is_tried_again(
    socket_clock: trio.testing.MockClock,
) -> None:
    answers = iter([b"no", None, b""])

    async def respond(talk: Conversation, _request: Seen) -> None:
        body = next(answers)
        if body is None:
            talk.reset()
        else:
            await talk.answer(body)

    receiver = Receiver(respond)
    async with reporting(receiver) as (receipts, book):
        deliver(book, receipts)
        await trio.sleep(30.0)
    assert book.wechat.receipts == ReceiptCounts(planned=1, posted=1, retried=2)


async def test_a_receiver_that_is_silent_has_five_seconds_each_time(
    socket_clock: trio.testing.MockClock,
) -> None:
    async def hang(_talk: Conversation, _request: Seen) -> None:
        await trio.sleep_forever()

    receiver = Receiver(hang)
    async with reporting(receiver) as (receipts, book):
        deliver(book, receipts)
        await trio.sleep(30.0)
    first, second, third = receiver.times
    assert second - first == pytest.approx(5.0)
    assert third - second == pytest.approx(5.0)
    assert book.wechat.receipts.given_up == 1


async def test_reports_are_lost_and_doubled_on_purpose(socket_clock: trio.testing.MockClock) -> None:
    for setting, expected in (
        ("lost", ReceiptCounts(planned=5, lost=5)),
        ("duplicated", ReceiptCounts(planned=5, posted=10, duplicated=5)),
    ):
        receiver = Receiver()
        async with reporting(receiver, **{setting: 1.0}) as (receipts, book):
            deliver(book, receipts, count=5)
            await trio.sleep(6.0)
        assert book.wechat.receipts == expected


async def test_reports_that_do_not_fit_the_queue_are_lost(socket_clock: trio.testing.MockClock) -> None:
    receiver = Receiver()
    async with reporting(receiver, max_pending=3) as (receipts, book):
        deliver(book, receipts, count=5)
        await trio.sleep(6.0)
    assert book.wechat.receipts == ReceiptCounts(planned=5, posted=3, lost=2)


async def test_a_text_message_is_reported_as_json(socket_clock: trio.testing.MockClock) -> None:
    receiver = Receiver()
    async with reporting(receiver, weights={"success": 1.0, "user-block": 1.0}) as (receipts, book):
        for number in range(20):
            receipts.sms(book.deliver_sms(message_id=f"a{number}", to="+8613800138000", text="x", now=1.0))
        await trio.sleep(6.0)
    reports = {report["id"]: report for report in (json.loads(request.body) for request in receiver.requests)}
    assert {(report["status"], report["code"]) for report in reports.values()} == {
        ("delivered", 0),
        ("failed", 1),
    }
    assert {row.id: row.status for row in book.sms_messages} == {
        name: report["status"] for name, report in reports.items()
    }
    query = query_of(receiver.requests[0])
    assert query["signature"] == signature("simulated-token", query["timestamp"], query["nonce"])
    assert "openid" not in query


async def test_a_channel_without_an_address_has_no_reports(socket_clock: trio.testing.MockClock) -> None:
    receiver = Receiver()
    async with reporting(receiver, wechat_url=None, sms_url=None) as (receipts, book):
        deliver(book, receipts)
        receipts.sms(book.deliver_sms(message_id="a", to="+8613800138000", text="x", now=1.0))
        await trio.sleep(6.0)
    assert not receiver.requests
    assert book.wechat_messages[0].status is None


async def test_a_receiver_that_is_not_there_has_two_seconds_to_come_back(
    socket_clock: trio.testing.MockClock, unused_port: int
) -> None:
    receiver = Receiver()
    async with reporting(receiver, wechat_url=f"http://127.0.0.1:{unused_port}/") as (receipts, book):
        deliver(book, receipts)
        await trio.sleep(30.0)
    assert book.wechat.receipts == ReceiptCounts(planned=1, retried=2, given_up=1)


async def test_a_connection_is_used_again_and_a_closed_one_is_not(socket_clock: trio.testing.MockClock) -> None:
    # Given a receiver that answers two reports a connection, and says so only by closing it
    async def twice(talk: Conversation, request: Seen) -> None:
        await talk.answer(b"success")
        if sum(seen.connection == talk.number for seen in receiver.requests) == 2:
            talk.close()

    receiver = Receiver(twice)
    async with reporting(receiver, earliest_seconds=0.0, latest_seconds=0.0) as (receipts, book):
        for _ in range(6):
            deliver(book, receipts)
            await trio.sleep(1.0)
    # Then six reports take three connections, and none is tried again
    assert [request.connection for request in receiver.requests] == [0, 0, 1, 1, 2, 2]
    assert book.wechat.receipts == ReceiptCounts(planned=6, posted=6)


async def test_more_reports_than_connections_wait_for_one(socket_clock: trio.testing.MockClock) -> None:
    async def slow(talk: Conversation, _request: Seen) -> None:
        await trio.sleep(1.0)
        await talk.answer(b"success")

    receiver = Receiver(slow)
    async with reporting(receiver, earliest_seconds=0.0, latest_seconds=0.0) as (receipts, book):
        deliver(book, receipts, count=600)
        await trio.sleep(10.0)
    assert len({request.connection for request in receiver.requests}) == CONNECTIONS == 256
    assert book.wechat.receipts == ReceiptCounts(planned=600, posted=600)


async def test_reports_that_wait_for_a_connection_do_not_wait_for_ever(
    socket_clock: trio.testing.MockClock,
) -> None:
    # Given a receiver that is silent, with every connection in use and more than twice as many reports
    book = Book(keep_bodies=10)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
    receipts = Receipts(ReceiptSettings(wechat_url=url, earliest_seconds=0.0, latest_seconds=0.0), book, 1)
    planned = 2 * CONNECTIONS + 100
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receipts.run)
        deliver(book, receipts, count=planned)
        await trio.sleep(1.0)
        # When it goes away
        await listener.aclose()
        await trio.sleep(30.0)
        nursery.cancel_scope.cancel()
    # Then each report has had its three tries
    assert book.wechat.receipts == ReceiptCounts(planned=planned, retried=2 * planned, given_up=planned)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "127.0.0.1:80",
        "http://",
        "http://:80/",
        "http://x:99999/",
        "http://x:y/",
        "http://u:p@x/",
        "http://x/?a=b",
        "http://x/#a",
        "http://x/\r\nX: y",
        "http://x/é",
    ],
)
def test_an_address_that_cannot_be_posted_to_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://"):
        Target(url)
