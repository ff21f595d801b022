"""Delivery reports that the simulated providers post back: WeChat's signed XML event, the SMS gateway's JSON.

Shapes, signature and the three tries of five seconds are from providers.md sections 3 and 5.1. Reports can
overtake the answer of their own send, come twice, or never.
"""

from __future__ import annotations

import math
from bisect import bisect
from itertools import accumulate
from typing import Final

import orjson
import trio

from loadtest.poster import Poster, Report, Target, finish_event
from loadtest.providers.book import Book, ReceiptCounts, SmsMessage, WechatMessage
from loadtest.providers.faults import Faults, fractions
from loadtest.providers.sealing import Seal, enclosed
from loadtest.providers.settings import STATUSES, ReceiptSettings
from loadtest.providers.sms_vendors import REPORTS

CONNECTIONS: Final = 256
"""Reports on their way at a time to each address. A receiver answers after its commit, so this and the commit's time
bound the rate: 256 in 40 ms are 6,400 a second."""
ACCOUNT_ID: Final = "gh_simulated0000"

Draw = tuple[float, ...]


class Receipts:
    """Plans a report for each delivered message and posts it when its time has come.

    ``run`` posts until it is cancelled; reports that are still waiting then are dropped. What becomes of a report is
    decided by seed and message, not by the order of messages; ``faults`` may lose or double more than the settings.
    With ``zero_msgids`` the events of messages that have a ``client_msg_id`` name msgid 0, as was observed
    (providers.md section 2.1). ``seal`` encrypts the events in the modes compat and safe.
    """

    def __init__(self, settings: ReceiptSettings, book: Book, seed: int, seal: Seal | None = None) -> None:
        self._settings = settings
        self._seal = seal
        self._book = book
        self._seed = seed
        self._names = list(settings.weights)
        self._cumulated = list(accumulate(settings.weights.values()))
        self.faults = Faults()
        self.zero_msgids = False
        self._wechat = None if settings.wechat_url is None else Target(settings.wechat_url)
        self._sms = None if settings.sms_url is None else Target(settings.sms_url)
        self._vendors = {name: Target(f"{settings.sms_url}/{name}") for name in REPORTS if settings.sms_url is not None}
        self._poster = Poster(settings.token.reveal(), connections=CONNECTIONS, clock=trio.current_time)
        self._wakes_at = math.inf
        self._earlier = trio.Event()

    def wechat(self, message: WechatMessage) -> None:
        """Plan the TEMPLATESENDJOBFINISH event of a message; a status that it has already stands."""
        if self._wechat is None:
            return
        draw = fractions(self._seed, "receipt", f"{message.openid}/{message.client_msg_id or message.msgid}")
        if message.status is None:
            message.status = self._status(draw)
        msgid = 0 if self.zero_msgids and message.client_msg_id is not None else message.msgid
        body = finish_event(ACCOUNT_ID, message.openid, msgid, message.status, message.at)
        encrypted = None
        if self._seal is not None:
            encrypted = self._seal(body)
            body = enclosed(self._settings.mode, ACCOUNT_ID, body, encrypted)
        receipts = self._book.wechat.receipts
        report = Report(self._wechat, "text/xml", body, message.openid, receipts, encrypted)
        message.report_lost = not self._plan(report, receipts, draw)

    def sms(self, message: SmsMessage) -> None:
        """Plan the status report of a text message: ``code`` is 0 when it is delivered, otherwise 1."""
        if self._sms is None:
            return
        delivered, draw = self._decide(message)
        body = orjson.dumps({"id": message.id, "status": message.status, "code": 0 if delivered else 1})
        receipts = self._book.sms.receipts
        report = Report(self._sms, "application/json", body, None, receipts)
        message.report_lost = not self._plan(report, receipts, draw)

    def sms_of(self, vendor: str, message: SmsMessage, serial: str) -> None:
        """Plan the status report of a message at Aliyun or Tencent, in the vendor's form, to the path of that name
        below the SMS address. ``serial`` is the id that the answer gave."""
        if self._sms is None:
            return
        _, draw = self._decide(message)
        receipts = self._book.sms.receipts
        body = REPORTS[vendor](message, serial, message.at)
        report = Report(self._vendors[vendor], "application/json", body, None, receipts)
        message.report_lost = not self._plan(report, receipts, draw)

    def _decide(self, message: SmsMessage) -> tuple[bool, Draw]:
        draw = fractions(self._seed, "receipt", f"{message.id}/{message.times_seen}")
        delivered = self._status(draw) == STATUSES["success"]
        message.status = "delivered" if delivered else "failed"
        return delivered, draw

    def _status(self, draw: Draw) -> str:
        at = draw[0] * self._cumulated[-1]
        return STATUSES[self._names[min(bisect(self._cumulated, at), len(self._names) - 1)]]

    def _plan(self, report: Report, receipts: ReceiptCounts, draw: Draw) -> bool:
        """Plan a report; False when it will not come."""
        settings, faults = self._settings, self.faults
        receipts.planned += 1
        if draw[1] < max(settings.lost, faults.receipt_lost):
            receipts.lost += 1
            return False
        coming = self._wait(report, receipts, draw[3])
        if draw[2] < max(settings.duplicated, faults.receipt_twice):
            receipts.duplicated += 1
            self._wait(report.again(), receipts, draw[4])
        return coming

    def _wait(self, report: Report, receipts: ReceiptCounts, draw: float) -> bool:
        settings = self._settings
        if self._poster.pending >= settings.max_pending:
            receipts.lost += 1
            return False
        delay = settings.earliest_seconds + draw * (settings.latest_seconds - settings.earliest_seconds)
        self._poster.plan(report, trio.current_time() + delay)
        self._look_at_the_clock()
        return True

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
