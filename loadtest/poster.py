"""Posts delivery reports as WeChat does: signed, each on a connection of its own while it waits, three tries.

It knows no event loop: whoever owns it calls ``step`` when ``fileno`` is readable or ``wake_at`` has come, so the
asyncio sink and the simulated providers on trio post with the same code. A task per report would cost more than the
report. Signature, tries and time-out are from providers.md sections 3 and 5.1.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import math
import random
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import quote, urlsplit

import httptools

TRIES: Final = 3
TIMEOUT_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
"""Before a report is tried again that was refused or found nobody: time for a receiver to restart. After a time-out it
has waited long enough."""
TICK_SECONDS: Final = 0.005
"""How late a report may start; waking up once for many is cheaper than for each."""
READ_BYTES: Final = 16 * 1024
"""One read of an answer; a receiver of ours answers in 150 bytes."""
MAX_ANSWER_BYTES: Final = 64 * 1024
"""A receiver that answers more has something else on its mind; its connection is closed."""


class Tally(Protocol):
    """Where a report is counted: ``posted`` was taken, ``given_up`` was not after the last try."""

    posted: int
    retried: int
    given_up: int


class Target:
    """Where reports go. Raises ``ValueError``, which says what is wrong, unless ``url`` is http://HOST[:PORT][/PATH]."""

    def __init__(self, url: str) -> None:
        if not url.startswith("http://"):
            raise ValueError("does not begin with http:// (a receiver behind TLS has a proxy before it)")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("is not http://HOST[:PORT][/PATH]") from None
        if not parts.hostname or parts.username or any(c <= " " or c in "?#" or not c.isascii() for c in url):
            raise ValueError("is not http://HOST[:PORT][/PATH], without a query")
        self.address = (parts.hostname, 80 if port is None else port)
        self.path = parts.path or "/"
        self.host = parts.netloc


class Report:
    """One report. ``openid`` stands in the query; without one the receiver's 200 alone counts as taken.

    ``encrypted`` is the text of the body's ``Encrypt`` element, which is signed as well (providers.md section 5.2).
    """

    __slots__ = ("body", "content_type", "encrypted", "openid", "tally", "target", "tries")

    def __init__(
        self,
        target: Target,
        content_type: str,
        body: bytes,
        openid: str | None,
        tally: Tally,
        encrypted: str | None = None,
    ) -> None:
        self.target = target
        self.content_type = content_type
        self.body = body
        self.openid = openid
        self.tally = tally
        self.encrypted = encrypted
        self.tries = 0

    def again(self) -> Report:
        """The same report as one more, with tries of its own."""
        return Report(self.target, self.content_type, self.body, self.openid, self.tally, self.encrypted)


def finish_event(account: str, openid: str, msgid: int, status: str, at: float) -> bytes:
    """The TEMPLATESENDJOBFINISH event of a message; ``at`` is epoch seconds (providers.md section 3)."""
    return (
        f"<xml><ToUserName><![CDATA[{account}]]></ToUserName>\n"
        f"<FromUserName><![CDATA[{openid}]]></FromUserName><CreateTime>{int(at)}</CreateTime>\n"
        "<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[TEMPLATESENDJOBFINISH]]></Event>\n"
        f"<MsgID>{msgid}</MsgID><Status><![CDATA[{status}]]></Status></xml>"
    ).encode()


def signature(token: str, timestamp: str, nonce: str, *encrypted: str) -> str:
    """WeChat's signature of a callback: SHA-1 of the three, or of four with what is encrypted, sorted and joined."""
    signed = "".join(sorted([token, timestamp, nonce, *encrypted]))
    return hashlib.sha1(signed.encode()).hexdigest()  # noqa: S324 - WeChat's choice


def _plain(text: str) -> bool:
    return text.isascii() and text.isalnum()


class Poster:
    """Holds reports until their time and posts them over ``connections`` keep-alive connections to each address.

    ``clock`` gives the seconds of ``plan`` and ``wake_at``. Not for more than one thread.
    """

    def __init__(self, token: str, *, connections: int, clock: Callable[[], float]) -> None:
        self._token = token
        self._connections = connections
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._nonces = random.Random()  # noqa: S311 - they make signatures differ, and guard nothing here
        self._order = itertools.count()
        self._not_before = -math.inf
        self._planned: list[tuple[float, int, Report]] = []
        self._due: dict[tuple[str, int], deque[Report]] = {}
        self._idle: dict[tuple[str, int], list[_Connection]] = {}
        self._open: dict[tuple[str, int], int] = {}
        self._time_outs: deque[tuple[float, _Connection, int]] = deque()

    @property
    def pending(self) -> int:
        """Reports whose time has not come, or that wait for a connection."""
        return len(self._planned) + sum(map(len, self._due.values()))

    def fileno(self) -> int:
        """Readable when ``step`` has something to do."""
        return self._selector.fileno()

    @property
    def wake_at(self) -> float:
        """When ``step`` wants to be called, if ``fileno`` is not readable before; infinity: never.

        It changes with every ``plan`` and ``step``.
        """
        due = self._planned[0][0] if self._planned else math.inf
        time_out = self._time_outs[0][0] if self._time_outs else math.inf
        return max(min(due, time_out), self._not_before)

    def plan(self, report: Report, at: float) -> None:
        """Post ``report`` at ``at`` or up to a tick later."""
        heapq.heappush(self._planned, (at, next(self._order), report))

    def step(self) -> None:
        """Do all that can be done now; never blocks, but for the name of a host that is not on this machine."""
        for key, _ in self._selector.select(0):
            key.data.advance()
        now = self._clock()
        self._not_before = now + TICK_SECONDS
        while self._time_outs and self._time_outs[0][0] <= now:
            _, connection, number = self._time_outs.popleft()
            if connection.number == number and connection.report is not None:
                self.lost(connection, wait_seconds=0.0)
        while self._planned and self._planned[0][0] <= now:
            self._start(heapq.heappop(self._planned)[2])

    def close(self) -> None:
        """Close every connection; what has not been posted is forgotten."""
        for key in list(self._selector.get_map().values()):
            key.data.sock.close()
        self._selector.close()

    def _start(self, report: Report) -> None:
        self._due.setdefault(report.target.address, deque()).append(report)
        self._post_due(report.target.address)

    def _post_due(self, address: tuple[str, int]) -> None:
        """Post what is due as far as there are connections for it."""
        due, idle = self._due.get(address), self._idle.setdefault(address, [])
        while due:
            if idle:
                self._send(idle.pop(), due.popleft())
            elif self._open.get(address, 0) < self._connections:
                report = due.popleft()
                connection = self._connect(address)
                if connection is None:
                    self._not_taken(report, RETRY_SECONDS)
                else:
                    self._send(connection, report)
            else:
                return

    def _connect(self, address: tuple[str, int]) -> _Connection | None:
        sock = None
        try:
            family, kind, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
            sock = socket.socket(family, kind)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(where)
        except OSError:
            if sock is not None:
                sock.close()
            return None
        self._open[address] = self._open.get(address, 0) + 1
        connection = _Connection(sock, address, self)
        self._selector.register(sock, selectors.EVENT_READ, connection)
        return connection

    def _send(self, connection: _Connection, report: Report) -> None:
        connection.send(report, self._request(report))
        self._time_outs.append((self._clock() + TIMEOUT_SECONDS, connection, connection.number))

    def _request(self, report: Report) -> bytes:
        timestamp, nonce = str(int(time.time())), str(self._nonces.getrandbits(30))
        query = f"signature={signature(self._token, timestamp, nonce)}&timestamp={timestamp}&nonce={nonce}"
        if report.openid is not None:
            query += f"&openid={report.openid if _plain(report.openid) else quote(report.openid, safe='')}"
        if report.encrypted is not None:
            proof = signature(self._token, timestamp, nonce, report.encrypted)
            query += f"&encrypt_type=aes&msg_signature={proof}"
        return (
            f"POST {report.target.path}?{query} HTTP/1.1\r\nHost: {report.target.host}\r\nUser-Agent: Mozilla/4.0\r\n"
            f"Accept: */*\r\nContent-Type: {report.content_type}\r\nContent-Length: {len(report.body)}\r\n\r\n"
        ).encode() + report.body

    # ---- words from the connections ---------------------------------------------------------------------------

    def watch(self, connection: _Connection, events: int) -> None:
        self._selector.modify(connection.sock, events, connection)

    def answered(self, connection: _Connection, status: int, body: bytes, *, keep_alive: bool) -> None:
        """WeChat wants ``success`` or nothing; for a text message the status alone counts."""
        report = connection.report
        assert report is not None
        connection.report = None
        if keep_alive:
            self._idle.setdefault(connection.address, []).append(connection)
        else:
            self._forget(connection)
        if status == 200 and (report.openid is None or body in (b"", b"success")):
            report.tally.posted += 1
        else:
            self._not_taken(report, RETRY_SECONDS)
        self._post_due(connection.address)

    def lost(self, connection: _Connection, *, wait_seconds: float = RETRY_SECONDS) -> None:
        """It was closed, makes no sense, or has been silent for too long."""
        self._forget(connection)
        report, connection.report = connection.report, None
        if report is None:
            self._idle[connection.address].remove(connection)
        else:
            self._not_taken(report, wait_seconds)
        self._post_due(connection.address)

    def _forget(self, connection: _Connection) -> None:
        self._selector.unregister(connection.sock)
        connection.sock.close()
        self._open[connection.address] -= 1

    def _not_taken(self, report: Report, wait_seconds: float) -> None:
        report.tries += 1
        if report.tries == TRIES:
            report.tally.given_up += 1
        else:
            report.tally.retried += 1
            self.plan(report, self._clock() + wait_seconds)


class _Connection:
    """One keep-alive connection, and the report that waits for its answer on it; ``number`` counts them."""

    def __init__(self, sock: socket.socket, address: tuple[str, int], poster: Poster) -> None:
        self.sock = sock
        self.address = address
        self.report: Report | None = None
        self.number = 0
        self._poster = poster
        self._parser = httptools.HttpResponseParser(self)
        self._unsent = b""
        self._waits_to_send = False
        self._body = b""
        self._complete = False
        self._keep_alive = False

    def send(self, report: Report, request: bytes) -> None:
        self.report = report
        self.number += 1
        self._body, self._complete = b"", False
        self._unsent = request
        self._send()

    def _send(self) -> None:
        # Still connecting, or refused: the selector will say which.
        with contextlib.suppress(OSError):
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        if bool(self._unsent) != self._waits_to_send:
            self._waits_to_send = not self._waits_to_send
            writes = selectors.EVENT_WRITE if self._waits_to_send else 0
            self._poster.watch(self, selectors.EVENT_READ | writes)

    def advance(self) -> None:
        """Something can be read, or sent."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            if self._unsent:
                self._send()
            return
        except OSError:
            data = b""
        if not data or self.report is None:  # also when it speaks without being asked
            self._poster.lost(self)
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._poster.lost(self)
            return
        if self._complete:
            self._poster.answered(self, self._parser.get_status_code(), self._body, keep_alive=self._keep_alive)
        elif len(self._body) > MAX_ANSWER_BYTES:
            self._poster.lost(self)

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()  # the parser has forgotten it afterwards
