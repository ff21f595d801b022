"""A small HTTP/1.1 server for simulated providers: fast, and able to misbehave on request.

Waking a trio task costs as much as a whole answer, so one task polls all connections and answers what can be
answered at once, and another sends what was delayed when its time has come; a connection gets a task of its own only
while something else on it must wait (a full socket, an error to be read). Answers of a connection leave in the order
of its requests.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final

import httptools
import msgspec
import trio

READ_BYTES: Final = 64 * 1024
"""One read. It also bounds how many pipelined requests wait at a time."""
MAX_HEADER_BYTES: Final = 64 * 1024
"""A request whose header is not complete this long after the read it began in is answered with 431."""
MAX_BODY_BYTES: Final = 64 * 1024
"""A template message has a few hundred bytes; longer than this is a client's bug (413)."""
MAX_CONNECTIONS: Final = 4096
"""More than any pool of ours; further ones are answered 503, so that a leak in a client is seen."""
MAX_DISCARDED_BYTES: Final = 1024 * 1024
DISCARD_SECONDS: Final = 1.0
"""What a refused request may still send, and for how long, before the close: a close with unread bytes is a
reset, which would destroy the refusal on its way."""

JSON: Final = "application/json; charset=utf-8"
NDJSON: Final = "application/x-ndjson"
TEXT: Final = "text/plain; charset=utf-8"
_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends RST
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Request:
    """One request: ``query`` and ``authorization`` are as they were sent, undecoded."""

    __slots__ = ("authorization", "body", "method", "path", "query")

    def __init__(self, method: str, path: str, query: str = "", body: bytes = b"", authorization: str = "") -> None:
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.authorization = authorization

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path} ({len(self.body)} bytes)>"


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One answer, ``delay_seconds`` late. ``reset`` sends nothing and resets the connection instead."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    delay_seconds: float = 0.0
    reset: bool = False


Handler = Callable[[Request], Answer]


async def serve_http(handler: Handler, listeners: list[trio.SocketListener]) -> None:
    """Serve until cancelled; then every connection is closed at once, answered or not.

    An exception of ``handler`` ends the server and is not answered: a bug of the simulation must be loud.
    """
    server = _Server(handler)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.poll, nursery)
            nursery.start_soon(server.send_delayed, nursery)
            await trio.serve_listeners(partial(server.adopt, nursery), listeners)
    finally:
        server.close()


class _Server:
    """Owns the connections: all polled by one task, but for those that wait in a task of their own."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._selector = selectors.DefaultSelector()
        self._open: set[_Connection] = set()
        # By when they are due; the number keeps connections from being compared. At most one entry a connection.
        self._delayed: list[tuple[float, int, _Connection]] = []
        self._numbers = itertools.count()
        self._sooner = trio.Event()

    async def adopt(self, nursery: trio.Nursery, stream: trio.SocketStream) -> None:
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        connection = _Connection(sock, self._handler)
        self._open.add(connection)
        if len(self._open) > MAX_CONNECTIONS:
            connection.refusal = (503, "too many connections")
            nursery.start_soon(self._finish, connection)
        else:
            self._selector.register(sock, selectors.EVENT_READ, connection)

    async def poll(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._selector.fileno())
            for key, _ in self._selector.select(0):
                connection: _Connection = key.data
                if connection.delayed:  # it sends more, or is gone: looked at when its answer has left
                    self._selector.unregister(connection.sock)
                    connection.delayed_deaf = True
                    continue
                self._go_on(connection, connection.advance, nursery)

    async def send_delayed(self, nursery: trio.Nursery) -> None:
        """Send each delayed answer at its time."""
        while True:
            self._sooner = trio.Event()
            with trio.move_on_at(self._delayed[0][0] if self._delayed else math.inf):
                await self._sooner.wait()
            now = trio.current_time()
            while self._delayed and self._delayed[0][0] <= now:
                connection = heapq.heappop(self._delayed)[2]
                connection.delayed = False
                if connection.delayed_deaf:
                    connection.delayed_deaf = False
                    self._selector.register(connection.sock, selectors.EVENT_READ, connection)
                self._go_on(connection, connection.release, nursery)

    def _go_on(self, connection: _Connection, step: Callable[[], bool], nursery: trio.Nursery) -> None:
        """Take a step that may find that the connection must wait."""
        try:
            must_wait = step()
        except OSError:  # the client went away; it will know what it missed
            self._selector.unregister(connection.sock)
            self._drop(connection)
            return
        if not must_wait:
            return
        if (seconds := connection.only_delayed) is not None:
            entry = (trio.current_time() + seconds, next(self._numbers), connection)
            connection.delayed = True
            heapq.heappush(self._delayed, entry)
            if self._delayed[0] is entry:
                self._sooner.set()
            return
        self._selector.unregister(connection.sock)
        nursery.start_soon(self._finish, connection)

    async def _finish(self, connection: _Connection) -> None:
        try:
            goes_on = await connection.finish()
        except OSError:
            goes_on = False
        if goes_on:
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        else:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.sock.close()

    def close(self) -> None:
        self._selector.close()
        for connection in self._open:
            connection.sock.close()


class _Connection:
    """One client. ``advance`` does what can be done at once, ``finish`` what has to wait."""

    def __init__(self, sock: socket.socket, handler: Handler) -> None:
        self.sock = sock
        self.refusal: tuple[int, str] | None = None
        self.delayed = False
        self.delayed_deaf = False
        self._handler = handler
        self._reader = _Reader()
        self._requests: deque[tuple[Request, bool]] = deque()
        self._held: tuple[Answer, bool] | None = None
        self._unsent = b""
        self._ended = False

    def advance(self) -> bool:
        """Read once and answer; True when ``finish`` must go on. Raises ``OSError``: the client is gone."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._ended = True
            return True
        self.refusal = self._reader.feed(data)
        self._requests.extend(self._reader.take())
        return self._answer_and_send()

    def release(self) -> bool:
        """Send the answer that was only delayed, and go on; as `advance`."""
        assert self._held is not None
        (answer, keep_alive), self._held = self._held, None
        self._unsent = _head(answer, keep_alive) + answer.body
        return self._answer_and_send()

    @property
    def only_delayed(self) -> float | None:
        """Seconds until the held answer may leave, when that is all that the connection waits for."""
        if self._held is None or self._unsent or self._ended or self.refusal is not None:
            return None
        answer, keep_alive = self._held
        return answer.delay_seconds if keep_alive and not answer.reset else None

    def _answer_and_send(self) -> bool:
        self._answer()
        if self._reader.wants_continue():
            self._unsent += _CONTINUE
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        return bool(self._unsent) or self._held is not None or self.refusal is not None

    def _answer(self) -> None:
        """Answer in order, up to one that must wait or ends the connection; that one is held."""
        written = [self._unsent]
        while self._requests:
            request, keep_alive = self._requests.popleft()
            answer = self._handler(request)
            if answer.delay_seconds > 0.0 or answer.reset or not keep_alive:
                self._held = (answer, keep_alive)
                break
            written.append(_head(answer, keep_alive))
            written.append(answer.body)
        self._unsent = b"".join(written)

    async def finish(self) -> bool:
        """Do all that has to wait; False when the connection is at its end."""
        while not self._ended:
            await self._send()
            if self._held is None:
                break
            (answer, keep_alive), self._held = self._held, None
            if answer.delay_seconds > 0.0:
                await trio.sleep(answer.delay_seconds)
            if answer.reset:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                return False
            self._unsent = _head(answer, keep_alive) + answer.body
            if not keep_alive:
                await self._send()
                self._ended = True
            else:
                self._answer()
        if self.refusal is not None:
            await self._refuse(*self.refusal)
            self._ended = True
        return not self._ended

    async def _send(self) -> None:
        view = memoryview(self._unsent)
        self._unsent = b""
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)

    async def _refuse(self, status: int, reason: str) -> None:
        """Answer with an error, and let the client finish so that it can read the answer."""
        body = f'{{"error":"{reason}"}}'.encode()
        self._unsent = _head(Answer(body, status=status), keep_alive=False) + body
        await self._send()
        self.sock.shutdown(socket.SHUT_WR)
        discarded = 0
        with trio.move_on_after(DISCARD_SECONDS):
            while discarded < MAX_DISCARDED_BYTES:
                await trio.lowlevel.wait_readable(self.sock)
                with contextlib.suppress(BlockingIOError):
                    data = self.sock.recv(READ_BYTES)
                    if not data:
                        return
                    discarded += len(data)


_heads: dict[tuple[int, str, bool], bytes] = {}


def _head(answer: Answer, keep_alive: bool) -> bytes:
    key = (answer.status, answer.content_type, keep_alive)
    start = _heads.get(key)
    if start is None:
        closing = "" if keep_alive else "Connection: close\r\n"
        start = _heads[key] = (
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
            f"Content-Type: {answer.content_type}\r\n{closing}Content-Length: "
        ).encode()
    return b"%b%d\r\n\r\n" % (start, len(answer.body))


class _Reader:
    """Bytes in, requests out: the callbacks of httptools, and the limits that it does not keep itself."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._ready: list[tuple[Request, bool]] = []
        self._url = b""
        self._authorization = ""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._too_large = False
        self._header_bytes = 0
        self._in_header = False
        self._expects_continue = False

    def feed(self, data: bytes) -> tuple[int, str] | None:
        """Parse; None, or the status and reason with which the connection must end."""
        if self._in_header:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return None  # declined: the request itself is answered, and the connection ends
        except httptools.HttpParserError:
            return 400, "not HTTP"
        if self._too_large:
            return 413, f"a body has at most {MAX_BODY_BYTES} bytes"
        if self._in_header and self._header_bytes > MAX_HEADER_BYTES:
            return 431, f"a header has at most {MAX_HEADER_BYTES} bytes"
        return None

    def take(self) -> list[tuple[Request, bool]]:
        """Complete requests, each with whether the connection outlives it."""
        ready, self._ready = self._ready, []
        return ready

    def wants_continue(self) -> bool:
        """Whether the client holds its body back until it is asked for it; true once per request."""
        if self._in_header or not self._expects_continue:
            return False
        self._expects_continue = False
        return True

    def on_message_begin(self) -> None:
        self._url = b""
        self._authorization = ""
        self._body.clear()
        self._body_bytes = 0
        self._header_bytes = 0
        self._in_header = True
        self._expects_continue = False

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name)
        if size == 13 and name.lower() == b"authorization":
            self._authorization = value.decode("latin-1")
        elif size == 6 and name.lower() == b"expect":
            self._expects_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        self._in_header = False

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(part)
        else:
            self._too_large = True

    def on_message_complete(self) -> None:
        self._expects_continue = False
        if self._too_large:
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("ascii")
        request = Request(method, path, query, b"".join(self._body), self._authorization)
        self._ready.append((request, self._parser.should_keep_alive() and not self._parser.should_upgrade()))
