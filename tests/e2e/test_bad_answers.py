"""A provider that answers anything but its API, through the real transport and the whole engine.

Each answer is classified and counted, costs no memory, sends nobody's data elsewhere, and holds up neither the engine
nor another channel. After its bad answer to each alert the provider is in its right mind again.
"""

from __future__ import annotations

import gc
import gzip
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from dispatcher.config_load import load_config
from dispatcher.events import Accepted, Rejected, decode_event
from dispatcher.model.recipient import RecipientLine
from dispatcher.service import Service, service
from tests.dispatcher.network_kit import (
    Conversation,
    serving,
)

ALERTS = 8
"""Of the channel with the bad provider: one a connection."""
TEXTS = 40
"""Of the other channel."""
TIMEOUT_S = 20.0
"""Of the client; no answer here takes so long, but for ``SLOW`` ones."""
SLOW_TIMEOUT_S = 3.0
"""Of the client of a provider that goes on for ever: until then the other channel has to be done."""
HANG_S = 60
"""Longest that anything is waited for; nothing comes near it."""
OPENID, PHONE, MERCHANT = "oBadAnswers0000000000000001", "+8613800138111", "海底捞火锅"
PRIVATE = (OPENID, PHONE[1:], MERCHANT, "secret-of-the-test", "TOKEN-")
MEBIBYTE = 1024 * 1024
FLAT_KIB = 48 * 1024
"""Peak of everything that such a run needs, the engine's start included. What a bomb unpacks to is a gibibyte, and
eight bodies of 100 MiB are 800."""

BOMB = gzip.compress(bytes(8 * MEBIBYTE)) * 120
"""A gzip of 120 members that unpacks to 1,006,632,960 zeros; it is small enough to be read as it is."""
assert len(BOMB) < MEBIBYTE

Bad = Callable[[Conversation], Awaitable[bool]]
"""Gives a bad answer; True when the connection is still good after it."""


def text(body: bytes, status: str = "200 OK", *headers: str) -> Bad:
    async def answer(talk: Conversation) -> bool:
        await talk.answer(body, status=status, headers=headers)
        return True

    return answer


def raw(data: bytes) -> Bad:
    async def answer(talk: Conversation) -> bool:
        await talk.send(data)
        return False

    return answer


def flood(head: bytes, part: bytes, total: int) -> Bad:
    """``part`` again and again, ``total`` bytes of it, or until nobody listens."""

    async def answer(talk: Conversation) -> bool:
        await talk.send(head)
        for _ in range(total // len(part)):
            await talk.send(part)
        return False

    return answer


def drip(head: bytes) -> Bad:
    """One byte a second."""

    async def answer(talk: Conversation) -> bool:
        await talk.send(head)
        while True:
            await trio.sleep(1.0)
            await talk.send(b" ")

    return answer


PART = b"z" * 65_536
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

UNREADABLE: dict[str, Bad] = {
    "a page of HTML": text(
        b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>", "200 OK", "Content-Type: text/html"
    ),
    "truncated JSON": text(b'{"errcode":0,"errmsg":"ok","msg'),
    "a gzip bomb": text(BOMB, "200 OK", "Content-Encoding: gzip"),
    "an array": text(b"[0]"),
    "another type": text(b'{"errcode":"0","msgid":1}'),
    "a number beyond all": text(b'{"errcode":0,"msgid":%s}' % (b"9" * 4_000)),
    "JSON without an end": text(b'{"x":' + b"[" * 200_000),
    "nothing": text(b""),
}
"""Answers of HTTP 200 that are not WeChat's JSON."""

NO_HTTP = {"network-1", "network-8"}  # on a new connection, on one that had spoken HTTP before

OTHERS: dict[str, tuple[Bad, set[str]]] = {
    "another API's success": (text(b'{"status":"success","code":0}'), {"no-msgid"}),
    "success without its message": (text(b'{"errcode":0,"errmsg":"ok","msgid":null}'), {"no-msgid"}),
    "100 MiB, announced": (flood(OK + b"Content-Length: 104857600\r\n\r\n", PART, 100 * MEBIBYTE), {"network-63"}),
    "100 MiB, not announced": (flood(OK + b"\r\n", PART, 100 * MEBIBYTE), {"network-63"}),
    "100 MiB in chunks": (flood(CHUNKED, b"10000\r\n" + PART + b"\r\n", 100 * MEBIBYTE), {"network-63"}),
    "a body that ends early": (raw(OK + b'Content-Length: 100\r\n\r\n{"errcode":0'), {"network-18"}),
    "chunks that are none": (raw(CHUNKED + b"ZZ\r\n{}\r\n"), {"network-56"}),
    "a chunk of no size": (raw(CHUNKED + b"fffffffffffffffffffff\r\n{}\r\n"), {"network-56"}),
    "HTTP/0.9": (raw(b'{"errcode":0,"errmsg":"ok","msgid":1}\n'), NO_HTTP),
    "binary": (raw(bytes(range(256)) * 64), NO_HTTP),
    "a header of 16 MiB": (flood(OK + b"X: ", PART, 16 * MEBIBYTE), {"network-100", "network-27", "network-56"}),
    "headers of 64 MiB": (flood(OK, b"X: " + b"y" * 8_000 + b"\r\n", 64 * MEBIBYTE), {"network-100", "network-56"}),
    "interim answers without end": (
        flood(b"", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 100, 1 << 40),
        {"network-100", "network-56"},
    ),
    "two lengths": (raw(OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}"), {"network-8"}),
    "HTML and 502": (text(b"<html>502</html>", "502 Bad Gateway"), {"http-502"}),
}
"""Other bad answers, and the codes that they may have in the ledger."""

SLOW: dict[str, Bad] = {
    "a body of one byte a second": drip(OK + b"Content-Length: 1000000\r\n\r\n"),
    "headers of one byte a second": drip(OK + b"X: "),
}


class Provider:
    """WeChat and an SMS gateway on one port: to the first try of each message it answers badly, then well."""

    def __init__(self, *bad: Bad, bad_tokens: int = 0, bad_texts: bool = False) -> None:
        self.bad = bad
        self.bad_texts = bad_texts
        self.bad_tokens = bad_tokens
        self.tried: set[str] = set()
        self.delivered: set[str] = set()
        self.texts: list[str] = []
        self.bad_ended = 0

    async def __call__(self, talk: Conversation) -> None:
        while (seen := await talk.read()) is not None:
            body = json.loads(seen.body)
            if seen.target == "/cgi-bin/stable_token" and self.bad_tokens:
                self.bad_tokens -= 1
                if not await self.bad[0](talk):
                    return
            elif seen.target == "/cgi-bin/stable_token":
                await talk.answer(b'{"access_token":"TOKEN-%s","expires_in":7200}' % (b"x" * 64))
            elif seen.target.startswith("/cgi-bin/openapi/quota/get"):
                await talk.answer(b'{"errcode":0,"quota":{"daily_limit":1000000,"used":0,"remain":1000000}}')
            elif seen.target == "/sms":
                self.texts.append(body["id"])
                if self.bad_texts:
                    await self.bad[len(self.texts) % len(self.bad)](talk)
                    return
                await talk.answer(json.dumps({"code": 0, "id": body["id"]}).encode())
            elif self.bad_texts or body["client_msg_id"] in self.tried:
                self.delivered.add(body["client_msg_id"])
                await talk.answer(b'{"errcode":0,"errmsg":"ok","msgid":%d}' % len(self.delivered))
            else:
                self.tried.add(body["client_msg_id"])
                try:
                    still_good = await self.bad[len(self.tried) % len(self.bad)](talk)
                finally:
                    self.bad_ended += 1
                if not still_good:
                    return


def swipe(number: int, account: str) -> Accepted:
    event = {
        "id": f"e{number}",
        "account": account,
        "amount": 20_000,
        "currency": "CNY",
        "merchant": f"{MERCHANT} {number}",  # no two alike: a burst of one would be a storm
        "time": datetime.now(UTC).isoformat(),
    }
    decoded = decode_event(json.dumps(event).encode(), number)
    assert not isinstance(decoded, Rejected), decoded
    return decoded


def peak_kib() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def peak_begun_kib() -> int:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    return peak_kib()


@pytest.fixture
def quiet_process() -> Iterator[None]:
    """A service sets its process up for itself; here others live in it, too."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@asynccontextmanager
async def sending(
    folder: Path, url: str, *, bad: str = "wechat", timeout_s: float = TIMEOUT_S
) -> AsyncIterator[Service]:
    """The whole engine, with ``ALERTS`` of the channel that is bad and ``TEXTS`` of the other admitted in one batch."""
    good = "sms" if bad == "wechat" else "wechat"
    (folder / "swipebell.toml").write_text(
        f'[channels.wechat]\nbase_url = "{url}"\nappid = "wx0"\nsecret_env = "S"\nconnections = {ALERTS}\n'
        f'timeout_seconds = {timeout_s}\nrate_per_second = 5000\n[channels.sms]\nbase_url = "{url}/sms"\n'
        'secret_env = "S"\nrate_per_second = 5000\n[retry]\nbase_seconds = 0.01\ncap_seconds = 0.05\n'
    )
    environ = {"S": "secret-of-the-test"}
    before_kib = peak_begun_kib()
    config = load_config(folder / "swipebell.toml", environ)
    # Caught before anything is masked: what is personal must not even be tried to log.
    with capture_logs() as logs:
        async with service(config, fail_fast=False, environ=environ) as running:
            await _admitted(running, bad, good)
            yield running
            with trio.fail_after(HANG_S):
                await running.engine.idle()
            # Then nothing is open, and every message of the other channel left once
            assert (await running.ledger.books()).balanced
            assert running.meter.outcomes[good, "accepted"] == TEXTS == running.meter.delivered_by[good]
            assert running.meter.attempts[good] == TEXTS
            # And what it took is what it always takes
            assert peak_kib() - before_kib < FLAT_KIB
    # And nothing personal is in a log or a counter
    assert not [one for one in PRIVATE if one in f"{logs} {running.meter.totals}"]


async def _admitted(running: Service, bad: str, good: str) -> None:
    accounts = {"wechat": "w", "sms": "s"}
    await running.ledger.import_recipients(
        [
            RecipientLine(account="w", openid=OPENID, channels=("wechat",)),
            RecipientLine(account="s", phone=PHONE, channels=("sms",)),
        ]
    )
    numbers = range(ALERTS + TEXTS)
    await running.engine.admit([swipe(number, accounts[bad if number < ALERTS else good]) for number in numbers])


async def first_attempts(running: Service) -> set[tuple[str, str | None]]:
    """Outcome and code of the first attempt of each alert."""
    found = set()
    for number in range(ALERTS):
        story = await running.ledger.explain(f"e{number}")
        assert story is not None
        first = story.alerts[0].attempts[0]
        found.add((first.outcome, first.code))
    return found


async def classified(folder: Path, codes: set[str], *bad: Bad) -> set[str | None]:
    """Every alert had a bad answer first, which is of unknown outcome and has one of the codes; then it left. Returns
    the codes that there were."""
    provider = Provider(*bad)
    async with serving(provider) as server:
        async with sending(folder, server.url) as running:
            with trio.fail_after(HANG_S):
                await running.engine.idle()
            found = await first_attempts(running)
            assert {outcome for outcome, _ in found} == {"unknown"}
            assert {code for _, code in found} <= codes
            assert running.meter.outcomes["wechat", "unknown"] == ALERTS
            assert running.meter.delivered_by["wechat"] == ALERTS == len(provider.delivered)
            # None of these is a code that a table would have to know
            assert not running.meter.totals.unknown_codes
        assert len(provider.texts) == len(set(provider.texts)) == TEXTS
    return {code for _, code in found}


async def test_an_answer_that_is_not_the_apis_is_of_unknown_outcome(tmp_path: Path, quiet_process: None) -> None:
    assert len(UNREADABLE) == ALERTS  # one each
    await classified(tmp_path, {"unreadable"}, *UNREADABLE.values())


@pytest.mark.parametrize("what", OTHERS)
async def test_an_answer_that_is_none_is_of_unknown_outcome(what: str, tmp_path: Path, quiet_process: None) -> None:
    bad, codes = OTHERS[what]
    await classified(tmp_path, codes, bad)


@pytest.mark.parametrize("what", SLOW)
async def test_an_answer_without_end_holds_up_nobody_else(what: str, tmp_path: Path, quiet_process: None) -> None:
    # Given a provider that goes on answering, on every connection of its channel
    provider = Provider(SLOW[what])
    async with serving(provider) as server, sending(tmp_path, server.url, timeout_s=SLOW_TIMEOUT_S) as running:
        # When the other channel has sent all that it had
        with trio.fail_after(HANG_S):
            while running.meter.delivered_by["sms"] < TEXTS:  # noqa: ASYNC110 - the meter tells nobody
                await trio.sleep(0.005)
        # Then none of the slow answers had ended: nobody waited for them
        assert provider.bad_ended == 0
        assert not running.meter.outcomes["wechat", "unknown"]
        # And each ends by its time-out, and its alert is delivered by the next attempt
        with trio.fail_after(HANG_S):
            await running.engine.idle()
        assert await first_attempts(running) == {("unknown", "network-28")}
        assert running.meter.delivered_by["wechat"] == ALERTS == len(provider.delivered)


async def test_a_redirect_takes_nothing_to_another_host(tmp_path: Path, quiet_process: None) -> None:
    # Given a provider that sends everybody on to another host
    async def other(talk: Conversation) -> None:
        await talk.read()

    async with serving(other) as elsewhere:
        to = f"Location: {elsewhere.url.replace('127.0.0.1', 'localhost')}/cgi-bin/message/template/send"
        statuses = ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent")
        # When it answers so, then that is an answer that nobody knows the outcome of
        bad = [text(b"", status, to, "Refresh: 0") for status in statuses]
        codes = {f"http-{status[:3]}" for status in statuses}
        assert await classified(tmp_path, codes, *bad) == codes
        # And the other host has not seen one connection, let alone a card
        assert (elsewhere.connections, elsewhere.seen) == (0, [])


async def test_a_bad_answer_to_a_text_message_is_not_asked_for_again(tmp_path: Path, quiet_process: None) -> None:
    # Given a gateway that has no key by which it would know a second request, and answers badly to every one
    chosen = [*[bad for bad, _ in OTHERS.values()][2:8], UNREADABLE["a page of HTML"], UNREADABLE["a gzip bomb"]]
    provider = Provider(*chosen, bad_texts=True)
    async with serving(provider) as server, sending(tmp_path, server.url, bad="sms") as running:
        with trio.fail_after(HANG_S):
            await running.engine.idle()
        # Then each is of unknown outcome, ends so, and was sent once
        assert {outcome for outcome, _ in await first_attempts(running)} == {"unknown"}
        assert running.meter.outcomes["sms", "unknown"] == ALERTS == running.meter.failed_by["unknown-outcome"]
        assert len(provider.texts) == len(set(provider.texts)) == ALERTS


ALL = {**UNREADABLE, **SLOW, **{what: bad for what, (bad, _) in OTHERS.items()}}


@pytest.mark.parametrize(
    "what", ["a gzip bomb", "JSON without an end", "100 MiB in chunks", "HTTP/0.9", "another type"]
)
async def test_a_bad_answer_instead_of_a_token_only_makes_alerts_wait(
    what: str, tmp_path: Path, quiet_process: None
) -> None:
    # Given a provider whose token endpoint is out of its mind, twice
    provider = Provider(ALL[what], bad_tokens=2)
    provider.tried = _Everything()
    async with serving(provider) as server, sending(tmp_path, server.url) as running:
        with trio.fail_after(HANG_S):
            await running.engine.idle()
        # Then alerts wait for a token and are sent once
        assert running.meter.outcomes["wechat", "accepted"] == ALERTS == len(provider.delivered)
        assert running.meter.attempts["wechat"] == ALERTS
        assert provider.bad_tokens == 0


async def test_a_redirect_takes_no_secret_to_another_host(tmp_path: Path, quiet_process: None) -> None:
    async def other(talk: Conversation) -> None:
        await talk.read()

    async with serving(other) as elsewhere:
        bad = text(b"", "307 Temporary Redirect", f"Location: {elsewhere.url}/cgi-bin/stable_token")
        provider = Provider(bad, bad_tokens=1)
        async with serving(provider) as server, sending(tmp_path, server.url):
            pass
        assert provider.bad_tokens == 0
        assert (elsewhere.connections, elsewhere.seen) == (0, [])


class _Everything(set[str]):
    """Holds whatever it is asked about."""

    def __contains__(self, _thing: object) -> bool:
        return True
