"""httpx's ordinary API on the network's connections, for every call that is not an alert: tokens, quotas, webhooks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import httpx
import trio

from dispatcher.network.api import Failure, Network, Request, Response

_NOT_COPIED = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"accept-encoding"})
"""libcurl writes these itself; a compressed answer would have to be bounded twice, so none is asked for."""

DEFAULT_TIMEOUT_S = 10.0
"""Where the client sets none: no call of ours may wait for ever."""


class NetworkTransport(httpx.AsyncBaseTransport):
    """An httpx transport that sends through a `Network` pool.

    Raises `httpx.ConnectError` when nothing of the request has left, `httpx.ReadError` when it may have arrived, and
    `httpx.DecodingError` when the answer is compressed. The client's read time-out holds for the whole call;
    ``extensions={"fresh": True}`` of a request asks for a connection of its own (see `Request`). A
    cancelled call leaves its request to finish by itself; the answer is dropped.
    """

    def __init__(self, network: Network, pool: str) -> None:
        self._network = network
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and wait for its answer, body included (bounded by the network)."""
        body = await request.aread()
        timeouts: Mapping[str, float | None] = request.extensions.get("timeout", {})
        seconds = timeouts.get("read") or DEFAULT_TIMEOUT_S
        done = trio.Event()
        answers: list[Response] = []

        def deliver(responses: list[Response]) -> None:
            answers.extend(responses)
            done.set()

        headers = tuple(
            f"{name.decode('ascii')}: {value.decode('latin-1')}"
            for name, value in request.headers.raw
            if name.lower() not in _NOT_COPIED
        )
        prepared = Request(
            pool=self._pool,
            url=str(request.url),
            headers=headers,
            body=body,
            method=request.method,
            timeout_ms=math.ceil(seconds * 1000),
            want_headers=True,
            fresh=bool(request.extensions.get("fresh")),
        )
        self._network.submit([prepared], deliver)
        await done.wait()
        answer = answers[0]
        if answer.failure is Failure.NOT_SENT:
            raise httpx.ConnectError(f"could not connect (libcurl {answer.code})", request=request)
        if answer.failure is not None:
            raise httpx.ReadError(f"no answer (libcurl {answer.code})", request=request)
        headers_in = _headers(answer.headers)
        if any(name.lower() == b"content-encoding" and value.lower() != b"identity" for name, value in headers_in):
            # httpx would unpack it, and a megabyte of gzip is a gigabyte of nothing.
            raise httpx.DecodingError("the answer is compressed, which was not asked for", request=request)
        return httpx.Response(answer.status, headers=headers_in, content=answer.body, request=request)


def _headers(lines: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    pairs: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line.startswith(b"HTTP/"):
            pairs.clear()  # what came before belongs to an interim answer (100, 103)
            continue
        name, colon, value = line.partition(b":")
        if colon and name and name == name.strip():
            pairs.append((name, value.strip()))
    return pairs
