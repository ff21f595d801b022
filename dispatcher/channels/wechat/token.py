"""The WeChat access token: fetched from ``stable_token``, one refresh in flight for the whole fleet.

``stable_token`` in its normal mode returns the same token to everybody while it is valid, and in its last 5 minutes a
new one while both work, so processes do not invalidate each other (providers.md section 1). Who fetches, and who waits
for it, is decided in the ledger (`dispatcher.ledger.tokens`). ``force_refresh`` kills the token that others may be
using, so it is the last resort: when a token that was refused is given out again.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Protocol

import httpx
import msgspec
import trio
from msgspec import Meta

from dispatcher.channels.base import ChannelPaused
from dispatcher.channels.wechat.sealed import Seal
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import tokens
from dispatcher.ledger.tokens import FETCH_LEASE_MS, STORM_WINDOW_MS, TokenAnswer, TokenRow
from dispatcher.logs import get_logger
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

FETCH_TIMEOUT_S = 10.0
"""Of one call, whatever the channel's own time-out is: two of them have to fit into the lease."""

POLL_S = 0.05
"""How often a process that waits for another's fetch looks: a fetch takes 100 ms or so, a look 1 ms."""

log = get_logger("token")

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


class TokenStore(Protocol):
    """Where the fleet agrees on its token: the ledger, or `LocalTokens` for one process alone."""

    async def token_ask(self, account: str, failed: int | None, now_ms: int) -> TokenAnswer:
        """See `Ledger.token_ask`."""

    async def token_fetched(
        self, account: str, lease: int, sealed: bytes | None, ends_at: int, renew_at: int, now_ms: int
    ) -> TokenRow:
        """See `Ledger.token_fetched`."""

    async def token_failed(self, account: str, lease: int, retry_at: int, trouble: str, misconfigured: bool) -> None:
        """See `Ledger.token_failed`."""

    async def token_force(self, account: str, lease: int, now_ms: int) -> bool:
        """See `Ledger.token_force`."""


class LocalTokens:
    """The same decisions in memory, for one process that shares its token with nobody."""

    def __init__(self) -> None:
        self._row = TokenRow()

    async def token_ask(self, account: str, failed: int | None, now_ms: int) -> TokenAnswer:
        """See `Ledger.token_ask`."""
        await trio.lowlevel.checkpoint()
        self._row, answer = tokens.ask(self._row, failed, now_ms)
        return answer

    async def token_fetched(
        self, account: str, lease: int, sealed: bytes | None, ends_at: int, renew_at: int, now_ms: int
    ) -> TokenRow:
        """See `Ledger.token_fetched`."""
        self._row = tokens.fetched(self._row, lease, sealed, ends_at, renew_at, now_ms)
        return self._row

    async def token_failed(self, account: str, lease: int, retry_at: int, trouble: str, misconfigured: bool) -> None:
        """See `Ledger.token_failed`."""
        self._row = tokens.failed(self._row, lease, retry_at, trouble, misconfigured)

    async def token_force(self, account: str, lease: int, now_ms: int) -> bool:
        """See `Ledger.token_force`."""
        self._row, allowed = tokens.force(self._row, lease, now_ms)
        return allowed


class TokenWatch(Protocol):
    """Who counts what happens to tokens."""

    def token_refreshed(self, channel: str) -> None:
        """This process got the fleet a new token."""

    def token_storm(self, channel: str, storm: bool) -> None:
        """The fleet gets new tokens far too often, or no longer."""


def _trio_ms() -> int:
    return int(trio.current_time() * 1000)


class TokenSteward:
    """Holds this process's copy of the token of one appid. ``store`` is where the fleet agrees on it and ``now_ms`` the
    clock that the fleet shares; without a store the process is a fleet of its own."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        appid: str,
        secret: Secret,
        *,
        store: TokenStore | None = None,
        now_ms: Callable[[], int] | None = None,
        watch: TokenWatch | None = None,
    ) -> None:
        self._client = client
        self._appid = appid
        self._secret = secret
        self._store: TokenStore = LocalTokens() if store is None else store
        self._now_ms = _trio_ms if now_ms is None else now_ms
        self._watch = watch
        self._account = f"wechat/{appid}"
        self._seal = Seal(self._account, secret)
        self._lock = trio.Lock()
        self._token: str | None = None
        self._generation = 0
        self._failed: int | None = None
        self._renew_ms = 0
        self._storm_until_ms = 0
        self.refreshes = 0

    @property
    def current(self) -> str | None:
        """The token if it need not be renewed yet, else None."""
        return self._token if self._now_ms() < self._renew_ms else None

    @property
    def last(self) -> str | None:
        """The latest token, good or not; None before the first. For a request that can wait for no other: what it
        costs when the token was refused a moment ago is one more refusal."""
        return self._token

    def invalidate(self, token: str) -> None:
        """A send was refused with this token. Forgets it only when it is still the one in use, so that a hundred
        refusals of one expired token lead to one refresh."""
        if token == self._token and self._generation:
            self._failed, self._renew_ms = self._generation, 0

    async def refresh_if_needed(self) -> str:
        """The token, renewed if it is time to. Waiters share one fetch, in this process and in the others. Raises
        `ChannelPaused`.

        A renewal that fails while the token is still good is tried again later, unless a person has to act.
        Cancelling a waiter does not end the others' wait; cancelling the one that fetches lets the next one fetch.
        """
        if self.current is None:
            async with self._lock:
                if self.current is None:
                    try:
                        await self._renew()
                    except LedgerUnavailable as error:
                        raise _paused(f"the ledger that the processes share it by: {error}") from None
        assert self._token is not None
        return self._token

    def calm(self) -> None:
        """Look whether a storm of refreshes is over; call it now and then."""
        if self._storm_until_ms and self._now_ms() >= self._storm_until_ms:
            self._storm_until_ms = 0
            if self._watch is not None:
                self._watch.token_storm("wechat", False)

    async def _renew(self) -> None:
        give_up_ms = self._now_ms() + FETCH_LEASE_MS + 1_000
        while True:
            answer = await self._store.token_ask(self._account, self._failed, self._now_ms())
            row, now_ms = answer.row, self._now_ms()
            if answer.what == "fetch":
                if await self._fetch(row):
                    return
            elif answer.what == "use":
                if self._take(row):
                    return
                self._failed = row.generation  # sealed with another secret: it was changed, and its tokens are over
            elif answer.what == "trouble":
                pause_s = max(row.retry_at - now_ms, 1) / 1000
                raise ChannelPaused(row.trouble, retry_after_s=pause_s, misconfigured=row.misconfigured)
            elif now_ms >= give_up_ms:
                raise _paused("another process has been fetching it for too long")
            else:
                await trio.sleep(POLL_S)

    def _take(self, row: TokenRow) -> bool:
        """Take over the fleet's token; False when it cannot be opened."""
        if row.generation != self._generation:
            token = self._seal.open(row.sealed)
            if token is None:
                return False
            self._token, self._generation = token, row.generation
        self._failed = None
        # Another process is about to renew it, or has just failed to: look again soon.
        now_ms = self._now_ms()
        later = max(row.retry_at, now_ms + int(FAILED_REFRESH_PAUSE_S * 1000))
        self._renew_ms = row.renew_at if now_ms < row.renew_at else min(later, row.ends_at)
        return True

    async def _fetch(self, row: TokenRow) -> bool:
        """Fetch under the lease ``row.lease``; False when it was lost meanwhile. Raises `ChannelPaused`."""
        try:
            token, life_s = await self._newest(row)
        except ChannelPaused as paused:
            now_ms = self._now_ms()
            usable = row.usable(now_ms)
            pause_s = RENEWAL_RETRY_S if usable and not paused.misconfigured else paused.retry_after_s
            retry_at = now_ms + int(pause_s * 1000)
            log.warning("token_not_fetched", channel="wechat", generation=row.generation, reason=str(paused))
            await self._give_back(row, retry_at, str(paused), paused.misconfigured)
            if paused.misconfigured or not usable:
                raise
            return self._take(msgspec.structs.replace(row, retry_at=retry_at))
        except BaseException:  # cancelled: the next one fetches, and need not wait for the lease to run out
            with trio.CancelScope(shield=True):
                await self._give_back(row, 0, "", False)
            raise
        now_ms = self._now_ms()
        # A token that ends too soon for that is renewed once a second, not at every batch.
        renew_at = now_ms + int(max(life_s - REFRESH_BEFORE_S, 1) * 1000)
        same = row.generation > 0 and not row.refused and token == self._seal.open(row.sealed)
        sealed = None if same else self._seal.seal(token)
        with trio.CancelScope(shield=True):  # it is there: let the others have it
            after = await self._store.token_fetched(
                self._account, row.lease, sealed, now_ms + life_s * 1000, renew_at, now_ms
            )
        if after.lease != row.lease:
            return False
        self._count(after, now_ms, new=not same)
        return self._take(after)

    async def _newest(self, row: TokenRow) -> tuple[str, int]:
        token, life_s = await self._call(force=False)
        refused = self._seal.open(row.sealed) if row.refused else None
        if token != refused:
            return token, life_s
        # The platform holds it to be good, yet sends are refused with it.
        if not await self._store.token_force(self._account, row.lease, self._now_ms()):
            why = "WeChat gives out the token again that it refuses, and force_refresh is used up for the moment"
            raise ChannelPaused(f"no WeChat token: {why}", retry_after_s=MISCONFIGURED_PAUSE_S)
        log.warning("token_forced", channel="wechat", generation=row.generation)
        token, life_s = await self._call(force=True)
        if token == refused:
            raise ChannelPaused(
                "no WeChat token: a forced refresh gave the refused one again", retry_after_s=MISCONFIGURED_PAUSE_S
            )
        return token, life_s

    async def _give_back(self, row: TokenRow, retry_at: int, trouble: str, misconfigured: bool) -> None:
        try:
            await self._store.token_failed(self._account, row.lease, retry_at, trouble, misconfigured)
        except LedgerUnavailable:
            log.warning("token_lease_left_behind", channel="wechat")  # it runs out by itself

    def _count(self, row: TokenRow, now_ms: int, *, new: bool) -> None:
        if self._watch is not None and new:
            self._watch.token_refreshed("wechat")
        if tokens.is_storm(row, now_ms):
            hint = "another system may be refreshing this account's token: give it one token service, or clear its IP"
            log.error(
                "token_refresh_storm",
                channel="wechat",
                refreshes=row.window,
                minutes=STORM_WINDOW_MS // 60_000,
                hint=hint,
            )
            self._storm_until_ms = row.window_from + STORM_WINDOW_MS
            if self._watch is not None:
                self._watch.token_storm("wechat", True)

    async def _call(self, *, force: bool) -> tuple[str, int]:
        """One call of the token endpoint: the token and its life in seconds. Raises `ChannelPaused`."""
        body = {
            "grant_type": "client_credential",
            "appid": self._appid,
            "secret": self._secret.reveal(),
            "force_refresh": force,
        }
        self.refreshes += 1
        response: httpx.Response | None = None
        with trio.move_on_after(FETCH_TIMEOUT_S + 1):  # the call may also have to wait for a connection
            try:
                response = await self._client.post(
                    "/cgi-bin/stable_token",
                    json=body,
                    timeout=FETCH_TIMEOUT_S,
                    # Sent twice by libcurl itself, a forced one would cost two of the day's twenty.
                    extensions={"fresh": force},
                )
            except httpx.HTTPError as error:
                # The exception's text may hold the URL or body; its type is enough to act on.
                raise _paused(type(error).__name__) from None
        if response is None:
            raise _paused("no answer in time")
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
        return answer.access_token, min(max(answer.expires_in, 1), MAX_LIFE_S)


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
