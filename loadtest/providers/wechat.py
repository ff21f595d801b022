"""The simulated WeChat platform: tokens, template messages and quotas of one service account.

Pure but for the book: a request and the time in, an answer out. What WeChat does is from providers.md
sections 1 to 3; the order of the checks is a proposal of its section 9, for the real one is unknown. HTTP is
200 even for an error.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import parse_qs

import msgspec
import orjson

from dispatcher.httpd import Answer, Request
from loadtest.providers.book import Book, WechatMessage
from loadtest.providers.faults import NOTHING, Dice, seeded
from loadtest.providers.fields import faulty_key
from loadtest.providers.late import SimulatedAnswer
from loadtest.providers.latest import Latest
from loadtest.providers.quota import Bucket, Clearings, Daily
from loadtest.providers.service import CUSTOM_PATH, ServiceMessages
from loadtest.providers.settings import STATUSES, ProviderSettings
from loadtest.providers.tokens import Tokens
from loadtest.providers.users import Users

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
CROWD: Final = 300
"""So many requests that wait for their answer are a crowd; threads tell of -1 at 400 (providers.md section 2.4)."""
SAME_CONTENT_SECONDS: Final = 60.0
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
    40241: "message is duplicate in 60 seconds",
    40252: "message has entered platform review",
    40125: "invalid appsecret",
    41001: "access_token missing",
    42001: "access_token expired",
    43001: "require GET method",
    43002: "require POST method",
    43004: "require subscribe",
    43101: "user refuse to accept the msg",
    43116: "This template_id is banned",
    43117: "Sending messages to this openid too frequently, please try later",
    44002: "empty post data",
    45009: "reach max api daily quota limit",
    45015: "response out of time limit or subscription is canceled",
    45047: "out of response count limit",
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
        self.users = Users()
        self.in_flight: Callable[[], int] = lambda: 0
        self._settings = settings
        self._book = book
        self._deliver = deliver
        self._tokens = Tokens(settings.token_lifetime_seconds)
        self._tokens.dies_after_seconds = dice.faults.token_seconds
        # Not from 1: ids of a restarted simulation must not repeat. 43 bits of milliseconds, 20 of a counter.
        self._msgids = itertools.count((int(now * 1000) << 20) + 1)
        self._rids = seeded(settings.seed, "rid")
        self.service = ServiceMessages(self._error, self._verdict)
        self.routes: dict[str, Callable[[Request, float], Answer]] = {
            SEND_PATH: self.send,
            CUSTOM_PATH: self.service.send,
            TOKEN_PATH: self.token,
            STABLE_TOKEN_PATH: self.stable_token,
            QUOTA_PATH: self.quota,
            CLEAR_PATH: self.clear_quota,
        }
        self.reset()

    def reset(self) -> None:
        """Counters of quotas, rates and tokens back to the start, no service messages; tokens stay good."""
        self._tokens.reset_counts()
        self.service.reset()
        self._bucket = Bucket(self._settings.rate_per_second)
        self._sends = Daily(self._settings.daily_quota)
        self._classic_fetches = Daily(TOKENS_PER_DAY)
        self._stable_fetches = Daily(STABLE_TOKENS_PER_DAY)
        self._forced = Daily(FORCED_REFRESHES_PER_DAY)
        self._clearings = Clearings()
        self._contents: Latest[int, tuple[float, str]] = Latest()

    def roll(self, dice: Dice) -> None:
        """Go by other faults from now on."""
        self.dice = dice
        self._tokens.dies_after_seconds = dice.faults.token_seconds

    def expire_tokens(self, now: float) -> None:
        """Let every token answer 42001 from now on."""
        self._tokens.expire_all(now)

    def kill_token(self) -> None:
        """Let the token be refused and yet be given out again."""
        self._tokens.kill()

    def send(self, request: Request, now: float) -> Answer:
        """``/cgi-bin/message/template/send``."""
        counts, settings = self._book.wechat, self._settings
        counts.requests += 1
        message = _decoded(request.body)
        meets = self.dice.meets(_key_of(message, request.body)) if self.dice.rolls else NOTHING
        if "bad_gateway" in meets:
            counts.refuse("http502")
            return Answer(b"<html>502 Bad Gateway</html>", status=502, content_type="text/html")
        try:
            message, data = self._accept(request, message, meets, now)
            openid, client_msg_id = message.touser, message.client_msg_id or None
            known = client_msg_id and self._book.same_message(openid, client_msg_id, now - DEDUP_SECONDS)
            if settings.same_content and not known:
                self._check_content(message, data, now)
        except _Refused as refusal:
            counts.refuse(refusal.code)
            return self._error(refusal.code, now, refusal.text, delay_seconds=settings.latency_seconds)

        if known:
            self._book.repeat_wechat(known, now)
            msgid = next(self._msgids) if settings.duplicate_answer == "new" else known.msgid
        else:
            msgid = next(self._msgids)
            row = self._book.deliver_wechat(openid=openid, client_msg_id=client_msg_id, msgid=msgid, data=data, now=now)
            if self.users.blocks(openid):
                row.status = STATUSES["user-block"]
            self._deliver(row)
        if "reset" in meets:
            counts.resets += 1
        delay = settings.latency_seconds + (self.dice.faults.slow_seconds if "slow" in meets else 0.0)
        if "held" in meets and not known:
            # Whether it carries a msgid is not known; without one is the harder case.
            return self._error(40252, now, delay_seconds=delay)
        return SimulatedAnswer(
            b'{"errcode":0,"errmsg":"ok","msgid":%d}' % msgid, delay_seconds=delay, reset="reset" in meets
        )

    def _accept(
        self, request: Request, message: _Send | None, meets: frozenset[str], now: float
    ) -> tuple[_Send, dict[str, str]]:
        """The message and its values by key; raises ``_Refused`` when WeChat would not accept it.

        The order is that of providers.md section 9: token, JSON, quota, rate, template, user, fields.
        """
        if request.method != "POST":
            raise _Refused(43002)
        if code := self._verdict(request, now):
            raise _Refused(code)
        if not request.body:
            raise _Refused(44002)
        if message is None:
            raise _Refused(47001)
        if not self._sends.take(now) or "quota" in meets:
            raise _Refused(45009)
        if not self._bucket.take(now) or "minute_limit" in meets:
            raise _Refused(45011)
        if "crowded" in meets and self.in_flight() >= CROWD:
            self._book.wechat.crowded += 1
            raise _Refused(-1)
        if "busy" in meets:
            raise _Refused(-1)
        self._check_template(message.template_id)
        self._check_user(message, meets)
        values = {key: each.value for key, each in message.data.items()}
        if not values:
            raise _Refused(47003, "argument invalid! data invalid")
        if (key := faulty_key(values)) is not None:
            # "emtpy" is the provider's own spelling.
            raise _Refused(47003, f"argument invalid! data.{key}.value {'invalid' if values[key] else 'is emtpy'}")
        return message, values

    def _check_template(self, template_id: str) -> None:
        known = self._settings.template_ids
        if not template_id or (known and template_id not in known):
            raise _Refused(40037)
        if template_id in self._settings.banned_template_ids:
            raise _Refused(43116)

    def _check_user(self, message: _Send, meets: frozenset[str]) -> None:
        openid, dice, faults = message.touser, self.dice, self.dice.faults
        if _OPENID(openid) is None:
            raise _Refused(40003)
        if dice.has_trait("unsubscribed", openid, faults.unsubscribed):
            raise _Refused(43004)
        if dice.has_trait("refused", openid, faults.refused):
            raise _Refused(43101)
        if code := self.users.refusal(openid, message.template_id):
            raise _Refused(code)
        if "user_limit" in meets:
            raise _Refused(43117)

    def _check_content(self, message: _Send, data: dict[str, str], now: float) -> None:
        """The same words to the same user within a minute are one message, whatever their ``client_msg_id``."""
        words = hash((message.touser, message.template_id, *data.items()))
        at, client_msg_id = self._contents.get(words) or (-math.inf, "")
        if now - at < SAME_CONTENT_SECONDS and client_msg_id != (message.client_msg_id or ""):
            raise _Refused(40241)
        self._contents.put(words, (now, message.client_msg_id or ""))

    def _verdict(self, request: Request, now: float) -> int:
        code = self._tokens.verdict(_access_token(request.query), now)
        if code:
            self._book.wechat.tokens_refused = self._tokens.refused
        return code

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
        return self._issued(self._tokens.classic(now))

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
        return self._issued(self._tokens.stable(now, force_refresh=asked.force_refresh))

    def _issued(self, token: tuple[str, int]) -> Answer:
        self._book.wechat.tokens_issued = self._tokens.issued
        return Answer(orjson.dumps({"access_token": token[0], "expires_in": token[1]}))

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
        if code := self._verdict(request, now):
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


def _decoded(body: bytes) -> _Send | None:
    try:
        return _decode_send(body)
    except _BAD_JSON:
        return None


def _key_of(message: _Send | None, body: bytes) -> str:
    """By what the dice know a message again; one without a ``client_msg_id`` by all that it says."""
    if message is not None and message.client_msg_id:
        return f"{message.touser}/{message.client_msg_id}"
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _access_token(query: str) -> str:
    name, _, value = query.partition("=")
    if name == "access_token" and "&" not in value and "%" not in value:
        return value  # the common case, at a tenth of the price
    return parse_qs(query).get("access_token", [""])[0]
