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
from dispatcher.errors import LedgerFailed, LedgerUnavailable
from dispatcher.events import Rejected, UnreadableBody, split_array
from dispatcher.intake.door import Taken, take
from dispatcher.intake.ndjson import LineSplitter
from dispatcher.model.private import Secret

FULL_WAIT_S = 1.0
"""How long a request waits for room in the lanes before it is told 429: a short jam is cheaper than a retry."""

CHUNK_WAIT_S = 30.0
"""A sender that says nothing for so long in mid-body is gone."""

ARRAY_BODIES = 4
"""JSON arrays read at once: they are held whole (up to 16 MiB each), NDJSON is not."""

NDJSON_BODIES = 64
SHOWN_REJECTIONS = 1000
"""Rejections listed in one answer; beyond it only counted, so that an answer is bounded like its request."""

UNZIP_BYTES = 256 * 1024


class _Refused(Exception):
    def __init__(self, status: int, error: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = headers


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
        """200 while this process can admit."""
        return _answer(200, {"status": "ok", "lanes": "full" if self._engine.full else "open"})

    async def events(self, request: Request) -> Response:
        """See the module."""
        total = Taken()
        try:
            self._check(request)
            async with self._streams:
                await self._take_body(request, total)
        except _Refused as refused:
            return _answer(refused.status, {"error": refused.error, **_counts(total)}, refused.headers)
        except LedgerUnavailable as error:
            return _answer(503, {"error": str(error), **_counts(total)}, {"Retry-After": "5"})
        except LedgerFailed as error:
            # The engine's own tasks meet the same failure and end the process.
            return _answer(503, {"error": str(error), **_counts(total)})
        except ClientDisconnect:
            return Response(status_code=400)
        if not total.read:
            return _answer(400, {"error": "the body holds no event", **_counts(total)})
        if len(total.rejected) == total.read and all(one.field is None for one in total.rejected):
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

    async def _take_body(self, request: Request, total: Taken) -> None:
        chunks = _bounded(_unzipped(_chunks(request)), self._max_bytes)
        start = b""
        async for chunk in chunks:
            start += chunk
            if start.lstrip():
                break
        if start.lstrip()[:1] == b"[":
            async with self._arrays:
                await self._take_array(start, chunks, total)
            return
        splitter = LineSplitter()
        await self._take_lines(splitter.feed(start), total)
        async for chunk in chunks:
            await self._take_lines(splitter.feed(chunk), total)
        await self._take_lines(splitter.finish(), total)

    async def _take_array(self, start: bytes, chunks: AsyncIterator[bytes], total: Taken) -> None:
        parts = [start]
        async for chunk in chunks:
            parts.append(chunk)
        try:
            items = list(split_array(b"".join(parts)))
        except UnreadableBody as error:
            raise _Refused(400, str(error)) from None
        await self._take_lines(list(enumerate(items, 1)), total)

    async def _take_lines(self, lines: list[tuple[int, bytes]], total: Taken) -> None:
        size = self._engine.config.batch_events
        for start in range(0, len(lines), size):
            with trio.move_on_after(FULL_WAIT_S) as waiting:
                await self._engine.room()
            if waiting.cancelled_caught:
                why = "the lanes are full; send again later, what was accepted will be recognised"
                raise _Refused(429, why, {"Retry-After": "1"})
            taken = await take(self._engine, lines[start : start + size])
            total.read += taken.read
            total.accepted += taken.accepted
            total.duplicate += taken.duplicate
            total.rejected += taken.rejected


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
        yield chunk


async def _unzipped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Unzip when the content says gzip (whatever the header says), a bounded piece at a time."""
    unzip = None
    first = True
    async for chunk in chunks:
        if first and chunk:
            first = False
            if chunk[:2] == b"\x1f\x8b":
                unzip = zlib.decompressobj(wbits=31)
        if unzip is None:
            yield chunk
            continue
        try:
            piece = unzip.decompress(chunk, UNZIP_BYTES)
            yield piece
            while unzip.unconsumed_tail:
                yield unzip.decompress(unzip.unconsumed_tail, UNZIP_BYTES)
        except zlib.error:
            raise _Refused(400, "the gzip body is damaged; what came before the damage was taken") from None
    if unzip is not None and not unzip.eof:
        raise _Refused(400, "the gzip body is cut off; what came before was taken")


async def _bounded(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise _Refused(413, f"the body is over {limit:,} bytes; what came before was taken, send in parts")
        yield chunk


def _counts(total: Taken) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "accepted": total.accepted,
        "duplicate": total.duplicate,
        "rejected": [_shown(one) for one in total.rejected[:SHOWN_REJECTIONS]],
    }
    if len(total.rejected) > SHOWN_REJECTIONS:
        counts["rejected_in_all"] = len(total.rejected)
    return counts


def _shown(rejected: Rejected) -> dict[str, Any]:
    return {"line": rejected.line, "id": rejected.id, "error": rejected.error}


def _answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
