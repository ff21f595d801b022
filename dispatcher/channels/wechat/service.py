"""WeChat's customer-service messages: a text, or a news card with picture (providers.md section 4.2).

They may be sent for a while after the user did something (see `dispatcher.model.heard`), and the send rules put this
channel before ``wechat`` for whoever has such a window open. There is no receipt: acceptance is the last word.

WeChat knows no key by which it would recognise a resend of one. So each alert is fenced before it leaves, each request
has a connection of its own, and an attempt of unknown outcome is not made again. Nor does the template message follow
then: both stand in the same chat, so that would be the same alert twice. What follows is the next channel that is not
WeChat's, which the cardholder may get beside it but not twice; without one the alert ends as ``unknown-outcome``.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import msgspec
import orjson
from msgspec import UNSET, UnsetType

from dispatcher.channels.base import CannotPrepare, classify_failure, classify_status
from dispatcher.channels.table import AnswerTable, Row
from dispatcher.channels.wechat.answers import TABLE as TEMPLATE_MESSAGES
from dispatcher.channels.wechat.token import TokenSteward
from dispatcher.config_channels import WechatConfig
from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.model.event import Int64
from dispatcher.network.api import Request, Response
from ratelimit.retry import RetryPolicy
from templates.errors import RenderError, UnknownTemplate, reason_of
from templates.facts import SwipeFacts
from templates.library import Library

HEADERS = ("Content-Type: application/json",)
NAME = "wechat_service"

_ALIKE = (
    *("-1", "40001", "40014", "42001", "41001", "44002", "47001", "45011", "40013", "40125", "40164", "40243"),
    "48004",
)
"""Codes that mean the same for every call of WeChat's."""

_CLOSED = "the template message follows, and our window is closed until the user writes again"

TABLE = AnswerTable(
    "wechat: customer service",
    "providers.md section 4.2, and sections 1 and 2.4 for what holds for every call",
    {
        **{code: TEMPLATE_MESSAGES.rows[code] for code in _ALIKE},
        "0": Row(AnswerClass.ACCEPTED, "message", 0, "the last word: no event follows"),
        # RECIPIENT_GONE on this channel closes the window and nothing else (see `sqlite_recipients.refuse`); whether
        # the recipient is gone on WeChat, the template message will be told.
        "45015": Row(AnswerClass.RECIPIENT_GONE, "recipient", 0, f"out of the window or unfollowed: {_CLOSED}"),
        "45047": Row(AnswerClass.RECIPIENT_GONE, "recipient", 0, f"too many for this window: {_CLOSED}"),
        "40003": Row(AnswerClass.RECIPIENT_GONE, "recipient", 0, f"openid not known: {_CLOSED}"),
        "48002": Row(AnswerClass.RECIPIENT_GONE, "recipient", 0, f"messages switched off: {_CLOSED}"),
        "45009": Row(AnswerClass.PERMANENT, "channel", 0, "quota of this call; the template has its own"),
        # The account may lack this capability and yet have templates: the alert goes on.
        "48001": Row(AnswerClass.PERMANENT, "channel", 0, "the account may not send these; the template follows"),
    },
)


class _Body(msgspec.Struct, gc=False):
    errcode: Int64 | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Body).decode


class WechatServiceChannel:
    """Sends customer-service messages with the tokens, the connections and the rate of ``[channels.wechat]``."""

    name = NAME
    fenced = True

    def __init__(self, config: WechatConfig, steward: TokenSteward, library: Library, retry: RetryPolicy) -> None:
        self.connections = config.connections
        self.steward = steward
        self._library = library
        self._timeout_ms = int(config.timeout_seconds * 1000)
        self._link = config.url
        self._policy = ChannelPolicy(retry, resend_unknown=False, receipt_ms=None, same_place=frozenset({"wechat"}))
        self._send_url = f"{config.base_url}/cgi-bin/message/custom/send?access_token="

    def policy(self, alert: Alert) -> ChannelPolicy:
        """See `Channel.policy`."""
        return self._policy

    async def ready(self) -> None:
        """See `Channel.ready`: there is a token."""
        if self.steward.current is None:
            await self.steward.refresh_if_needed()

    def prepare(self, alert: Alert) -> Request:
        """See `Channel.prepare`: the template's card, or the text of its SMS without the sign."""
        recipient = alert.recipient
        if recipient.openid is None:  # taken out since the alert was admitted
            raise CannotPrepare("no-openid")
        facts = SwipeFacts(
            event=alert.event,
            timezone=recipient.timezone,
            day_total_minor=alert.day_total,
            late_seconds=alert.late_seconds,
        )
        try:
            template = self._library.template(alert.template)
            if template.has_card:
                card = template.render_card(facts, recipient.locale)
                article = {"title": card.title, "description": card.description, "picurl": card.picture}
                article["url"] = card.url or self._link or ""
                message: dict[str, object] = {"msgtype": "news", "news": {"articles": [article]}}
            else:
                message = {"msgtype": "text", "text": {"content": template.render_sms(facts, recipient.locale)}}
        except (RenderError, UnknownTemplate) as error:
            raise CannotPrepare(reason_of(error)) from None
        token = self.steward.current or self.steward.last
        if token is None:
            raise CannotPrepare("no-token")
        return Request(
            pool="wechat",
            url=self._send_url + quote(token, safe=""),
            headers=HEADERS,
            body=orjson.dumps({"touser": recipient.openid, **message}),
            tag=alert,
            timeout_ms=self._timeout_ms,
            fresh=True,  # libcurl would repeat it by itself on a reused connection that dies
        )

    def classify(self, alert: Alert, response: Response) -> Answer:
        """See `Channel.classify`. A refused token is forgotten here, so that the next batch fetches a new one."""
        if response.failure is not None:
            return classify_failure(response)
        if (answer := classify_status(response)) is not None:
            return answer
        took_ms = round(response.seconds * 1000)
        try:
            errcode = _decode(response.body).errcode
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Answer(AnswerClass.UNKNOWN, "unreadable", scope="channel", took_ms=took_ms, resends=response.resends)
        if errcode is UNSET:
            # No id comes with an acceptance, so an ``errcode`` is the least that must be there.
            return Answer(AnswerClass.UNKNOWN, "no-errcode", scope="channel", took_ms=took_ms, resends=response.resends)
        code = str(errcode)
        row = TABLE.row(code)
        if row.kind is AnswerClass.REFRESH_TOKEN:
            self.steward.invalidate(unquote(response.request.url.removeprefix(self._send_url)))
        return Answer(row.kind, code, None, row.pause_ms, row.scope, took_ms, response.resends)

    def knows(self, code: str) -> bool:
        """See `Channel.knows`."""
        return not code.lstrip("-").isdigit() or TABLE.knows(code)
