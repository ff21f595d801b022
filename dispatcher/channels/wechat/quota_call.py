"""Reading the account's daily quota: ``POST /cgi-bin/openapi/quota/get`` (providers.md section 1)."""

from __future__ import annotations

import httpx
import msgspec
import trio

from dispatcher.channels.wechat.answers import TABLE
from dispatcher.delivery import AnswerClass
from dispatcher.model.event import Int64

QUOTA_PATH = "/cgi-bin/openapi/quota/get"
SEND_PATH = "/cgi-bin/message/template/send"

CALL_TIMEOUT_S = 10.0
"""Nobody waits for it: an old count serves as well."""

_ADVICE = {
    76021: "the path is not known there",
    76022: "the account may not read its quota",
    76003: "the path has a bad prefix",
}


class UnreadableQuota(Exception):
    """No count could be read; the text says why and holds nothing of the answer. ``token`` True: it was refused."""

    def __init__(self, why: str, *, token: bool = False) -> None:
        super().__init__(why)
        self.token = token


class Quota(msgspec.Struct, frozen=True):
    """What the provider says of today: ``used`` of ``limit`` calls, and calls a second that it allows (None: no word).

    ``used`` is at least ``limit`` less what it says remains: of two words that differ the stricter one counts.
    """

    limit: int
    used: int
    rate_per_second: float | None = None


class _Day(msgspec.Struct):
    daily_limit: Int64
    used: Int64
    remain: Int64


class _Rate(msgspec.Struct):
    call_count: Int64 = 0
    refresh_second: Int64 = 0


class _Body(msgspec.Struct):
    errcode: Int64 = 0
    quota: _Day | None = None
    rate_limit: _Rate | None = None


def read_quota(content: bytes) -> Quota:
    """The count in an answer with status 200. Raises `UnreadableQuota`."""
    try:
        body = msgspec.json.decode(content, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableQuota("the answer is not WeChat's JSON") from None
    if body.errcode:
        advice = _ADVICE.get(body.errcode)
        raise UnreadableQuota(
            f"errcode {body.errcode}{f' ({advice})' if advice else ''}",
            token=TABLE.row(str(body.errcode)).kind is AnswerClass.REFRESH_TOKEN,
        )
    day, rate = body.quota, body.rate_limit
    if day is None:
        raise UnreadableQuota("the answer has no quota")
    if min(day.daily_limit, day.used, day.remain) < 0 or day.daily_limit == 0:
        # A limit of 0 would stop the channel by a number that no account has.
        raise UnreadableQuota("the answer's numbers make no sense")
    per_second = rate.call_count / rate.refresh_second if rate and rate.call_count > 0 < rate.refresh_second else None
    return Quota(day.daily_limit, max(day.used, day.daily_limit - day.remain), per_second)


async def ask_quota(client: httpx.AsyncClient, token: str) -> Quota:
    """Ask the provider. Raises `UnreadableQuota`, whose text holds neither the token nor anything of the answer."""
    response: httpx.Response | None = None
    with trio.move_on_after(CALL_TIMEOUT_S + 1):
        try:
            response = await client.post(
                QUOTA_PATH, params={"access_token": token}, json={"cgi_path": SEND_PATH}, timeout=CALL_TIMEOUT_S
            )
        except httpx.HTTPError as error:
            raise UnreadableQuota(type(error).__name__) from None
    if response is None:
        raise UnreadableQuota("no answer in time")
    if response.status_code != 200:
        raise UnreadableQuota(f"HTTP {response.status_code}")
    return read_quota(response.content)
