"""The network over libcurl's multi handle, in one thread of its own.

libcurl drops the GIL while it works, and a batch crosses between the threads at a time: that is what makes it two to
four times as fast as any client inside the event loop (design.md section 5, docs/performance.md). Two things of
libcurl's have to be minded:

- When a *reused* connection dies before the first byte of an answer, libcurl sends the request again by itself, a POST
  too. It tells nobody, but ``REQUEST_SIZE`` counts the bytes of both, so we see it and report it as ``resends``.
- Its error codes do not say whether anything had left. ``PRETRANSFER_TIME`` does: it is 0 until the connection stands.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import certifi
import pycurl
import trio

from dispatcher.network.api import MAX_BODY_BYTES, Deliver, Failure, Network, PoolSettings, Request, Response

CONNECT_TIMEOUT_MS = 5_000
"""A provider that does not take a connection within 5 s is down; the request has not left, so trying later is free."""

COMPLETIONS_PER_READ = 128

_CLOSED_CODE = -1


class _Pool:
    """Easy handles of one provider, made once and used again; as many as there may be connections."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.idle = [_Transfer(settings) for _ in range(settings.connections)]
        self.waiting: deque[tuple[Request, Deliver]] = deque()


class _Transfer:
    """One easy handle and what it is busy with."""

    __slots__ = (
        "_fresh",
        "_headers",
        "_method",
        "_timeout",
        "_url",
        "body",
        "deliver",
        "easy",
        "head",
        "request",
    )

    def __init__(self, settings: PoolSettings) -> None:
        easy = self.easy = pycurl.Curl()
        self.body: list[bytes] = []
        self.head: list[bytes] = []
        self.request: Request | None = None
        self.deliver: Deliver | None = None
        self._url = self._method = ""
        self._headers: tuple[str, ...] | None = None
        self._timeout = -1
        self._fresh = False
        easy.transfer = self
        easy.setopt(pycurl.WRITEFUNCTION, self.body.append)
        easy.setopt(pycurl.NOSIGNAL, 1)
        easy.setopt(pycurl.TCP_NODELAY, 1)
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS)
        easy.setopt(pycurl.MAXFILESIZE, MAX_BODY_BYTES)
        easy.setopt(pycurl.MAXAGE_CONN, settings.max_age_s)
        easy.setopt(pycurl.FOLLOWLOCATION, 0)  # a redirect to another host must not take our token along
        easy.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        easy.setopt(pycurl.PROXY, "")  # no proxy out of the environment: egress is configured, never ambient
        easy.setopt(pycurl.USERAGENT, "swipebell")
        easy.setopt(pycurl.CAINFO, settings.ca_file or os.environ.get("SSL_CERT_FILE") or certifi.where())

    def start(self, request: Request, deliver: Deliver) -> None:
        easy = self.easy
        self.request, self.deliver = request, deliver
        if request.url != self._url:
            easy.setopt(pycurl.URL, request.url)
            self._url = request.url
        if request.headers is not self._headers:
            easy.setopt(pycurl.HTTPHEADER, ["Expect:", *request.headers])
            self._headers = request.headers
        if request.timeout_ms != self._timeout:
            easy.setopt(pycurl.TIMEOUT_MS, request.timeout_ms)
            self._timeout = request.timeout_ms
        if request.fresh != self._fresh:
            easy.setopt(pycurl.FRESH_CONNECT, int(request.fresh))
            easy.setopt(pycurl.FORBID_REUSE, int(request.fresh))
            self._fresh = request.fresh
        if request.method != self._method:
            if request.method == "GET":
                easy.setopt(pycurl.HTTPGET, 1)
            else:
                easy.setopt(pycurl.POST, 1)
            if request.method not in ("GET", "POST"):
                easy.setopt(pycurl.CUSTOMREQUEST, request.method)
            elif self._method not in ("", "GET", "POST"):
                easy.unsetopt(pycurl.CUSTOMREQUEST)
            self._method = request.method
        if request.method != "GET":
            easy.setopt(pycurl.POSTFIELDS, request.body or b"")
        if request.want_headers:
            easy.setopt(pycurl.HEADERFUNCTION, self.head.append)

    def finish(self, code: int = 0) -> tuple[Deliver, Response]:
        """The response of the transfer that just ended (``code``: libcurl's error, 0 when there is an answer)."""
        easy, request, deliver = self.easy, self.request, self.deliver
        assert request is not None
        assert deliver is not None
        failure = None
        status = 0
        if code == 0:
            status = easy.getinfo(pycurl.RESPONSE_CODE)
        elif code == _CLOSED_CODE or easy.getinfo(pycurl.PRETRANSFER_TIME) > 0:
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
        if request.want_headers:
            self.head.clear()
            easy.unsetopt(pycurl.HEADERFUNCTION)
        self.request = self.deliver = None
        return deliver, response

    def _resends(self, request: Request) -> int:
        # REQUEST_SIZE counts head and body of every time the request was sent. The head is the URL, our headers and
        # some 130 bytes of libcurl's (host, agent, length); a rounded quotient is safe from any guess within a third.
        sent = self.easy.getinfo(pycurl.REQUEST_SIZE)
        once = len(request.url) + sum(map(len, request.headers)) + len(request.body or b"") + 130
        return max(0, round(sent / once) - 1) if sent > once * 1.4 else 0


class CurlNetwork(Network):
    """`Network` over libcurl. Make it inside trio; ``pools`` names the providers and their connections.

    Requests beyond a pool's connections wait in its queue, which is bounded by what the lanes have in flight; their
    time-out runs from when they get a connection.
    """

    def __init__(self, pools: Mapping[str, PoolSettings]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._pools = {name: _Pool(settings) for name, settings in pools.items()}
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, sum(settings.connections for settings in pools.values()))
        self._inbox: deque[tuple[Sequence[Request], Deliver]] = deque()
        self._outbox: deque[tuple[Deliver, Response]] = deque()
        self._notified = False
        self._asleep = False
        self._closing = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """See `Network.submit`."""
        if self._closing:
            raise RuntimeError("the network is closed")
        self._inbox.append((requests, deliver))
        if self._asleep:
            os.write(self._wake_write, b"\0")

    async def aclose(self) -> None:
        """See `Network.aclose`."""
        if self._closing:
            return
        self._closing = True
        os.write(self._wake_write, b"\0")
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)
            await trio.lowlevel.checkpoint()
        self._drain_outbox()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # ---- in the network's thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        active: set[_Transfer] = set()
        while not self._closing:
            self._take_inbox()
            self._start_waiting(active)
            self._multi.perform()
            if not self._collect(active):
                self._sleep()
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
                except (pycurl.error, ValueError, UnicodeError):  # a URL or header that libcurl will not take
                    self._outbox.append((deliver, Response(request, 0, b"", Failure.NOT_SENT, 3)))
                    pool.idle.append(transfer)
                else:
                    active.add(transfer)

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
        if self._outbox and not self._notified:
            self._notified = True
            try:
                self._token.run_sync_soon(self._drain_outbox)
            except trio.RunFinishedError:  # the run ended without closing us: nobody is left to hear
                self._closing = True
        return found

    def _end(self, easy: Any, code: int, active: set[_Transfer]) -> None:
        transfer: _Transfer = easy.transfer
        self._multi.remove_handle(easy)
        assert transfer.request is not None
        pool = self._pools[transfer.request.pool]
        self._outbox.append(transfer.finish(code))
        active.discard(transfer)
        pool.idle.append(transfer)

    def _sleep(self) -> None:
        timeout = self._multi.timeout()
        self._asleep = True
        try:
            if self._inbox or self._closing:  # it came between our look and the flag
                return
            reads, writes, _ = self._multi.fdset()
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            for descriptor in reads:
                poll.register(descriptor, select.POLLIN)
            for descriptor in writes:
                poll.register(descriptor, select.POLLOUT | (select.POLLIN if descriptor in reads else 0))
            events = poll.poll(min(timeout, 1000) if timeout >= 0 else 1000)
        finally:
            self._asleep = False
        if any(descriptor == self._wake_read for descriptor, _ in events):
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
