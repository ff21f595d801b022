"""Where stream intake listens: TCP, TLS with client certificates where configured, a bounded number of connections."""

from __future__ import annotations

import errno
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import trio

from dispatcher.config import StreamIntakeConfig, parse_listen
from dispatcher.config_load import read_token
from dispatcher.engine import Engine
from dispatcher.errors import ConfigurationError, PortInUse
from dispatcher.intake.acks import Acknowledgements
from dispatcher.intake.ndjson import READ_BYTES
from dispatcher.intake.stream import Connection, Ending
from dispatcher.logs import get_logger

MAX_CONNECTIONS = 4096
"""Open connections of a process. A core system keeps a handful; an idle one costs 8 KiB (docs/stream.md), so that all
of them take 32 MB of the process's 200."""

MAX_TLS_CONNECTIONS = 1024
"""The same with TLS, where an idle one costs 29 KiB."""

OTHER_DESCRIPTORS = 512
"""Descriptors kept for the ledger, the providers and the other listeners; connections get what is left."""

READ_BYTES_IN_ALL = 16 * 1024 * 1024
"""Bytes that all connections together may have read and not yet handed over (beside one unfinished line each), so that
a process keeps its memory when every one of them floods: with 64 connections each may read 256 KiB at once, with 4,096
still 4 KiB. A byte read takes almost three as lines (measured: a thousand that flood full lanes)."""

LEAST_READ_BYTES = 4 * 1024
STOP_S = 5.0
"""How long connections may take for their last acknowledgements when the process is told to stop."""

REFUSAL_S = 1.0
"""How long the one line to a connection too many may take."""

log = get_logger("stream")


async def open_listeners(section: StreamIntakeConfig) -> list[trio.SocketListener]:
    """Bind and listen; for a parent process that hands the sockets on by descriptor, see `inherited_listeners`.

    Raises `PortInUse`.
    """
    where = parse_listen(section.listen)
    key = "intake.stream.listen"
    try:
        return await trio.open_tcp_listeners(where.port, host=where.host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"{key}: {where} is in use by another process; stop it or choose another port") from None
        raise PortInUse(f"{key}: cannot listen on {where}: {error.strerror or type(error).__name__}") from None


def inherited_listeners(descriptors: Sequence[int]) -> list[trio.SocketListener]:
    """Listeners of descriptors that listen already; each belongs to its listener from now on."""
    return [trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=one))) for one in descriptors]


def tls_context(section: StreamIntakeConfig) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the section's certificate, client certificates demanded with ``client_ca_file``; None
    without a certificate. Raises `ConfigurationError` that names the key."""
    if section.tls_cert_file is None or section.tls_key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without an answer of ours to its question, OpenSSL would ask the terminal for the password of a key.
        context.load_cert_chain(section.tls_cert_file, section.tls_key_file, password=lambda: b"")
    except (OSError, ValueError):
        raise ConfigurationError(
            f"intake.stream.tls_cert_file: {section.tls_cert_file} and tls_key_file {section.tls_key_file} are not "
            "a certificate chain and its key, PEM, without a password"
        ) from None
    if section.client_ca_file is not None:
        try:
            context.load_verify_locations(section.client_ca_file)
        except (OSError, ValueError):
            raise ConfigurationError(
                f"intake.stream.client_ca_file: {section.client_ca_file} holds no certificate in PEM"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class StreamIntake:
    """The listener of one process and what it has counted: ``connections`` open now; closed because they were
    ``closed_idle`` or did not read (``closed_slow``); ``refused`` for a wrong token, a failed handshake, bytes that
    are no NDJSON, or as one too many.

    Raises `ConfigurationError` when token, certificate or key cannot be read.
    """

    def __init__(self, engine: Engine, section: StreamIntakeConfig) -> None:
        self._engine = engine
        self._section = section
        self._token = read_token(section.token_file, "intake.stream.token_file")
        self._tls = tls_context(section)
        self._open: set[Connection] = set()
        self._stopping = False
        self._places = MAX_CONNECTIONS
        self.closed_idle = 0
        self.closed_slow = 0
        self.refused = 0

    @property
    def connections(self) -> int:
        """Open connections, those in their handshake included."""
        return len(self._open)

    async def serve(
        self,
        listeners: list[trio.SocketListener] | None,
        stop: Callable[[], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``stop`` returns, then read no more, acknowledge what is committed and close, within
        ``STOP_S``. Reports the URL. ``listeners`` None: opens its own, and raises `PortInUse`. Closes them in any case.
        """
        if listeners is None:
            listeners = await open_listeners(self._section)
        wanted = MAX_CONNECTIONS if self._tls is None else MAX_TLS_CONNECTIONS
        self._places = min(wanted, _raise_descriptor_limit())
        if self._places < wanted:
            log.warning("few_connections", allowed=self._places, hint="raise the limit of open files (ulimit -n)")
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(
                    partial(trio.serve_listeners, self._serve_one, listeners, handler_nursery=connections)
                )
                task_status.started(self._url(listeners))
                await stop()
                accepting.cancel_scope.cancel()
            self._stopping = True
            for one in self._open:
                one.end(Ending.STOPPED, "the service is stopping; connect again and go on behind the last ack")
            connections.cancel_scope.deadline = trio.current_time() + STOP_S

    def _url(self, listeners: list[trio.SocketListener]) -> str:
        host, port = listeners[0].socket.getsockname()[:2]
        scheme = "tcp" if self._tls is None else "tls"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @staticmethod
    def read_bytes(connections: int) -> int:
        """How much each of so many open connections may read at once."""
        return min(READ_BYTES, max(LEAST_READ_BYTES, READ_BYTES_IN_ALL // max(1, connections)))

    async def _serve_one(self, plain: trio.SocketStream) -> None:
        if self._stopping:
            return  # trio closes it
        if len(self._open) >= self._places:
            await self._refuse(plain)
            return
        stream = plain if self._tls is None else trio.SSLStream(plain, self._tls, server_side=True)
        connection = Connection(
            self._engine,
            stream,
            idle_seconds=self._section.idle_seconds,
            token=self._token,
            read_bytes=lambda: self.read_bytes(len(self._open)),
        )
        self._open.add(connection)
        if len(self._open) == self._places:
            log.warning("stream_connections_full", open=self._places)
        try:
            self._count(await connection.run())
        except Exception as error:
            log.error("stream_connection_failed", exc_info=error)
        finally:
            self._open.discard(connection)

    async def _refuse(self, plain: trio.SocketStream) -> None:
        self.refused += 1
        if self._tls is None:  # under TLS a line could only follow a handshake, which is what there is no room for
            with trio.move_on_after(REFUSAL_S), suppress(trio.BrokenResourceError):
                await plain.send_all(Acknowledgements().error(f"{self._places} connections are open; come again later"))

    def _count(self, ending: Ending) -> None:
        match ending:
            case Ending.IDLE:
                self.closed_idle += 1
            case Ending.SLOW:
                self.closed_slow += 1
            case Ending.TOKEN | Ending.HANDSHAKE | Ending.FOREIGN:
                self.refused += 1
        # Any stranger can cause the others, as often as he likes, and a wrong token only after its delay.
        loud = ending in (Ending.SLOW, Ending.TOKEN, Ending.LEDGER)
        (log.warning if loud else log.debug)("stream_connection_ended", why=ending.value, open=len(self._open) - 1)


def connections_for(soft: int, hard: int) -> tuple[int, int]:
    """(soft limit of descriptors to set, connections that it leaves room for), from the limits there are."""
    unlimited = resource.RLIM_INFINITY
    wanted = MAX_CONNECTIONS + OTHER_DESCRIPTORS
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
    left = wanted if soft == unlimited else soft
    return soft, max(1, min(MAX_CONNECTIONS, left - OTHER_DESCRIPTORS))


def _raise_descriptor_limit() -> int:
    """Raise the soft limit as far as needed and allowed; returns how many connections there is room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised, connections = connections_for(soft, hard)
    if raised != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return connections
