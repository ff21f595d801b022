"""The generic SMS gateway: what is sent, and what every answer means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.channels.base import MAX_MSGID_CHARS, CannotPrepare
from dispatcher.channels.sms.generic import TABLE, GenericSmsChannel
from dispatcher.config_channels import SmsConfig
from dispatcher.delivery import AnswerClass
from dispatcher.model.private import Secret
from dispatcher.network.api import MAX_BODY_BYTES, Failure, Request, Response
from ratelimit.retry import RetryPolicy
from templates.facts import SwipeFacts
from templates.library import Library
from tests.dispatcher.channel_kit import (
    OPENID,
    PHONE,
    SECRET,
    an_alert,
    no_response_to,
    response_to,
    shows_nothing_private,
)

A = AnswerClass
LIBRARY = Library.load(None)
URL = "https://sms.example/v1/send"


def a_channel(*, secret: bool = True, receipt_ms: int | None = None, **settings: Any) -> GenericSmsChannel:
    config = SmsConfig(**({"base_url": URL, "secret_env": "SECRET"} | settings))
    return GenericSmsChannel(config, Secret(SECRET) if secret else None, LIBRARY, RetryPolicy(), receipt_ms)


CHANNEL = a_channel()
ALERT = an_alert(position=1)
SENT = CHANNEL.prepare(ALERT)


def says(code: object, **fields: Any) -> Response:
    """An answer of the gateway, which may echo anything."""
    body = {"code": code, "message": f"{PHONE} {SECRET}"} | fields
    return response_to(SENT, json.dumps(body).encode())


# ---- what is sent -------------------------------------------------------------------------------------------------


async def test_a_request_is_the_gateways_message() -> None:
    channel = a_channel(sign="【银行】", timeout_seconds=2.5)
    await channel.ready()
    request = channel.prepare(ALERT)
    assert (request.pool, request.url, request.method, request.timeout_ms) == ("sms", URL, "POST", 2_500)
    assert request.headers == ("Content-Type: application/json", f"Authorization: Bearer {SECRET}")
    assert request.tag is ALERT
    assert request.body is not None
    facts = SwipeFacts(event=ALERT.event, timezone="Asia/Shanghai", day_total_minor=None)
    assert json.loads(request.body) == {
        "id": ALERT.key,
        "to": PHONE,
        "text": LIBRARY.template("swipe").render_sms(facts, "zh-CN"),
        "sign": "【银行】",
    }
    shows_nothing_private(request)


def test_no_request_can_be_repeated_behind_our_back() -> None:
    # The gateway would send a second message, so the network may not use a connection twice, and alerts are fenced
    assert SENT.fresh
    assert CHANNEL.fenced


def test_a_gateway_on_this_machine_may_want_no_secret() -> None:
    channel = a_channel(secret=False, base_url="http://127.0.0.1:9/sms", secret_env=None)
    assert channel.prepare(ALERT).headers == ("Content-Type: application/json",)


def test_the_id_is_stable_over_attempts_and_different_for_others() -> None:
    def sent_id(**fields: Any) -> object:
        body = CHANNEL.prepare(an_alert(**fields)).body
        assert body is not None
        return json.loads(body)["id"]

    assert sent_id() == sent_id(attempts=4, state="retrying", position=1) == ALERT.key
    others = [sent_id(), sent_id(recipient={"role": "child"}), sent_id(event={"id": "e-2"})]
    assert len(set(others)) == 3


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"template": "gone@1"}, "template:UnknownTemplate"),
        ({"event": {"currency": "ZZZ"}}, "template-field:"),
        ({"recipient": {"phone": None}}, "no-phone"),
    ],
)
def test_what_cannot_be_put_into_words_says_why_without_them(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(CannotPrepare) as caught:
        CHANNEL.prepare(an_alert(**fields))
    assert caught.value.code.startswith(code)
    shows_nothing_private(caught.value)


def test_what_follows_an_unknown_outcome_is_configured_by_category() -> None:
    channel = a_channel(on_unknown={"swipe": "leave", "fraud": "resend"}, receipt_ms=5_000)
    policies = {name: channel.policy(an_alert(event={"category": name})) for name in ("swipe", "fraud", "other")}
    assert {name: policy.resend_unknown for name, policy in policies.items()} == {
        "swipe": False,
        "fraud": True,
        "other": False,
    }
    for policy in policies.values():
        # There is no window in which the gateway would know a resend, and its reports carry our id
        assert (policy.receipt_ms, policy.resend_window_ms, policy.receipts_by_key) == (5_000, None, True)


# ---- what an answer means -----------------------------------------------------------------------------------------

EXPECTED = {
    0: (A.ACCEPTED, 0),
    1: (A.THROTTLE, 1_000),
    2: (A.RETRY, 0),
    3: (A.RECIPIENT_GONE, 0),
    4: (A.PERMANENT, 0),
    5: (A.CONFIGURATION, 60_000),
}
"""The contract of design.md section 4, written down a second time by hand."""


def test_the_table_is_the_contracts() -> None:
    assert set(map(str, EXPECTED)) == TABLE.rows.keys()


@pytest.mark.parametrize("code", EXPECTED)
def test_each_code_means_what_the_contract_says(code: int) -> None:
    response = says(code, id="m-1")
    answer = CHANNEL.classify(ALERT, response)
    assert (answer.kind, answer.pause_ms) == EXPECTED[code]
    assert (answer.code, answer.msgid, answer.took_ms) == (str(code), "m-1", 83)
    assert CHANNEL.knows(answer.code)
    shows_nothing_private(answer, response)


@pytest.mark.parametrize("odd_id", [None, "", 0, 17, [], {}, "m" * 1_000])
def test_a_refusal_is_one_whatever_its_id_is(odd_id: object) -> None:
    answer = CHANNEL.classify(ALERT, says(3, id=odd_id))
    assert (answer.kind, answer.msgid) == (A.RECIPIENT_GONE, None)


@pytest.mark.parametrize("code", [6, -1, -5, 40001, 2**63 - 1, -(2**63)])
def test_an_unknown_code_is_permanent_and_an_alarm(code: int) -> None:
    answer = CHANNEL.classify(ALERT, says(code, id="m-1"))
    assert (answer.kind, answer.code) == (A.PERMANENT, str(code))
    assert not CHANNEL.knows(answer.code)
    shows_nothing_private(answer)


def test_what_is_known_raises_no_alarm() -> None:
    for code in (*TABLE.rows, "unreadable", "no-id", "network-7", "http-401"):
        assert CHANNEL.knows(code)


NEVER_ACCEPTED = {
    "html": b"<html>",
    "empty": b"",
    "cut off": b'{"code":0,"id":"m-',
    "deep": b'{"code":0,"id":"m","a":' + b"[" * 100_000,
    "largest": b"{" * MAX_BODY_BYTES,
    "code as text": b'{"code":"0","id":"m"}',
    "code as a float": b'{"code":0.0,"id":"m"}',
    "code false": b'{"code":false,"id":"m"}',
    "code huge": b'{"code":1' + b"0" * 400 + b',"id":"m"}',
    "code beyond words": b'{"code":1' + b"0" * 9_000 + b',"id":"m"}',
    "no code": b'{"id":"m"}',
    "no id": b'{"code":0}',
    "id null": b'{"code":0,"id":null}',
    "id empty": b'{"code":0,"id":""}',
    "id a number": b'{"code":0,"id":1}',
    "id endless": b'{"code":0,"id":"' + b"m" * (MAX_MSGID_CHARS + 1) + b'"}',
    "id not UTF-8": b'{"code":0,"id":"\xff"}',
    "an array": b'[{"code":0,"id":"m"}]',
    "null": b"null",
    "WeChat's": b'{"errcode":0,"msgid":1}',
}


@pytest.mark.parametrize("name", NEVER_ACCEPTED)
def test_what_is_not_the_gateways_acceptance_is_of_unknown_outcome(name: str) -> None:
    answer = CHANNEL.classify(ALERT, response_to(SENT, NEVER_ACCEPTED[name], resends=1))
    assert (answer.kind, answer.msgid, answer.scope, answer.resends) == (A.UNKNOWN, None, "channel", 1)
    assert answer.code in ("unreadable", "no-id")
    shows_nothing_private(answer)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, A.CONFIGURATION),
        (403, A.CONFIGURATION),
        (404, A.CONFIGURATION),
        (400, A.PERMANENT),
        (429, A.THROTTLE),
        (302, A.UNKNOWN),
        (408, A.UNKNOWN),
        (500, A.UNKNOWN),
        (502, A.UNKNOWN),
        (503, A.UNKNOWN),
    ],
)
def test_a_status_other_than_200_speaks_for_itself(status: int, kind: AnswerClass) -> None:
    answer = CHANNEL.classify(ALERT, response_to(SENT, b'{"code":0,"id":"m"}', status))
    assert (answer.kind, answer.code, answer.msgid) == (kind, f"http-{status}", None)
    # A channel that a person has to mend is not tried in a tight loop
    assert (answer.pause_ms >= 1_000) == (kind in (A.CONFIGURATION, A.THROTTLE))


@pytest.mark.parametrize(("failure", "kind"), [(Failure.NOT_SENT, A.RETRY), (Failure.UNKNOWN, A.UNKNOWN)])
def test_no_answer_is_a_retry_only_when_nothing_left(failure: Failure, kind: AnswerClass) -> None:
    response = no_response_to(SENT, failure, 52)
    answer = CHANNEL.classify(ALERT, response)
    assert (answer.kind, answer.code) == (kind, "network-52")
    shows_nothing_private(answer, response)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 5, 6, 10**30, "0", "m-1", PHONE, OPENID, 1.5])
    | st.text(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["code", "id", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
bodies = (
    st.binary(max_size=200)
    | json_values.map(json.dumps).map(str.encode)
    | st.tuples(st.integers(0, 19), st.binary(max_size=3)).map(lambda cut: b'{"code":0,"id":"m"}'[: cut[0]] + cut[1])
)


@given(body=bodies, status=st.sampled_from([200, 200, 200, 200, 100, 500, 0, 999]))
def test_no_body_raises_or_is_taken_for_an_acceptance_that_it_is_not(body: bytes, status: int) -> None:
    request = Request("sms", URL, (), SENT.body, tag=ALERT)
    answer = CHANNEL.classify(ALERT, response_to(request, body, status))
    if answer.kind is A.ACCEPTED:
        found = json.loads(body)
        assert status == 200
        assert type(found["code"]) is int
        assert found["code"] == 0
        assert isinstance(found["id"], str)
        assert 0 < len(found["id"]) <= MAX_MSGID_CHARS
    assert len(answer.code) < 32
    shows_nothing_private(answer)
