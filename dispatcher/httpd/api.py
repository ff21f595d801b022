"""What a handler sees of the server: requests, answers, promises of answers, and the limits of it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

JSON: Final = "application/json; charset=utf-8"
NDJSON: Final = "application/x-ndjson"
TEXT: Final = "text/plain; charset=utf-8"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a client may take of the server. Bytes, seconds, and numbers of connections and requests."""

    connections: int = 1024
    """More than any sender of ours opens; a descriptor and about 2 KiB each. Further ones are answered 503, so that
    a leak in a client is seen."""

    header_bytes: int = 16 * 1024
    """Request line and header fields; what senders of ours and reverse proxies add stays under 4 KiB (431)."""

    body_bytes: int = 64 * 1024
    """A receipt or a template message has a few hundred bytes, a page of status reports stays far below this (413)."""

    pipelined: int = 64
    """Requests of one connection that may wait for their answers; beyond it nothing more is read from it."""

    request_seconds: float = 10.0
    """From the first byte of a request (or the opening) to its last: whoever drips is answered 408. WeChat itself
    gives up after 5."""

    idle_seconds: float = 120.0
    """Between two requests of a connection: longer than the minute that proxies keep theirs, so they close first."""

    send_seconds: float = 30.0
    """How long a client may refuse to take any byte of its answer."""

    stop_seconds: float = 5.0
    """How long requests that are being answered may still take when the server is told to stop."""


class Request:
    """One request: ``query`` and ``authorization`` are as they were sent, undecoded (Latin-1).

    ``fields`` are the other header fields that are kept, as they came: Host and those that begin with ``X-``.
    """

    __slots__ = ("authorization", "body", "fields", "method", "path", "query")

    def __init__(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes = b"",
        authorization: str = "",
        fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.authorization = authorization
        self.fields = fields

    def field(self, name: str) -> str:
        """The value of a kept header field by its lower-case name; empty when it was not sent."""
        wanted = name.encode()
        return next((value.decode("latin-1") for one, value in self.fields if one.lower() == wanted), "")

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path} ({len(self.body)} bytes)>"


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One answer. ``headers`` are further fields, from constants of the program: they are not checked.

    ``reset`` sends nothing and resets the connection instead, as a provider that dies does.
    """

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    reset: bool = False


class _Waiting(Protocol):
    def flush(self) -> None: ...


class Deferred:
    """The promise of one answer, which a handler returns instead of it; keep it and answer it with `answer_all`.

    Each must be answered once. A client that has gone is not told of: its answer goes nowhere. The server holds
    at most ``Limits.pipelined`` of them per connection, and has no time limit of its own for them.
    """

    __slots__ = ("answer", "connection", "headless", "keep_alive")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        # The server's own notes, made when it takes the promise: whose turn it is, and how the answer is framed.
        self.connection: _Waiting | None = None
        self.keep_alive = True
        self.headless = False


def answer_all(answers: Iterable[tuple[Deferred, Answer]]) -> None:
    """Give promised answers and send what can be sent now; never blocks. Call it in the server's thread.

    Raises ``RuntimeError`` when one of them has been answered before.
    """
    connections: dict[_Waiting, None] = {}  # an ordered set: one write per connection
    for deferred, answer in answers:
        if deferred.answer is not None:
            raise RuntimeError("a request was answered twice")
        deferred.answer = answer
        if deferred.connection is not None:
            connections[deferred.connection] = None
    for connection in connections:
        connection.flush()


Refused = Callable[[int], None]
"""Told of each request that the server refuses by itself (413, 431, 400, …), by its status."""

Handler = Callable[[Request], Answer | Deferred]
"""Called once per request, in the server's own task: it must not wait, and a bug in it ends the server."""
