"""A server on raw sockets that can misbehave in every way a test asks for, and what sends requests to it."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from dispatcher.network.api import Network, PoolSettings, Request, Response
from dispatcher.network.curl import CurlNetwork

PATIENCE_S = 60.0
"""A test that waits longer than this for an answer has found a bug."""

POOL = "provider"


class Seen:
    """One request as the server read it."""

    def __init__(self, connection: int, head: bytes, body: bytes) -> None:
        self.connection = connection
        self.head = head
        self.body = body
        first, *lines = head.split(b"\r\n")
        self.method, self.target, _ = first.decode("latin-1").split(" ")
        self.headers = [tuple(line.decode("latin-1").split(": ", 1)) for line in lines]

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.head) + 4 + len(self.body)


class Conversation:
    """The server's side of one connection; ``number`` counts them from 0."""

    def __init__(self, number: int, stream: trio.abc.Stream, raw: trio.SocketStream, seen: list[Seen]) -> None:
        self.number = number
        self._stream = stream
        self._raw = raw
        self._seen = seen
        self._pending = b""

    async def read(self) -> Seen | None:
        """The next whole request; None when the client has closed."""
        while b"\r\n\r\n" not in self._pending:
            if not await self._more():
                return None
        head, _, rest = self._pending.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        self._pending = rest
        while len(self._pending) < length:
            if not await self._more():
                return None
        seen = Seen(self.number, head, self._pending[:length])
        self._pending = self._pending[length:]
        self._seen.append(seen)
        return seen

    async def _more(self) -> bool:
        chunk = await self._stream.receive_some(65_536)
        self._pending += chunk
        return bool(chunk)

    async def send(self, data: bytes) -> None:
        """Bytes as they are."""
        await self._stream.send_all(data)

    async def answer(self, body: bytes = b"ok", *, status: str = "200 OK", headers: Sequence[str] = ()) -> None:
        """One ordinary answer."""
        lines = "".join(f"{line}\r\n" for line in headers)
        await self.send(f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def reset(self) -> None:
        """End the connection with RST."""
        self._raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._raw.socket.close()

    def close(self) -> None:
        """End the connection with FIN."""
        self._raw.socket.close()


Script = Callable[[Conversation], Awaitable[None]]


class Server:
    """What a test sees of its server."""

    def __init__(self, listener: trio.SocketListener, scheme: str) -> None:
        self.listener = listener
        self.port: int = listener.socket.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.seen: list[Seen] = []
        self.connections = 0


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run ``script`` for each connection; the connection is closed when it returns."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    server = Server(listener, "https" if tls else "http")

    async def converse(raw: trio.SocketStream) -> None:
        number, server.connections = server.connections, server.connections + 1
        stream: trio.abc.Stream = raw
        try:
            if tls is not None:
                stream = trio.SSLStream(raw, tls, server_side=True, https_compatible=True)
            await script(Conversation(number, stream, raw, server.seen))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            raw.socket.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, converse, [listener])
        yield server
        nursery.cancel_scope.cancel()


async def echo(talk: Conversation) -> None:
    """Answers each request with its own body."""
    while (seen := await talk.read()) is not None:
        await talk.answer(seen.body)


async def answers_nothing(talk: Conversation) -> None:
    """Reads and keeps silent."""
    while await talk.read() is not None:
        pass


async def read_and_close(talk: Conversation) -> None:
    """Reads one request and closes."""
    await talk.read()


async def read_and_reset(talk: Conversation) -> None:
    """Reads one request and resets."""
    await talk.read()
    talk.reset()


@asynccontextmanager
async def networking(connections: int = 1, **settings: Any) -> AsyncIterator[CurlNetwork]:
    """A real network with one pool; ``settings`` are more of `PoolSettings`."""
    network = CurlNetwork({POOL: PoolSettings(connections=connections, **settings)})
    try:
        yield network
    finally:
        await network.aclose()


class Mailbox:
    """Where responses come in; says that each came once."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self._came = trio.Event()

    def deliver(self, responses: list[Response]) -> None:
        assert responses
        self.responses += responses
        self._came.set()

    async def all_of(self, count: int, *, within_s: float = PATIENCE_S) -> list[Response]:
        with trio.fail_after(within_s):
            while len(self.responses) < count:
                self._came = trio.Event()
                await self._came.wait()
        assert len(self.responses) == count
        return self.responses


def post(url: str, body: bytes | None = b"{}", **fields: object) -> Request:
    """A request such as a channel makes."""
    given: dict[str, object] = {"pool": POOL, "headers": ("Content-Type: application/json",), "timeout_ms": 60_000}
    return Request(url=url, body=body, **(given | fields))  # type: ignore[arg-type]


async def ask(network: Network, *requests: Request) -> list[Response]:
    """Submit a batch and wait for all of its responses, in the order in which they came."""
    mailbox = Mailbox()
    network.submit(requests, mailbox.deliver)
    return await mailbox.all_of(len(requests))


async def ask_one(network: Network, request: Request) -> Response:
    """Submit one request and wait for its response."""
    (response,) = await ask(network, request)
    assert response.request is request
    return response
