"""One client of the server: its requests, the promises of their answers, and what is still to be sent."""

from __future__ import annotations

import contextlib
import enum
import math
import socket
import struct
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import trio

from dispatcher.httpd.api import Answer, Deferred, Handler, Limits, Refused, Request
from dispatcher.httpd.reader import Reader, Refusal

READ_BYTES: Final = 64 * 1024
"""One read, and so the most that is taken from one client while others wait."""

MAX_DISCARDED_BYTES: Final = 1024 * 1024
DISCARD_SECONDS: Final = 1.0
"""What a refused client may still send, and for how long, before the close: a close with unread bytes is a reset,
which would destroy the refusal on its way."""

_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends RST
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Need(enum.Enum):
    """What a connection is waiting for, and so who looks at it next."""

    REQUEST = enum.auto()  # bytes of the client: the polling task
    ANSWER = enum.auto()  # promised answers, and nothing is read until then: `answer_all`
    ROOM = enum.auto()  # the socket is full, or an error must be read: a task of its own
    NOTHING = enum.auto()  # it is at its end


class Connection:
    """``read`` and ``advance`` do what can be done at once and raise ``OSError`` when the client has gone.

    ``changed`` is called with this connection when promised answers have been given.
    """

    def __init__(
        self,
        sock: socket.socket,
        handler: Handler,
        limits: Limits,
        changed: Callable[[Connection], None],
        refused: Refused | None = None,
    ) -> None:
        self.sock = sock
        self.polled = False
        self.in_task = False
        self.stopping = False
        self.closed = False
        self.deadline = trio.current_time() + limits.request_seconds
        """When it is closed if no request, or no more of one, has come (trio's clock)."""
        self._handler = handler
        self._limits = limits
        self._changed = changed
        self._refused = refused
        self._reader = Reader(limits)
        self._timed = 0
        self._requests: deque[tuple[Request, bool]] = deque()
        self._promised: deque[Deferred] = deque()
        self._unsent = b""
        self._refusal: Refusal | None = None
        self._reading = True
        self._aborted = False

    @property
    def need(self) -> Need:
        if self._unsent:
            return Need.ROOM
        if self._aborted:
            return Need.NOTHING
        if self._promised:
            full = bool(self._requests) or len(self._promised) >= self._limits.pipelined
            return Need.REQUEST if self._reading and not full else Need.ANSWER
        if self._refusal is not None:
            return Need.ROOM
        at_rest = self.stopping and not self._reader.unfinished
        return Need.REQUEST if self._reading and not at_rest else Need.NOTHING

    def flush(self) -> None:
        """Promised answers have been given."""
        self._changed(self)

    def refuse(self, status: int, reason: str) -> None:
        """Let the connection end with an error, after the answers that are promised."""
        self._refusal = (status, reason)
        self._reading = False
        if self._refused is not None:
            self._refused(status)

    def overdue(self) -> None:
        """The deadline has passed."""
        if self._reader.unfinished:
            self.refuse(408, f"a request may take {self._limits.request_seconds:g} seconds")
        else:
            self._reading = False

    def read(self) -> None:
        """Read once, call the handler, answer what can be answered."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:  # it has said all; what it asked for is still answered
            self._reading = False
            return
        if (refusal := self._reader.feed(data)) is not None:
            self.refuse(*refusal)
        for request, keep_alive in self._reader.take():
            self._requests.append((request, keep_alive))
            if not keep_alive:  # whatever came after its end is nobody's request
                self._reading = False
                self._refusal = None
        self.advance()

    def advance(self) -> None:
        """Call the handler for what is waiting, write what is ready in the order of the requests, send."""
        out = [self._unsent] if self._unsent else []
        while self._write_ready(out) and self._requests and len(self._promised) < self._limits.pipelined:
            self._take(*self._requests.popleft())
        if not self._promised and self._refusal is None and self._reading and self._reader.wants_continue():
            out.append(_CONTINUE)
        if out:
            self._unsent = b"".join(out)
            self.send()
        self._set_deadline()

    def _take(self, request: Request, keep_alive: bool) -> None:
        answer = self._handler(request)
        if isinstance(answer, Deferred):
            promised = answer
        else:
            promised = Deferred()
            promised.answer = answer
        promised.connection = self
        promised.keep_alive = keep_alive
        promised.headless = request.method == "HEAD"
        self._promised.append(promised)

    def _write_ready(self, out: list[bytes]) -> bool:
        """False when nothing may follow what has been written."""
        if self._aborted:
            return False
        while self._promised and (answer := self._promised[0].answer) is not None:
            promised = self._promised.popleft()
            if answer.reset:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                self._end()
                self._aborted = True
                return False
            if self.stopping and not (self._promised or self._requests or self._reader.unfinished):
                promised.keep_alive = False
            out.append(head(answer, keep_alive=promised.keep_alive))
            if not promised.headless:
                out.append(answer.body)
            if not promised.keep_alive:
                self._end()
                return False
        return True

    def _end(self) -> None:
        self._reading = False
        self._refusal = None
        self._requests.clear()

    def send(self) -> None:
        """Send what the socket takes."""
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[self.sock.send(self._unsent) :]

    def _set_deadline(self) -> None:
        if self._reader.unfinished:
            if self._timed != self._reader.begun:
                self._timed = self._reader.begun
                self.deadline = trio.current_time() + self._limits.request_seconds
        elif self._promised:
            self.deadline = math.inf
        elif self._timed != -self._reader.begun:  # all that was asked for is answered
            self._timed = -self._reader.begun
            self.deadline = trio.current_time() + self._limits.idle_seconds

    async def wait_for_room(self) -> None:
        """Send the rest, however long the client takes for it, and the refusal if there is one.

        Raises ``OSError`` when the client has gone or has taken nothing for ``Limits.send_seconds``.
        """
        while self._unsent:
            with trio.move_on_after(self._limits.send_seconds) as patience:
                await trio.lowlevel.wait_writable(self.sock)
            if patience.cancelled_caught:
                raise TimeoutError
            self.send()
        if self._refusal is not None and not self._promised:
            (status, reason), self._refusal = self._refusal, None
            await self._refuse(status, reason)

    async def _refuse(self, status: int, reason: str) -> None:
        """Answer with an error, and let the client finish so that it can read the answer."""
        body = f'{{"error":"{reason}"}}'.encode()
        self._unsent = head(Answer(body, status=status), keep_alive=False) + body
        self.send()
        self._unsent = b""
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


_heads: dict[tuple[int, str, tuple[tuple[str, str], ...], bool], bytes] = {}
MAX_HEADS: Final = 256
"""Kinds of answers whose head is kept; a program has a few dozen, and further ones are made anew each time."""


def head(answer: Answer, *, keep_alive: bool) -> bytes:
    """The status line and the header of an answer."""
    key = (answer.status, answer.content_type, answer.headers, keep_alive)
    start = _heads.get(key)
    if start is None:
        further = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        closing = "" if keep_alive else "Connection: close\r\n"
        start = (
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
            f"Content-Type: {answer.content_type}\r\n{further}{closing}Content-Length: "
        ).encode()
        if len(_heads) < MAX_HEADS:
            _heads[key] = start
    return b"%b%d\r\n\r\n" % (start, len(answer.body))
