"""WeChat's callbacks over a real socket: safe mode, and everything that is refused."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
import trio

from dispatcher.channels.wechat.callback import signature
from dispatcher.channels.wechat.crypto import CallbackKeys, msg_signature
from dispatcher.engine import Engine
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.api import Receipt
from dispatcher.model.heard import Heard
from dispatcher.model.private import Secret
from dispatcher.receipts import REASONS, ReceiptDesk
from tests.dispatcher.httpd_kit import PATIENCE_S

TOKEN = "receipt-token"
KEY, OLD = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG", "0123456789ABCDEFGabcdefghijklmnopqrstuvwxyz"
APPID = "wx0000000000000001"
NOW = 1_714_037_059
OPENID = "oK3x9_Secret-OpenId-aB7cD2e"
_nonces = itertools.count(1)


class Books:
    """The engine as the desk sees it."""

    def __init__(self) -> None:
        self.kept: list[Receipt] = []
        self.heard: list[Heard] = []
        self.error: Exception | None = None

    async def receive(self, batch: Sequence[Receipt]) -> None:
        if self.error is not None:
            raise self.error
        self.kept += batch

    async def hear(self, facts: Sequence[Heard]) -> None:
        if self.error is not None:
            raise self.error
        self.heard += facts


class Served:
    def __init__(self, books: Books, refused: list[str]) -> None:
        self.url = ""
        self.books = books
        self.refused = refused

    async def post(self, query: dict[str, str], body: bytes) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=PATIENCE_S, verify=False) as client:
            return await client.post("/wechat", params=query, content=body)


@asynccontextmanager
async def serving(*keys: str) -> AsyncIterator[Served]:
    refused: list[str] = []
    served = Served(Books(), refused)
    desk = ReceiptDesk(
        cast("Engine", served.books),
        Secret(TOKEN),
        "127.0.0.1:0",
        keys=CallbackKeys(keys, APPID) if keys else None,
        refused=refused.append,
        now_ms=lambda: NOW * 1000,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.run)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        served.url = await nursery.start(desk.serve, listeners, trio.sleep_forever)
        yield served
        nursery.cancel_scope.cancel()


def plain_query(**changes: str) -> dict[str, str]:
    stamp, nonce = changes.get("timestamp", str(NOW)), changes.get("nonce", str(next(_nonces)))
    return {"signature": signature(TOKEN, stamp, nonce), "timestamp": stamp, "nonce": nonce} | changes


def sealed(
    message: bytes, *, key: str = KEY, appid: str = APPID, compat: bool = False, **changes: str
) -> tuple[dict[str, str], bytes]:
    """Query and body of an encrypted callback."""
    encrypted = CallbackKeys([key], appid).seal(message, b"0123456789abcdef")
    query = plain_query(**changes)
    query |= {
        "encrypt_type": "aes",
        "msg_signature": msg_signature(TOKEN, query["timestamp"], query["nonce"], encrypted),
    }
    envelope = f"<Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>".encode()
    plain = message.removesuffix(b"</xml>") if compat else b"<xml><ToUserName><![CDATA[gh_1]]></ToUserName>"
    return query | changes, plain + envelope


def xml(kind: str, event: str = "", more: str = "", at: int = NOW, openid: str = OPENID) -> bytes:
    event = f"<Event><![CDATA[{event}]]></Event>" if event else ""
    return (
        f"<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[{openid}]]></FromUserName>"
        f"<CreateTime>{at}</CreateTime><MsgType><![CDATA[{kind}]]></MsgType>{event}{more}</xml>"
    ).encode()


FINISHED = xml("event", "TEMPLATESENDJOBFINISH", "<MsgID>42</MsgID><Status><![CDATA[success]]></Status>")
BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]><xml>&d;</xml>'
)
EXTERNAL = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><xml><Event>&e;</Event></xml>'

EVENTS: list[tuple[bytes, str | None]] = [
    (xml("event", "subscribe"), "follow"),
    (xml("event", "subscribe", "<EventKey><![CDATA[qrscene_7]]></EventKey><Ticket><![CDATA[T]]></Ticket>"), "follow"),
    (xml("event", "SCAN", "<EventKey><![CDATA[7]]></EventKey><Ticket><![CDATA[T]]></Ticket>"), "scan"),
    (xml("event", "unsubscribe"), "unfollow"),
    (xml("event", "CLICK", "<EventKey><![CDATA[menu]]></EventKey>"), "tap"),
    (xml("event", "scancode_push", "<EventKey>k</EventKey><ScanCodeInfo/>"), "tap"),
    (xml("event", "scancode_waitmsg", "<EventKey>k</EventKey><ScanCodeInfo/>"), "tap"),
    (xml("event", "VIEW", "<EventKey>https://bank.example</EventKey>"), None),
    (xml("event", "LOCATION", "<Latitude>1</Latitude>"), None),
    (xml("event", "location_select"), None),
    (xml("event", "MASSSENDJOBFINISH"), None),
    (xml("text", more="<Content><![CDATA[余额]]></Content><MsgId>1</MsgId>"), "message"),
    *((xml(kind, more="<MsgId>1</MsgId>"), "message") for kind in ("image", "voice", "video", "shortvideo", "link")),
    (xml("location", more="<Location_X>23.1</Location_X><MsgId>1</MsgId>"), "message"),
    (xml("something-new"), None),
    (xml("event", "something_new"), None),
    # A message whose text looks like an event is a message
    (xml("text", more="<Content>&lt;Event&gt;unsubscribe&lt;/Event&gt;</Content>"), "message"),
]


@pytest.mark.parametrize("mode", ["plain", "safe", "compat"])
async def test_every_event_is_heard_in_every_mode(mode: str) -> None:
    async with serving(*([] if mode == "plain" else [KEY])) as served:
        for message, _ in EVENTS:
            query, body = (plain_query(), message) if mode == "plain" else sealed(message, compat=mode == "compat")
            answer = await served.post(query, body)
            assert (answer.status_code, answer.text) == (200, "success")
        query, body = (plain_query(), FINISHED) if mode == "plain" else sealed(FINISHED, compat=mode == "compat")
        assert (await served.post(query, body)).text == "success"
        assert served.books.heard == [Heard(OPENID, kind, NOW * 1000) for _, kind in EVENTS if kind]  # type: ignore[arg-type]
        assert served.books.kept == [Receipt("wechat", "42", "delivered")]
        assert served.refused == []


async def test_compat_without_a_key_is_read_as_plain() -> None:
    async with serving() as served:
        query, body = sealed(FINISHED, compat=True)
        assert (await served.post(query, body)).text == "success"
        assert served.books.kept == [Receipt("wechat", "42", "delivered")]


async def test_after_a_change_of_keys_both_are_taken() -> None:
    async with serving(KEY, OLD) as served:
        for key in (OLD, KEY, OLD):
            query, body = sealed(FINISHED, key=key)
            assert (await served.post(query, body)).text == "success"
        assert len(served.books.kept) == 3


def refusals() -> list[Any]:
    query, body = sealed(FINISHED)
    changed = body.replace(b"<Encrypt><![CDATA[", b"<Encrypt><![CDATA[AAAA")
    unsigned = {name: value for name, value in query.items() if name != "msg_signature"}
    no_openid = xml("event", "unsubscribe", openid="")
    return [
        pytest.param(query | {"msg_signature": "0" * 40}, body, 401, "signature", id="wrong signature"),
        pytest.param(unsigned, body, 401, "signature", id="no signature"),
        pytest.param(query, changed, 401, "signature", id="changed body"),
        pytest.param(query | {"nonce": "0"}, body, 401, "signature", id="another nonce"),
        pytest.param(plain_query(), FINISHED, 401, "not-encrypted", id="plain, rightly signed"),
        pytest.param(plain_query() | {"encrypt_type": "raw"}, FINISHED, 401, "not-encrypted", id="raw"),
        pytest.param(plain_query() | {"encrypt_type": "aes"}, FINISHED, 401, "signature", id="aes without Encrypt"),
        pytest.param(*sealed(FINISHED, timestamp=str(NOW - 301)), 401, "stale", id="old"),
        pytest.param(*sealed(FINISHED, timestamp=str(NOW + 301)), 401, "stale", id="from the future"),
        pytest.param(*sealed(FINISHED, key=OLD), 401, "key", id="wrong key"),
        pytest.param(*sealed(FINISHED, appid="wx0000000000000002"), 401, "appid", id="wrong appid"),
        pytest.param(*sealed(BOMB), 400, "xml", id="bomb inside"),
        pytest.param(*sealed(EXTERNAL), 400, "xml", id="external entity inside"),
        pytest.param(*sealed(b"no xml"), 400, "xml", id="no XML inside"),
        pytest.param(*sealed(no_openid), 400, "xml", id="nobody"),
        pytest.param(query, BOMB, 400, "xml", id="bomb"),
        pytest.param(query, EXTERNAL, 400, "xml", id="external entity"),
        pytest.param(query, b"", 400, "xml", id="nothing"),
        pytest.param(query, b"<a>" * 20_000, 400, "xml", id="deep"),
        pytest.param(query, b"\xff\xfe\x00", 400, "xml", id="no text"),
        pytest.param(query, b" " * 1024 * 1024, 413, "too-large", id="a mebibyte"),
    ]


@pytest.mark.parametrize(("query", "body", "status", "reason"), refusals())
async def test_whatever_is_wrong_is_refused_counted_and_hurts_nobody(
    query: dict[str, str], body: bytes, status: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(KEY) as served:
        answer = await served.post(query, body)
        assert (answer.status_code, served.refused) == (status, [reason])
        assert reason in REASONS
        # And the next one is taken
        good_query, good = sealed(FINISHED)
        assert (await served.post(good_query, good)).text == "success"
        assert served.books.heard == []
        assert len(served.books.kept) == 1
    shown = answer.text + "".join(capsys.readouterr())
    for private in (OPENID, TOKEN, KEY, OLD, APPID, "root:"):
        assert private not in shown


@pytest.mark.parametrize("body", [BOMB, EXTERNAL, b"<xml>", b""])
async def test_plain_mode_refuses_the_same_xml(body: bytes) -> None:
    async with serving() as served:
        assert (await served.post(plain_query(), body)).status_code == 400
        assert served.refused == ["xml"]


async def test_a_bomb_takes_no_memory() -> None:
    async with serving() as served:
        tracemalloc.start()
        for _ in range(5):
            await served.post(plain_query(), BOMB)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20 * 1024 * 1024


@pytest.mark.parametrize("keys", [(), (KEY,)])
async def test_a_retry_is_thanked_for_once_kept_and_a_replay_refused(keys: tuple[str, ...]) -> None:
    query, body = sealed(FINISHED, timestamp=str(NOW), nonce=f"again-{len(keys)}", compat=True)
    async with serving(*keys) as served:
        # Given a receipt that could not be kept
        served.books.error = LedgerUnavailable("the disk is full")
        assert (await served.post(query, body)).status_code == 503
        # When WeChat tells it again, then it is kept
        served.books.error = None
        assert (await served.post(query, body)).text == "success"
        # And once more, because the answer was lost: thanked for without effect
        assert (await served.post(query, body)).text == "success"
        assert len(served.books.kept) == 1
        # But something else under the same nonce is refused, whether it can be signed again (plain) or not
        other = FINISHED.replace(b"success", b"failed:user block")
        forged = sealed(other, timestamp=query["timestamp"], nonce=query["nonce"])[1] if keys else other
        assert (await served.post(query, forged)).status_code == 401
        assert served.refused == ["signature" if keys else "replayed"]
        assert len(served.books.kept) == 1


async def test_two_honest_callbacks_may_share_a_nonce_in_safe_mode() -> None:
    async with serving(KEY) as served:
        for event in ("subscribe", "unsubscribe"):
            query, body = sealed(xml("event", event), nonce="same")
            assert (await served.post(query, body)).text == "success"
        assert [one.kind for one in served.books.heard] == ["follow", "unfollow"]


async def test_a_deed_of_next_year_is_taken_for_one_of_now() -> None:
    async with serving() as served:
        await served.post(plain_query(), xml("event", "subscribe", at=NOW + 31_536_000))
        assert served.books.heard == [Heard(OPENID, "follow", (NOW + 300) * 1000)]


async def test_the_endpoint_check_is_not_for_recordings() -> None:
    async with serving(KEY) as served, httpx.AsyncClient(base_url=served.url, trust_env=False, verify=False) as client:
        good = await client.get("/wechat", params=plain_query(echostr="e"))
        old = await client.get("/wechat", params=plain_query(timestamp="1", echostr="e"))
        assert (good.text, old.status_code, served.refused) == ("e", 401, ["stale"])
