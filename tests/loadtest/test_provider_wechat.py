"""The simulated WeChat platform, asked directly: each check's code, deduplication, quotas."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from dispatcher.httpd import Answer, Request
from loadtest.providers.faults import Faults
from loadtest.providers.server import Providers
from loadtest.providers.service import CUSTOM_PATH
from loadtest.providers.settings import DEFAULT_APPID, ProviderSettings
from loadtest.providers.wechat import SEND_PATH

NOW = 1795356300.0
OPENID = "oABCDEFGHIJKLMNOPQRSTUVWXYZ0"
CREDENTIALS = {"grant_type": "client_credential", "appid": DEFAULT_APPID, "secret": "simulated-secret"}
RID = re.compile(r" rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}$")


class Platform:
    """The platform with a clock that the test moves."""

    def __init__(self, **settings: Any) -> None:
        self.now = NOW
        self.providers = Providers(ProviderSettings(**settings), clock=lambda: self.now)
        self.counts = self.providers.book.wechat

    def ask(self, path: str, body: object = None, *, method: str = "POST", query: str = "") -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.providers.answer(Request(method, path, query, raw))

    def token(self, **changed: object) -> dict[str, Any]:
        return read(self.ask("/cgi-bin/stable_token", {**CREDENTIALS, **changed}))

    def send_raw(self, body: bytes, *, token: str | None = None, method: str = "POST") -> Answer:
        token = self.token()["access_token"] if token is None else token
        return self.ask(SEND_PATH, body, method=method, query=f"access_token={token}")

    def send(self, token: str | None = None, **changed: Any) -> dict[str, Any]:
        return read(self.send_raw(json.dumps(message(**changed)).encode(), token=token))


def message(**changed: Any) -> dict[str, object]:
    data = {"thing1": {"value": "尾号0426"}, "amount2": {"value": "¥72.61"}}
    body = {"touser": OPENID, "template_id": "T1", "client_msg_id": "alert-1", "data": data, **changed}
    return {key: value for key, value in body.items() if value is not None}


def read(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200  # WeChat answers 200 even with an error
    found: dict[str, Any] = json.loads(answer.body)
    return found


def test_a_reset_counts_tokens_anew_and_leaves_them_good() -> None:
    # Given three tokens that were given out, and two that were refused
    platform = Platform()
    for _ in range(2):
        token = platform.token()["access_token"]
        platform.providers.wechat.expire_tokens(platform.now)
        assert platform.send(token)["errcode"] == 42001
    token = platform.token()["access_token"]
    assert (platform.counts.tokens_issued, platform.counts.tokens_refused) == (3, 2)
    # When everything begins anew
    platform.providers.reset()
    platform.counts = platform.providers.book.wechat
    # Then the token still works, and one that dies is the first
    assert platform.send(token)["errcode"] == 0
    platform.providers.wechat.expire_tokens(platform.now)
    assert platform.send(token)["errcode"] == 42001
    platform.token()
    assert (platform.counts.tokens_issued, platform.counts.tokens_refused) == (1, 1)


def test_a_token_that_a_service_message_is_refused_with_is_counted_too() -> None:
    platform = Platform()
    token = platform.token()["access_token"]
    platform.providers.wechat.expire_tokens(platform.now)
    answer = platform.ask(CUSTOM_PATH, {"touser": OPENID}, query=f"access_token={token}")
    assert (read(answer)["errcode"], platform.counts.tokens_refused) == (42001, 1)


def test_a_reset_forgets_the_service_messages() -> None:
    platform = Platform()
    service = platform.providers.wechat.service
    service.heard(OPENID, "message", platform.now)
    body = {"touser": OPENID, "msgtype": "text", "text": {"content": "hi"}}
    codes = []
    for _ in range(2):
        query = f"access_token={platform.token()['access_token']}"
        codes.append(read(platform.ask(CUSTOM_PATH, body, query=query))["errcode"])
        platform.providers.reset()
    assert codes == [0, 45015]


def test_a_good_message_is_accepted_and_in_the_book() -> None:
    platform = Platform()
    answer = platform.send()
    assert answer["errcode"] == 0
    assert answer["errmsg"] == "ok"
    assert 2**53 < answer["msgid"] < 2**63
    (row,) = platform.providers.book.wechat_messages
    assert (row.openid, row.client_msg_id, row.msgid, row.times_seen) == (
        OPENID,
        "alert-1",
        answer["msgid"],
        1,
    )
    assert row.data == {"thing1": "尾号0426", "amount2": "¥72.61"}


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"template_id": ""}, 40037, "invalid template_id"),
        ({"template_id": None}, 40037, "invalid template_id"),
        ({"touser": ""}, 40003, "invalid openid"),
        ({"touser": None}, 40003, "invalid openid"),
        ({"touser": "not an openid"}, 40003, "invalid openid"),
        ({"touser": "o" * 65}, 40003, "invalid openid"),
        ({"data": {}}, 47003, "argument invalid! data invalid"),
        ({"data": None}, 47003, "argument invalid! data invalid"),
        ({"data": {"thing1": {"value": "x" * 21}}}, 47003, "argument invalid! data.thing1.value invalid"),
        ({"data": {"thing1": {"value": ""}}}, 47003, "argument invalid! data.thing1.value is emtpy"),
        ({"data": {"thing1": {}}}, 47003, "argument invalid! data.thing1.value is emtpy"),
        ({"data": {"amount2": {"value": "-¥1.00"}}}, 47003, "argument invalid! data.amount2.value invalid"),
        ({"data": {"thing1": {"value": 5}}}, 47001, "data format error"),
        ({"data": "text"}, 47001, "data format error"),
    ],
)
def test_each_bad_message_gets_its_code(changed: dict[str, Any], code: int, says: str) -> None:
    platform = Platform()
    answer = platform.send(**changed)
    assert answer["errcode"] == code
    assert answer["errmsg"].startswith(says)
    assert RID.search(answer["errmsg"])
    assert platform.counts.refused == {str(code): 1}
    assert platform.counts.accepted == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 44002),
        (b"{", 47001),
        (b"[]", 47001),
        (b'"\xff"', 47001),
        (b'{"touser":"\xff"}', 47001),
        (b'{"x":' + b"[" * 20_000, 47001),
    ],
)
def test_each_unreadable_body_gets_its_code(body: bytes, code: int) -> None:
    assert read(Platform().send_raw(body))["errcode"] == code


def test_the_token_is_looked_at_before_the_body() -> None:
    platform = Platform()
    assert read(platform.send_raw(b"", token="x" * 136))["errcode"] == 40001
    assert read(platform.send_raw(b"", token="short"))["errcode"] == 40014
    assert read(platform.send_raw(b"", token=""))["errcode"] == 41001
    assert read(platform.ask(SEND_PATH, b"", query=""))["errcode"] == 41001
    good = platform.token()["access_token"]
    assert read(platform.send_raw(b"", token=good))["errcode"] == 44002
    assert read(platform.ask(SEND_PATH, b"", query=f"debug=1&access_token={good}"))["errcode"] == 44002
    platform.now += 7201.0
    assert read(platform.send_raw(b"", token=good))["errcode"] == 42001
    assert read(platform.send_raw(b"", method="GET"))["errcode"] == 43002


def test_an_unknown_template_is_refused_when_the_known_ones_are_configured() -> None:
    platform = Platform(template_ids=frozenset({"T1"}))
    assert platform.send()["errcode"] == 0
    assert platform.send(template_id="T2")["errcode"] == 40037


def test_the_same_message_within_ten_minutes_is_delivered_once() -> None:
    # Given a delivered message, when it comes again in time, then it gets the first answer and no delivery.
    platform = Platform()
    first = platform.send()
    platform.now += 599.0
    assert platform.send()["msgid"] == first["msgid"]
    (row,) = platform.providers.book.wechat_messages
    assert row.times_seen == 2
    assert (platform.counts.accepted, platform.counts.delivered, platform.counts.deduplicated) == (2, 1, 1)


def test_the_same_message_after_ten_minutes_is_delivered_again() -> None:
    platform = Platform()
    first = platform.send()
    platform.now += 600.0
    second = platform.send()
    assert second["errcode"] == 0
    assert second["msgid"] != first["msgid"]
    assert [row.times_seen for row in platform.providers.book.wechat_messages] == [1, 1]
    # And the ten minutes run from the new delivery.
    platform.now += 599.0
    assert platform.send()["msgid"] == second["msgid"]


@pytest.mark.parametrize("changed", [{"touser": "oOther"}, {"client_msg_id": "alert-2"}])
def test_another_user_or_another_id_is_another_message(changed: dict[str, Any]) -> None:
    platform = Platform()
    assert platform.send()["msgid"] != platform.send(**changed)["msgid"]
    assert platform.counts.delivered == 2


@pytest.mark.parametrize("missing", [None, ""])
def test_without_a_client_msg_id_each_message_is_delivered(missing: str | None) -> None:
    platform = Platform()
    assert platform.send(client_msg_id=missing)["msgid"] != platform.send(client_msg_id=missing)["msgid"]
    assert platform.counts.delivered == 2


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (Faults(busy=1.0), -1),
        (Faults(quota=1.0), 45009),
        (Faults(unsubscribed=1.0), 43004),
        (Faults(refused=1.0), 43101),
    ],
)
def test_each_fault_that_is_an_answer_refuses_the_message(faults: Faults, code: int) -> None:
    platform = Platform(faults=faults)
    assert platform.send()["errcode"] == code
    assert platform.counts.refused == {str(code): 1}
    assert platform.counts.delivered == 0


def test_a_bad_gateway_is_before_acceptance() -> None:
    platform = Platform(faults=Faults(bad_gateway=1.0))
    answer = platform.send_raw(json.dumps(message()).encode())
    assert answer.status == 502
    assert platform.counts.refused == {"http502": 1}
    assert (platform.counts.requests, platform.counts.accepted) == (1, 0)


def test_a_reset_is_after_acceptance() -> None:
    platform = Platform(faults=Faults(reset=1.0))
    answer = platform.send_raw(json.dumps(message()).encode())
    assert answer.reset
    assert (platform.counts.accepted, platform.counts.delivered, platform.counts.resets) == (1, 1, 1)


def test_latency_and_slowness_add_up() -> None:
    platform = Platform(latency_seconds=0.25, faults=Faults(slow=1.0, slow_seconds=4.0))
    assert platform.send_raw(json.dumps(message()).encode()).delay_seconds == 4.25
    assert platform.send_raw(b"{").delay_seconds == 0.25


def test_the_daily_quota_can_be_read_and_cleared() -> None:
    platform = Platform(daily_quota=2, rate_per_second=50.0)
    token = platform.token()["access_token"]
    assert [platform.send(token, client_msg_id=f"a{n}")["errcode"] for n in range(3)] == [0, 0, 45009]
    asked = {"cgi_path": SEND_PATH}
    quota = read(platform.ask("/cgi-bin/openapi/quota/get", asked, query=f"access_token={token}"))
    assert quota["quota"] == {"daily_limit": 2, "used": 2, "remain": 0}
    assert quota["rate_limit"] == {"call_count": 50, "refresh_second": 1}
    clear = ("/cgi-bin/clear_quota", {"appid": DEFAULT_APPID})
    assert read(platform.ask(*clear, query=f"access_token={token}"))["errcode"] == 0
    assert platform.send(token)["errcode"] == 0
    for _ in range(9):
        platform.ask(*clear, query=f"access_token={token}")
    assert read(platform.ask(*clear, query=f"access_token={token}"))["errcode"] == 48006


def test_quota_calls_refuse_what_they_do_not_know() -> None:
    platform = Platform()
    query = f"access_token={platform.token()['access_token']}"
    quota_path, clear_path = "/cgi-bin/openapi/quota/get", "/cgi-bin/clear_quota"
    assert read(platform.ask(quota_path, {"cgi_path": "/nowhere"}, query=query))["errcode"] == 76021
    assert read(platform.ask(quota_path, {"cgi_path": SEND_PATH}))["errcode"] == 41001
    assert read(platform.ask(quota_path, b"{", query=query))["errcode"] == 47001
    assert read(platform.ask(clear_path, {"appid": "wxother"}, query=query))["errcode"] == 40013
    unlimited = read(platform.ask(quota_path, {"cgi_path": SEND_PATH}, query=query))["quota"]
    assert unlimited["remain"] == 1_000_000_000


def test_a_rate_beyond_the_bucket_is_throttled() -> None:
    platform = Platform(rate_per_second=2.0)
    token = platform.token()["access_token"]
    assert [platform.send(token, client_msg_id=f"a{n}")["errcode"] for n in range(3)] == [0, 0, 45011]
    platform.now += 0.5
    assert platform.send(token, client_msg_id="a3")["errcode"] == 0


@pytest.mark.parametrize(
    ("changed", "stable", "classic"),
    [
        ({"grant_type": "password"}, 40002, 40002),
        ({"appid": "wxother"}, 40013, 40013),
        ({"secret": "wrong"}, 40125, 40001),
    ],
)
def test_wrong_credentials_get_their_code(changed: dict[str, str], stable: int, classic: int) -> None:
    platform = Platform()
    assert platform.token(**changed)["errcode"] == stable
    query = "&".join(f"{key}={value}" for key, value in {**CREDENTIALS, **changed}.items())
    assert read(platform.ask("/cgi-bin/token", b"", method="GET", query=query))["errcode"] == classic
    assert platform.counts.token_requests == 2


def test_both_token_endpoints_give_tokens_that_work() -> None:
    platform = Platform()
    query = "&".join(f"{key}={value}" for key, value in CREDENTIALS.items())
    classic = read(platform.ask("/cgi-bin/token", b"", method="GET", query=query))
    assert classic["expires_in"] == 7200
    assert platform.send(classic["access_token"])["errcode"] == 0
    forced = platform.token(force_refresh=True)
    assert platform.send(forced["access_token"])["errcode"] == 0
    assert platform.send(classic["access_token"])["errcode"] == 0
    assert read(platform.ask("/cgi-bin/token", b"", query=query))["errcode"] == 43001
    assert read(platform.ask("/cgi-bin/stable_token", b"", method="GET"))["errcode"] == 43002


def test_forced_refreshes_are_twenty_a_day() -> None:
    platform = Platform()
    codes = [platform.token(force_refresh=True).get("errcode", 0) for _ in range(21)]
    assert codes == [0] * 20 + [45009]
    assert "access_token" in platform.token()


def test_the_fetches_of_the_classic_token_are_two_thousand_a_day() -> None:
    platform = Platform()
    query = "&".join(f"{key}={value}" for key, value in CREDENTIALS.items())
    codes = [
        read(platform.ask("/cgi-bin/token", b"", method="GET", query=query)).get("errcode", 0) for _ in range(2001)
    ]
    assert codes == [0] * 2000 + [45009]
