"""The webhook channel: what is posted, how it is signed, and every status through a real engine and a real server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.channels.base import MAX_PAUSE_MS
from dispatcher.channels.build import make_channels
from dispatcher.channels.webhook.answers import TABLE, classify, knows
from dispatcher.channels.webhook.channel import WebhookChannel
from dispatcher.channels.webhook.signing import TOLERANCE_S, BadSecret, BadSignature, SigningKey, headers, verify
from dispatcher.config_channels import WebhookConfig
from dispatcher.config_load import load_config
from dispatcher.delivery import AnswerClass
from dispatcher.errors import ConfigurationError
from dispatcher.ledger.stories import AlertStory
from dispatcher.model.event import DigestFacts
from dispatcher.model.private import Secret
from dispatcher.network.api import Failure
from ratelimit.retry import RetryPolicy
from templates.library import Library
from tests.dispatcher.channel_kit import (
    NOW,
    OPENID,
    PHONE,
    an_alert,
    no_response_to,
    response_to,
    shows_nothing_private,
)
from tests.dispatcher.channels.sequential_kit import ACCOUNT, ENDS_HERE, GOES_ON, MAIL, NEXT, sending
from tests.dispatcher.network_kit import Conversation, Seen, serving

A = AnswerClass
LIBRARY = Library.load()
KEY_BYTES = b"0123456789abcdefghijklmnopqrstuv"
SECRET = "whsec_" + base64.b64encode(KEY_BYTES).decode()
OLD_SECRET = "whsec_" + base64.b64encode(KEY_BYTES[::-1]).decode()
KEY, OLD_KEY = SigningKey(Secret(SECRET)), SigningKey(Secret(OLD_SECRET))
URL = "https://push.example/alerts"
NOW_S = NOW // 1000


def a_channel(*keys: SigningKey, now_s: float = NOW_S, **settings: Any) -> WebhookChannel:
    config = WebhookConfig(**({"url": URL, "secret_env": "SECRET"} | settings))
    return WebhookChannel(config, keys or (KEY,), LIBRARY, RetryPolicy(), lambda: now_s)


def as_given(lines: tuple[str, ...]) -> dict[str, str]:
    pairs = [line.split(": ", 1) for line in lines]
    return {name.lower(): value for name, value in pairs}


CHANNEL = a_channel()
ALERT = an_alert(route=("webhook",))
SENT = CHANNEL.prepare(ALERT)


# ---- what is sent ---------------------------------------------------------------------------------------------------


def test_a_request_holds_the_facts_and_no_address() -> None:
    assert (SENT.pool, SENT.url, SENT.method, SENT.fresh) == ("webhook", URL, "POST", False)
    assert SENT.body is not None
    assert json.loads(SENT.body) == {
        "type": "alert.swipe",
        "version": 1,
        "timestamp": "2024-01-01T10:00:00Z",
        "data": {
            "alert_id": ALERT.key,
            "event_id": "e-1",
            "account": "A-1",
            "role": "primary",
            "locale": "zh-CN",
            "event_type": "purchase",
            "kind": "purchase",
            "amount": 7261,
            "currency": "GBP",
            "orig_amount": None,
            "orig_currency": None,
            "day_total": None,
            "card_tail": "5770",
            "merchant": "shell kings 587",
            "mcc": None,
            "city": None,
            "country": None,
            "status": None,
            "refers_to": None,
            "text": "您尾号5770的信用卡1月1日18:00消费£72.61（shell kings 587）。",
        },
    }
    assert OPENID.encode() not in SENT.body
    assert PHONE.encode() not in SENT.body
    shows_nothing_private(SENT)


@pytest.mark.parametrize("pan", [None, "", "5770", "************577x", "12"])
def test_of_a_card_there_are_four_digits_or_nothing(pan: str | None) -> None:
    body = json.loads(CHANNEL.prepare(an_alert(event={"pan": pan})).body or b"")
    assert body["data"]["card_tail"] == ("5770" if pan == "5770" else None)


@pytest.mark.parametrize("fields", [{"template": "gone@1"}, {"event": {"currency": "ZZZ"}}])
def test_what_cannot_be_said_in_a_sentence_still_goes_as_facts(fields: dict[str, Any]) -> None:
    body = json.loads(CHANNEL.prepare(an_alert(**fields)).body or b"")
    assert body["data"]["text"] is None
    assert body["data"]["amount"] == 7261


def test_a_digest_comes_with_what_it_holds() -> None:
    facts = DigestFacts(role="primary", count=2, amounts={"CNY": 300}, since=NOW, until=NOW, rule="r", type="refund")
    event = msgspec.structs.replace(ALERT.event, digest=facts, category="digest")
    sent = CHANNEL.prepare(msgspec.structs.replace(ALERT, event=event, template="digest@1"))
    body = json.loads(sent.body)
    assert body["type"] == "alert.digest"
    assert body["data"]["digest"] == msgspec.to_builtins(facts)
    assert body["data"]["text"] == "您的信用卡另有2笔退款未逐笔通知（1月1日18:00），合计¥3.00。"


def test_facts_come_along_and_what_is_none_does_not() -> None:
    told = {"points": 120, "title": "a gift"}
    for facts, wanted in ((told, told), (None, None), (["of an older release"], None)):
        event = msgspec.structs.replace(ALERT.event, facts=facts)
        body = json.loads(CHANNEL.prepare(msgspec.structs.replace(ALERT, event=event)).body)
        assert body["data"].get("facts") == wanted


def test_id_and_body_are_the_same_for_every_attempt_and_the_time_is_the_attempts() -> None:
    first, second = (
        a_channel(now_s=NOW_S + late).prepare(an_alert(attempts=late, state="retrying")) for late in (0, 90)
    )
    assert first.body == second.body
    one, two = as_given(first.headers), as_given(second.headers)
    assert one["webhook-id"] == two["webhook-id"] == ALERT.key
    assert (int(one["webhook-timestamp"]), int(two["webhook-timestamp"])) == (NOW_S, NOW_S + 90)
    assert one["webhook-signature"] != two["webhook-signature"]


def test_a_resend_is_recognised_so_nothing_is_fenced_and_unknown_outcomes_are_sent_again() -> None:
    policy = CHANNEL.policy(ALERT)
    assert (CHANNEL.fenced, policy.resend_unknown, policy.resend_window_ms, policy.receipt_ms) == (
        False,
        True,
        None,
        None,
    )


# ---- signatures -----------------------------------------------------------------------------------------------------


def test_the_signature_is_the_specifications() -> None:
    # Given the specification's words: base64(HMAC-SHA256(key, id.timestamp.body)), the key being what is in base64
    given_headers = as_given(SENT.headers)
    signed = f"{ALERT.key}.{NOW_S}.".encode() + (SENT.body or b"")
    digest = hmac.new(KEY_BYTES, signed, hashlib.sha256).digest()
    assert given_headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert given_headers["content-type"] == "application/json"


def test_while_keys_change_both_sign_and_either_verifies() -> None:
    request = a_channel(KEY, OLD_KEY).prepare(ALERT)
    given_headers = as_given(request.headers)
    assert len(given_headers["webhook-signature"].split(" ")) == 2
    for receiver in ([KEY], [OLD_KEY], [OLD_KEY, KEY]):
        assert verify(receiver, given_headers, request.body or b"", NOW_S) == ALERT.key


BODY = b'{"a":1}'
GIVEN = as_given(headers([KEY], "id-1", NOW_S, BODY))


@pytest.mark.parametrize(
    ("changes", "body", "late_s", "why"),
    [
        ({"webhook-id": "id-2"}, BODY, 0, "no signature fits"),
        ({"webhook-timestamp": str(NOW_S + 1)}, BODY, 0, "no signature fits"),
        ({}, b'{"a":2}', 0, "no signature fits"),
        ({"webhook-signature": ""}, BODY, 0, "no signature fits"),
        ({"webhook-signature": "v1,"}, BODY, 0, "no signature fits"),
        ({"webhook-signature": "v2," + GIVEN["webhook-signature"][3:]}, BODY, 0, "no signature fits"),
        ({"webhook-signature": "é ü"}, BODY, 0, "no signature fits"),
        ({"webhook-signature": "v1,x " * 1000 + GIVEN["webhook-signature"]}, BODY, 0, "no signature fits"),
        ({"webhook-timestamp": "١"}, BODY, 0, "the timestamp is not a number"),
        ({"webhook-timestamp": "9" * 5000}, BODY, 0, "the timestamp is not a number"),
        ({"webhook-timestamp": "-1"}, BODY, 0, "the timestamp is not a number"),
        ({}, BODY, TOLERANCE_S + 1, "the timestamp is too far from our clock"),
        ({}, BODY, -TOLERANCE_S - 1, "the timestamp is too far from our clock"),
    ],
)
def test_what_is_not_genuine_is_refused(changes: dict[str, str], body: bytes, late_s: int, why: str) -> None:
    assert verify([KEY], GIVEN, BODY, NOW_S) == "id-1"
    with pytest.raises(BadSignature, match=why):
        verify([KEY], GIVEN | changes, body, NOW_S + late_s)


@pytest.mark.parametrize("name", GIVEN)
def test_a_missing_header_is_refused(name: str) -> None:
    with pytest.raises(BadSignature, match="missing"):
        verify([KEY], {key: value for key, value in GIVEN.items() if key != name}, BODY, NOW_S)


@pytest.mark.parametrize(
    "secret",
    [
        base64.b64encode(KEY_BYTES).decode(),
        "whsec_",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_not base64 at all!",
        "whsec_" + base64.b64encode(KEY_BYTES).decode()[:-1],
        "whsec_é",
    ],
)
def test_what_is_no_secret_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(BadSecret) as caught:
        SigningKey(Secret(secret))
    assert secret[6:] == "" or secret[6:] not in str(caught.value)
    assert "24 to 64" in str(caught.value)


@given(message_id=st.text(max_size=40), stamp=st.integers(0, 10**11), body=st.binary(max_size=200), other=st.binary())
def test_what_was_signed_verifies_and_nothing_else(message_id: str, stamp: int, body: bytes, other: bytes) -> None:
    lines = as_given(headers([OLD_KEY, KEY], "x", stamp, body)) | {"webhook-id": message_id}
    lines["webhook-signature"] = " ".join(key.sign(message_id, stamp, body) for key in (OLD_KEY, KEY))
    assert verify([KEY], lines, body, stamp) == message_id
    if other != body:
        with pytest.raises(BadSignature):
            verify([KEY], lines, other, stamp)


def test_neither_key_nor_secret_is_printed() -> None:
    for thing in (KEY, [KEY], CHANNEL, BadSecret()):
        assert SECRET not in repr(thing)
        assert SECRET[6:] not in repr(thing)


# ---- what a status means --------------------------------------------------------------------------------------------

EXPECTED = {
    200: A.ACCEPTED,
    201: A.ACCEPTED,
    204: A.ACCEPTED,
    299: A.ACCEPTED,
    301: A.CONFIGURATION,
    302: A.CONFIGURATION,
    307: A.CONFIGURATION,
    308: A.CONFIGURATION,
    400: A.PERMANENT,
    401: A.CONFIGURATION,
    403: A.CONFIGURATION,
    404: A.CONFIGURATION,
    405: A.CONFIGURATION,
    407: A.CONFIGURATION,
    408: A.UNKNOWN,
    410: A.CONFIGURATION,
    413: A.PERMANENT,
    421: A.CONFIGURATION,
    422: A.PERMANENT,
    425: A.RETRY,
    429: A.THROTTLE,
    499: A.PERMANENT,
    500: A.UNKNOWN,
    502: A.UNKNOWN,
    503: A.UNKNOWN,
    599: A.UNKNOWN,
}


def test_every_row_is_put_to_the_test() -> None:
    for code in TABLE.rows:
        assert any(str(status).startswith(code[5:].rstrip("x")) for status in EXPECTED), code


@pytest.mark.parametrize("status", EXPECTED)
def test_a_status_means_what_it_says_whatever_the_body(status: int) -> None:
    answer = classify(response_to(SENT, b"<html>", status, resends=1))
    assert (answer.kind, answer.code, answer.msgid, answer.took_ms, answer.resends) == (
        EXPECTED[status],
        f"http-{status}",
        None,
        83,
        1,
    )
    assert knows(answer.code)


@pytest.mark.parametrize("status", [0, 1, 100, 103, 600, 999, 2000, 20])
def test_a_status_that_http_does_not_have_is_a_failure_with_an_alarm(status: int) -> None:
    answer = classify(response_to(SENT, b"", status))
    assert answer.kind is A.PERMANENT
    assert not knows(answer.code)


def test_retry_after_is_obeyed_within_reason() -> None:
    assert classify(response_to(SENT, b"", 429, retry_after_s=7)).pause_ms == 7_000
    assert classify(response_to(SENT, b"", 503, retry_after_s=9)).pause_ms == 9_000
    assert classify(response_to(SENT, b"", 429, retry_after_s=10**9)).pause_ms == MAX_PAUSE_MS
    assert classify(response_to(SENT, b"", 410)).pause_ms == MAX_PAUSE_MS


@pytest.mark.parametrize(("failure", "kind"), [(Failure.NOT_SENT, A.RETRY), (Failure.UNKNOWN, A.UNKNOWN)])
def test_no_answer_is_a_retry_or_unknown(failure: Failure, kind: AnswerClass) -> None:
    answer = classify(no_response_to(SENT, failure, 28))
    assert (answer.kind, answer.code) == (kind, "network-28")
    assert knows(answer.code)


# ---- through the engine ---------------------------------------------------------------------------------------------


def check(status: int, alert: AlertStory) -> None:
    kind = EXPECTED[status]
    expected = [("webhook", str(kind))]
    if (
        kind in GOES_ON or status == 410
    ):  # a quarter of an hour's pause: longer than an alert with another channel waits
        expected.append((NEXT, "accepted"))
    elif kind not in ENDS_HERE:
        expected.append(("webhook", "accepted"))
    assert [(attempt.channel, attempt.outcome) for attempt in alert.attempts] == expected, status
    assert (alert.state, alert.channel) == ("delivered", expected[-1][0]), status


async def test_every_status_leads_to_the_step_that_the_table_says(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    say: list[int] = []
    hits: list[Seen] = []

    async def receiver(talk: Conversation) -> None:
        while (seen := await talk.read()) is not None:
            hits.append(seen)
            status = say.pop() if say else 200
            # A redirect that leads back here would be seen as a second request at another path
            more = [f"Location: http://127.0.0.1:{server.port}/elsewhere"] if status // 100 == 3 else []
            # No body: statuses such as 204 may not have one, and nobody reads it
            await talk.answer(b"" if status == 204 else seen.body, status=f"{status} X", headers=more)

    async with serving(receiver) as server:
        section = f'[channels.webhook]\nurl = "{server.url}/in"\nsecret_file = "now"\nprevious_secret_file = "old"\n'
        async with sending("webhook", section, tmp_path, {"now": SECRET, "old": OLD_SECRET}) as world:
            for status in sorted(EXPECTED, key=lambda one: one == 410):  # its pause is the longest
                say.append(status)
                check(status, await world.send())
            printed = world.printed()
    for seen in hits:
        given_headers = {name.lower(): value for name, value in seen.headers}
        for key in (KEY, OLD_KEY):
            stamp = float(given_headers["webhook-timestamp"])
            assert verify([key], given_headers, seen.body, stamp) == json.loads(seen.body)["data"]["alert_id"]
    assert {seen.target for seen in hits} == {"/in"}
    assert not world.meter.totals.unknown_codes
    for private in (SECRET[6:], OLD_SECRET[6:], MAIL, ACCOUNT, "v1,"):
        assert private not in printed


BAD_ANSWERS = {
    "reset": b"",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx",
    "not HTTP": b"220 mail.test\r\n",
    "100 MiB": b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_a_bad_answer_is_of_unknown_outcome_and_sent_again_with_the_same_id(
    name: str, tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    hits: list[Seen] = []

    async def receiver(talk: Conversation) -> None:
        while (seen := await talk.read()) is not None:
            hits.append(seen)
            if len(hits) > 1:
                await talk.answer()
                continue
            await talk.send(BAD_ANSWERS[name])
            return

    async with serving(receiver) as server:
        section = f'[channels.webhook]\nurl = "{server.url}/in"\nsecret_file = "now"\n'
        async with sending("webhook", section, tmp_path, {"now": SECRET}) as world:
            alert = await world.send()
    assert [attempt.outcome for attempt in alert.attempts] == ["unknown", "accepted"]
    assert len(hits) == 2
    assert hits[0].body == hits[1].body


# ---- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ('url = "https://x/in"', "channels.webhook.secret_file: is missing"),
        (
            'url = "http://bank.example/in"\nsecret_file = "s"',
            "channels.webhook.url: http:// is allowed for a loopback",
        ),
        ('url = "https://u:p@x/in"\nsecret_file = "s"', "channels.webhook.url: holds a user name or password"),
        ('secret_file = "s"', "channels.webhook.url: is missing"),
        ('url = "https://x"\nsecret_file = "s"\nprevious_secret_file = "none"', "previous_secret_file"),
    ],
)
def test_a_wrong_section_is_refused_in_one_line(section: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "s").write_text(SECRET)
    (tmp_path / "swipebell.toml").write_text(f"[channels.webhook]\n{section}\n")
    with pytest.raises(ConfigurationError, match=why) as caught:
        load_config(tmp_path / "swipebell.toml", {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["secret_file", "previous_secret_file"])
def test_a_wrong_secret_names_its_key(key: str, tmp_path: Path) -> None:
    files = {"secret_file": SECRET, "previous_secret_file": OLD_SECRET, key: "hunter2hunter2hunter2"}
    text = '[channels.webhook]\nurl = "https://x/in"\n'
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        text += f'{name} = "{name}"\n'
    (tmp_path / "swipebell.toml").write_text(text)
    config = load_config(tmp_path / "swipebell.toml", {})
    with pytest.raises(ConfigurationError, match=rf"channels\.webhook\.{key}: is not a webhook secret") as caught:
        make_channels(config, LIBRARY, None, {})  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
