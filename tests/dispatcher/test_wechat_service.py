"""WeChat's customer-service messages: what is sent, what each answer leads to, and who gets one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from dispatcher.channels.base import CannotPrepare
from dispatcher.channels.wechat.service import TABLE, WechatServiceChannel
from dispatcher.channels.wechat.token import TokenSteward
from dispatcher.config_channels import WechatConfig
from dispatcher.delivery import AnswerClass, after_answer, after_interruption
from dispatcher.model.alert import Alert
from dispatcher.model.event import Event
from dispatcher.model.private import Secret
from dispatcher.model.recipient import Recipient, Refusal
from dispatcher.network.api import Failure, Request, Response
from dispatcher.network.fake import FakeNetwork
from dispatcher.network.transport import NetworkTransport
from ratelimit.retry import RetryPolicy
from ratelimit.rules import SERVICE, Decider, default_rules_text, load_rules
from templates.library import SHIPPED, Library
from tests.dispatcher.channel_kit import NOW, OPENID, SECRET, TOKEN, an_alert, no_response_to, response_to
from tests.dispatcher.channel_kit import shows_nothing_private as nothing_private

LIBRARY = Library.load(None)
URL = "https://api.weixin.qq.com/cgi-bin/message/custom/send?access_token="
ROUTE = ("wechat_service", "wechat", "sms")
CARD = """
[card.zh-CN]
title = "{{ action }} {{ amount }}"
description = "{{ merchant }}"
picture = "https://bank.example/p.png"

[card.en]
title = "{{ action }} {{ amount }}"
description = "{{ merchant }}"
picture = "https://bank.example/p.png"
url = "https://bank.example/en"
"""


@asynccontextmanager
async def a_channel(library: Library = LIBRARY, **settings: Any) -> AsyncIterator[WechatServiceChannel]:
    import httpx

    def answer(request: Request) -> tuple[Response, float]:
        return response_to(request, json.dumps({"access_token": TOKEN, "expires_in": 7200}).encode()), 0.5

    config = WechatConfig(**({"appid": "wx0000000000000001", "secret_env": "SECRET"} | settings))
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, answer)
        client = httpx.AsyncClient(transport=NetworkTransport(network, "wechat"), base_url=config.base_url)
        channel = WechatServiceChannel(
            config, TokenSteward(client, config.appid, Secret(SECRET)), library, RetryPolicy()
        )
        await channel.ready()
        yield channel


def the_alert(**fields: Any) -> Alert:
    return an_alert(**({"route": ROUTE} | fields))


# ---- what is sent -------------------------------------------------------------------------------------------------


async def test_a_template_without_a_card_is_sent_as_text(autojump_clock: MockClock) -> None:
    async with a_channel() as channel:
        request = channel.prepare(the_alert())
        assert request.url == URL + TOKEN
        assert (request.pool, request.fresh) == ("wechat", True)
        assert request.body is not None
        body = json.loads(request.body)
        assert set(body) == {"touser", "msgtype", "text"}
        assert (body["touser"], body["msgtype"]) == (OPENID, "text")
        assert "shell kings 587" in body["text"]["content"]
        nothing_private(channel, channel.policy(the_alert()))


@pytest.mark.parametrize(("locale", "url"), [("zh-CN", "https://bank.example/all"), ("en", "https://bank.example/en")])
async def test_a_card_is_sent_as_news(tmp_path: Path, autojump_clock: MockClock, locale: str, url: str) -> None:
    # Given a template with a card
    folder = tmp_path / "swipe"
    folder.mkdir()
    text = (SHIPPED / "swipe" / "template.toml").read_text("utf-8") + CARD
    (folder / "template.toml").write_text(text, "utf-8")
    async with a_channel(Library.load(tmp_path), url="https://bank.example/all") as channel:
        request = channel.prepare(the_alert(recipient={"locale": locale}))
    # Then it is one article with its picture
    assert request.body is not None
    body = json.loads(request.body)
    (article,) = body["news"]["articles"]
    assert (body["msgtype"], article["picurl"], article["url"]) == ("news", "https://bank.example/p.png", url)
    assert "72.61" in article["title"]
    assert article["description"] == "shell kings 587"


async def test_whoever_has_no_openid_gets_none(autojump_clock: MockClock) -> None:
    async with a_channel() as channel:
        with pytest.raises(CannotPrepare, match="no-openid"):
            channel.prepare(the_alert(recipient={"openid": None}))


# ---- what each answer leads to ------------------------------------------------------------------------------------

NEXT = {  # class -> state, channel
    AnswerClass.ACCEPTED: ("delivered", "wechat_service"),
    AnswerClass.REFRESH_TOKEN: ("sending", "wechat_service"),
    AnswerClass.RETRY: ("retrying", "wechat_service"),
    AnswerClass.THROTTLE: ("retrying", "wechat_service"),
    AnswerClass.CONFIGURATION: ("retrying", "wechat_service"),
    AnswerClass.RECIPIENT_GONE: ("retrying", "wechat"),
    AnswerClass.PERMANENT: ("retrying", "wechat"),
    AnswerClass.UNKNOWN: ("retrying", "sms"),
}

CASES = [(code, row.kind) for code, row in TABLE.rows.items()] + [("99999", AnswerClass.PERMANENT)]


@pytest.mark.parametrize(("code", "kind"), CASES)
async def test_every_code_leads_to_its_step(code: str, kind: AnswerClass, autojump_clock: MockClock) -> None:
    async with a_channel() as channel:
        alert = the_alert()
        answer_text = json.dumps({"errcode": int(code), "errmsg": f"{OPENID} rid: 1-2-3"}).encode()
        answer = channel.classify(alert, response_to(channel.prepare(alert), answer_text))
        assert (answer.kind, answer.code, channel.knows(code)) == (kind, code, code != "99999")
        step = after_answer(alert, answer, channel.policy(alert), NOW, 0.5)
        assert (step.state, alert.route[step.position]) == NEXT[kind]
        assert step.refusal == ("wechat_service" if kind is AnswerClass.RECIPIENT_GONE else None)
        assert (channel.steward.current is None) is (kind is AnswerClass.REFRESH_TOKEN)
        nothing_private(answer, step)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"<html>", 200), (b"{}", 200), (b'{"errcode":0', 200), (b"", 200), (b"[]", 200), (b"[" * 5000, 200), (b"", 502)],
)
async def test_an_answer_that_proves_nothing_is_unknown_and_never_repeated_on_wechat(
    body: bytes, status: int, autojump_clock: MockClock
) -> None:
    async with a_channel() as channel:
        alert = the_alert()
        answer = channel.classify(alert, response_to(channel.prepare(alert), body, status))
        assert answer.kind is AnswerClass.UNKNOWN
        step = after_answer(alert, answer, channel.policy(alert), NOW, 0.5)
        assert (step.state, alert.route[step.position], step.outcome) == ("retrying", "sms", "unknown")


async def test_a_lost_answer_or_process_goes_on_outside_wechat_or_ends_honestly(autojump_clock: MockClock) -> None:
    async with a_channel() as channel:
        policy = channel.policy(the_alert())
        for route, state, on in ((ROUTE, "retrying", "sms"), (ROUTE[:2], "failed", "wechat_service")):
            alert = the_alert(route=route)
            lost = channel.classify(alert, no_response_to(channel.prepare(alert), Failure.UNKNOWN, 28))
            for step in (after_answer(alert, lost, policy, NOW, 0.5), after_interruption(alert, policy, NOW)):
                assert (step.state, route[step.position]) == (state, on)
                assert step.reason == (None if state == "retrying" else "unknown-outcome")
        # But what never left is tried again
        alert = the_alert()
        unsent = channel.classify(alert, no_response_to(channel.prepare(alert), Failure.NOT_SENT, 7))
        step = after_answer(alert, unsent, policy, NOW, 0.5)
        assert (step.state, step.position) == ("retrying", 0)


# ---- who gets one -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "configured", "more", "route"),
    [
        (NOW + 1, True, {}, ("wechat_service", "wechat", "sms")),
        (NOW, True, {}, ("wechat", "sms")),
        (0, True, {}, ("wechat", "sms")),
        (NOW + 1, False, {}, ("wechat", "sms")),
        (NOW + 1, True, {"channels": ("sms", "wechat")}, ("sms", "wechat_service", "wechat")),
        (NOW + 1, True, {"channels": ("sms",)}, ("sms",)),
        (NOW + 1, True, {"openid": None}, ("sms",)),
        (NOW + 1, True, {"refused": {"wechat": Refusal("unsubscribe", NOW - 1)}}, ("sms",)),
        (NOW + 1, True, {"refused": {"wechat/swipe": Refusal("43101", NOW - 1)}}, ("sms",)),
    ],
)
def test_the_route_of_whoever_has_a_window_open(
    until: int, configured: bool, more: dict[str, Any], route: tuple[str, ...]
) -> None:
    rules = load_rules(default_rules_text(), "the shipped rules")
    decider = Decider(rules, ("wechat", SERVICE, "sms") if configured else ("wechat", "sms"))
    to = replace(Recipient(7, "A-1", openid=OPENID, phone="+8613800138000", service_until_ms=until), **more)
    event = Event(id="e", account="A-1", amount=20_000, currency="CNY", time=datetime.fromtimestamp(NOW / 1000, UTC))
    assert decider.plan(event, NOW, to, NOW).decided.route == route
