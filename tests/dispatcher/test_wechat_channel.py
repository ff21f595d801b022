"""WeChat's channel: what is sent, and with which token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dispatcher.channels.base import CannotPrepare, ChannelPaused
from dispatcher.channels.wechat.answers import TABLE
from dispatcher.channels.wechat.channel import RESEND_WINDOW_MS, WechatChannel
from dispatcher.config_channels import WechatConfig
from dispatcher.delivery import AnswerClass
from dispatcher.model.private import Secret
from dispatcher.network.api import Failure, Request, Response
from dispatcher.network.fake import FakeNetwork
from ratelimit.retry import RetryPolicy
from templates.facts import SwipeFacts
from templates.library import Library
from tests.dispatcher.channel_kit import (
    OPENID,
    SECRET,
    TOKEN,
    an_alert,
    no_response_to,
    response_to,
    shows_nothing_private,
)

ODD_TOKEN = f"{TOKEN}+/=&#? 中"
LIBRARY = Library.load(None)
SEND_URL = "https://api.weixin.qq.com/cgi-bin/message/template/send?access_token="


@asynccontextmanager
async def a_channel(*tokens: str, **settings: Any) -> AsyncIterator[WechatChannel]:
    """A channel whose platform gives these tokens, one after the other."""
    given_out = iter(tokens or (TOKEN,))

    def answer(request: Request) -> tuple[Response, float]:
        body = {"access_token": next(given_out), "expires_in": 7200}
        return response_to(request, json.dumps(body).encode()), 0.5

    receipt_ms = settings.pop("receipt_ms", None)
    config = WechatConfig(**({"appid": "wx0000000000000001", "secret_env": "SECRET"} | settings))
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, answer)
        channel = WechatChannel(config, Secret(SECRET), LIBRARY, network, RetryPolicy(), receipt_ms)
        await channel.ready()
        yield channel


def body_of(request: Request) -> dict[str, Any]:
    assert request.body is not None
    body: dict[str, Any] = json.loads(request.body)
    return body


# ---- what is sent -------------------------------------------------------------------------------------------------


async def test_a_request_is_wechats_template_message(autojump_clock: MockClock) -> None:
    async with a_channel(timeout_seconds=2.5) as channel:
        alert = an_alert()
        request = channel.prepare(alert)
        assert request.url == SEND_URL + TOKEN
        assert (request.pool, request.method, request.timeout_ms, request.fresh) == ("wechat", "POST", 2_500, False)
        assert request.headers == ("Content-Type: application/json",)
        assert request.tag is alert
        body = body_of(request)
        assert set(body) == {"touser", "template_id", "data", "client_msg_id"}
        assert (body["touser"], body["template_id"], body["client_msg_id"]) == (OPENID, "swipe", alert.key)
        facts = SwipeFacts(event=alert.event, timezone="Asia/Shanghai", day_total_minor=None)
        assert body["data"] == LIBRARY.template("swipe").render_wechat(facts, "zh-CN")
        assert all(set(field) == {"value"} for field in body["data"].values())
        shows_nothing_private(request)
        assert not channel.fenced


async def test_the_requests_of_a_channel_share_their_headers(autojump_clock: MockClock) -> None:
    # The network sets headers up once for one object
    async with a_channel() as channel:
        first, second = channel.prepare(an_alert(id=1)), channel.prepare(an_alert(id=2))
        assert first.headers is second.headers
        assert first.url is second.url


async def test_the_accounts_own_template_and_page_are_used(autojump_clock: MockClock) -> None:
    async with a_channel(template_ids={"swipe": "AAPRIVATE", "other": "B"}, url="https://bank.example/me") as channel:
        body = body_of(channel.prepare(an_alert()))
        assert (body["template_id"], body["url"]) == ("AAPRIVATE", "https://bank.example/me")


@pytest.mark.parametrize(
    ("ids", "template", "told"),
    [
        # An account without a map has templates of our names
        ({}, "refund", ("refund", "refund")),
        ({"swipe": "S", "refund": "R"}, "refund", ("R", "refund")),
        # One that has not set up a template is told of a movement of a card as of any other
        ({"swipe": "S"}, "refund", ("S", "swipe")),
        ({"swipe": "S"}, "fraud", ("S", "swipe")),
    ],
)
async def test_a_template_that_the_account_lacks_is_told_by_swipe(
    autojump_clock: MockClock, ids: dict[str, str], template: str, told: tuple[str, str]
) -> None:
    async with a_channel(template_ids=ids) as channel:
        alert = an_alert(template=template)
        facts = SwipeFacts(event=alert.event, timezone=alert.recipient.timezone, day_total_minor=alert.day_total)
        for _ in range(2):
            body = body_of(channel.prepare(alert))
            assert body["template_id"] == told[0]
            assert body["data"] == LIBRARY.template(told[1]).render_wechat(facts, alert.recipient.locale)


@pytest.mark.parametrize(
    ("ids", "template"), [({"swipe": "S"}, "statement"), ({"swipe": "S"}, "digest"), ({"statement": "T"}, "refund")]
)
async def test_what_swipe_cannot_tell_goes_on_to_the_next_channel(
    autojump_clock: MockClock, ids: dict[str, str], template: str
) -> None:
    async with a_channel(template_ids=ids) as channel:
        for _ in range(2):
            with pytest.raises(CannotPrepare, match=r"^template:not-set-up$"):
                channel.prepare(an_alert(template=template))


async def test_a_resend_is_recognisable_and_nothing_else_is(autojump_clock: MockClock) -> None:
    async with a_channel() as channel:

        def msg_id(**fields: Any) -> str:
            value = body_of(channel.prepare(an_alert(**fields)))["client_msg_id"]
            assert isinstance(value, str)
            assert len(value) == 32
            return value

        # Given attempts of one alert, in another process too, or with another row in another ledger
        same: list[dict[str, Any]] = [
            {},
            {"attempts": 3, "first_attempt_ms": 5, "state": "retrying"},
            {"id": 99},
            {"position": 0},
        ]
        # Then they have one id, and every other recipient or event another
        assert len({msg_id(**fields) for fields in same}) == 1
        others: list[dict[str, Any]] = [
            {},
            {"recipient": {"role": "child"}},
            {"event": {"id": "e-2"}},
            {"event": {"account": "A-2"}},
            {"event": {"account": "A-1\0primary\0e-1"}},
        ]
        assert len({msg_id(**fields) for fields in others}) == len(others)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"template": "gone@1"}, "template:UnknownTemplate"),
        ({"event": {"currency": "ZZZ"}}, "template-field:"),
        ({"recipient": {"openid": None}}, "no-openid"),
    ],
)
async def test_what_cannot_be_put_into_words_says_why_without_them(
    fields: dict[str, Any], code: str, autojump_clock: MockClock
) -> None:
    async with a_channel() as channel:
        with pytest.raises(CannotPrepare) as caught:
            channel.prepare(an_alert(**fields))
        assert caught.value.code.startswith(code)
        shows_nothing_private(caught.value)


async def test_the_policy_is_the_configured_one(autojump_clock: MockClock) -> None:
    async with a_channel(receipt_ms=5_000) as channel:
        policy = channel.policy(an_alert())
        assert (policy.resend_unknown, policy.receipt_ms) == (True, 5_000)
        # WeChat promises to know a client_msg_id again for ten minutes
        assert policy.resend_window_ms == RESEND_WINDOW_MS < 600_000
        assert not policy.receipts_by_key
    async with a_channel(on_unknown="leave") as channel:
        assert not channel.policy(an_alert()).resend_unknown


# ---- the token ----------------------------------------------------------------------------------------------------


async def test_a_refused_token_is_replaced_for_the_next_batch(autojump_clock: MockClock) -> None:
    async with a_channel("first", "second") as channel:
        old = [channel.prepare(an_alert(id=n)) for n in range(3)]
        for request in old:
            answer = channel.classify(an_alert(), response_to(request, b'{"errcode":42001}'))
            assert answer.kind is AnswerClass.REFRESH_TOKEN
        # A batch that is being rendered meanwhile goes out with the last token there is, not with none
        assert channel.prepare(an_alert()).url.endswith("access_token=first")
        await channel.ready()
        assert channel.prepare(an_alert()).url.endswith("access_token=second")
        # And a late refusal of the old one leaves the new one alone
        channel.classify(an_alert(), response_to(old[0], b'{"errcode":40001}'))
        await channel.ready()
        assert channel.steward.refreshes == 2


async def test_a_token_of_odd_characters_stays_one_parameter(autojump_clock: MockClock) -> None:
    async with a_channel(ODD_TOKEN, TOKEN) as channel:
        request = channel.prepare(an_alert())
        assert request.url.isascii()
        assert request.url == f"{SEND_URL}{TOKEN}%2B%2F%3D%26%23%3F%20%E4%B8%AD"
        # And its refusal is known for its own
        channel.classify(an_alert(), response_to(request, b'{"errcode":40014}'))
        await channel.ready()
        assert channel.prepare(an_alert()).url == SEND_URL + TOKEN


async def test_without_any_token_nothing_is_prepared(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        config = WechatConfig(appid="wx1", secret_env="SECRET")
        network = FakeNetwork(nursery, lambda request: (no_response_to(request, Failure.NOT_SENT, 7), 0.1))
        channel = WechatChannel(config, Secret(SECRET), LIBRARY, network, RetryPolicy(), None)
        with pytest.raises(ChannelPaused, match="ConnectError") as paused:
            await channel.ready()
        with pytest.raises(CannotPrepare, match="no-token") as caught:
            channel.prepare(an_alert())
        shows_nothing_private(paused.value, caught.value)


async def test_what_is_known_raises_no_alarm(autojump_clock: MockClock) -> None:
    async with a_channel() as channel:
        for code in (*TABLE.rows, "unreadable", "no-msgid", "network-28", "http-502"):
            assert channel.knows(code)
