"""What every answer of WeChat's means, and that nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.channels.base import MAX_PAUSE_MS
from dispatcher.channels.wechat.answers import TABLE, UNTIL_QUOTA_MS, classify, is_known
from dispatcher.delivery import AnswerClass
from dispatcher.network.api import MAX_BODY_BYTES, Failure, Request, Response
from tests.dispatcher.channel_kit import (
    OPENID,
    SECRET,
    TOKEN,
    an_alert,
    no_response_to,
    response_to,
    shows_nothing_private,
)

SENT = Request(
    "wechat",
    f"https://api.weixin.qq.com/cgi-bin/message/template/send?access_token={TOKEN}",
    (f"X: {SECRET}",),
    json.dumps({"touser": OPENID}).encode(),
    tag=an_alert(),
)

A = AnswerClass
EXPECTED: dict[int, tuple[AnswerClass, str]] = {
    0: (A.ACCEPTED, "message"),
    -1: (A.RETRY, "channel"),
    40001: (A.REFRESH_TOKEN, "channel"),
    40014: (A.REFRESH_TOKEN, "channel"),
    42001: (A.REFRESH_TOKEN, "channel"),
    41001: (A.REFRESH_TOKEN, "channel"),
    40003: (A.RECIPIENT_GONE, "recipient"),
    43004: (A.RECIPIENT_GONE, "recipient"),
    50005: (A.RECIPIENT_GONE, "recipient"),
    43019: (A.RECIPIENT_GONE, "recipient"),
    48002: (A.RECIPIENT_GONE, "recipient"),
    43101: (A.OPTED_OUT, "template"),
    50002: (A.THROTTLE, "recipient"),
    43117: (A.THROTTLE, "recipient"),
    43108: (A.THROTTLE, "recipient"),
    45011: (A.THROTTLE, "channel"),
    45009: (A.QUOTA, "channel"),
    40241: (A.ACCEPTED, "message"),
    40252: (A.ACCEPTED, "message"),
    40249: (A.PERMANENT, "message"),
    45168: (A.PERMANENT, "message"),
    40036: (A.PERMANENT, "template"),
    40037: (A.PERMANENT, "template"),
    43116: (A.PERMANENT, "template"),
    43100: (A.PERMANENT, "template"),
    40165: (A.PERMANENT, "template"),
    41030: (A.PERMANENT, "template"),
    47003: (A.PERMANENT, "message"),
    44002: (A.PERMANENT, "message"),
    47001: (A.PERMANENT, "message"),
    40013: (A.CONFIGURATION, "channel"),
    40125: (A.CONFIGURATION, "channel"),
    40164: (A.CONFIGURATION, "channel"),
    40243: (A.CONFIGURATION, "channel"),
    43107: (A.CONFIGURATION, "channel"),
    48001: (A.CONFIGURATION, "channel"),
    48004: (A.CONFIGURATION, "channel"),
    48008: (A.CONFIGURATION, "channel"),
    61007: (A.CONFIGURATION, "channel"),
    45103: (A.CONFIGURATION, "channel"),
    45109: (A.CONFIGURATION, "channel"),
}
"""Every code of providers.md section 2.4 that this endpoint answers with, written down a second time by hand."""


def says(errcode: object, **fields: Any) -> Response:
    """An answer in WeChat's words, which may echo anything."""
    body = {"errcode": errcode, "errmsg": f"text {OPENID} {TOKEN} rid: 65a1-22bb-33cc"} | fields
    return response_to(SENT, json.dumps(body).encode())


def test_the_table_holds_the_codes_of_the_provider_facts_and_no_others() -> None:
    assert set(map(str, EXPECTED)) == TABLE.rows.keys()


@pytest.mark.parametrize("code", EXPECTED)
def test_each_code_means_what_the_provider_facts_say(code: int) -> None:
    # Given an answer with this code, when it is classified
    response = says(code, msgid=3717005636572528642)
    answer = classify(response)
    shows_nothing_private(answer, response)
    # Then class and scope are those of the facts, and the row's pause is asked for
    assert (answer.kind, answer.scope) == EXPECTED[code]
    assert (answer.code, answer.took_ms, answer.pause_ms) == (str(code), 83, TABLE.row(str(code)).pause_ms)
    # And every class that waits for a person or a limit has a pause, and no other one
    waits = answer.kind in (A.THROTTLE, A.CONFIGURATION, A.QUOTA)
    assert (answer.pause_ms > 0) == waits
    assert answer.pause_ms <= UNTIL_QUOTA_MS


@pytest.mark.parametrize("code", [43119, 1, -2, 99999, 2**63 - 1, -(2**63)])
def test_an_unknown_code_is_permanent_and_an_alarm(code: int) -> None:
    answer = classify(says(code, msgid=1))
    shows_nothing_private(answer)
    assert (answer.kind, answer.code, answer.scope) == (A.PERMANENT, str(code), "message")
    assert not is_known(answer.code)


def test_acceptance_carries_the_message_id() -> None:
    for body in (
        b'{"errcode":0,"errmsg":"ok","msgid":3717005636572528642}',
        b' {"msgid": 3717005636572528642}\n',  # absent is 0
        b'{"msgid":3717005636572528642,"errcode":0,"unknown":{"a":[1]}}',
    ):
        answer = classify(response_to(SENT, body))
        assert (answer.kind, answer.msgid) == (A.ACCEPTED, "3717005636572528642")


NEVER_ACCEPTED = {
    "html": b"<html><body>502 Bad Gateway</body></html>",
    "empty": b"",
    "cut off": b'{"errcode":0,"errmsg":"ok","msgid":37170056',
    "cut off inside a text": b'{"errcode":0,"errm',
    "deep": b'{"errcode":0,"msgid":1,"a":' + b"[" * 100_000,
    "deep and closed": b'{"errcode":0,"msgid":1,"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "largest": b"[" * MAX_BODY_BYTES,
    "errcode as text": b'{"errcode":"0","msgid":1}',
    "errcode as a float": b'{"errcode":0.0,"msgid":1}',
    "errcode false": b'{"errcode":false,"msgid":1}',
    "errcode null": b'{"errcode":null,"msgid":1}',
    "errcode huge": b'{"errcode":1' + b"0" * 400 + b',"msgid":1}',
    "errcode beyond words": b'{"errcode":1' + b"0" * 9_000 + b',"msgid":1}',
    "errcode infinite": b'{"errcode":1e999,"msgid":1}',
    "msgid as text": b'{"errcode":0,"msgid":"1"}',
    "msgid huge": b'{"errcode":0,"msgid":1' + b"0" * 400 + b"}",
    "msgid null": b'{"errcode":0,"msgid":null}',
    "no msgid": b'{"errcode":0,"errmsg":"ok"}',
    "nothing in it": b"{}",
    "an array": b'[{"errcode":0,"msgid":1}]',
    "a number": b"0",
    "a text": b'"ok"',
    "null": b"null",
    "two objects": b'{"errcode":0,"msgid":1}{"errcode":0,"msgid":1}',
    "not UTF-8": b'\xff\xfe{"errcode":0,"msgid":1}',
    "a byte order mark": b'\xef\xbb\xbf{"errcode":0,"msgid":1}',
    "NaN": b'{"errcode":NaN,"msgid":1}',
    "somebody else's": b'{"code":0,"id":"1"}',
}


@pytest.mark.parametrize("name", NEVER_ACCEPTED)
def test_what_is_not_wechats_acceptance_is_of_unknown_outcome(name: str) -> None:
    answer = classify(response_to(SENT, NEVER_ACCEPTED[name], resends=1))
    assert (answer.kind, answer.msgid, answer.scope, answer.resends) == (A.UNKNOWN, None, "channel", 1)
    assert answer.code in ("unreadable", "no-msgid")
    shows_nothing_private(answer)


STATUSES = {
    201: (A.UNKNOWN, 0),
    204: (A.UNKNOWN, 0),
    302: (A.UNKNOWN, 0),
    400: (A.PERMANENT, 0),
    401: (A.CONFIGURATION, 60_000),
    403: (A.CONFIGURATION, 60_000),
    404: (A.CONFIGURATION, 60_000),
    405: (A.CONFIGURATION, 60_000),
    408: (A.UNKNOWN, 0),
    413: (A.PERMANENT, 0),
    429: (A.THROTTLE, 1_000),
    500: (A.UNKNOWN, 0),
    502: (A.UNKNOWN, 0),
    503: (A.UNKNOWN, 0),
    504: (A.UNKNOWN, 0),
}


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_other_than_200_speaks_for_itself(status: int) -> None:
    kind, pause_ms = STATUSES[status]
    # Given a proxy that even says "accepted" in its body
    accepted = b'{"errcode":0,"msgid":1}'
    answer = classify(response_to(SENT, accepted, status, resends=2))
    assert (answer.kind, answer.code, answer.pause_ms, answer.msgid) == (kind, f"http-{status}", pause_ms, None)
    assert (answer.scope, answer.took_ms, answer.resends) == ("channel", 83, 2)
    # And a Retry-After is obeyed, but not for ever
    assert classify(response_to(SENT, b"", status, retry_after_s=90)).pause_ms == 90_000
    assert classify(response_to(SENT, b"", status, retry_after_s=10**9)).pause_ms == MAX_PAUSE_MS


@pytest.mark.parametrize(("failure", "kind"), [(Failure.NOT_SENT, A.RETRY), (Failure.UNKNOWN, A.UNKNOWN)])
def test_no_answer_is_a_retry_only_when_nothing_left(failure: Failure, kind: AnswerClass) -> None:
    response = no_response_to(SENT, failure, 28, resends=1)
    answer = classify(response)
    assert (answer.kind, answer.code, answer.scope, answer.resends) == (kind, "network-28", "channel", 1)
    shows_nothing_private(answer, response)
    # And what had been read of an answer before it broke off is not looked at
    part = msgspec.structs.replace(response, body=b'{"errcode":0,"msgid":1}')
    assert classify(part).kind is kind


def is_acceptance(body: bytes) -> bool:
    """Whether WeChat could have meant acceptance by this, decided with another JSON reader."""
    found = json.loads(body.decode("utf-8", "replace"))
    code, msgid = found.get("errcode", 0), found.get("msgid")
    assert type(code) is int
    return code in (40241, 40252) or (code == 0 and type(msgid) is int and -(2**63) <= msgid < 2**63)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 40001, 43004, 45009, 40241, 10**30, "0", 1.5])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["errcode", "errmsg", "msgid", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
bodies = (
    st.binary(max_size=200)
    | json_values.map(json.dumps).map(str.encode)
    | st.tuples(st.integers(0, 43), st.binary(max_size=3)).map(
        lambda cut: b'{"errcode":0,"errmsg":"ok","msgid":12345678}'[: cut[0]] + cut[1]
    )
)


@given(body=bodies, status=st.sampled_from([200, 200, 200, 200, 100, 500, 0, 999]), resends=st.integers(0, 3))
def test_no_body_raises_or_is_taken_for_an_acceptance_that_it_is_not(body: bytes, status: int, resends: int) -> None:
    answer = classify(response_to(SENT, body, status, resends=resends))
    assert answer.kind in AnswerClass
    assert (answer.took_ms, answer.resends) == (83, resends)
    if answer.kind is A.ACCEPTED:
        assert status == 200
        assert is_acceptance(body)
    assert len(answer.code) < 32
    assert answer.msgid is None or len(answer.msgid) < 32
    shows_nothing_private(answer)
