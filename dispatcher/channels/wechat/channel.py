"""WeChat template messages (providers.md section 2)."""

from __future__ import annotations

from urllib.parse import quote, unquote

import httpx
import orjson
import trio

from dispatcher.channels.base import CannotPrepare, ChannelPaused, Fleet
from dispatcher.channels.wechat.answers import classify, is_known
from dispatcher.channels.wechat.budget import TICK_S, BudgetSettings, QuotaBudget
from dispatcher.channels.wechat.quota_call import Quota, UnreadableQuota, ask_quota
from dispatcher.channels.wechat.token import TokenSteward
from dispatcher.config_channels import WechatConfig
from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.model.private import Secret
from dispatcher.network.api import Network, Request, Response
from dispatcher.network.transport import NetworkTransport
from ratelimit.brownout import BrownOutTerms
from ratelimit.retry import RetryPolicy
from templates.choose import stand_in
from templates.errors import RenderError, UnknownTemplate, reason_of
from templates.facts import SwipeFacts
from templates.library import Library
from templates.template import Template

HEADERS = ("Content-Type: application/json",)

RESEND_WINDOW_MS = 9 * 60_000
"""WeChat knows a ``client_msg_id`` again for 10 minutes (providers.md section 2.1); one is left for our own queues."""

MAX_HEADS = 1_024
"""Versions whose head is kept, 200 bytes each: all of a large library; when there were more, all are made anew."""


def _json(text: str) -> str:
    return orjson.dumps(text).decode()


class WechatChannel:
    """Sends template messages. A resend carries the same ``client_msg_id``, which WeChat delivers once within ten
    minutes, so an alert need not be fenced before it leaves."""

    name = "wechat"
    fenced = False

    def __init__(
        self,
        config: WechatConfig,
        secret: Secret,
        library: Library,
        network: Network,
        retry: RetryPolicy,
        receipt_ms: int | None,
        fleet: Fleet | None = None,
    ) -> None:
        self.connections = config.connections
        self._library = library
        self._timeout_ms = int(config.timeout_seconds * 1000)
        self._template_ids = dict(config.template_ids)
        self._link = "" if config.url is None else f',"url":{_json(config.url)}'
        self._heads: dict[str, tuple[str, str | None]] = {}
        """By our template's version: what says WeChat's, and whose words are told instead of its own."""
        self._policy = ChannelPolicy(
            retry, config.on_unknown == "resend", receipt_ms, resend_window_ms=RESEND_WINDOW_MS
        )
        client = httpx.AsyncClient(
            transport=NetworkTransport(network, self.name),
            base_url=config.base_url,
            timeout=config.timeout_seconds,
        )
        store, now_ms, watch = (None, None, None) if fleet is None else (fleet.ledger, fleet.now_ms, fleet.watch)
        self.steward = TokenSteward(client, config.appid, secret, store=store, now_ms=now_ms, watch=watch)
        self._client = client
        self.budget = None
        if fleet is not None:
            settings = BudgetSettings(
                config.daily_quota,
                config.quota_reserve_percent,
                config.rate_per_second,
                BrownOutTerms(
                    config.brownout_minimum,
                    config.brownout_digest_below,
                    config.reserve_from,
                    frozenset(config.reserve_categories),
                ),
            )
            account = f"wechat/{config.appid}"
            self.budget = QuotaBudget(
                account, settings, fleet.ledger, self._ask_quota, now_ms=fleet.now_ms, watch=fleet.watch
            )
        self._send_url = f"{config.base_url}/cgi-bin/message/template/send?access_token="
        self._token = ""
        self._url = ""

    def policy(self, alert: Alert) -> ChannelPolicy:
        """See `Channel.policy`."""
        return self._policy

    async def ready(self) -> None:
        """See `Channel.ready`: there is a token, and there are permits of the day's quota if there can be."""
        if self.steward.current is None:
            await self.steward.refresh_if_needed()
        if self.budget is not None:
            await self.budget.ready()

    async def run(self) -> None:
        """What goes on beside the lane, for ever: the quota is counted and read."""
        if self.budget is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.budget.run)
                while True:
                    await trio.sleep(TICK_S)
                    self.steward.calm()

    async def _ask_quota(self) -> Quota:
        try:
            token = await self.steward.refresh_if_needed()
        except ChannelPaused as paused:
            raise UnreadableQuota(str(paused)) from None
        try:
            return await ask_quota(self._client, token)
        except UnreadableQuota as error:
            if error.token:
                self.steward.invalidate(token)
            raise

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
            template = self._library.template(alert.template)
            head, instead = self._heads.get(template.pinned) or self._head(template)
            if instead is not None:
                template = self._library.template(instead)
            data = template.render_wechat_json(facts, recipient.locale)
        except (RenderError, UnknownTemplate) as error:
            raise CannotPrepare(reason_of(error)) from None
        if recipient.openid is None:  # taken out since the alert was admitted
            raise CannotPrepare("no-openid")
        # Put together by hand: all that varies is JSON already or needs no escape.
        to = _json(recipient.openid)
        body = f'{{"touser":{to},{head},"data":{data},"client_msg_id":"{alert.key}"}}'
        return Request(
            pool=self.name,
            url=self._url_now(),
            headers=HEADERS,
            body=body.encode(),
            tag=alert,
            timeout_ms=self._timeout_ms,
        )

    def _head(self, template: Template) -> tuple[str, str | None]:
        # An account without a map has templates of our names, as the simulated one has.
        told = stand_in(template, self._template_ids) if self._template_ids else template.id
        if told is None:
            raise CannotPrepare("template:not-set-up")
        head = f'"template_id":{_json(self._template_ids.get(told, told))}{self._link}'
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        self._heads[template.pinned] = head, None if told == template.id else told
        return self._heads[template.pinned]

    def classify(self, alert: Alert, response: Response) -> Answer:
        """See `Channel.classify`. A refused token is forgotten here, so that the next batch fetches a new one."""
        answer = classify(response)
        if answer.kind is AnswerClass.REFRESH_TOKEN:
            self.steward.invalidate(unquote(response.request.url.removeprefix(self._send_url)))
        elif answer.kind is AnswerClass.QUOTA and self.budget is not None:
            self.budget.refused()
        return answer

    def _url_now(self) -> str:
        # The token may have been refused since `ready`; then the last one is good for a refusal that counts for
        # nothing, while no token at all would look to WeChat like a bug of ours.
        token = self.steward.current or self.steward.last
        if token is None:
            raise CannotPrepare("no-token")
        if token != self._token:
            self._token, self._url = token, self._send_url + quote(token, safe="")
        return self._url

    def knows(self, code: str) -> bool:
        """See `Channel.knows`."""
        return is_known(code)
