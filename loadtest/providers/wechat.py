"""The simulated WeChat platform: tokens, template messages and quotas of one service account.

Pure but for the book: a request and the time in, an answer out. What WeChat does is from providers.md
sections 1 to 3; the order of the checks is a proposal of its section 9, for the real one is unknown. HTTP is
200 even for an error.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import parse_qs

import msgspec
import orjson

from dispatcher.httpd import Answer, Request
from loadtest.providers.book import Book, WechatMessage
from loadtest.providers.faults import Dice, seeded
from loadtest.providers.fields import faulty_key
from loadtest.providers.late import SimulatedAnswer
from loadtest.providers.quota import Bucket, Clearings, Daily
from loadtest.providers.settings import ProviderSettings
from loadtest.providers.tokens import Tokens

SEND_PATH: Final = "/cgi-bin/message/template/send"
TOKEN_PATH: Final = "/cgi-bin/token"  # noqa: S105 - a path
STABLE_TOKEN_PATH: Final = "/cgi-bin/stable_token"  # noqa: S105 - a path
QUOTA_PATH: Final = "/cgi-bin/openapi/quota/get"
CLEAR_PATH: Final = "/cgi-bin/clear_quota"

DEDUP_SECONDS: Final = 600.0
"""The same user and ``client_msg_id`` are one message for this long; after it nothing is promised."""
TOKENS_PER_DAY: Final = 2000
STABLE_TOKENS_PER_DAY: Final = 500_000
FORCED_REFRESHES_PER_DAY: Final = 20
UNLIMITED_CALLS: Final = 1_000_000_000
"""What the quota call reports for no limit."""

_OPENID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII).fullmatch

_TEXTS: Final = {
    -1: "system error",
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40003: "invalid openid",
    40013: "invalid appid",
    40014: "invalid access_token",
    40037: "invalid template_id",
    40125: "invalid appsecret",
    41001: "access_token missing",
    42001: "access_token expired",
    43001: "require GET method",
    43002: "require POST method",
    43004: "require subscribe",
    43101: "user refuse to accept the msg",
    44002: "empty post data",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit must slower retry next minute",
    47001: "data format error",
    48006: "forbid to clear quota because of reaching the limit",
    76021: "cgi_path not found",
}


class _Value(msgspec.Struct, gc=False):
    value: str = ""


class _Send(msgspec.Struct, gc=False):
    touser: str = ""
    template_id: str = ""
    data: dict[str, _Value] = {}
    client_msg_id: str | None = None


class _Credentials(msgspec.Struct):
    grant_type: str = ""
    appid: str = ""
    secret: str = ""
    force_refresh: bool = False


class _Path(msgspec.Struct):
    cgi_path: str = ""


class _Appid(msgspec.Struct):
    appid: str = ""


_Shape = TypeVar("_Shape", bound=msgspec.Struct)


_decode_send = msgspec.json.Decoder(_Send).decode
# A bad body raises one of these; the last two are not MsgspecError (deep nesting, bad UTF-8).
_BAD_JSON = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class _Refused(Exception):
    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.text = text


class WeChat:
    """One service account. ``deliver`` is called with each message that reaches its cardholder."""

    def __init__(
        self,
        settings: ProviderSettings,
        dice: Dice,
        book: Book,
        deliver: Callable[[WechatMessage], None],
        now: float,
    ) -> None:
        self.dice = dice
        self._settings = settings
        self._book = book
        self._deliver = deliver
        self._tokens = Tokens(settings.token_lifetime_seconds)
        # Not from 1: ids of a restarted simulation must not repeat. 43 bits of milliseconds, 20 of a counter.
        self._msgids = itertools.count((int(now * 1000) << 20) + 1)
        self._rids = seeded(settings.seed, "rid")
        self.routes: dict[str, Callable[[Request, float], Answer]] = {
            SEND_PATH: self.send,
            TOKEN_PATH: self.token,
            STABLE_TOKEN_PATH: self.stable_token,
            QUOTA_PATH: self.quota,
            CLEAR_PATH: self.clear_quota,
        }
        self.reset()

    def reset(self) -> None:
        """Counters of quotas and rates back to the start; tokens stay good."""
        self._bucket = Bucket(self._settings.rate_per_second)
        self._sends = Daily(self._settings.daily_quota)
        self._classic_fetches = Daily(TOKENS_PER_DAY)
        self._stable_fetches = Daily(STABLE_TOKENS_PER_DAY)
        self._forced = Daily(FORCED_REFRESHES_PER_DAY)
        self._clearings = Clearings()

    def expire_tokens(self, now: float) -> None:
        """Let every token answer 42001 from now on."""
        self._tokens.expire_all(now)

    def kill_token(self) -> None:
        """Let the token be refused and yet be given out again."""
        self._tokens.kill()

    def send(self, request: Request, now: float) -> Answer:
        """``/cgi-bin/message/template/send``."""
        counts, dice, settings = self._book.wechat, self.dice, self._settings
        faults = dice.faults
        counts.requests += 1
        if dice.falls(faults.bad_gateway):
            counts.refuse("http502")
            return Answer(b"<html>502 Bad Gateway</html>", status=502, content_type="text/html")
        try:
            message, data = self._accept(request, now)
        except _Refused as refusal:
            counts.refuse(refusal.code)
            return self._error(refusal.code, now, refusal.text, delay_seconds=settings.latency_seconds)

        openid, client_msg_id = message.touser, message.client_msg_id or None
        known = client_msg_id and self._book.same_message(openid, client_msg_id, now - DEDUP_SECONDS)
        if known:
            self._book.repeat_wechat(known, now)
            msgid = known.msgid
        else:
            msgid = next(self._msgids)
            self._deliver(
                self._book.deliver_wechat(openid=openid, client_msg_id=client_msg_id, msgid=msgid, data=data, now=now)
            )
        reset = dice.falls(faults.reset)
        if reset:
            counts.resets += 1
        delay = settings.latency_seconds + (faults.slow_seconds if dice.falls(faults.slow) else 0.0)
        return SimulatedAnswer(b'{"errcode":0,"errmsg":"ok","msgid":%d}' % msgid, delay_seconds=delay, reset=reset)

    def _accept(self, request: Request, now: float) -> tuple[_Send, dict[str, str]]:
        """The message and its values by key; raises ``_Refused`` when WeChat would not accept it."""
        dice, settings = self.dice, self._settings
        faults = dice.faults
        if request.method != "POST":
            raise _Refused(43002)
        if code := self._tokens.verdict(_access_token(request.query), now):
            raise _Refused(code)
        if not request.body:
            raise _Refused(44002)
        try:
            message = _decode_send(request.body)
        except _BAD_JSON:
            raise _Refused(47001) from None
        if not self._sends.take(now) or dice.falls(faults.quota):
            raise _Refused(45009)
        if not self._bucket.take(now):
            raise _Refused(45011)
        if dice.falls(faults.busy):
            raise _Refused(-1)
        if not message.template_id or (settings.template_ids and message.template_id not in settings.template_ids):
            raise _Refused(40037)
        if _OPENID(message.touser) is None:
            raise _Refused(40003)
        if dice.has_trait("unsubscribed", message.touser, faults.unsubscribed):
            raise _Refused(43004)
        if dice.has_trait("refused", message.touser, faults.refused):
            raise _Refused(43101)
        values = {key: each.value for key, each in message.data.items()}
        if not values:
            raise _Refused(47003, "argument invalid! data invalid")
        if (key := faulty_key(values)) is not None:
            # "emtpy" is the provider's own spelling.
            raise _Refused(47003, f"argument invalid! data.{key}.value {'invalid' if values[key] else 'is emtpy'}")
        return message, values

    def token(self, request: Request, now: float) -> Answer:
        """``/cgi-bin/token``: parameters in the query."""
        self._book.wechat.token_requests += 1
        if request.method != "GET":
            return self._error(43001, now)
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        asked = _Credentials(query.get("grant_type", ""), query.get("appid", ""), query.get("secret", ""))
        if code := self._wrong_credentials(asked, wrong_secret=40001):
            return self._error(code, now)
        if not self._classic_fetches.take(now):
            return self._error(45009, now)
        return _token_answer(self._tokens.classic(now))

    def stable_token(self, request: Request, now: float) -> Answer:
        """``/cgi-bin/stable_token``: parameters in a JSON body."""
        self._book.wechat.token_requests += 1
        asked = self._body(request, _Credentials, now)
        if isinstance(asked, Answer):
            return asked
        if code := self._wrong_credentials(asked, wrong_secret=40125):
            return self._error(code, now)
        if not self._stable_fetches.take(now) or (asked.force_refresh and not self._forced.take(now)):
            return self._error(45009, now)
        self._book.wechat.forced_refreshes += asked.force_refresh
        return _token_answer(self._tokens.stable(now, force_refresh=asked.force_refresh))

    def quota(self, request: Request, now: float) -> Answer:
        """``/cgi-bin/openapi/quota/get``: today's counter of one path."""
        asked = self._authorised(request, _Path, now)
        if isinstance(asked, Answer):
            return asked
        daily = {
            SEND_PATH: self._sends,
            TOKEN_PATH: self._classic_fetches,
            STABLE_TOKEN_PATH: self._stable_fetches,
        }.get(asked.cgi_path)
        if daily is None:
            return self._error(76021, now)
        limit, used = daily.limit if daily.limit is not None else UNLIMITED_CALLS, daily.used(now)
        rate = self._settings.rate_per_second if asked.cgi_path == SEND_PATH else 0.0
        answer = {
            "errcode": 0,
            "errmsg": "ok",
            "quota": {"daily_limit": limit, "used": used, "remain": max(0, limit - used)},
            "rate_limit": {"call_count": int(rate) or UNLIMITED_CALLS, "refresh_second": 1},
        }
        return Answer(orjson.dumps(answer))

    def clear_quota(self, request: Request, now: float) -> Answer:
        """``/cgi-bin/clear_quota``: every daily counter back to 0, ten times a month."""
        asked = self._authorised(request, _Appid, now)
        if isinstance(asked, Answer):
            return asked
        if asked.appid != self._settings.appid:
            return self._error(40013, now)
        if not self._clearings.take(now):
            return self._error(48006, now)
        for daily in (self._sends, self._classic_fetches, self._stable_fetches, self._forced):
            daily.clear()
        return Answer(b'{"errcode":0,"errmsg":"ok"}')

    def _wrong_credentials(self, asked: _Credentials, *, wrong_secret: int) -> int:
        if asked.grant_type != "client_credential":
            return 40002
        if asked.appid != self._settings.appid:
            return 40013
        return 0 if asked.secret == self._settings.secret else wrong_secret

    def _authorised(self, request: Request, shape: type[_Shape], now: float) -> _Shape | Answer:
        if code := self._tokens.verdict(_access_token(request.query), now):
            return self._error(code, now)
        return self._body(request, shape, now)

    def _body(self, request: Request, shape: type[_Shape], now: float) -> _Shape | Answer:
        """The decoded body, or the answer that refuses it."""
        if request.method != "POST":
            return self._error(43002, now)
        if not request.body:
            return self._error(44002, now)
        try:
            return msgspec.json.decode(request.body, type=shape)
        except _BAD_JSON:
            return self._error(47001, now)

    def _error(self, code: int, now: float, text: str = "", *, delay_seconds: float = 0.0) -> Answer:
        first, second = self._rids.getrandbits(32), self._rids.getrandbits(32)
        text = f"{text or _TEXTS[code]} rid: {int(now):08x}-{first:08x}-{second:08x}"
        return SimulatedAnswer(orjson.dumps({"errcode": code, "errmsg": text}), delay_seconds=delay_seconds)


def _access_token(query: str) -> str:
    name, _, value = query.partition("=")
    if name == "access_token" and "&" not in value and "%" not in value:
        return value  # the common case, at a tenth of the price
    return parse_qs(query).get("access_token", [""])[0]


def _token_answer(issued: tuple[str, int]) -> Answer:
    token, expires_in = issued
    return Answer(orjson.dumps({"access_token": token, "expires_in": expires_in}))
