"""httpx's ordinary API on the network's connections, for every call that is not an alert: tokens, quotas, webhooks."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import trio

from dispatcher.network.api import Failure, Network, Request, Response

_NOT_COPIED = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"accept-encoding"})
"""libcurl writes these itself; a compressed answer would have to be bounded twice, so none is asked for."""


class NetworkTransport(httpx.AsyncBaseTransport):
    """An httpx transport that sends through a `Network` pool.

    Raises `httpx.ConnectError` when nothing of the request has left and `httpx.ReadError` when it may have arrived. A
    cancelled call leaves its request to finish by itself; the answer is dropped.
    """

    def __init__(self, network: Network, pool: str) -> None:
        self._network = network
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and wait for its answer, body included (bounded by the network)."""
        body = await request.aread()
        timeouts: Mapping[str, float | None] = request.extensions.get("timeout", {})
        seconds = timeouts.get("read") or 10.0
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
            timeout_ms=int(seconds * 1000),
            want_headers=True,
        )
        self._network.submit([prepared], deliver)
        await done.wait()
        answer = answers[0]
        if answer.failure is Failure.NOT_SENT:
            raise httpx.ConnectError(f"could not connect (libcurl {answer.code})", request=request)
        if answer.failure is not None:
            raise httpx.ReadError(f"no answer (libcurl {answer.code})", request=request)
        return httpx.Response(answer.status, headers=_headers(answer.headers), content=answer.body, request=request)


def _headers(lines: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    pairs = []
    for line in lines:
        name, colon, value = line.partition(b":")
        # The status line has no colon before its blank; content-encoding cannot occur (none was asked for).
        if colon and b" " not in name:
            pairs.append((name, value.strip()))
    return pairs
