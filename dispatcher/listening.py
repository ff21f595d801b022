"""Listening sockets: opened where a section of the configuration says, or inherited from a parent process."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

import trio

from dispatcher.config_parts import Address, parse_listen
from dispatcher.errors import PortInUse


async def open_listeners(listen: str, key: str) -> list[trio.SocketListener]:
    """Bind and listen at ``listen`` (HOST:PORT); ``key`` is the configuration key for the error. Raises `PortInUse`."""
    where = parse_listen(listen)
    try:
        return await trio.open_tcp_listeners(where.port, host=where.host)
    except OSError as error:
        raise cannot_listen(error, key, where) from None


def inherited_listeners(descriptors: Sequence[int]) -> list[trio.SocketListener]:
    """Listeners of descriptors that listen already; each belongs to its listener from now on."""
    return [trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=one))) for one in descriptors]


def url_of(listeners: Sequence[trio.SocketListener], scheme: str = "http") -> str:
    """Where the first of them listens."""
    host, port = listeners[0].socket.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def cannot_listen(error: OSError, key: str, where: Address) -> PortInUse:
    """What to say of an error in binding: one line with the configuration key."""
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"{key}: {where} is in use by another process; stop it or choose another port")
    return PortInUse(f"{key}: cannot listen on {where}: {error.strerror or type(error).__name__}")
