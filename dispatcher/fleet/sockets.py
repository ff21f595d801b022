"""The listening sockets of a fleet: bound once by the supervisor, inherited by every worker."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

from dispatcher.config import Config, HttpIntakeConfig, ReceiptsConfig, StreamIntakeConfig
from dispatcher.config_parts import parse_listen
from dispatcher.listening import cannot_listen

BACKLOG = 1024
"""Connections that may wait to be accepted: while all workers are being restarted they queue here."""


def sections_to_listen(config: Config, *, intake: bool) -> dict[str, str]:
    """Configuration section -> ``listen`` of what the workers serve. Further listeners are named here and served in
    `dispatcher.doors`. ``intake`` False: receipts only (``send``)."""
    sections: dict[str, ReceiptsConfig | HttpIntakeConfig | StreamIntakeConfig | None] = {"receipts": config.receipts}
    if intake:
        sections |= {"intake.http": config.intake.http, "intake.stream": config.intake.stream}
    return {name: section.listen for name, section in sections.items() if section is not None}


def bind_all(sections: Mapping[str, str]) -> dict[str, socket.socket]:
    """A listening socket for each section. Raises `PortInUse`, and then none is left open."""
    bound: dict[str, socket.socket] = {}
    try:
        for name, text in sections.items():
            bound[name] = _bind(text, f"{name}.listen")
    except BaseException:
        close_all(bound.values())
        raise
    return bound


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close them; what waits for its accept in a socket that no worker holds either is refused."""
    for one in sockets:
        one.close()


def _bind(text: str, key: str) -> socket.socket:
    where = parse_listen(text)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise cannot_listen(error, key, where) from None
    return listener


def scheme_of(config: Config, name: str) -> str:
    """What is spoken on a section's socket, for its URL in the log."""
    if name == "intake.stream":
        return "tcp" if config.intake.stream is None or config.intake.stream.tls_cert_file is None else "tls"
    return "https" if name == "intake.http" and config.intake.http.tls_cert_file is not None else "http"


def url_of(listener: socket.socket, scheme: str) -> str:
    """Where it listens, for the log."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
