"""The receipts listener over real sockets: answered by the batch that commits, and by nobody else."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
import trio

from dispatcher import receipts
from dispatcher.channels.wechat.callback import signature
from dispatcher.engine import Engine
from dispatcher.errors import LedgerFailed, LedgerUnavailable, PortInUse
from dispatcher.ledger.api import Receipt
from dispatcher.listening import open_listeners
from dispatcher.model.private import Secret
from dispatcher.receipts import ReceiptDesk
from tests.dispatcher.httpd_kit import PATIENCE_S

TOKEN = "receipt-token"
STAMP = 1714037059
_nonces = itertools.count(486452656)


class Books:
    """The engine as the desk sees it: keeps each batch, and commits when the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[Receipt]] = []
        self.committing = trio.Event()
        self.commit = trio.Event()
        self.commit.set()
        self.error: Exception | None = None

    async def receive(self, batch: Sequence[Receipt]) -> None:
        self.committing.set()
        await self.commit.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(list(batch))

    def hold(self) -> None:
        """From now on a commit takes until ``commit`` is set."""
        self.commit, self.committing = trio.Event(), trio.Event()

    @property
    def kept(self) -> list[tuple[str, str, str]]:
        return [(one.channel, one.msgid, one.status) for batch in self.batches for one in batch]


class Served:
    """A running desk. Requests are made with httpx, each client of its own connection."""

    def __init__(self, url: str, books: Books, desk: ReceiptDesk) -> None:
        self.url = url
        self.books = books
        self.desk = desk
        self.stop = trio.Event()
        self.ended = trio.Event()

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=PATIENCE_S, verify=False) as client:
            return await client.request(method, path, content=body, headers=headers)

    async def waiting(self, count: int) -> None:
        """Until so many receipts wait for their commit."""
        with trio.fail_after(PATIENCE_S):
            while len(self.desk._waiting) < count:  # noqa: ASYNC110 - the desk has no word for it
                await trio.sleep(0.001)

    async def wechat(self, msgid: int | str, status: str = "success", **changes: str) -> httpx.Response:
        return await self.ask("POST", signed("/wechat", **changes), finished(msgid, status))


@asynccontextmanager
async def serving(token: str | None = TOKEN) -> AsyncIterator[Served]:
    books = Books()
    desk = ReceiptDesk(
        cast("Engine", books), None if token is None else Secret(token), "127.0.0.1:0", now_ms=lambda: STAMP * 1000
    )
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        served = Served("", books, desk)

        async def serve(task_status: trio.TaskStatus[str]) -> None:
            await desk.serve(listeners, served.stop.wait, task_status=task_status)
            served.ended.set()

        nursery.start_soon(desk.run)
        served.url = await nursery.start(serve)
        yield served
        nursery.cancel_scope.cancel()


def signed(path: str, **changes: str) -> str:
    stamp, nonce = str(STAMP), str(next(_nonces))
    fields = {"signature": signature(TOKEN, stamp, nonce), "timestamp": stamp, "nonce": nonce, "openid": "oA"}
    return f"{path}?{httpx.QueryParams({**fields, **changes})}"


def finished(msgid: int | str, status: str = "success") -> bytes:
    return (
        "<xml><ToUserName><![CDATA[gh_1]]></ToUserName>\n<FromUserName><![CDATA[oA]]></FromUserName>"
        "<CreateTime>1395658920</CreateTime>\n<MsgType><![CDATA[event]]></MsgType>"
        f"<Event><![CDATA[TEMPLATESENDJOBFINISH]]></Event>\n<MsgID>{msgid}</MsgID>"
        f"<Status><![CDATA[{status}]]></Status></xml>"
    ).encode()


# ---- by the batch -------------------------------------------------------------------------------------------------


async def test_a_receipt_is_answered_after_its_commit_and_not_before() -> None:
    async with serving() as served:
        served.books.hold()
        answers: list[httpx.Response] = []
        async with trio.open_nursery() as nursery:

            async def post(number: int) -> None:
                answers.append(await served.wechat(number))

            # Given a receipt in its commit, when five more come
            nursery.start_soon(post, 1)
            await served.books.committing.wait()
            for number in range(2, 7):
                nursery.start_soon(post, number)
            await served.waiting(5)
            # Then none is answered until it is durable
            assert answers == []
            served.books.commit.set()
        assert [(answer.status_code, answer.text) for answer in answers] == [(200, "success")] * 6
        # And what came during the commit was the next batch
        assert [len(batch) for batch in served.books.batches] == [1, 5]


async def test_the_same_receipt_twice_is_kept_twice_and_left_to_the_ledger() -> None:
    async with serving() as served:
        for _ in range(2):
            assert (await served.wechat(7)).text == "success"
        assert served.books.kept == [("wechat", "7", "delivered")] * 2


async def test_a_ledger_that_cannot_write_is_503_until_it_can() -> None:
    async with serving() as served:
        served.books.error = LedgerUnavailable("the disk is full")
        refused = await served.wechat(1)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        served.books.error = None
        assert (await served.wechat(1)).status_code == 200
        assert served.books.kept == [("wechat", "1", "delivered")]


async def test_a_ledger_that_failed_ends_the_desk_and_nothing_is_called_kept() -> None:
    books = Books()
    books.error = LedgerFailed("fsync")
    desk = ReceiptDesk(cast("Engine", books), None)
    answered: list[int] = []
    with pytest.RaisesGroup(LedgerFailed):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.run)
            url = await nursery.start(desk.serve, await open_listeners("127.0.0.1:0", "x"), trio.sleep_forever)
            answered.append((await Served(url, books, desk).wechat(1)).status_code)
    assert answered == []


async def test_more_than_can_wait_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "MAX_WAITING", 2)
    async with serving() as served:
        served.books.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.wechat, 1)
            await served.books.committing.wait()
            nursery.start_soon(served.wechat, 2)
            nursery.start_soon(served.wechat, 3)
            await served.waiting(2)
            assert (await served.wechat(4)).status_code == 503
            served.books.commit.set()
        assert sorted(served.books.kept) == [("wechat", str(number), "delivered") for number in (1, 2, 3)]


async def test_a_push_that_is_larger_than_what_may_wait_is_taken_when_nothing_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receipts, "MAX_WAITING", 2)
    async with serving() as served:
        reports = [{"id": f"m-{number}", "status": "delivered"} for number in range(5)]
        proof = {"Authorization": f"Bearer {TOKEN}"}
        assert (await served.ask("POST", "/sms", json.dumps(reports).encode(), **proof)).status_code == 200
        assert len(served.books.kept) == 5


async def test_receipts_in_work_at_the_stop_are_kept_and_answered() -> None:
    async with serving() as served:
        served.books.hold()
        async with trio.open_nursery() as nursery:
            answers: list[int] = []

            async def post() -> None:
                answers.append((await served.wechat(1)).status_code)

            nursery.start_soon(post)
            await served.books.committing.wait()
            served.stop.set()
            await trio.testing.wait_all_tasks_blocked()
            assert not served.ended.is_set()
            served.books.commit.set()
            await served.ended.wait()
        assert answers == [200]
        with pytest.raises(httpx.ConnectError):
            await served.wechat(2)


# ---- WeChat -------------------------------------------------------------------------------------------------------


async def test_the_status_is_kept_as_our_own_word() -> None:
    async with serving() as served:
        for number, status in enumerate(
            ["success", "failed:user block", "failed: system failed", "failed:+8613800000001"]
        ):
            assert (await served.wechat(number, status)).status_code == 200
        kept = [status for _, _, status in served.books.kept]
    assert kept == ["delivered", "failed:user-block", "failed:system-failed", "failed:other"]


async def test_the_endpoint_check_gets_its_echo() -> None:
    async with serving() as served:
        answer = await served.ask("GET", signed("/wechat", echostr="5887 & 我"))
        assert (answer.status_code, answer.text) == (200, "5887 & 我")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert (await served.ask("HEAD", signed("/wechat"))).status_code == 200
        assert (await served.ask("GET", "/wechat?echostr=x")).status_code == 401


async def test_a_callback_without_the_right_signature_is_refused() -> None:
    async with serving() as served:
        for changes in ({"signature": "0" * 40}, {"nonce": "1"}, {"timestamp": ""}, {"signature": "é"}):
            assert (await served.wechat(1, **changes)).status_code == 401
        assert (await served.ask("POST", "/wechat", finished(1))).status_code == 401
        assert served.books.batches == []


async def test_without_a_token_nothing_is_checked() -> None:
    async with serving(None) as served:
        assert (await served.ask("POST", "/wechat", finished(1))).status_code == 200
        assert (await served.ask("POST", "/sms", b'{"id":"a","status":"delivered"}')).status_code == 200
        assert len(served.books.kept) == 2


async def test_other_events_are_thanked_for_and_broken_ones_refused() -> None:
    async with serving() as served:
        for body, status in (
            (b"<xml><Event>subscribe</Event></xml>", 200),
            (b"<xml>", 400),
            (b"", 400),
            (finished("x"), 400),
            (b'<!DOCTYPE x [<!ENTITY a "b">]><xml>&a;</xml>', 400),
            (b" " * (64 * 1024 + 1), 413),
        ):
            answer = await served.ask("POST", signed("/wechat"), body)
            assert (answer.status_code, body[:20]) == (status, body[:20])
        assert served.books.batches == []


# ---- the SMS gateway ----------------------------------------------------------------------------------------------


async def test_status_reports_come_alone_or_as_a_page_and_are_kept_together() -> None:
    async with serving() as served:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        one = await served.ask("POST", "/sms", b'{"id":"a","status":"delivered","code":0}', **bearer)
        page = b'[{"id":"b","status":"failed","code":"UNDELIV"},{"id":"c","status":"failed","code":13800000001}]'
        two = await served.ask("POST", signed("/sms"), page)
        none = await served.ask("POST", "/sms", b"[]", **bearer)
        long = await served.ask("POST", "/sms", b'{"id":"%b","status":"delivered"}' % (b"x" * 65), **bearer)
        assert [answer.json() for answer in (one, two, none, long)] == [{"code": 0}] * 4
        assert [len(batch) for batch in served.books.batches] == [1, 2]
    assert served.books.kept == [
        ("sms", "a", "delivered"),
        ("sms", "b", "failed:sms:UNDELIV"),
        ("sms", "c", "failed:sms:other"),
    ]


async def test_a_report_without_proof_or_sense_is_refused() -> None:
    good = b'{"id":"a","status":"delivered"}'
    async with serving() as served:
        for wrong in ("", "Bearer nope", f"Basic {TOKEN}", TOKEN, "Bearer é".encode().decode("latin-1")):
            headers: dict[str, Any] = {"Authorization": wrong.encode("latin-1")} if wrong else {}
            answer = await served.ask("POST", "/sms", good, **headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        bearer = {"Authorization": f"bearer {TOKEN}"}
        for body in (b"", b"{", b"{}", b'{"id":1,"status":"x"}', b'{"id":"\xff","status":"x"}', b"[" * 20_000):
            assert (await served.ask("POST", "/sms", body, **bearer)).status_code == 400
        assert served.books.batches == []
        assert (await served.ask("POST", "/sms", good, **bearer)).status_code == 200


# ---- the rest -----------------------------------------------------------------------------------------------------


async def test_other_paths_and_methods_are_refused() -> None:
    async with serving() as served:
        for method, path, status, allow in (
            ("GET", "/", 404, None),
            ("POST", "/wechat/", 404, None),
            ("PUT", signed("/wechat"), 405, "GET, HEAD, POST"),
            ("GET", signed("/sms"), 405, "POST"),
        ):
            answer = await served.ask(method, path)
            assert (answer.status_code, answer.headers.get("allow")) == (status, allow)


async def test_a_bug_in_reading_is_500_and_says_nothing_of_what_was_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(body: bytes) -> None:
        raise KeyError(body)

    monkeypatch.setattr(receipts, "read_callback", broken)
    async with serving() as served:
        answer = await served.wechat(4242)
        assert (answer.status_code, answer.text) == (500, "error")
        assert (await served.ask("GET", signed("/wechat", echostr="alive"))).text == "alive"
    assert "4242" not in "".join(capsys.readouterr())


async def test_a_port_in_use_names_the_key() -> None:
    async with serving() as served:
        desk = ReceiptDesk(cast("Engine", Books()), None, served.url.removeprefix("http://"))
        with pytest.raises(PortInUse, match=r"receipts\.listen: 127\.0\.0\.1:\d+ is in use"):
            await desk.serve(None, trio.sleep_forever)


async def test_a_thousand_receipts_on_many_connections_share_their_commits() -> None:
    # Given sixty-four connections that post one receipt after the other, and commits of a millisecond
    async with serving() as served:
        host, _, port = served.url.removeprefix("http://").partition(":")
        receive = served.books.receive

        async def slow(batch: Sequence[Receipt]) -> None:
            await trio.sleep(0.001)
            await receive(batch)

        served.books.receive = slow  # type: ignore[method-assign]

        async def post(first: int) -> None:
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                for number in range(first, first + 16):
                    body = finished(number)
                    head = f"POST {signed('/wechat')} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                    await stream.send_all(head.encode() + body)
                    assert (await stream.receive_some()).endswith(b"\r\n\r\nsuccess")

        async with trio.open_nursery() as nursery:
            for client in range(64):
                nursery.start_soon(post, client * 16)
        # Then every one is kept once, in far fewer commits
        assert sorted(int(msgid) for _, msgid, _ in served.books.kept) == list(range(1024))
        assert len(served.books.batches) < 200
