"""Delivery reports that the simulated providers post back: WeChat's signed XML event, the SMS gateway's JSON.

Shapes, signature and the three tries of five seconds are from providers.md sections 3 and 5.1. Reports can
overtake the answer of their own send, come twice, or never.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import secrets
import time
from typing import Final

import httpx
import msgspec
import orjson
import trio

from loadtest.providers.book import Book, Counts, SmsMessage, WechatMessage
from loadtest.providers.faults import seeded
from loadtest.providers.settings import STATUSES, ReceiptSettings

TRIES: Final = 3
TIMEOUT_SECONDS: Final = 5.0
WORKERS: Final = 8
"""Reports on their way at a time, each with its own client: httpx searches a shared pool per request."""
POLL_SECONDS: Final = 0.02
"""How late a report may start; waking up once for many is cheaper than for each."""
ACCOUNT_ID: Final = "gh_simulated0000"


class _Report(msgspec.Struct, frozen=True, gc=False):
    url: str
    content_type: str
    body: bytes
    openid: str | None
    counts: Counts


def signature(token: str, timestamp: str, nonce: str) -> str:
    """WeChat's signature of a callback: SHA-1 of the three, sorted and joined."""
    return hashlib.sha1("".join(sorted([token, timestamp, nonce])).encode()).hexdigest()  # noqa: S324 - WeChat's choice


class Receipts:
    """Plans a report for each delivered message and posts it when its time has come.

    ``run`` posts until it is cancelled; reports that are still waiting then are dropped.
    """

    def __init__(
        self,
        settings: ReceiptSettings,
        book: Book,
        seed: int,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._book = book
        self._transport = transport
        self._random = seeded(seed, "receipts")
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, _Report]] = []

    def wechat(self, message: WechatMessage) -> None:
        """Plan the TEMPLATESENDJOBFINISH event of a message."""
        if self._settings.wechat_url is None:
            return
        message.status = self._status()
        body = (
            f"<xml><ToUserName><![CDATA[{ACCOUNT_ID}]]></ToUserName>\n"
            f"<FromUserName><![CDATA[{message.openid}]]></FromUserName>"
            f"<CreateTime>{int(message.at)}</CreateTime>\n"
            "<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[TEMPLATESENDJOBFINISH]]></Event>\n"
            f"<MsgID>{message.msgid}</MsgID><Status><![CDATA[{message.status}]]></Status></xml>"
        )
        report = _Report(self._settings.wechat_url, "text/xml", body.encode(), message.openid, self._book.wechat)
        self._plan(report)

    def sms(self, message: SmsMessage) -> None:
        """Plan the status report of a text message: ``code`` is 0 when it is delivered, otherwise 1."""
        if self._settings.sms_url is None:
            return
        delivered = self._status() == STATUSES["success"]
        message.status = "delivered" if delivered else "failed"
        body = orjson.dumps({"id": message.id, "status": message.status, "code": 0 if delivered else 1})
        self._plan(_Report(self._settings.sms_url, "application/json", body, None, self._book.sms))

    def _status(self) -> str:
        weights = self._settings.weights
        (name,) = self._random.choices(list(weights), list(weights.values()))
        return STATUSES[name]

    def _plan(self, report: _Report) -> None:
        settings, counts = self._settings, report.counts.receipts
        counts.planned += 1
        if self._random.random() < settings.lost:
            counts.lost += 1
            return
        self._wait(report)
        if self._random.random() < settings.duplicated:
            counts.duplicated += 1
            self._wait(report)

    def _wait(self, report: _Report) -> None:
        settings = self._settings
        if len(self._waiting) >= settings.max_pending:
            report.counts.receipts.lost += 1
            return
        delay = self._random.uniform(settings.earliest_seconds, settings.latest_seconds)
        heapq.heappush(self._waiting, (trio.current_time() + delay, next(self._order), report))

    async def run(self) -> None:
        """Post reports as they become due, until cancelled."""
        due, taken = trio.open_memory_channel[_Report](0)
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work, taken.clone())
            taken.close()
            while True:
                await trio.sleep(POLL_SECONDS)
                while self._waiting and self._waiting[0][0] <= trio.current_time():
                    await due.send(heapq.heappop(self._waiting)[2])

    async def _work(self, taken: trio.MemoryReceiveChannel[_Report]) -> None:
        # No proxy of the environment: a report goes where it was told to.
        client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, transport=self._transport)
        async with client, taken:
            async for report in taken:
                await self._post(client, report)

    async def _post(self, client: httpx.AsyncClient, report: _Report) -> None:
        counts = report.counts.receipts
        for attempt in range(TRIES):
            if attempt:
                counts.retried += 1
            # httpx bounds each phase of a call; this bounds the whole of it.
            with trio.move_on_after(TIMEOUT_SECONDS):
                try:
                    answer = await client.post(
                        report.url,
                        params=self._signed(report.openid),
                        content=report.body,
                        headers={"Content-Type": report.content_type},
                    )
                except httpx.TransportError:
                    continue
                if answer.status_code == 200 and _is_taken(report, answer.content):
                    counts.posted += 1
                    return
        counts.given_up += 1

    def _signed(self, openid: str | None) -> dict[str, str]:
        timestamp, nonce = str(int(time.time())), str(secrets.randbelow(10**9))
        params = {
            "signature": signature(self._settings.token.reveal(), timestamp, nonce),
            "timestamp": timestamp,
            "nonce": nonce,
        }
        return params if openid is None else {**params, "openid": openid}


def _is_taken(report: _Report, answer: bytes) -> bool:
    """WeChat wants ``success`` or nothing; for a text message the status alone counts."""
    return report.openid is None or answer in (b"", b"success")
