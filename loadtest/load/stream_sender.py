"""Sends events over the stream intake: NDJSON one way, cumulative acknowledgements the other, resumed after a break."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable

import msgspec
import trio

from dispatcher.errors import ConfigurationError, SwipebellError
from dispatcher.model.private import Secret
from loadtest.load.lines import Chunk
from loadtest.load.tally import Tally
from loadtest.load.window import Window

WINDOW_EVENTS = 1024
"""Events of a connection that may be without an answer, kept for sending again (0.3 MB): at 2,500 a second those
of 0.4 seconds. A target this far behind pushes back, however much its socket would still take. Fewer where answers are
slow (`Window`)."""

READ_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Longest answer line: 1,024 refused lines with the longest ids are 1 MB."""

CONNECT_S = 5.0
RECONNECT_S = (0.05, 1.0)
"""First and longest wait before a broken connection is made anew."""
ANSWER_S = 10.0
"""How long the target may take to answer the first line at all."""


class _Rejected(msgspec.Struct):
    line: int = 0
    error: str = ""


class _Answer(msgspec.Struct):
    ack: int = 0
    accepted: int = 0
    duplicate: int = 0
    rejected: list[_Rejected] = []
    error: str | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class _Sent:
    """A chunk without its whole answer: the lines from ``at`` on are still unanswered."""

    __slots__ = ("again", "at", "chunk", "last_line", "since")

    def __init__(self, chunk: Chunk, since: float) -> None:
        self.chunk = chunk
        self.since = since
        self.at = 0
        self.last_line = 0
        self.again = chunk.again

    @property
    def rest(self) -> bytes:
        return b"".join(self.chunk.body.splitlines(keepends=True)[self.at :]) if self.at else self.chunk.body


class StreamSender:
    """One connection; see `Sender`. ``now`` gives seconds from the begin of the run."""

    def __init__(self, host: str, port: int, token: Secret | None, tally: Tally, now: Callable[[], float]) -> None:
        self._host = host
        self._port = port
        self._token = token
        self._tally = tally
        self._now = now
        self._socket: socket.socket | None = None
        self._unsent = b""
        self._sent: deque[_Sent] = deque()
        self._unanswered = 0
        self._window = Window(WINDOW_EVENTS)
        self._line = 0
        self._acked_line = 0
        self._must_write = trio.Event()
        self.reconnected = 0
        self.last_error: str | None = None

    @property
    def room(self) -> int:
        """See `Sender`."""
        if self._socket is None or self._unsent:
            return 0
        return max(0, self._window.size - self._unanswered)

    def offer(self, chunk: Chunk) -> None:
        """See `Sender`. Writes what the socket takes at once, the rest when it can."""
        self._unanswered += chunk.count
        self._put(_Sent(chunk, self._now()))
        self._flush()

    def _put(self, sent: _Sent) -> None:
        self._line += sent.chunk.count - sent.at
        sent.last_line = self._line
        self._sent.append(sent)
        self._unsent += sent.rest

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # the reader meets the same end, and makes a new connection
            return
        if self._unsent:
            self._must_write.set()

    async def run(self) -> None:
        """See `Sender`."""
        pause = RECONNECT_S[0]
        while True:
            try:
                await self._connect()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_writing)
                    if await self._read_answers():
                        pause = RECONNECT_S[0]
                    nursery.cancel_scope.cancel()
            except OSError as error:
                self.last_error = _words(error)
            finally:
                self._close()
            await trio.sleep(pause)
            pause = min(2 * pause, RECONNECT_S[1])
            self.reconnected += 1

    async def _connect(self) -> None:
        sock = await connect(self._host, self._port)
        self._socket = sock
        self._line = self._acked_line = 0
        self._unsent = b"" if self._token is None else token_line(self._token)
        again, self._sent = self._sent, deque()
        for sent in again:
            sent.again = True
            self._put(sent)
        self._flush()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _keep_writing(self) -> None:
        while True:
            await self._must_write.wait()
            self._must_write = trio.Event()
            while self._unsent and self._socket is not None:
                await trio.lowlevel.wait_writable(self._socket)
                self._flush()

    async def _read_answers(self) -> bool:
        """Until the connection ends; True when anything was acknowledged over it."""
        sock = self._socket
        assert sock is not None
        rest = b""
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                data = sock.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self.last_error, data = _words(error), b""
            if not data or len(rest) > MAX_ANSWER_BYTES:
                return self._acked_line > 0
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            answer = _decode(line)
        except msgspec.DecodeError:
            self.last_error = "it answers, but not as Swipebell's stream intake"
            return
        if answer.error is not None:
            self.last_error = answer.error
        rejected = {one.line: one.error for one in answer.rejected}
        duplicate = answer.duplicate
        now = self._now()
        while self._sent and answer.ack > self._acked_line:
            sent = self._sent[0]
            upto = min(answer.ack, sent.last_line)
            count = upto - self._acked_line
            first = sent.chunk.first + sent.at
            refused = (
                {
                    first + number - self._acked_line - 1: rejected[number]
                    for number in range(self._acked_line + 1, upto + 1)
                    if number in rejected
                }
                if rejected
                else {}
            )
            # Which lines were duplicates is not said. Those of a chunk that was sent again had been accepted before.
            repeated = min(duplicate, count - len(refused))
            duplicate -= repeated
            self._tally.answer(first, count, now, duplicate=0 if sent.again else repeated, rejected=refused)
            self._acked_line = upto
            self._unanswered -= count
            self._window.answered(count, now - sent.since)
            sent.at += count
            if sent.at == sent.chunk.count:
                self._sent.popleft()


def token_line(token: Secret) -> bytes:
    """The first line of a connection that wants a token."""
    return msgspec.json.encode({"token": token.reveal()}) + b"\n"


async def connect(host: str, port: int) -> socket.socket:
    """A connected socket that does not block. Raises ``OSError``."""
    with trio.move_on_after(CONNECT_S):
        stream = await trio.open_tcp_stream(host, port)
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        return sock
    raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


async def check_stream(host: str, port: int, token: Secret | None) -> None:
    """Whether a stream intake listens there that takes our token. Raises one line that says what to do."""
    where = f"--target tcp://{host}:{port}"
    try:
        sock = await connect(host, port)
    except OSError as error:
        raise SwipebellError(
            f"{where}: cannot be reached ({_words(error)}); is it running, and is it this port?"
        ) from None
    with sock, trio.move_on_after(ANSWER_S):
        answer = b""
        try:
            # A blank line is counted and acknowledged, and is no event.
            sock.send((b"" if token is None else token_line(token)) + b"\n")
            while b"\n" not in answer:
                await trio.lowlevel.wait_readable(sock)
                data = sock.recv(READ_BYTES)
                if not data:
                    break
                answer += data
        except OSError as error:
            raise SwipebellError(f"{where}: the connection broke ({_words(error)})") from None
        try:
            said = _decode(answer.partition(b"\n")[0])
        except msgspec.DecodeError:
            raise SwipebellError(f"{where}: answers, but not as Swipebell's stream intake; is it this port?") from None
        if said.error is not None:
            raise ConfigurationError(f"{where}: refuses us: {said.error}; give the token's file with --token-file")
        return
    raise SwipebellError(f"{where}: did not answer within {ANSWER_S:g} seconds; is it Swipebell's stream intake?")


def _words(error: BaseException) -> str:
    """trio raises an error without a number, caused by that of each address it tried."""
    while not (isinstance(error, OSError) and error.errno):
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        if inner is None:
            return str(error).lower() or type(error).__name__
        error = inner
    return os.strerror(error.errno).lower() if error.errno > 0 else str(error.strerror).lower()
