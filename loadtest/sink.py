"""A static sink: answers every POST as WeChat would an accepted message, fast, and counts them.

It checks nothing, so that a benchmark measures its client and not the simulation of a provider. For the
loopback interface only. ``python -m loadtest.sink`` prints one line, "listening on http://HOST:PORT", when it
is ready, and stops on SIGTERM or SIGINT. ``GET /_count`` gives ``{"count": n}``; a token is not counted.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final

import click

MAX_PENDING_BYTES: Final = 1024 * 1024
"""Bytes of one unfinished request; a client that needs more is not one of ours and is closed."""
TOKEN_PATH: Final = b"/cgi-bin/stable_token"
COUNT_PATH: Final = b"/_count"


def _response(body: bytes, status: bytes = b"200 OK") -> bytes:
    return (
        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"  # one line a header
        % (status, len(body), body)
    )


ACCEPTED: Final = _response(b'{"errcode":0,"errmsg":"ok","msgid":1}')
TOKEN: Final = _response(b'{"access_token":"' + b"S" * 136 + b'","expires_in":7200}')


class Counter:
    """Posts answered by all connections."""

    def __init__(self) -> None:
        self.count = 0


class SinkProtocol(asyncio.Protocol):
    """One connection; just enough HTTP to find where a request ends: no chunked bodies, no 100-continue."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._transport: asyncio.Transport | None = None
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._pending:
            data = self._pending + data
        answers: list[bytes] = []
        start = 0
        while (header_end := data.find(b"\r\n\r\n", start)) >= 0:
            head = data[start:header_end]
            end = header_end + 4 + _content_length(head)
            if len(data) < end:
                break
            start = end
            answers.append(self._answer(head))
        self._pending = data[start:]
        if answers:
            self._transport.write(b"".join(answers))
        if len(self._pending) > MAX_PENDING_BYTES:
            self._transport.close()

    def _answer(self, head: bytes) -> bytes:
        if head.startswith(b"POST "):
            if head.startswith(TOKEN_PATH, 5):
                return TOKEN
            self._counter.count += 1
            return ACCEPTED
        if head.startswith(COUNT_PATH, 4):
            return _response(b'{"count":%d}' % self._counter.count)
        return _response(b'{"error":"POST anything, or GET /_count"}', b"404 Not Found")


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    stop = lowered.find(b"\r\n", at + 2)
    number = lowered[at + 17 : stop if stop >= 0 else None].strip()
    return int(number) if number.isdigit() else 0


async def serve_sink(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then close every connection. Raises ``OSError`` for a port in use."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    counter = Counter()
    # No `async with`: closing a server that way waits for connections that a client keeps open.
    server = await loop.create_server(lambda: SinkProtocol(counter), host, port, backlog=1024)
    bound = server.sockets[0].getsockname()[1]
    click.echo(f"listening on http://{host}:{bound}")
    sys.stdout.flush()
    await stopped.wait()
    server.close()


@click.command(name="sink")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="HOST:PORT; port 0 takes any free one.")
def sink_command(listen: str) -> None:
    """A static sink: answers every POST with an accepted template message; GET /_count gives their number."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{listen!r} is not HOST:PORT, such as 127.0.0.1:9000", param_hint="--listen")
    try:
        asyncio.run(serve_sink(host, int(port)))
    except OSError as error:
        click.echo(f"sink: cannot listen on {listen}: {error.strerror or error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    sink_command(prog_name="python -m loadtest.sink")
