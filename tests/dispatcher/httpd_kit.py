"""A server on a free port and a client on raw bytes, for the tests of `dispatcher.httpd`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from dispatcher.httpd import Answer, Deferred, Limits, Request, answer_all, serve_http

PATIENCE_S = 60.0
"""A test that waits longer than this for an answer has found a bug."""


class Desk:
    """A handler that promises every answer, and what has been promised, in the order in which it was asked."""

    def __init__(self) -> None:
        self.promised: list[tuple[Request, Deferred]] = []
        self._came = trio.Event()

    def __call__(self, request: Request) -> Deferred:
        deferred = Deferred()
        self.promised.append((request, deferred))
        self._came.set()
        return deferred

    @property
    def paths(self) -> list[str]:
        return [request.path for request, _ in self.promised]

    async def has(self, count: int) -> None:
        """Wait until so many have been asked for."""
        with trio.fail_after(PATIENCE_S):
            while len(self.promised) < count:
                self._came = trio.Event()
                await self._came.wait()
        assert len(self.promised) == count

    def give(self, *numbers: int) -> None:
        """Answer these, in one batch, each with its own path."""
        answer_all([(self.promised[n][1], Answer(self.promised[n][0].path.encode())) for n in numbers])


def path_back(request: Request) -> Answer:
    """Answers at once, with the path."""
    return Answer(request.path.encode())


class Served:
    """A running server; ``stop`` tells it to end, ``ended`` says that it has."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.stop = trio.Event()
        self.ended = trio.Event()
        self.streams: list[trio.SocketStream] = []

    async def connect(self) -> trio.SocketStream:
        """A new client, which is closed with the server at the latest."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.streams.append(stream)
        return stream


@asynccontextmanager
async def serving(handler: Desk | object, limits: Limits | None = None) -> AsyncIterator[Served]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    served = Served(listener.socket.getsockname()[1])

    async def serve() -> None:
        try:
            await serve_http(
                handler,  # type: ignore[arg-type]
                [listener],
                limits=Limits() if limits is None else limits,
                stop=served.stop.wait,
            )
        finally:
            served.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield served
        nursery.cancel_scope.cancel()
    for stream in served.streams:
        await stream.aclose()


def get(path: str, *fields: str) -> bytes:
    """A request without a body."""
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


def post(body: bytes, path: str = "/") -> bytes:
    """A request with a body."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def read_all(stream: trio.SocketStream) -> bytes:
    """Everything until the server closes."""
    with trio.fail_after(PATIENCE_S):
        return b"".join([chunk async for chunk in stream])


async def read_bodies(stream: trio.SocketStream, count: int) -> list[bytes]:
    """The bodies of the next so many answers."""
    found: list[bytes] = []
    pending = b""
    while True:
        while b"\r\n\r\n" in pending:
            head, _, rest = pending.partition(b"\r\n\r\n")
            length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
            if len(rest) < length:
                break
            found.append(rest[:length])
            pending = rest[length:]
        if len(found) >= count:
            assert (len(found), pending) == (count, b"")
            return found
        chunk = await stream.receive_some()
        assert chunk, f"the server closed after {found} {pending!r}"
        pending += chunk


async def talk(port: int, *parts: bytes) -> bytes:
    """Send the parts, one after the other, and read until the server closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for part in parts:
            await stream.send_all(part)
            await trio.testing.wait_all_tasks_blocked()
        return await read_all(stream)
