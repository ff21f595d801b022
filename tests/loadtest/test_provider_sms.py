"""The simulated SMS gateway, asked directly."""

from __future__ import annotations

import json

import pytest

from dispatcher.httpd import Answer, Request
from loadtest.providers.faults import Faults
from loadtest.providers.server import Providers
from loadtest.providers.settings import ProviderSettings

SMS = {"id": "alert-1", "to": "+8613800138000", "text": "尾号0426消费¥72.61", "sign": "银行"}
BEARER = "Bearer simulated-secret"


def send(providers: Providers, body: object, *, bearer: str = BEARER, path: str = "/sms") -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return providers.answer(Request("POST", path, "", raw, bearer))


def test_a_good_text_is_accepted_with_its_own_id() -> None:
    providers = Providers(ProviderSettings())
    answer = send(providers, SMS, path="/gateway/v1/sms")
    assert (answer.status, json.loads(answer.body)) == (200, {"code": 0, "id": "alert-1"})
    (row,) = providers.book.sms_messages
    assert (row.id, row.to, row.text, row.times_seen) == ("alert-1", SMS["to"], SMS["text"], 1)


def test_the_same_id_twice_is_two_messages() -> None:
    # Given a gateway without idempotency, when a text is sent twice, then the cardholder has two.
    providers = Providers(ProviderSettings())
    send(providers, SMS)
    send(providers, SMS)
    assert [row.times_seen for row in providers.book.sms_messages] == [1, 2]
    assert (providers.book.sms.delivered, providers.book.sms.deduplicated) == (2, 0)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"to": "13800138000"}, 3),
        ({"to": "+0138"}, 3),
        ({"to": "+86138001380001234"}, 3),
        ({"to": ""}, 3),
        ({"text": ""}, 4),
        ({"text": " \n"}, 4),
    ],
)
def test_each_bad_message_gets_its_code(changed: dict[str, str], code: int) -> None:
    providers = Providers(ProviderSettings())
    answer = send(providers, {**SMS, **changed})
    assert (answer.status, json.loads(answer.body)) == (200, {"code": code})
    assert providers.book.sms.refused == {str(code): 1}


@pytest.mark.parametrize("bearer", ["", "Bearer wrong", "simulated-secret", "Basic simulated-secret"])
def test_a_wrong_secret_is_401(bearer: str) -> None:
    answer = send(Providers(ProviderSettings()), SMS, bearer=bearer)
    assert (answer.status, json.loads(answer.body)) == (401, {"code": 5})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 20_000,
        b'{"id":"\xff"}',
        {"to": "+8613"},
        {**SMS, "id": ""},
        {**SMS, "id": "x" * 129},
    ],
)
def test_a_body_that_is_not_a_message_is_400(body: object) -> None:
    answer = send(Providers(ProviderSettings()), body)
    assert (answer.status, json.loads(answer.body)) == (400, {"code": 5})


@pytest.mark.parametrize(("faults", "code"), [(Faults(throttle=1.0), 1), (Faults(busy=1.0), 2)])
def test_each_fault_that_is_an_answer_refuses_the_message(faults: Faults, code: int) -> None:
    providers = Providers(ProviderSettings(faults=faults))
    assert json.loads(send(providers, SMS).body) == {"code": code}
    assert providers.book.sms.delivered == 0


def test_a_bad_gateway_is_before_and_a_reset_after_acceptance() -> None:
    providers = Providers(ProviderSettings(faults=Faults(bad_gateway=1.0)))
    assert send(providers, SMS).status == 502
    assert providers.book.sms.delivered == 0
    providers.faults = Faults(reset=1.0, slow=1.0, slow_seconds=2.0)
    answer = send(providers, SMS)
    assert answer.reset
    assert answer.delay_seconds == 2.0
    assert (providers.book.sms.delivered, providers.book.sms.resets) == (1, 1)


def test_only_post_sends() -> None:
    answer = Providers(ProviderSettings()).answer(Request("GET", "/sms", "", b"", BEARER))
    assert answer.status == 405
