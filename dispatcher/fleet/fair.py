"""Accepting from a socket that several processes share, so that each gets its part of the connections."""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

YIELD_S = 0.001
"""For each open connection a process waits so long before it takes another one: whoever has fewer is faster. Without it
one process takes nearly all that come while nothing else is going on, and keeps them for days."""

MAX_YIELD_S = 0.02
"""A connection that nobody else takes waits no longer than this."""


class FairListener(trio.abc.Listener[trio.SocketStream]):
    """A listener on an inherited ``descriptor``, which belongs to it from now on; ``connections`` tells how many this
    process has open. Like `trio.SocketListener`, of which there can be no subclass."""

    def __init__(self, descriptor: int, connections: Callable[[], int]) -> None:
        self._listening = socket.socket(fileno=descriptor)
        self.socket = trio.socket.from_stdlib_socket(self._listening)
        self._connections = connections

    async def accept(self) -> trio.SocketStream:
        """The next connection. Raises OSError as `trio.SocketListener.accept` does. Cancelled, it has taken none."""
        while True:
            await trio.lowlevel.wait_readable(self._listening)
            if count := self._connections():
                await trio.sleep(min(count * YIELD_S, MAX_YIELD_S))
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # another process was faster, or the peer has given up
            return trio.SocketStream(trio.socket.from_stdlib_socket(accepted))

    async def aclose(self) -> None:
        """Close the descriptor; those of other processes stay."""
        self.socket.close()
        await trio.lowlevel.checkpoint()
