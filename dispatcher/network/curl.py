"""The network over libcurl's multi handle, in one thread of its own.

libcurl drops the GIL while it works, and a batch crosses between the threads at a time: that is what makes it two to
four times as fast as any client inside the event loop (design.md section 5, docs/performance.md). Some things of
libcurl's have to be minded:

- When a *reused* connection dies before the first byte of an answer, libcurl sends the request again by itself, a POST
  too. It tells nobody, but ``REQUEST_SIZE`` counts the bytes of both, so we see it and report it as ``resends``.
- Its error codes do not say whether anything had left: "could not connect" may be what became of sending it again.
  ``REQUEST_SIZE`` does; the times do not (in libcurl 8.23 a refused connection has a
  ``PRETRANSFER_TIME``).
- ``curl_multi_fdset`` passes over descriptors that select() cannot hold, from 1,024 up, in silence, and asking it for
  every sleep costs a tenth of the thread. libcurl tells us of each socket it makes; an epoll of ours watches them.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pycurl
import trio

from dispatcher.network.api import MAX_BODY_BYTES, Deliver, Failure, Network, PoolSettings, Request, Response
from dispatcher.network.trust import authorities

CONNECT_TIMEOUT_MS = 5_000
"""A provider that does not take a connection within 5 s is down; the request has not left, so trying later is free."""

COMPLETIONS_PER_READ = 128

MAX_SLEEP_MS = 1_000
"""Longest wait for a socket: one that libcurl watches and does not show us (its resolver's) is late by this at most."""

GATHER_S = 0.0003
"""While requests wait for a connection, answers gather for so long before they are looked at: each look costs a
hand-over of the GIL for every answer. While none waits, nobody waits for this."""

LARGE_BODY_BYTES = 32 * 1024
LARGE_SLEEP_MS = 1
"""libcurl hands a body on by 64 KiB and waits for the socket in between, of which an edge tells nothing: while a large
one is under way nobody sleeps for longer. A message has half a KiB."""

HEAD_BYTES = 76
"""Bytes of a request's head beside the URL and our headers: method, version, Host, User-Agent, Accept, Content-Length.
Off by some five bytes for https, a URL without a path or a long Content-Length; the tests measure it."""

_CLOSED_CODE = -1
_REFUSED_CODE = pycurl.E_URL_MALFORMAT

# What setopt raises for a text that libcurl cannot take: outside of ASCII, with a NUL, a number out of range.
_NOT_TAKEN = (pycurl.error, ValueError, TypeError, OverflowError)


class _Pool:
    """Easy handles of one provider, made once and used again; as many as there may be connections."""

    def __init__(self, settings: PoolSettings, on_socket: Callable[[int, int], int]) -> None:
        self.settings = settings
        self.idle = [_Transfer(settings, on_socket) for _ in range(settings.connections)]
        self.waiting: deque[tuple[Request, Deliver]] = deque()


class _Transfer:
    """One easy handle and what it is busy with."""

    __slots__ = (
        "_fresh",
        "_headers",
        "_headers_bytes",
        "_http2",
        "_method",
        "_timeout",
        "_url",
        "body",
        "deliver",
        "easy",
        "head",
        "request",
    )

    def __init__(self, settings: PoolSettings, on_socket: Callable[[int, int], int]) -> None:
        easy = self.easy = pycurl.Curl()
        self.body: list[bytes] = []
        self.head: list[bytes] = []
        self.request: Request | None = None
        self.deliver: Deliver | None = None
        self._url = self._method = ""
        self._headers: tuple[str, ...] | None = None
        self._headers_bytes = 0
        self._timeout: int | None = None
        self._fresh = False
        self._http2 = settings.http2
        easy.transfer = self
        easy.setopt(pycurl.WRITEFUNCTION, self.body.append)
        easy.setopt(pycurl.SOCKOPTFUNCTION, on_socket)
        easy.setopt(pycurl.NOSIGNAL, 1)
        if settings.http2:
            easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
            easy.setopt(pycurl.PIPEWAIT, 1)  # rather wait for a connection to share than open one each
        else:
            # One request a connection at a time: what a connection's death means is only known there, and the number
            # of connections is the operator's to set.
            easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        easy.setopt(pycurl.TCP_NODELAY, 1)
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS)
        easy.setopt(pycurl.MAXFILESIZE, MAX_BODY_BYTES)
        easy.setopt(pycurl.MAXAGE_CONN, settings.max_age_s)
        easy.setopt(pycurl.FOLLOWLOCATION, 0)  # a redirect to another host must not take our token along
        easy.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        easy.setopt(pycurl.PROXY, "")  # no proxy out of the environment: egress is configured, never ambient
        easy.setopt(pycurl.USERAGENT, "swipebell")
        easy.setopt(pycurl.CAINFO, authorities(settings.ca_file))
        if settings.cert_file is not None and settings.key_file is not None:
            easy.setopt(pycurl.SSLCERT, settings.cert_file)
            easy.setopt(pycurl.SSLKEY, settings.key_file)

    def start(self, request: Request, deliver: Deliver) -> None:
        """Set the handle up for a request. Raises one of ``_NOT_TAKEN`` when libcurl cannot be given it."""
        easy = self.easy
        if request.url != self._url:
            easy.setopt(pycurl.URL, request.url)
            self._url = request.url
        if request.headers is not self._headers:
            lines = _header_lines(request.headers)
            easy.setopt(pycurl.HTTPHEADER, lines)
            self._headers = request.headers
            self._headers_bytes = sum(len(line) + 2 for line in lines if not line.endswith(b":"))
        if request.timeout_ms != self._timeout:
            easy.setopt(pycurl.TIMEOUT_MS, max(request.timeout_ms, 1))  # 0 would mean without end
            self._timeout = request.timeout_ms
        if request.fresh != self._fresh:
            easy.setopt(pycurl.FRESH_CONNECT, int(request.fresh))
            easy.setopt(pycurl.FORBID_REUSE, int(request.fresh))
            self._fresh = request.fresh
        if request.method != self._method:
            self._set_method(request.method)
        if request.method not in ("GET", "HEAD"):
            easy.setopt(pycurl.POSTFIELDS, request.body or b"")
        elif request.body:
            raise ValueError("GET and HEAD carry no body")
        if request.want_headers:
            easy.setopt(pycurl.HEADERFUNCTION, self.head.append)
        self.request, self.deliver = request, deliver

    def _set_method(self, method: str) -> None:
        easy = self.easy
        self._method = ""  # of nothing known, should one of these be refused
        easy.unsetopt(pycurl.CUSTOMREQUEST)
        if method == "GET":
            easy.setopt(pycurl.HTTPGET, 1)
        elif method == "HEAD":
            easy.setopt(pycurl.NOBODY, 1)
        else:
            easy.setopt(pycurl.POST, 1)
            if method != "POST":
                if not method.isalpha():
                    raise ValueError("no HTTP method")
                easy.setopt(pycurl.CUSTOMREQUEST, method)
        self._method = method

    def finish(self, code: int = 0) -> tuple[Deliver, Response]:
        """The response of the transfer that just ended (``code``: libcurl's error, 0 when there is an answer)."""
        easy, request, deliver = self.easy, self.request, self.deliver
        assert request is not None
        assert deliver is not None
        failure = None
        status = 0
        if code == 0:
            status = easy.getinfo(pycurl.RESPONSE_CODE)
        elif code == _CLOSED_CODE or easy.getinfo(pycurl.REQUEST_SIZE) > 0:
            failure = Failure.UNKNOWN
        else:
            failure = Failure.NOT_SENT
        response = Response(
            request=request,
            status=status,
            body=b"".join(self.body),
            failure=failure,
            code=code,
            retry_after_s=easy.getinfo(pycurl.RETRY_AFTER) if status in (429, 503) else 0,
            resends=0 if code == _CLOSED_CODE else self._resends(request),
            seconds=easy.getinfo(pycurl.TOTAL_TIME) if code != _CLOSED_CODE else 0.0,
            headers=tuple(self.head),
        )
        self.body.clear()
        self.head.clear()
        if request.want_headers:
            easy.unsetopt(pycurl.HEADERFUNCTION)
        self.request = self.deliver = None
        return deliver, response

    def _resends(self, request: Request) -> int:
        # REQUEST_SIZE counts head and body of every time that the request was sent. What it is for one time is known
        # to some bytes, so the rounded quotient is the number of times; less than half of a request is none. Under
        # HTTP/2 heads are compressed and streams share their connection's bytes, so nothing can be said.
        if self._http2 and self.easy.getinfo(pycurl.INFO_HTTP_VERSION) == pycurl.CURL_HTTP_VERSION_2_0:
            return 0
        sent: int = self.easy.getinfo(pycurl.REQUEST_SIZE)
        once = len(request.url) + HEAD_BYTES + self._headers_bytes + len(request.body or b"")
        return max(0, round(sent / once) - 1)


def _header_lines(headers: Sequence[str]) -> list[bytes]:
    """Our headers as libcurl takes them: ``Name;`` sends an empty one, ``Name:`` sends none where it would add one."""
    lines = [b"Expect:"]
    if not any(line[:13].lower() == "content-type:" for line in headers):
        lines.append(b"Content-Type:")  # libcurl would call any body a form
    for line in headers:
        if "\r" in line or "\n" in line or "\0" in line:
            raise ValueError("a header with a line break")
        name, _, value = line.partition(":")
        lines.append((line if value.strip() else f"{name};").encode("latin-1"))
    return lines


def _is_large(request: Request) -> bool:
    return request.body is not None and len(request.body) > LARGE_BODY_BYTES


class CurlNetwork(Network):
    """`Network` over libcurl. Make it inside trio; ``pools`` names the providers and their connections.

    Requests beyond a pool's connections wait in its queue, which is bounded by what the lanes have in flight; their
    time-out runs from when they get a connection.
    """

    def __init__(self, pools: Mapping[str, PoolSettings]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._sockets = select.epoll()
        self._pools = {name: _Pool(settings, self._on_socket) for name, settings in pools.items()}
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, sum(settings.connections for settings in pools.values()))
        self._inbox: deque[tuple[Sequence[Request], Deliver]] = deque()
        self._outbox: deque[tuple[Deliver, Response]] = deque()
        self._large = 0
        self._notified = False
        self._asleep = False
        self._closing = False
        self._closed = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._sockets.register(self._wake_read, select.EPOLLIN)
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """See `Network.submit`. Raises RuntimeError once it is closed, and KeyError for a pool that there is not."""
        if self._closing:
            raise RuntimeError("the network is closed")
        for request in requests:
            if request.pool not in self._pools:
                raise KeyError(f"no pool {request.pool!r}")
        self._inbox.append((requests, deliver))
        if self._asleep:
            self._asleep = False  # one byte a sleep: the pipe never fills
            os.write(self._wake_write, b"\0")

    async def aclose(self) -> None:
        """See `Network.aclose`."""
        if self._closed:
            return
        self._closed = self._closing = True
        os.write(self._wake_write, b"\0")
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)
            await trio.lowlevel.checkpoint()
        self._drain_outbox()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._sockets.close()

    # ---- in the network's thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        active: set[_Transfer] = set()
        try:
            while not self._closing:
                self._take_inbox()
                self._start_waiting(active)
                self._multi.perform()
                found = self._collect(active)
                if found:  # a connection that is free again sends before anybody sleeps
                    continue
                self._sleep()
                if any(pool.waiting for pool in self._pools.values()):
                    time.sleep(GATHER_S)
        finally:
            # Also when a defect ends this thread: nobody must wait for ever, and the next batch be refused.
            self._closing = True
            self._end_all(active)
            self._notify()

    def _end_all(self, active: set[_Transfer]) -> None:
        self._take_inbox()
        for pool in self._pools.values():
            self._outbox.extend(
                (deliver, Response(request, 0, b"", Failure.NOT_SENT, _CLOSED_CODE))
                for request, deliver in pool.waiting
            )
        for transfer in active:
            self._multi.remove_handle(transfer.easy)
            self._outbox.append(transfer.finish(_CLOSED_CODE))
            transfer.easy.close()
        for pool in self._pools.values():
            for transfer in pool.idle:
                transfer.easy.close()
        self._multi.close()

    def _notify(self) -> None:
        if self._outbox and not self._notified:
            self._notified = True
            try:
                self._token.run_sync_soon(self._drain_outbox)
            except trio.RunFinishedError:  # the run ended without closing us: nobody is left to hear
                self._closing = True

    def _on_socket(self, descriptor: int, _purpose: int) -> int:
        # Edges, because libcurl does not say what it waits for; it reads and writes until nothing more goes.
        # A descriptor that is closed leaves the epoll by itself.
        self._sockets.register(descriptor, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        return 0

    def _take_inbox(self) -> None:
        while self._inbox:
            requests, deliver = self._inbox.popleft()
            for request in requests:
                self._pools[request.pool].waiting.append((request, deliver))

    def _start_waiting(self, active: set[_Transfer]) -> None:
        for pool in self._pools.values():
            while pool.waiting and pool.idle:
                transfer = pool.idle.pop()
                request, deliver = pool.waiting.popleft()
                try:
                    transfer.start(request, deliver)
                    self._multi.add_handle(transfer.easy)
                except _NOT_TAKEN:
                    self._outbox.append((deliver, Response(request, 0, b"", Failure.NOT_SENT, _REFUSED_CODE)))
                    pool.idle.append(transfer)
                else:
                    active.add(transfer)
                    self._large += _is_large(request)

    def _collect(self, active: set[_Transfer]) -> bool:
        """Take what has ended; True when something had, so that new requests can start before we sleep."""
        found = False
        while True:
            left, finished, failed = self._multi.info_read(COMPLETIONS_PER_READ)
            for easy in finished:
                self._end(easy, 0, active)
            for easy, code, _message in failed:
                self._end(easy, code, active)
            found = found or bool(finished or failed)
            if not left:
                break
        self._notify()
        return found

    def _end(self, easy: Any, code: int, active: set[_Transfer]) -> None:
        transfer: _Transfer = easy.transfer
        self._multi.remove_handle(easy)
        assert transfer.request is not None
        pool = self._pools[transfer.request.pool]
        self._large -= _is_large(transfer.request)
        self._outbox.append(transfer.finish(code))
        active.discard(transfer)
        pool.idle.append(transfer)

    def _sleep(self) -> None:
        timeout = self._multi.timeout()
        self._asleep = True
        try:
            if self._inbox or self._closing:  # it came between our look and the flag
                return
            longest = LARGE_SLEEP_MS if self._large else MAX_SLEEP_MS
            events = self._sockets.poll((min(timeout, longest) if timeout >= 0 else longest) / 1000)
        finally:
            self._asleep = False
        for descriptor, _ in events:
            if descriptor == self._wake_read:
                os.read(self._wake_read, 4096)

    # ---- in trio's thread -------------------------------------------------------------------------------------

    def _drain_outbox(self) -> None:
        self._notified = False
        batches: dict[Deliver, list[Response]] = {}
        while self._outbox:
            deliver, response = self._outbox.popleft()
            batches.setdefault(deliver, []).append(response)
        for deliver, responses in batches.items():
            deliver(responses)
