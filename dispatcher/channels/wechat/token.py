"""The WeChat access token: fetched from ``stable_token``, one refresh in flight at a time.

``stable_token`` in its normal mode returns the same token to everybody while it is valid, and in its last 5 minutes a
new one while both work, so processes do not invalidate each other (providers.md section 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import msgspec
import trio

from dispatcher.channels.base import ChannelPaused
from dispatcher.model.private import Secret

REFRESH_BEFORE_S = 200
"""Renewed this long before its end: inside the 5 minutes in which the old and the new token both work."""

FAILED_REFRESH_PAUSE_S = 1.0
MISCONFIGURED_PAUSE_S = 30.0

_CONFIGURATION = {
    40001: "the app secret is wrong",
    40002: "the grant type is refused",
    40013: "the appid is wrong",
    40125: "the app secret is wrong",
    40164: "this machine's address is not on the account's IP allow-list",
    40243: "the app secret is frozen",
    41002: "the appid is missing",
    41004: "the app secret is missing",
}
"""errcode of the token endpoint -> what is wrong (providers.md section 1). Waiting does not mend these."""


class _TokenAnswer(msgspec.Struct):
    access_token: str = ""
    expires_in: int = 0
    errcode: int = 0
    errmsg: str = ""


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
        self._expires_at = 0.0
        self.refreshes = 0

    @property
    def current(self) -> str | None:
        """The token if it is still good for a while, else None."""
        return self._token if self._clock() < self._expires_at - REFRESH_BEFORE_S else None

    def invalidate(self, token: str) -> None:
        """A send was refused with this token. Forgets it only when it is still the one in use, so that a hundred
        refusals of one expired token lead to one refresh."""
        if token == self._token:
            self._token = None
            self._expires_at = 0.0

    async def refresh_if_needed(self) -> str:
        """The token, fetched if there is none. Waiters share one fetch. Raises `ChannelPaused`.

        Cancelling a waiter does not end the others' wait; cancelling the one that fetches lets the next one fetch.
        """
        if self.current is None:
            async with self._lock:
                if self.current is None:
                    await self._fetch()
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
            answer = msgspec.json.decode(response.content, type=_TokenAnswer)
        except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # The exception's text may hold the URL or body; its type is enough to act on.
            raise ChannelPaused(
                f"no WeChat token: {type(error).__name__}", retry_after_s=FAILED_REFRESH_PAUSE_S
            ) from None
        if answer.errcode in _CONFIGURATION:
            hint = _CONFIGURATION[answer.errcode]
            if answer.errcode == 40164 and (address := re.search(r"invalid ip ([0-9a-fA-F.:]{3,45})", answer.errmsg)):
                hint += f" ({address.group(1)})"
            raise ChannelPaused(
                f"WeChat gives no token (errcode {answer.errcode}): {hint};"
                " check channels.wechat.appid and channels.wechat.secret_file",
                retry_after_s=MISCONFIGURED_PAUSE_S,
                misconfigured=True,
            )
        if answer.errcode or not answer.access_token:
            raise ChannelPaused(
                f"no WeChat token: errcode {answer.errcode}, HTTP {response.status_code}",
                retry_after_s=FAILED_REFRESH_PAUSE_S,
            )
        self._token = Secret(answer.access_token).reveal()
        self._expires_at = self._clock() + max(answer.expires_in, REFRESH_BEFORE_S + 1)
