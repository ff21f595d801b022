"""Delivery reports that the simulated providers post back: WeChat's signed XML event, the SMS gateway's JSON.

Shapes, signature and the three tries of five seconds are from providers.md sections 3 and 5.1. Reports can
overtake the answer of their own send, come twice, or never.
"""

from __future__ import annotations

import math
from typing import Final

import orjson
import trio

from loadtest.poster import Poster, Report, Target, finish_event
from loadtest.providers.book import Book, Counts, ReceiptCounts, SmsMessage, WechatMessage
from loadtest.providers.faults import seeded
from loadtest.providers.settings import STATUSES, ReceiptSettings
from loadtest.providers.sms_vendors import REPORTS

CONNECTIONS: Final = 256
"""Reports on their way at a time to each address. A receiver answers after its commit, so this and the commit's time
bound the rate: 256 in 40 ms are 6,400 a second."""
ACCOUNT_ID: Final = "gh_simulated0000"


class Receipts:
    """Plans a report for each delivered message and posts it when its time has come.

    ``run`` posts until it is cancelled; reports that are still waiting then are dropped.
    """

    def __init__(self, settings: ReceiptSettings, book: Book, seed: int) -> None:
        self._settings = settings
        self._book = book
        self._random = seeded(seed, "receipts")
        self._wechat = None if settings.wechat_url is None else Target(settings.wechat_url)
        self._sms = None if settings.sms_url is None else Target(settings.sms_url)
        self._vendors = {name: Target(f"{settings.sms_url}/{name}") for name in REPORTS if settings.sms_url is not None}
        self._poster = Poster(settings.token.reveal(), connections=CONNECTIONS, clock=trio.current_time)
        self._wakes_at = math.inf
        self._earlier = trio.Event()

    def wechat(self, message: WechatMessage) -> None:
        """Plan the TEMPLATESENDJOBFINISH event of a message."""
        if self._wechat is None:
            return
        message.status = self._status()
        body = finish_event(ACCOUNT_ID, message.openid, message.msgid, message.status, message.at)
        self._plan(self._wechat, "text/xml", body, message.openid, self._book.wechat)

    def sms(self, message: SmsMessage) -> None:
        """Plan the status report of a text message: ``code`` is 0 when it is delivered, otherwise 1."""
        if self._sms is None:
            return
        delivered = self._decide(message)
        body = orjson.dumps({"id": message.id, "status": message.status, "code": 0 if delivered else 1})
        self._plan(self._sms, "application/json", body, None, self._book.sms)

    def sms_of(self, vendor: str, message: SmsMessage) -> None:
        """Plan the status report of a message at Aliyun or Tencent, in the vendor's form, to the path of that name
        below the SMS address."""
        if self._sms is None:
            return
        self._decide(message)
        target = self._vendors[vendor]
        self._plan(target, "application/json", REPORTS[vendor](message, "0^0", message.at), None, self._book.sms)

    def _decide(self, message: SmsMessage) -> bool:
        delivered = self._status() == STATUSES["success"]
        message.status = "delivered" if delivered else "failed"
        return delivered

    def _status(self) -> str:
        weights = self._settings.weights
        (name,) = self._random.choices(list(weights), list(weights.values()))
        return STATUSES[name]

    def _plan(self, target: Target, content_type: str, body: bytes, openid: str | None, counts: Counts) -> None:
        settings, receipts = self._settings, counts.receipts
        receipts.planned += 1
        if self._random.random() < settings.lost:
            receipts.lost += 1
            return
        self._wait(Report(target, content_type, body, openid, receipts), receipts)
        if self._random.random() < settings.duplicated:
            receipts.duplicated += 1
            self._wait(Report(target, content_type, body, openid, receipts), receipts)

    def _wait(self, report: Report, receipts: ReceiptCounts) -> None:
        settings = self._settings
        if self._poster.pending >= settings.max_pending:
            receipts.lost += 1
            return
        delay = self._random.uniform(settings.earliest_seconds, settings.latest_seconds)
        self._poster.plan(report, trio.current_time() + delay)
        self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        if self._poster.wake_at < self._wakes_at:
            self._earlier.set()

    async def run(self) -> None:
        """Post reports as they become due, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._step_when_answered)
                nursery.start_soon(self._step_when_due)
        finally:
            self._poster.close()

    async def _step_when_answered(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._poster.fileno())
            self._poster.step()
            self._look_at_the_clock()

    async def _step_when_due(self) -> None:
        while True:
            self._earlier = trio.Event()
            self._wakes_at = self._poster.wake_at
            with trio.move_on_at(self._wakes_at) as until_due:
                await self._earlier.wait()
            if until_due.cancelled_caught:
                self._poster.step()
