"""One SMS channel made of two vendors, which share the messages by weight (the arithmetic is in ratelimit.weights)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

import msgspec

from dispatcher.channels.base import Channel
from dispatcher.channels.sms.vendor import CHANNEL, Terms
from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy
from dispatcher.logs import get_logger
from dispatcher.model.alert import Alert
from dispatcher.network.api import Request, Response
from ratelimit.weights import Weights, WeightSettings

log = get_logger("sms")

_FAILURES = frozenset({AnswerClass.THROTTLE, AnswerClass.RETRY, AnswerClass.UNKNOWN, AnswerClass.CONFIGURATION})
_ABOUT_VENDOR = frozenset({"channel"})
"""A number's own limit, or a template that one cardholder has refused, says nothing of the vendor."""

ALARM_EVERY_MS = 60_000
"""A vendor that a person has to mend is said so often: as often as a lane would ask it."""


class Vendor(Channel, Protocol):
    """A channel at one vendor, see `VendorChannel`."""

    account: str
    vendor: str
    key_prefix: str


class WeightedSms:
    """The channel ``sms``. A vendor's trouble is that vendor's: the weight moves, and the lane is paused only when
    both are in trouble. What was refused goes back to the ledger and is given a vendor anew with its next try.

    The pace of the whole channel is the lane's. ``second_rate`` bounds the second vendor's part in any second; what is
    over it goes to the first. ``clock_ms`` is any clock that does not go back, ``random`` decides who gets which.
    """

    name = CHANNEL
    fenced = True

    def __init__(
        self,
        first: Vendor,
        second: Vendor,
        *,
        terms: Terms,
        settings: WeightSettings,
        second_rate: int,
        clock_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        random: Random | None = None,
    ) -> None:
        self.vendors = (first, second)
        self.connections = first.connections + second.connections
        self._clock_ms = clock_ms
        self.weights = Weights(settings, clock_ms())
        self._random = random or Random()  # noqa: S311 - it shares out traffic
        self._second_at_ms: deque[int] = deque(maxlen=second_rate)
        self._resend_in = {category for category, policy in terms.on_unknown.items() if policy == "resend"}
        self._policies = [terms.policies(vendor.key_prefix) for vendor in self.vendors]
        self._said_ms: dict[int, int] = {}
        self._shown_share = self.weights.share

    def policy(self, alert: Alert) -> ChannelPolicy:
        """See `Channel.policy`.

        ``key_prefix`` is for an alert whose process died: which vendor had it is not in the ledger, so it is taken to
        be the one with the greater weight. Should it have been the other one, its report is not recognised and the
        alert ends at its deadline as unknown; it is never sent again for that.
        """
        likely = int(self.weights.share > 50)
        return self._policies[likely][alert.event.category in self._resend_in]

    async def ready(self) -> None:
        """See `Channel.ready`."""
        for vendor in self.vendors:
            await vendor.ready()

    def prepare(self, alert: Alert) -> Request:
        """See `Channel.prepare`."""
        now_ms = self._clock_ms()
        which = self.weights.pick(now_ms, self._random.random())
        if which == 1 and not self._second_has_room(now_ms):
            which = 0
        request = self.vendors[which].prepare(alert)
        if which == 1:
            self._second_at_ms.append(now_ms)
        return request

    def classify(self, alert: Alert, response: Response) -> Answer:
        """See `Channel.classify`."""
        which = int(response.request.pool == self.vendors[1].account)
        vendor = self.vendors[which]
        answer = vendor.classify(alert, response)
        if not vendor.knows(answer.code):
            # So it stays unknown, although the other vendor's table may have it.
            return msgspec.structs.replace(answer, code=f"{vendor.vendor}:{answer.code}")
        if answer.kind is AnswerClass.UNKNOWN and answer.msgid is None:
            answer = msgspec.structs.replace(answer, msgid=vendor.key_prefix + alert.key)  # its report may still come
        now_ms = self._clock_ms()
        about_vendor = answer.scope in _ABOUT_VENDOR or answer.kind is AnswerClass.RETRY
        failed = answer.kind in _FAILURES and about_vendor
        self.weights.saw(which, failed, now_ms)
        self._say_share()
        if failed and not self._both_fail(which):
            return self._without_pause(which, answer, now_ms)
        return answer

    def knows(self, code: str) -> bool:
        """See `Channel.knows`."""
        return ":" not in code and any(vendor.knows(code) for vendor in self.vendors)

    def _second_has_room(self, now_ms: int) -> bool:
        sent = self._second_at_ms
        return len(sent) < (sent.maxlen or 1) or now_ms - sent[0] >= 1_000

    def _both_fail(self, which: int) -> bool:
        return self.weights.failing(1 - which)

    def _without_pause(self, which: int, answer: Answer, now_ms: int) -> Answer:
        """The same answer, but it holds this message back and not the lane, which has the other vendor."""
        if answer.kind is AnswerClass.CONFIGURATION:
            if now_ms - self._said_ms.get(which, -ALARM_EVERY_MS) >= ALARM_EVERY_MS:
                self._said_ms[which] = now_ms
                account = self.vendors[which].account
                log.error("vendor_refuses_account", section=f"channels.{account}", code=answer.code)
            # An attempt like any other: the next one may go to the other vendor, and is not to wait for a person.
            return msgspec.structs.replace(answer, kind=AnswerClass.RETRY, scope="message", pause_ms=0)
        return msgspec.structs.replace(answer, scope="message")

    def _say_share(self) -> None:
        share = self.weights.share
        if share != self._shown_share:
            log.warning("sms_weight_moved", second_percent=share, before_percent=self._shown_share)
            self._shown_share = share
