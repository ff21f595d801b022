"""The server: accepts, polls every connection in one task, and looks after those that need more."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from dispatcher.httpd.api import Handler, Limits, Refused
from dispatcher.httpd.connection import Connection, Need

ACCEPTED_AT_ONCE: Final = 8
"""New connections of one turn: so many of a burst, then the older ones have theirs, and other processes that share the
socket have the chance to take some."""

TURN: Final = 64
"""Connections served before other tasks may run: about 2 ms."""

REFUSED_AT_ONCE: Final = 64
"""Connections over the limit that are told so; beyond them a flood is closed without a word."""

OVERLOADED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
ACCEPT_PAUSE_S: Final = 0.1
"""How long no connection is accepted when the system has no descriptor for it: asking again at once would spin."""

SWEEP_S: Final = 1.0
"""How often deadlines are looked at: a client is closed so much late at most, and a look at 1,000 costs 0.1 ms."""

DEFAULT_LIMITS: Final = Limits()


async def serve_http(
    handler: Handler,
    listeners: Sequence[trio.SocketListener],
    *,
    limits: Limits = DEFAULT_LIMITS,
    stop: Callable[[], Awaitable[object]] = trio.sleep_forever,
    refused: Refused | None = None,
) -> None:
    """Serve until ``stop`` returns; the listening sockets are taken over, and closed at the end.

    After ``stop`` nothing is accepted, connections at rest are closed, and requests that are being read or
    answered have ``Limits.stop_seconds``. Cancelled, it closes every connection at once, answered or not. An
    exception of ``handler`` ends the server and is raised. ``refused`` is told what the server refuses by itself.
    """
    server = _Server(handler, limits, refused, [socket.socket(fileno=one.socket.detach()) for one in listeners])
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.poll, nursery)
            nursery.start_soon(server.sweep)
            await stop()
            await server.drain()
            nursery.cancel_scope.cancel()
    finally:
        server.close()


class _Server:
    """Owns the sockets: all polled by one task, but for those that wait in a task of their own."""

    def __init__(
        self, handler: Handler, limits: Limits, refused: Refused | None, listeners: list[socket.socket]
    ) -> None:
        self._handler = handler
        self._refused = refused
        self._limits = limits
        self._listeners = listeners
        self._selector = selectors.DefaultSelector()
        self._open: set[Connection] = set()
        self._nursery: trio.Nursery | None = None
        self._accepting = False
        self._stopping = False
        self._all_closed = trio.Event()
        for listener in listeners:
            listener.setblocking(False)
        self._listen()

    # ---- the polling task -------------------------------------------------------------------------------------

    async def poll(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        served = 0
        while True:
            await trio.lowlevel.wait_readable(self._selector.fileno())
            for key, _ in self._selector.select(0):
                if key.data is None:
                    self._accept(key.fileobj)  # type: ignore[arg-type]
                elif key.data.polled:  # or it has changed since the look
                    self._step(key.data, key.data.read)
                served += 1
                if served % TURN == 0:
                    await trio.lowlevel.checkpoint()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if not self._accepting:
                return
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OVERLOADED:
                    self._stop_accepting()
                    self._start(self._accept_again)
                continue  # otherwise that client has gone again
            sock.setblocking(False)
            if len(self._open) >= self._limits.connections + REFUSED_AT_ONCE:
                sock.close()
                continue
            with contextlib.suppress(OSError):  # an answer must not wait for the acknowledgement of the last
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, self._handler, self._limits, self._answered, self._refused)
            self._open.add(connection)
            if len(self._open) > self._limits.connections:
                connection.refuse(503, "too many connections")
                self._settle(connection)
            else:  # its request is there already, most of the time
                self._step(connection, connection.read)

    def _listen(self) -> None:
        self._accepting = True
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ, None)

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._selector.unregister(listener)

    async def _accept_again(self) -> None:
        await trio.sleep(ACCEPT_PAUSE_S)
        if not self._stopping:
            self._listen()

    # ---- one connection ---------------------------------------------------------------------------------------

    def _answered(self, connection: Connection) -> None:
        if not (connection.closed or connection.in_task):  # its task will see it
            self._step(connection, connection.advance)

    def _step(self, connection: Connection, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError:  # the client went away; it will know what it missed
            self._drop(connection)
        else:
            self._settle(connection)

    def _settle(self, connection: Connection) -> None:
        """See to it that somebody looks at the connection when it gets what it needs."""
        need = connection.need
        if need is Need.REQUEST:
            if not connection.polled:
                self._selector.register(connection.sock, selectors.EVENT_READ, connection)
                connection.polled = True
            return
        if need is Need.NOTHING:
            self._drop(connection)
            return
        self._unpoll(connection)
        if need is Need.ROOM:
            connection.in_task = True
            self._start(self._wait_for_room, connection)

    async def _wait_for_room(self, connection: Connection) -> None:
        try:
            await connection.wait_for_room()
        except OSError:
            self._drop(connection)
            return
        connection.in_task = False
        self._step(connection, connection.advance)

    def _unpoll(self, connection: Connection) -> None:
        if connection.polled:
            connection.polled = False
            self._selector.unregister(connection.sock)

    def _drop(self, connection: Connection) -> None:
        self._unpoll(connection)
        connection.closed = True
        connection.sock.close()
        self._open.discard(connection)
        if not self._open:
            self._all_closed.set()

    def _start(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(task, *arguments)

    # ---- time, and the end ------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Close those that are overdue, for ever."""
        while True:
            await trio.sleep(SWEEP_S)
            now = trio.current_time()
            for connection in [one for one in self._open if one.polled and one.deadline <= now]:
                connection.overdue()
                self._settle(connection)

    async def drain(self) -> None:
        """Stop accepting, and wait until what is being read or answered is done; for `Limits.stop_seconds`."""
        for listener in self._listeners:  # who has connected already is not turned away
            self._accept(listener)
        self._stopping = True
        self._stop_accepting()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._open):
            connection.stopping = True
            if connection.polled:  # a request may have come that nobody has looked at
                self._step(connection, connection.read)
        with trio.move_on_after(self._limits.stop_seconds):
            while self._open:
                self._all_closed = trio.Event()
                await self._all_closed.wait()

    def close(self) -> None:
        self._selector.close()
        for sock in (*self._listeners, *(connection.sock for connection in self._open)):
            sock.close()
        for connection in self._open:
            connection.closed = True
