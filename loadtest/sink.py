"""A static sink: answers every POST as WeChat would an accepted message, fast, and counts them.

It checks nothing, so that a benchmark measures its client and not the simulation of a provider. For the
loopback interface only. ``python -m loadtest.sink`` prints one line, "listening on http://HOST:PORT", when it
is ready, and stops on SIGTERM or SIGINT. ``GET /_count`` gives ``{"count": n}``; a token is not counted. With
``--receipts-url`` each message has a msgid of its own and is reported to that address a moment later, as WeChat does
(`loadtest.poster`); the count then says also what became of the reports.
"""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import time
from typing import Final

import click
import msgspec

from loadtest.poster import Poster, Report, Target, finish_event

MAX_PENDING_BYTES: Final = 1024 * 1024
"""Bytes of one unfinished request; a client that needs more is not one of ours and is closed."""
TOKEN_PATH: Final = b"/cgi-bin/stable_token"
COUNT_PATH: Final = b"/_count"
MAX_PENDING_REPORTS: Final = 400_000
"""Reports that wait for their time or a slow receiver, about 1 KiB each; what comes beyond is given up at once."""
ACCOUNT_ID: Final = "gh_sink000000000"
OPENID: Final = "oSink0000000000000000000000A"


def _response(body: bytes, status: bytes = b"200 OK") -> bytes:
    return (
        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"  # one line a header
        % (status, len(body), body)
    )


ACCEPTED: Final = _response(b'{"errcode":0,"errmsg":"ok","msgid":1}')
TOKEN: Final = _response(b'{"access_token":"' + b"S" * 136 + b'","expires_in":7200}')


class Reported(msgspec.Struct):
    """What became of the reports: see `loadtest.poster.Tally`."""

    planned: int = 0
    posted: int = 0
    retried: int = 0
    given_up: int = 0


class Counter:
    """Posts answered by all connections."""

    def __init__(self) -> None:
        self.count = 0

    def accept(self) -> bytes:
        """Count one message; its answer."""
        self.count += 1
        return ACCEPTED

    def counts(self) -> bytes:
        """What ``GET /_count`` says."""
        return b'{"count":%d}' % self.count


class ReportingCounter(Counter):
    """Gives each message a msgid of its own, and posts its report ``delay_seconds`` later. Needs the running loop.

    The msgids of one sink begin at its start in microseconds, so those of two do not meet.
    """

    def __init__(self, target: Target, token: str, *, connections: int, delay_seconds: float) -> None:
        super().__init__()
        self.reported = Reported()
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._delay = delay_seconds
        self._first = time.time_ns() // 1000
        self._poster = Poster(token, connections=connections, clock=self._loop.time)
        self._wakes_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._poster.fileno(), self._step)

    def accept(self) -> bytes:
        """See `Counter.accept`."""
        self.count += 1
        self.reported.planned += 1
        msgid = self._first + self.count
        if self._poster.pending >= MAX_PENDING_REPORTS:
            self.reported.given_up += 1
        else:
            event = finish_event(ACCOUNT_ID, OPENID, msgid, "success", time.time())
            report = Report(self._target, "text/xml", event, OPENID, self.reported)
            self._poster.plan(report, self._loop.time() + self._delay)
            self._look_at_the_clock()
        return _response(b'{"errcode":0,"errmsg":"ok","msgid":%d}' % msgid)

    def counts(self) -> bytes:
        """See `Counter.counts`."""
        return msgspec.json.encode({"count": self.count, "receipts": self.reported})

    def _step(self) -> None:
        self._poster.step()
        self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        wake_at = self._poster.wake_at
        if wake_at < self._wakes_at:
            if self._timer is not None:
                self._timer.cancel()
            self._wakes_at = wake_at
            self._timer = self._loop.call_at(wake_at, self._wake)

    def _wake(self) -> None:
        self._wakes_at, self._timer = math.inf, None
        self._step()

    def close(self) -> None:
        """Stop posting; what waits is forgotten."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._poster.fileno())
        self._poster.close()


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
            return self._counter.accept()
        if head.startswith(COUNT_PATH, 4):
            return _response(self._counter.counts())
        return _response(b'{"error":"POST anything, or GET /_count"}', b"404 Not Found")


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    stop = lowered.find(b"\r\n", at + 2)
    number = lowered[at + 17 : stop if stop >= 0 else None].strip()
    return int(number) if number.isdigit() else 0


class Reports(msgspec.Struct, frozen=True, kw_only=True):
    """Where, and how, the messages are reported."""

    url: str
    token: str
    connections: int
    delay_seconds: float


async def serve_sink(host: str, port: int, reports: Reports | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then close every connection. Raises ``OSError`` for a port in use."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    counter = Counter()
    if reports is not None:
        counter = ReportingCounter(
            Target(reports.url), reports.token, connections=reports.connections, delay_seconds=reports.delay_seconds
        )
    # No `async with`: closing a server that way waits for connections that a client keeps open.
    server = await loop.create_server(lambda: SinkProtocol(counter), host, port, backlog=1024)
    bound = server.sockets[0].getsockname()[1]
    click.echo(f"listening on http://{host}:{bound}")
    sys.stdout.flush()
    await stopped.wait()
    server.close()
    if isinstance(counter, ReportingCounter):
        counter.close()


@click.command(name="sink")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="HOST:PORT; port 0 takes any free one.")
@click.option("--receipts-url", help="Post WeChat's delivery event of every message to this address.")
@click.option("--receipts-token", default="simulated-token", show_default=True, help="Signs the events.")
@click.option(
    "--receipts-connections",
    type=click.IntRange(1, 4096),
    default=256,
    show_default=True,
    help="Events on their way at a time, each on a connection that is kept.",
)
@click.option(
    "--receipts-delay", type=click.FloatRange(0, 3600), default=0.05, show_default=True, help="Seconds after the send."
)
def sink_command(
    listen: str,
    receipts_url: str | None,
    receipts_token: str,
    receipts_connections: int,
    receipts_delay: float,
) -> None:
    """A static sink: answers every POST with an accepted template message; GET /_count gives their number."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{listen!r} is not HOST:PORT, such as 127.0.0.1:9000", param_hint="--listen")
    reports = None
    if receipts_url is not None:
        try:
            Target(receipts_url)
        except ValueError as error:
            raise click.BadParameter(f"{receipts_url!r} {error}", param_hint="--receipts-url") from None
        reports = Reports(
            url=receipts_url,
            token=receipts_token,
            connections=receipts_connections,
            delay_seconds=receipts_delay,
        )
    try:
        asyncio.run(serve_sink(host, int(port), reports))
    except OSError as error:
        click.echo(f"sink: cannot listen on {listen}: {error.strerror or error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    sink_command(prog_name="python -m loadtest.sink")
