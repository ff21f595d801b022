"""SMS over a generic JSON gateway (the contract is in design.md section 4)."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from dispatcher.channels.base import (
    CONFIGURATION_PAUSE_MS,
    MAX_MSGID_CHARS,
    THROTTLE_PAUSE_MS,
    CannotPrepare,
    classify_failure,
    classify_status,
)
from dispatcher.channels.sms.segments import fits
from dispatcher.channels.sms.vendor import CHANNEL, SECOND, Terms
from dispatcher.channels.table import AnswerTable, Row
from dispatcher.config_sms import SmsConfig, SmsVendor
from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.model.event import Int64
from dispatcher.model.private import Secret
from dispatcher.network.api import Request, Response
from ratelimit.retry import RetryPolicy
from templates.errors import RenderError, UnknownTemplate, reason_of
from templates.facts import SwipeFacts
from templates.library import Library

TABLE = AnswerTable(
    "sms: generic gateway",
    "our own contract (design.md section 4)",
    {
        "0": Row(AnswerClass.ACCEPTED, "message", 0, "taken; the status report has the last word"),
        "1": Row(AnswerClass.THROTTLE, "message", THROTTLE_PAUSE_MS, "throttled"),
        "2": Row(AnswerClass.RETRY, "message", 0, "try later"),
        "3": Row(AnswerClass.RECIPIENT_GONE, "recipient", 0, "bad number"),
        "4": Row(AnswerClass.PERMANENT, "message", 0, "refused content"),
        "5": Row(AnswerClass.CONFIGURATION, "channel", CONFIGURATION_PAUSE_MS, "account, sign or template is wrong"),
    },
)
"""The gateway's ``code``."""


class _Body(msgspec.Struct):
    code: Int64
    id: Any = None  # gateways put all sorts of things here when they refuse


_decode = msgspec.json.Decoder(_Body).decode

SECOND_PREFIX = "second:"
"""Before the msgids of a gateway that is the second vendor, so that reports of one cannot end an alert of the other;
its reports come to a path of their own."""


class GenericSmsChannel:
    """Sends text messages through the generic gateway.

    The gateway has no key by which it would know a resend, so each alert is fenced before it leaves, each request has
    a connection of its own (libcurl would repeat it on a dying reused one), and what follows an unknown outcome is
    configured per category.
    """

    name = CHANNEL
    fenced = True
    vendor = "generic"
    table = TABLE

    def __init__(
        self,
        config: SmsVendor,
        secret: Secret | None,
        library: Library,
        retry: RetryPolicy,
        receipt_ms: int | None,
        account: str = CHANNEL,
        on_unknown: dict[str, str] | None = None,
    ) -> None:
        self.account = account
        self.key_prefix = SECOND_PREFIX if account == SECOND else ""
        self.connections = config.connections
        self._library = library
        self._url = config.base_url
        self._sign = config.sign
        self._timeout_ms = int(config.timeout_seconds * 1000)
        self._headers: tuple[str, ...] = ("Content-Type: application/json",)
        if secret is not None:
            self._headers += (f"Authorization: Bearer {secret.reveal()}",)
        if on_unknown is None:
            on_unknown = dict(config.on_unknown) if isinstance(config, SmsConfig) else {}
        self._resend_in = {category for category, policy in on_unknown.items() if policy == "resend"}
        self._policies = Terms(retry, receipt_ms, on_unknown).policies(self.key_prefix)

    def policy(self, alert: Alert) -> ChannelPolicy:
        """See `Channel.policy`."""
        return self._policies[alert.event.category in self._resend_in]

    async def ready(self) -> None:
        """See `Channel.ready`: the bearer token needs no fetching."""

    def prepare(self, alert: Alert) -> Request:
        """See `Channel.prepare`."""
        recipient = alert.recipient
        facts = SwipeFacts(
            event=alert.event,
            timezone=recipient.timezone,
            day_total_minor=alert.day_total,
            late_seconds=alert.late_seconds,
        )
        try:
            text = self._library.template(alert.template).render_sms(facts, recipient.locale)
        except (RenderError, UnknownTemplate) as error:
            raise CannotPrepare(reason_of(error)) from None
        if recipient.phone is None:  # taken out since the alert was admitted
            raise CannotPrepare("no-phone")
        if not fits(text, self._sign):  # the text alone is within its limit: the sign is longer than vendors allow
            raise CannotPrepare("sms-too-long")
        body = {"id": alert.key, "to": recipient.phone, "text": text, "sign": self._sign}
        return Request(
            pool=self.account,
            url=self._url,
            headers=self._headers,
            body=orjson.dumps(body),
            tag=alert,
            timeout_ms=self._timeout_ms,
            fresh=True,
        )

    def classify(self, alert: Alert, response: Response) -> Answer:
        """See `Channel.classify`."""
        if response.failure is not None:
            return classify_failure(response)
        if (answer := classify_status(response)) is not None:
            return answer
        took_ms = round(response.seconds * 1000)
        try:
            body = _decode(response.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Answer(AnswerClass.UNKNOWN, "unreadable", scope="channel", took_ms=took_ms, resends=response.resends)
        msgid = body.id if isinstance(body.id, str) and 0 < len(body.id) <= MAX_MSGID_CHARS else None
        if body.code == 0 and msgid is None:
            # Acceptance carries an id; this may be a 200 from somewhere else.
            return Answer(AnswerClass.UNKNOWN, "no-id", scope="channel", took_ms=took_ms, resends=response.resends)
        code = str(body.code)
        row = TABLE.row(code)
        if msgid is not None:
            msgid = self.key_prefix + msgid
        return Answer(row.kind, code, msgid, row.pause_ms, row.scope, took_ms, response.resends)

    def knows(self, code: str) -> bool:
        """See `Channel.knows`."""
        return not code.lstrip("-").isdigit() or TABLE.knows(code)
