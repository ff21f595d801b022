"""HTTP intake: ``POST /v1/events``, NDJSON or a JSON array, optionally gzip, answered after the commit.

The body is read in step with admission: no further chunk is taken from the socket while lanes are full or a commit
is under way, so backpressure reaches the sender's socket.
"""

from __future__ import annotations

import hmac
import zlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher.engine import Engine
from dispatcher.errors import LeaseLost, LedgerFailed, LedgerUnavailable
from dispatcher.events import Rejected, UnreadableBody, split_array
from dispatcher.intake.door import Taken, take
from dispatcher.intake.ndjson import LineSplitter
from dispatcher.model.private import Secret
from dispatcher.strictjson import BOM

FULL_WAIT_S = 1.0
"""How long a request waits for room in the lanes before it is told 429: a short jam is cheaper than a retry."""

BODY_WAIT_S = 300.0
"""A whole body may take this long, waiting for room included; a sender that drips must not hold a place for ever."""

MAX_UNREADABLE = 10_000
"""So many unreadable lines at the start of a body and no event: this is no stream of events, and not worth decoding."""

CHUNK_WAIT_S = 30.0
"""A sender that says nothing for so long in mid-body is gone."""

ARRAY_BODIES = 4
"""JSON arrays read at once: they are held whole (up to 16 MiB each), NDJSON is not."""

NDJSON_BODIES = 64
SHOWN_REJECTIONS = 1000
"""Rejections listed in one answer; beyond it only counted, so that an answer is bounded like its request."""

UNZIP_BYTES = 256 * 1024
GZIP_MAGIC = b"\x1f\x8b"


class _Refused(Exception):
    def __init__(self, status: int, error: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = headers


class _Total:
    """What a request came to, in bounded memory however many of its lines are refused."""

    def __init__(self) -> None:
        self.read = self.accepted = self.duplicate = self.rejected = self.unreadable = 0
        self.shown: list[Rejected] = []

    def add(self, taken: Taken) -> None:
        self.read += taken.read
        self.accepted += taken.accepted
        self.duplicate += taken.duplicate
        self.rejected += len(taken.rejected)
        self.unreadable += sum(one.field is None for one in taken.rejected)
        self.shown += taken.rejected[: SHOWN_REJECTIONS - len(self.shown)]


class HttpIntake:
    """The handlers; ``app`` is the ASGI application. ``token`` None: loopback, no token wanted."""

    def __init__(self, engine: Engine, *, token: Secret | None, max_body_bytes: int) -> None:
        self._engine = engine
        self._token = token
        self._max_bytes = max_body_bytes
        self._arrays = trio.CapacityLimiter(ARRAY_BODIES)
        self._streams = trio.CapacityLimiter(NDJSON_BODIES)
        self.app = Starlette(
            routes=[
                Route("/v1/events", self.events, methods=["POST"]),
                Route("/healthz", self.health, methods=["GET"]),
            ]
        )

    async def health(self, _request: Request) -> Response:
        """200 while this process can admit, 503 with the reason while its ledger cannot write."""
        return health_answer(self._engine)

    async def events(self, request: Request) -> Response:
        """See the module."""
        total = _Total()
        try:
            self._check(request)
            with trio.move_on_after(BODY_WAIT_S) as whole:
                async with self._streams:
                    await self._take_body(request, total)
            if whole.cancelled_caught:
                raise _Refused(408, f"the body took more than {BODY_WAIT_S:.0f} seconds; send it in parts")
        except _Refused as refused:
            return _answer(refused.status, {"error": refused.error, **_counts(total)}, refused.headers)
        except (LedgerUnavailable, LedgerFailed, LeaseLost) as error:
            # After the latter two the engine's own tasks meet the same failure and end the process.
            return _answer(503, {"error": str(error), **_counts(total)}, {"Retry-After": "5"})
        except ClientDisconnect:
            return Response(status_code=400)
        if not total.read:
            return _answer(400, {"error": "the body holds no event", **_counts(total)})
        if total.unreadable == total.read:
            return _answer(400, {"error": "nothing in the body can be read as an event", **_counts(total)})
        return _answer(202, _counts(total))

    def _check(self, request: Request) -> None:
        if self._token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            wanted = self._token.reveal().encode()
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), wanted):
                raise _Refused(401, "a bearer token is wanted", {"WWW-Authenticate": "Bearer"})
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise _Refused(413, f"the body is over {self._max_bytes:,} bytes; send it in parts")

    async def _take_body(self, request: Request, total: _Total) -> None:
        chunks = _bounded(_unzipped(_chunks(request)), self._max_bytes)
        start = b""
        async for chunk in chunks:
            start = start.lstrip() + chunk
            if len(start.lstrip()) > len(BOM):
                break
        start = start.removeprefix(BOM)
        if start.lstrip()[:1] == b"[":
            async with self._arrays:
                await self._take_array(start, chunks, total)
            return
        splitter = LineSplitter()
        await self._take_lines(splitter.feed(start), total)
        async for chunk in chunks:
            await self._take_lines(splitter.feed(chunk), total)
        await self._take_lines(splitter.finish(), total)

    async def _take_array(self, start: bytes, chunks: AsyncIterator[bytes], total: _Total) -> None:
        parts = [start]
        async for chunk in chunks:
            parts.append(chunk)
        try:
            items = list(split_array(b"".join(parts)))
        except UnreadableBody as error:
            raise _Refused(400, str(error)) from None
        await self._take_lines(list(enumerate(items, 1)), total)

    async def _take_lines(self, lines: list[tuple[int, bytes]], total: _Total) -> None:
        size = self._engine.config.batch_events
        for start in range(0, len(lines), size):
            batch = lines[start : start + size]
            with trio.move_on_after(FULL_WAIT_S) as waiting:
                await self._engine.reserve(len(batch), batch[-1][1])
            if waiting.cancelled_caught:
                why = "the lanes are full; send again later, what was accepted will be recognised"
                raise _Refused(429, why, {"Retry-After": "1"})
            try:
                total.add(await take(self._engine, batch))
            finally:
                self._engine.release(len(batch))
            if total.unreadable > MAX_UNREADABLE and not total.accepted:
                raise _Refused(400, f"the first {total.unreadable:,} lines cannot be read as events; is this NDJSON?")


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream().__aiter__()
    while True:
        with trio.move_on_after(CHUNK_WAIT_S) as waiting:
            try:
                chunk = await anext(stream)
            except StopAsyncIteration:
                return
        if waiting.cancelled_caught:
            raise _Refused(408, f"nothing came for {CHUNK_WAIT_S:.0f} seconds")
        if chunk:
            yield chunk


async def _unzipped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Unzip when the content says gzip (whatever the header says), member after member, a bounded piece at a time."""
    start = b""
    async for chunk in chunks:
        start += chunk
        if len(start) >= len(GZIP_MAGIC):
            break
    if not start.startswith(GZIP_MAGIC):
        yield start
        async for chunk in chunks:
            yield chunk
        return
    unzip = _gunzip()
    waiting = start
    try:
        while waiting:
            if unzip.eof:
                unzip = _gunzip()
            yield unzip.decompress(waiting, UNZIP_BYTES)
            waiting = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
            if not waiting:
                waiting = await anext(chunks, b"")
    except zlib.error:
        raise _Refused(400, "the gzip body is damaged; what came before the damage was taken") from None
    if not unzip.eof:
        raise _Refused(400, "the gzip body is cut off; what came before was taken")


def _gunzip() -> zlib._Decompress:
    return zlib.decompressobj(wbits=31)


def health_answer(engine: Engine) -> Response:
    """What ``/healthz`` says."""
    if engine.trouble is not None:
        return _answer(503, {"status": "trouble", "error": engine.trouble})
    return _answer(200, {"status": "ok", "lanes": "full" if engine.full else "open"})


async def _bounded(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise _Refused(413, f"the body is over {limit:,} bytes; what came before was taken, send in parts")
        yield chunk


def _counts(total: _Total) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "accepted": total.accepted,
        "duplicate": total.duplicate,
        "rejected": [_shown(one) for one in total.shown],
    }
    if total.rejected > len(total.shown):
        counts["rejected_in_all"] = total.rejected
    return counts


def _shown(rejected: Rejected) -> dict[str, Any]:
    return {"line": rejected.line, "id": rejected.id, "error": rejected.error}


def _answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
