"""A sink inside the bench that notes when each request comes off the wire, for swipes that come alone."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from loadtest.bench.clients import read_body
from loadtest.bench.figures import Failed
from loadtest.bench.sinks import Sink
from loadtest.sink import ACCEPTED, TOKEN, TOKEN_PATH

MESSAGE_PATH: Final = b"/message/template/send"
WIRE_S: Final = 10.0
"""A lone swipe that has not come by then does not come."""


class WireSink:
    """``url`` is where it listens; a thread for each connection, of which a lone swipe needs one."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.sink = Sink(f"http://127.0.0.1:{self._listener.getsockname()[1]}")
        self._arrivals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._connections: list[socket.socket] = []

    def arrival_ns(self) -> int:
        """When the next message arrived, epoch nanoseconds; waits for it. Raises `Failed` when none comes."""
        try:
            return self._arrivals.get(timeout=WIRE_S)
        except queue.Empty:
            raise Failed(f"a swipe did not reach the provider within {WIRE_S:.0f} seconds") from None

    def serve(self) -> None:
        """Accept connections until `close`."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as requests:
            try:
                while line := requests.readline():
                    arrived = time.time_ns()
                    connection.sendall(self._handle(line, requests, arrived))
            except OSError:  # the engine has closed it, or we have
                return

    def _handle(self, line: bytes, requests: BinaryIO, arrived: int) -> bytes:
        read_body(requests)
        if TOKEN_PATH in line:
            return TOKEN
        if MESSAGE_PATH in line:  # and not the quota, which is read as well
            self._arrivals.put(arrived)
        return ACCEPTED

    def close(self) -> None:
        """Stop listening and hang up."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@contextmanager
def wire_sink() -> Iterator[WireSink]:
    """One such sink, closed on leaving."""
    sink = WireSink()
    thread = threading.Thread(target=sink.serve, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.close()
        thread.join()
