"""The token steward on virtual time, against stand-ins for WeChat's token endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from dispatcher.channels.base import ChannelPaused
from dispatcher.channels.wechat.token import (
    FAILED_REFRESH_PAUSE_S,
    MAX_LIFE_S,
    MISCONFIGURED_PAUSE_S,
    REFRESH_BEFORE_S,
    RENEWAL_RETRY_S,
    TokenSteward,
)
from dispatcher.model.private import Secret
from tests.dispatcher.channel_kit import SECRET, TOKEN, shows_nothing_private


class Platform:
    """WeChat's token endpoint: takes a second, and gives ``TOKEN-1``, ``TOKEN-2`` … or what ``says`` says."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.expires_in = 7200
        self.says: Callable[[], httpx.Response] | None = None
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer), base_url="https://wechat.example")
        self.steward = TokenSteward(client, "wx0000000000000001", Secret(SECRET))

    @property
    def fetches(self) -> int:
        return len(self.bodies)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, str(request.url)) == ("POST", "https://wechat.example/cgi-bin/stable_token")
        self.bodies.append(json.loads(request.content))
        fetch = self.fetches
        await trio.sleep(1)
        if self.says is not None:
            return self.says()
        return httpx.Response(200, json={"access_token": f"{TOKEN}{fetch}", "expires_in": self.expires_in})

    async def refusal(self) -> ChannelPaused:
        """The error of a refresh that must fail."""
        with pytest.raises(ChannelPaused) as caught:
            await self.steward.refresh_if_needed()
        shows_nothing_private(caught.value)
        return caught.value


def errcode(code: int, text: str = "") -> Callable[[], httpx.Response]:
    """An answer as WeChat words it; its text may echo what it was sent."""
    body = {"errcode": code, "errmsg": f"{text} {SECRET} {TOKEN} rid: 6512-abcd"}
    return lambda: httpx.Response(200, json=body)


def text(content: bytes, status: int = 200) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(status, content=content)


# ---- one fetch ----------------------------------------------------------------------------------------------------


async def test_the_secret_goes_out_once_in_normal_mode(autojump_clock: MockClock) -> None:
    platform = Platform()
    assert (platform.steward.current, platform.steward.last) == (None, None)
    assert await platform.steward.refresh_if_needed() == f"{TOKEN}1"
    assert platform.steward.current == platform.steward.last == f"{TOKEN}1"
    # force_refresh would kill the token that other processes use
    assert platform.bodies == [
        {
            "grant_type": "client_credential",
            "appid": "wx0000000000000001",
            "secret": SECRET,
            "force_refresh": False,
        }
    ]
    assert SECRET not in repr(vars(platform.steward))


async def test_a_hundred_waiters_share_one_fetch(autojump_clock: MockClock) -> None:
    platform = Platform()
    got: list[str] = []

    async def wait() -> None:
        got.append(await platform.steward.refresh_if_needed())

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(wait)
    assert got == [f"{TOKEN}1"] * 100
    assert platform.fetches == platform.steward.refreshes == 1
    assert trio.current_time() == 1.0


async def test_five_hundred_refusals_of_one_token_lead_to_one_refresh(autojump_clock: MockClock) -> None:
    # Given 500 sends in flight with one token
    platform = Platform()
    old = await platform.steward.refresh_if_needed()
    got: list[str] = []

    async def refused(after_s: float) -> None:
        await trio.sleep(after_s)
        platform.steward.invalidate(old)
        got.append(await platform.steward.refresh_if_needed())

    # When all are refused, some before, some during and some after the refresh
    async with trio.open_nursery() as nursery:
        for n in range(500):
            nursery.start_soon(refused, n * 0.01)
    # Then there was one refresh, and all go on with the new token
    assert got == [f"{TOKEN}2"] * 500
    assert platform.fetches == 2


async def test_a_refusal_of_an_old_token_changes_nothing(autojump_clock: MockClock) -> None:
    platform = Platform()
    old = await platform.steward.refresh_if_needed()
    platform.steward.invalidate(old)
    # The refused token stays at hand for a request that can wait for no other
    assert (platform.steward.current, platform.steward.last) == (None, old)
    new = await platform.steward.refresh_if_needed()
    for token in (old, "", "None", new[:-1]):
        platform.steward.invalidate(token)
    assert platform.steward.current == new
    assert await platform.steward.refresh_if_needed() == new
    assert platform.fetches == 2


async def test_cancelling_the_one_who_fetches_lets_the_next_one_fetch(autojump_clock: MockClock) -> None:
    platform = Platform()
    got: list[str] = []

    async def wait() -> None:
        got.append(await platform.steward.refresh_if_needed())

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5) as impatient:
            nursery.start_soon(wait_later, wait)
            await platform.steward.refresh_if_needed()
        assert impatient.cancelled_caught
    assert got == [f"{TOKEN}2"]
    assert platform.fetches == 2


async def wait_later(wait: Callable[[], Any]) -> None:
    await trio.sleep(0.1)
    await wait()


async def test_cancelling_a_waiter_does_not_end_the_others_wait(autojump_clock: MockClock) -> None:
    platform = Platform()
    got: list[str] = []

    async def wait() -> None:
        got.append(await platform.steward.refresh_if_needed())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5) as impatient:
            await platform.steward.refresh_if_needed()
        assert impatient.cancelled_caught
    assert got == [f"{TOKEN}1"]
    assert platform.fetches == 1


# ---- its time -----------------------------------------------------------------------------------------------------


async def test_a_token_is_renewed_inside_the_overlap_of_old_and_new(autojump_clock: MockClock) -> None:
    platform = Platform()
    await platform.steward.refresh_if_needed()
    # When it has 201 s left, then it is good; with 200 s left it is renewed
    await trio.sleep(7200 - REFRESH_BEFORE_S - 1)
    assert await platform.steward.refresh_if_needed() == f"{TOKEN}1"
    await trio.sleep(1)
    assert platform.steward.current is None
    assert await platform.steward.refresh_if_needed() == f"{TOKEN}2"
    assert platform.fetches == 2


@pytest.mark.parametrize("expires_in", [-(2**63), -1, 0, 1, 5, 200, 201])
async def test_a_token_that_ends_soon_is_renewed_once_a_second_at_most(
    expires_in: int, autojump_clock: MockClock
) -> None:
    platform = Platform()
    platform.expires_in = expires_in
    for _ in range(200):  # 20 virtual seconds of sends
        await platform.steward.refresh_if_needed()
        await trio.sleep(0.1)
    assert 1 < platform.fetches <= trio.current_time() / 2 + 1  # a fetch takes a second, too


@pytest.mark.parametrize("expires_in", [10**6, 2**63 - 1])
async def test_a_token_is_never_believed_in_for_more_than_a_day(expires_in: int, autojump_clock: MockClock) -> None:
    platform = Platform()
    platform.expires_in = expires_in
    await platform.steward.refresh_if_needed()
    await trio.sleep(MAX_LIFE_S - REFRESH_BEFORE_S - 1)
    assert platform.steward.current is not None
    await trio.sleep(2)
    assert platform.steward.current is None


async def test_a_renewal_that_fails_does_not_stop_a_channel_whose_token_is_good(autojump_clock: MockClock) -> None:
    # Given a token that is to be renewed, and a platform that is down
    platform = Platform()
    await platform.steward.refresh_if_needed()
    ends_at = trio.current_time() + 7200
    await trio.sleep(7200 - REFRESH_BEFORE_S)
    platform.says = text(b"<html>502 Bad Gateway</html>", 502)
    # When sends go on every tenth of a second, then the old token serves until its end
    while trio.current_time() < ends_at - 2:
        assert await platform.steward.refresh_if_needed() == f"{TOKEN}1"
        await trio.sleep(0.1)
    # And the platform was asked now and then only
    assert 1 < platform.fetches - 1 <= REFRESH_BEFORE_S / RENEWAL_RETRY_S
    # And then the channel pauses
    await trio.sleep(3)
    assert "HTTP 502" in str(await platform.refusal())


async def test_a_refused_token_is_not_used_on_when_its_renewal_fails(autojump_clock: MockClock) -> None:
    platform = Platform()
    platform.steward.invalidate(await platform.steward.refresh_if_needed())
    platform.says = text(b"", 500)
    assert not (await platform.refusal()).misconfigured


async def test_a_renewal_that_needs_a_person_says_so_at_once(autojump_clock: MockClock) -> None:
    platform = Platform()
    await platform.steward.refresh_if_needed()
    await trio.sleep(7200 - REFRESH_BEFORE_S)
    platform.says = errcode(40125)
    assert (await platform.refusal()).misconfigured


# ---- no token -----------------------------------------------------------------------------------------------------

IP_TEXT = "invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist"


@pytest.mark.parametrize(
    ("code", "says", "advice"),
    [
        (40001, "invalid credential", ["app secret", "channels.wechat.secret_file"]),
        (40002, "invalid grant_type", ["channels.wechat.base_url"]),
        (40013, "invalid appid", ["appid is wrong", "channels.wechat.appid"]),
        (40125, "invalid appsecret", ["app secret", "channels.wechat.secret_file"]),
        (40164, IP_TEXT, ["203.0.113.9", "IP allow-list", "add it in WeChat's console"]),
        (40164, "invalid ip 2001:db8::7 ipv6", ["2001:db8::7"]),
        (40164, f"invalid ip {SECRET}", ["IP allow-list"]),
        (40164, "", ["IP allow-list"]),
        (40243, "frozen", ["frozen", "WeChat's console"]),
        (41002, "appid missing", ["channels.wechat.appid"]),
        (41004, "appsecret missing", ["channels.wechat.secret_file"]),
    ],
)
async def test_a_wrong_setting_says_what_to_do(
    code: int, says: str, advice: list[str], autojump_clock: MockClock
) -> None:
    platform = Platform()
    platform.says = errcode(code, says)
    paused = await platform.refusal()
    assert paused.misconfigured
    assert paused.retry_after_s == MISCONFIGURED_PAUSE_S
    for words in (f"errcode {code}", *advice):
        assert words in str(paused)
    assert "\n" not in str(paused)


NOT_A_TOKEN = {
    "quota": (errcode(45009, "reach max api daily quota limit"), "errcode 45009"),
    "busy": (errcode(-1, "system error"), "errcode -1"),
    "unknown": (errcode(99999), "errcode 99999"),
    "html": (text(b"<html>blocked</html>"), "not WeChat's JSON"),
    "http 500": (text(b"<html>", 500), "HTTP 500"),
    "http 500 with a token": (text(b'{"access_token":"t","expires_in":7200}', 500), "HTTP 500"),
    "http 500 with a wrong secret": (text(b'{"errcode":40125}', 500), "HTTP 500"),
    "redirect": (lambda: httpx.Response(302, headers={"Location": "https://elsewhere.example"}), "HTTP 302"),
    "empty": (text(b""), "not WeChat's JSON"),
    "cut off": (text(b'{"access_token":"abc'), "not WeChat's JSON"),
    "deep": (text(b'{"a":' * 100_000), "not WeChat's JSON"),
    "not UTF-8": (text(b'{"access_token":"\xff","expires_in":7200}'), "not WeChat's JSON"),
    "no token": (text(b"{}"), "errcode 0"),
    "an empty token": (text(b'{"access_token":"","expires_in":7200}'), "errcode 0"),
    "a number": (text(b'{"access_token":1,"expires_in":7200}'), "not WeChat's JSON"),
    "a huge number": (text(b'{"access_token":"t","expires_in":1' + b"0" * 400 + b"}"), "not WeChat's JSON"),
    "a huge errcode": (text(b'{"errcode":1' + b"0" * 400 + b"}"), "not WeChat's JSON"),
    "a huge token": (text(b'{"access_token":"' + b"t" * 5_000 + b'","expires_in":7200}'), "not WeChat's JSON"),
    "an array": (text(b"[]"), "not WeChat's JSON"),
}


@pytest.mark.parametrize("name", NOT_A_TOKEN)
async def test_trouble_that_passes_is_no_misconfiguration(name: str, autojump_clock: MockClock) -> None:
    platform = Platform()
    platform.says, words = NOT_A_TOKEN[name]
    paused = await platform.refusal()
    assert words in str(paused)
    assert not paused.misconfigured
    assert paused.retry_after_s == FAILED_REFRESH_PAUSE_S
    assert platform.steward.current is None
    # And once it has passed, there is a token
    platform.says = None
    await trio.sleep(FAILED_REFRESH_PAUSE_S)
    assert await platform.steward.refresh_if_needed() == f"{TOKEN}2"


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout, httpx.DecodingError, httpx.RemoteProtocolError]
)
async def test_a_connection_error_is_named_by_its_kind_alone(
    error: type[httpx.RequestError], autojump_clock: MockClock
) -> None:
    platform = Platform()

    def fail() -> httpx.Response:
        raise error(f"POST https://wechat.example/?secret={SECRET} failed for {TOKEN}")

    platform.says = fail
    paused = await platform.refusal()
    assert error.__name__ in str(paused)
    assert not paused.misconfigured


@given(
    body=st.binary(max_size=300)
    | st.builds(
        json.dumps,
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["access_token", "expires_in", "errcode", "errmsg", "x"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        ),
    ).map(str.encode),
    status=st.sampled_from([200, 200, 200, 204, 404, 502]),
)
def test_whatever_comes_is_a_token_or_a_pause(body: bytes, status: int) -> None:
    async def ask() -> None:
        platform = Platform()
        platform.says = text(body, status)
        try:
            token = await platform.steward.refresh_if_needed()
        except ChannelPaused as paused:
            shows_nothing_private(paused)
        else:
            assert json.loads(body)["access_token"] == token
            assert status == 200

    trio.run(ask, clock=MockClock(autojump_threshold=0))
