"""Core systems as the bench plays them: closed loop, as fast as the engine takes it, and cheap.

Blocking sockets, a thread each: what a client costs here is taken from the cores that it measures.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import BinaryIO, Final, Self

import msgspec

from loadtest.bench.figures import Failed

ANSWER_S: Final = 60.0
"""Longest wait for an answer; an engine that is full for longer is stuck."""
PUSHED_BACK_S: Final = 0.05
"""After a 429. The engine asks for a second, as it should of a core system; here that would be most of the time."""
WRITE_LINES: Final = 512
MAX_HEAD_LINES: Final = 100


class _Ack(msgspec.Struct):
    ack: int = 0
    accepted: int = 0
    rejected: list[msgspec.Raw] = []
    error: str | None = None


class _Posted(msgspec.Struct):
    accepted: int = 0
    duplicate: int = 0
    rejected: list[msgspec.Raw] = []


_acks = msgspec.json.Decoder(_Ack)
_posted = msgspec.json.Decoder(_Posted)


class HttpPoster:
    """Posts batches over keep-alive connections to ``POST /v1/events``; ``pushed_back`` counts the 429 and 503."""

    def __init__(self, port: int, connections: int) -> None:
        self._port = port
        self._connections = connections
        self._lock = threading.Lock()
        self._troubles: list[str] = []
        self.accepted = 0
        self.pushed_back = 0

    def post(self, bodies: Iterable[bytes]) -> None:
        """Returns when every event is acknowledged. Raises `Failed` when one is refused or a connection breaks."""
        waiting = iter(bodies)
        threads = [threading.Thread(target=self._work, args=(waiting,), daemon=True) for _ in range(self._connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._troubles:
            raise Failed(self._troubles[0])

    def _work(self, waiting: Iterator[bytes]) -> None:
        try:
            with (
                socket.create_connection(("127.0.0.1", self._port), timeout=ANSWER_S) as connection,
                connection.makefile("rb") as answers,
            ):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while not self._troubles:
                    with self._lock:
                        body = next(waiting, None)
                    if body is None:
                        return
                    self._post(connection, answers, body)
        except (Failed, OSError, msgspec.MsgspecError, ValueError) as error:
            self._troubles.append(f"intake over HTTP: {error}")

    def _post(self, connection: socket.socket, answers: BinaryIO, body: bytes) -> None:
        while True:
            status, answer = _exchange(connection, answers, body)
            if status == 202:
                break
            if status not in (429, 503):
                raise Failed(f"answered {status}")
            with self._lock:
                self.pushed_back += 1
            time.sleep(PUSHED_BACK_S)
        posted = _posted.decode(answer)
        if posted.rejected or posted.duplicate:
            raise Failed(f"{len(posted.rejected):,} events were rejected, {posted.duplicate:,} called duplicate")
        with self._lock:
            self.accepted += posted.accepted


def _exchange(connection: socket.socket, answers: BinaryIO, body: bytes) -> tuple[int, bytes]:
    head = f"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return read_answer(answers)


class _Lines:
    """A connection for lines that come alone."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._connection.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._connection.close()


class HttpLines(_Lines):
    """A keep-alive connection to the HTTP intake."""

    def write(self, line: bytes) -> None:
        """Post a line and wait for the answer. Raises `Failed`."""
        status, _ = _exchange(self._connection, self._answers, line)
        if status != 202:
            raise Failed(f"intake over HTTP answered {status}")


class StreamLines(_Lines):
    """A connection to the stream intake."""

    def write(self, line: bytes) -> None:
        """Write a line (with newline) and wait for its acknowledgement. Raises `Failed`."""
        self._connection.sendall(line)
        answer = _acks.decode(self._answers.readline() or b'{"error":"the stream broke"}')
        if answer.error is not None or answer.rejected:
            raise Failed(answer.error or "a line was rejected")


def read_answer(answers: BinaryIO) -> tuple[int, bytes]:
    """The next answer's status and body. Raises `Failed` when there is none."""
    first = answers.readline().split()
    if len(first) < 2:
        raise Failed("the connection broke")
    return int(first[1]), read_body(answers)


def read_body(stream: BinaryIO) -> bytes:
    """The rest of a message behind its first line: the headers, of which the length counts, and the body."""
    length = 0
    for _ in range(MAX_HEAD_LINES):
        line = stream.readline().strip().lower()
        if not line:
            break
        if line.startswith(b"content-length:"):
            length = int(line[15:])
    return stream.read(length)


def stream_events(
    port: int, lines: Iterable[bytes], count: int, on_ack: Callable[[int], None] | None = None
) -> tuple[float, float]:
    """Write ``count`` lines (with newline) over one connection and read acknowledgements until all have theirs.

    ``on_ack`` is told the number so far. Returns when it began and ended (``time.perf_counter``). Raises `Failed`.
    """
    troubles: list[str] = []
    with (
        socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as connection,
        connection.makefile("rb") as answers,
    ):

        def write() -> None:
            waiting = iter(lines)
            try:
                while chunk := b"".join(islice(waiting, WRITE_LINES)):
                    connection.sendall(chunk)
            except OSError as error:  # the reader says why, if the engine does
                troubles.append(str(error))

        began = time.perf_counter()
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        acknowledged = 0
        while acknowledged < count:
            line = answers.readline()
            if not line:
                raise Failed(f"the stream broke behind line {acknowledged:,}: {(troubles or ['closed'])[0]}")
            answer = _acks.decode(line)
            if answer.error is not None or answer.rejected:
                why = answer.error or f"{len(answer.rejected):,} lines were rejected"
                raise Failed(f"the stream behind line {acknowledged:,}: {why}")
            acknowledged = answer.ack
            if on_ack is not None:
                on_ack(acknowledged)
        ended = time.perf_counter()
        writer.join()
        return began, ended
