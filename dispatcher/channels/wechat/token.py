"""The WeChat access token: fetched from ``stable_token``, one refresh in flight at a time.

``stable_token`` in its normal mode returns the same token to everybody while it is valid, and in its last 5 minutes a
new one while both work, so processes do not invalidate each other (providers.md section 1).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated

import httpx
import msgspec
import trio
from msgspec import Meta

from dispatcher.channels.base import ChannelPaused
from dispatcher.model.event import Int64
from dispatcher.model.private import Secret

REFRESH_BEFORE_S = 200
"""Renewed this long before its end: inside the 5 minutes in which the old and the new token both work."""

RENEWAL_RETRY_S = 10.0
"""Between tries to renew a token that is still good: the lane sends on meanwhile and waits for each try."""

MAX_LIFE_S = 86_400
"""WeChat's tokens live for 7,200 s; a slip of its clock must not make us believe in one for years."""

MAX_TOKEN_CHARS = 4096
"""WeChat asks for room for 512; it is part of every URL."""

FAILED_REFRESH_PAUSE_S = 1.0
MISCONFIGURED_PAUSE_S = 30.0

_SECRET = "put the account's present AppSecret where channels.wechat.secret_file (or secret_env) says"  # noqa: S105
_CONFIGURATION = {
    40001: f"the app secret is wrong; {_SECRET}",
    40002: "the grant type is refused; check that channels.wechat.base_url is WeChat's",
    40013: "the appid is wrong; correct channels.wechat.appid",
    40125: f"the app secret is wrong; {_SECRET}",
    40164: "this machine's address is not on the account's IP allow-list; add it in WeChat's console",
    40243: "the app secret is frozen; unfreeze it in WeChat's console",
    41002: "the appid is missing; set channels.wechat.appid",
    41004: f"the app secret is missing; {_SECRET}",
}
"""errcode of the token endpoint -> what is wrong and what to do (providers.md section 1). Waiting mends none of it."""


class _TokenAnswer(msgspec.Struct):
    access_token: Annotated[str, Meta(max_length=MAX_TOKEN_CHARS)] = ""
    expires_in: Int64 = 0
    errcode: Int64 = 0
    errmsg: str = ""

    def __repr__(self) -> str:
        return f"<_TokenAnswer {self.errcode}>"


class TokenSteward:
    """Holds the token of one appid. ``clock`` gives monotonic seconds (trio's, so that tests can move it)."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        appid: str,
        secret: Secret,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._client = client
        self._appid = appid
        self._secret = secret
        self._clock = clock
        self._lock = trio.Lock()
        self._token: str | None = None
        self._renew_at = 0.0
        self._ends_at = 0.0
        self.refreshes = 0

    @property
    def current(self) -> str | None:
        """The token if it need not be renewed yet, else None."""
        return self._token if self._clock() < self._renew_at else None

    @property
    def last(self) -> str | None:
        """The latest token, good or not; None before the first. For a request that can wait for no other: what it
        costs when the token was refused a moment ago is one more refusal."""
        return self._token

    def invalidate(self, token: str) -> None:
        """A send was refused with this token. Forgets it only when it is still the one in use, so that a hundred
        refusals of one expired token lead to one refresh."""
        if token == self._token:
            self._renew_at = self._ends_at = 0.0

    async def refresh_if_needed(self) -> str:
        """The token, renewed if it is time to. Waiters share one fetch. Raises `ChannelPaused`.

        A renewal that fails while the token is still good is tried again later, unless a person has to act.
        Cancelling a waiter does not end the others' wait; cancelling the one that fetches lets the next one fetch.
        """
        if self.current is None:
            async with self._lock:
                if self.current is None:
                    try:
                        await self._fetch()
                    except ChannelPaused as paused:
                        if paused.misconfigured or self._clock() >= self._ends_at:
                            raise
                        self._renew_at = min(self._clock() + RENEWAL_RETRY_S, self._ends_at)
        assert self._token is not None
        return self._token

    async def _fetch(self) -> None:
        body = {
            "grant_type": "client_credential",
            "appid": self._appid,
            "secret": self._secret.reveal(),
            "force_refresh": False,
        }
        self.refreshes += 1
        try:
            response = await self._client.post("/cgi-bin/stable_token", json=body)
        except httpx.HTTPError as error:
            # The exception's text may hold the URL or body; its type is enough to act on.
            raise _paused(type(error).__name__) from None
        if response.status_code != 200:
            raise _paused(f"HTTP {response.status_code}")
        try:
            answer = msgspec.json.decode(response.content, type=_TokenAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _paused("the answer is not WeChat's JSON") from None
        if answer.errcode in _CONFIGURATION:
            raise ChannelPaused(
                f"WeChat gives no token (errcode {answer.errcode}{_address(answer)}): {_CONFIGURATION[answer.errcode]}",
                retry_after_s=MISCONFIGURED_PAUSE_S,
                misconfigured=True,
            )
        if answer.errcode or not answer.access_token:
            raise _paused(f"errcode {answer.errcode}")
        self._token = answer.access_token
        life_s = min(max(answer.expires_in, 1), MAX_LIFE_S)
        now = self._clock()
        self._ends_at = now + life_s
        # A token that ends too soon for that is renewed once a second, not at every batch.
        self._renew_at = now + max(life_s - REFRESH_BEFORE_S, 1)


def _paused(why: str) -> ChannelPaused:
    return ChannelPaused(f"no WeChat token: {why}", retry_after_s=FAILED_REFRESH_PAUSE_S)


def _address(answer: _TokenAnswer) -> str:
    """The address that WeChat saw, which is what has to be put on the allow-list; nothing else of its text is shown."""
    if answer.errcode == 40164 and (found := re.search(r"invalid ip ([0-9a-fA-F.:]{3,45})", answer.errmsg)):
        try:
            return f", {ipaddress.ip_address(found.group(1))}"
        except ValueError:
            pass
    return ""
