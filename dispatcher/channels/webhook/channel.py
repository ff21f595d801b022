"""A signed HTTPS POST an alert, for a bank's own app push or any system that is not listed (docs/webhook.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

import msgspec
import orjson

from dispatcher.channels.webhook.answers import classify, knows
from dispatcher.channels.webhook.signing import SigningKey, headers
from dispatcher.config_channels import WebhookConfig
from dispatcher.delivery import Answer, ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.network.api import Request, Response
from ratelimit.retry import RetryPolicy
from templates.errors import RenderError, UnknownTemplate
from templates.facts import SwipeFacts, kind_of
from templates.library import Library

VERSION = 1
"""Of the body. New fields may come without a new number; a field that goes or changes its meaning raises it."""

TAIL_DIGITS = 4

_CONTENT_TYPE = ("Content-Type: application/json",)


class WebhookChannel:
    """Posts alerts. The receiver knows a resend by its ``webhook-id``, so an alert need not be fenced and an attempt of
    unknown outcome is made again."""

    name = "webhook"
    fenced = False

    def __init__(
        self,
        config: WebhookConfig,
        keys: Sequence[SigningKey],
        library: Library,
        retry: RetryPolicy,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.connections = config.connections
        self._url = config.url
        self._keys = tuple(keys)
        self._library = library
        self._timeout_ms = int(config.timeout_seconds * 1000)
        self._now_s = now_s
        # No receipts, and no window: the receiver is told to keep ids for as long as an alert may be open.
        self._policy = ChannelPolicy(retry, True, None)

    def policy(self, alert: Alert) -> ChannelPolicy:
        """See `Channel.policy`."""
        return self._policy

    async def ready(self) -> None:
        """See `Channel.ready`: the key needs no fetching."""

    def prepare(self, alert: Alert) -> Request:
        """See `Channel.prepare`. Signed anew for each attempt, whose time it carries; the body stays the same."""
        key = alert.key
        body = orjson.dumps(self._body(alert, key), option=orjson.OPT_UTC_Z)
        return Request(
            pool=self.name,
            url=self._url,
            headers=_CONTENT_TYPE + headers(self._keys, key, int(self._now_s()), body),
            body=body,
            tag=alert,
            timeout_ms=self._timeout_ms,
        )

    def _body(self, alert: Alert, key: str) -> dict[str, Any]:
        """Who is told is named by account and role and not by an address: the receiver knows its own customers, and a
        phone or an openid that it does not need is one more place to lose it."""
        event, recipient = alert.event, alert.recipient
        tail = event.pan[-TAIL_DIGITS:] if event.pan else ""
        return {
            "type": f"alert.{event.category}",
            "version": VERSION,
            "timestamp": event.time.astimezone(UTC),
            "data": {
                "alert_id": key,
                "event_id": event.id,
                "account": event.account,
                "role": recipient.role,
                "locale": recipient.locale,
                "event_type": event.type,
                "kind": kind_of(event),
                "amount": event.amount,
                "currency": event.currency,
                "orig_amount": event.orig_amount,
                "orig_currency": event.orig_currency,
                "day_total": alert.day_total,
                "card_tail": tail if len(tail) == TAIL_DIGITS and tail.isascii() and tail.isdigit() else None,
                "merchant": event.merchant,
                "mcc": event.mcc,
                "city": event.city,
                "country": event.country,
                "status": event.status,
                "refers_to": event.refers_to,
                "text": self._text(alert),
                **({} if event.digest is None else {"digest": msgspec.to_builtins(event.digest)}),
                **({"facts": event.facts} if type(event.facts) is dict else {}),
            },
        }

    def _text(self, alert: Alert) -> str | None:
        """The alert in a sentence, as an SMS would say it; None where it cannot be said: the facts go all the same."""
        recipient = alert.recipient
        facts = SwipeFacts(
            event=alert.event,
            timezone=recipient.timezone,
            day_total_minor=alert.day_total,
            late_seconds=alert.late_seconds,
        )
        try:
            return self._library.template(alert.template).render_sms(facts, recipient.locale)
        except (RenderError, UnknownTemplate):
            return None

    def classify(self, alert: Alert, response: Response) -> Answer:
        """See `Channel.classify`."""
        return classify(response)

    def knows(self, code: str) -> bool:
        """See `Channel.knows`."""
        return knows(code)
