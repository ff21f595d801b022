"""The simulated windows for customer-service messages."""

from __future__ import annotations

import json

import pytest

from dispatcher.httpd import Answer, Request
from dispatcher.model.heard import Kind
from loadtest.providers.service import ALLOWED, CUSTOM_PATH, ServiceMessages
from loadtest.providers.tokens import Tokens

NOW = 1_704_103_200.0


class Phone:
    def __init__(self) -> None:
        tokens = Tokens(1_000_000)
        self.token = tokens.stable(NOW, force_refresh=False)[0]
        self.service = ServiceMessages(
            lambda code, _now: Answer(json.dumps({"errcode": code}).encode()),
            lambda request, now: tokens.verdict(request.query.removeprefix("access_token="), now),
        )

    def send(self, at: float, openid: str = "oA", body: object = None, token: str | None = None) -> int:
        given = {"touser": openid, "msgtype": "text", "text": {"content": "hi"}} if body is None else body
        query = f"access_token={self.token if token is None else token}"
        answer = self.service.send(Request("POST", CUSTOM_PATH, query, json.dumps(given).encode()), at)
        code: int = json.loads(answer.body)["errcode"]
        return code


@pytest.mark.parametrize(("kind", "seconds"), [("message", 48 * 3600), ("tap", 60), ("follow", 60), ("scan", 60)])
def test_a_window_has_a_length_and_a_number(kind: Kind, seconds: int) -> None:
    phone = Phone()
    assert phone.send(NOW) == 45015
    phone.service.heard("oA", kind, NOW)
    codes = [phone.send(NOW + seconds - 1) for _ in range(ALLOWED[kind] + 1)]
    assert codes == [0] * ALLOWED[kind] + [45047]
    assert phone.send(NOW + seconds) == 45015
    assert phone.send(NOW, "oB") == 45015


def test_an_unfollow_closes_every_window() -> None:
    phone = Phone()
    phone.service.heard("oA", "message", NOW)
    phone.service.heard("oA", "unfollow", NOW)
    assert phone.send(NOW) == 45015


def test_a_reset_closes_every_window_and_forgets_what_was_sent() -> None:
    phone = Phone()
    phone.service.heard("oA", "message", NOW)
    assert [phone.send(NOW), phone.send(NOW, "oB")] == [0, 45015]
    phone.service.reset()
    assert (phone.service.accepted, phone.service.seen, phone.service.refused) == (0, [], {})
    assert phone.send(NOW) == 45015


def test_what_else_is_refused() -> None:
    phone = Phone()
    phone.service.heard("oA", "message", NOW)
    assert phone.send(NOW, token="x") in (40001, 40014)
    assert phone.send(NOW, body={"msgtype": "text", "text": {"content": "hi"}}) == 40003
    assert phone.send(NOW, body={"touser": "oA", "msgtype": "text", "text": {"content": ""}}) == 47001
    assert phone.send(NOW, body={"touser": "oA", "msgtype": "news", "news": {"articles": [{}, {}]}}) == 47001
    assert phone.send(NOW, body=[]) == 47001
    assert phone.service.accepted == 0
