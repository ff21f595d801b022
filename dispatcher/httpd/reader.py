"""Bytes in, requests out: the callbacks of httptools, and the limits that it does not keep itself.

llhttp refuses by itself what a request could be smuggled with: Content-Length twice or beside Transfer-Encoding,
codings that do not end in chunked, bare CR or LF, blanks before a colon, folded lines, sizes that overflow.
"""

from __future__ import annotations

import httptools

from dispatcher.httpd.api import Limits, Request

Refusal = tuple[int, str]
"""The status and the reason with which a connection must end."""


class Reader:
    """The requests of one connection. ``begun`` counts them, ``unfinished`` says that one is not complete yet."""

    def __init__(self, limits: Limits) -> None:
        self.begun = 0
        self.unfinished = False
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._ready: list[tuple[Request, bool]] = []
        self._refusal: Refusal | None = None
        self._url = b""
        self._authorization = ""
        self._fields: list[tuple[bytes, bytes]] = []
        self._hosts = 0
        self._chunked = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._header_bytes = 0
        self._wire_bytes = 0
        self._in_header = False
        self._expects_continue = False

    def feed(self, data: bytes) -> Refusal | None:
        """Parse; None, or why the connection must end. Requests that were complete before that are in `take`."""
        if self.unfinished:
            self._wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return None  # declined: the request itself is answered, and the connection ends
        except httptools.HttpParserError:
            return self._refusal or (400, "not HTTP")
        if self._refusal is None and self.unfinished:
            # What has not become a header field or a body yet: half a field, chunk extensions, trailers.
            limits = self._limits
            if self._in_header and self._wire_bytes > limits.header_bytes:
                self._refuse_header()
            elif self._wire_bytes > limits.header_bytes + 2 * limits.body_bytes:
                self._refuse_body()
        return self._refusal

    def take(self) -> list[tuple[Request, bool]]:
        """Complete requests, each with whether the connection outlives it."""
        ready, self._ready = self._ready, []
        return ready

    def wants_continue(self) -> bool:
        """Whether the client holds its body back until it is asked for it; true once per request."""
        if not self._expects_continue or self._in_header or not self.unfinished:
            return False
        self._expects_continue = False
        return True

    def _refuse_header(self) -> None:
        self._refusal = (431, f"a header has at most {self._limits.header_bytes} bytes")

    def _refuse_body(self) -> None:
        self._refusal = (413, f"a body has at most {self._limits.body_bytes} bytes")

    # ---- called by httptools ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.begun += 1
        self.unfinished = self._in_header = True
        self._url = b""
        self._authorization = ""
        self._fields = []
        self._hosts = 0
        self._chunked = False
        self._body = []
        self._body_bytes = self._header_bytes = self._wire_bytes = 0
        self._expects_continue = False

    def on_url(self, part: bytes) -> None:
        self._url += part
        self._count_header(len(part))

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name)
        self._count_header(size + len(value) + 4)
        if not self._in_header:
            return  # a trailer proves nothing and frames nothing
        if size == 4 and name.lower() == b"host":
            self._hosts += 1
            self._fields.append((name, value))
        elif size > 2 and name[:2] in (b"x-", b"X-"):
            self._fields.append((name, value))
        elif size == 13 and name.lower() == b"authorization":
            self._authorization = value.decode("latin-1")
        elif size == 14 and name.lower() == b"content-length":
            if int(value) > self._limits.body_bytes and self._refusal is None:
                self._refuse_body()
        elif size == 17 and name.lower() == b"transfer-encoding":
            self._chunked = True
            if value.lower() != b"chunked" and self._refusal is None:
                self._refusal = (501, "no transfer coding but chunked is known")
        elif size == 6 and name.lower() == b"expect":
            self._expects_continue = value.lower() == b"100-continue"

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.header_bytes and self._refusal is None:
            self._refuse_header()

    def on_headers_complete(self) -> None:
        self._in_header = False
        if self._refusal is not None:
            return
        version = self._parser.get_http_version()
        if version == "1.1":
            if self._hosts != 1:
                self._refusal = (400, "one Host is wanted")
        elif version != "1.0":
            self._refusal = (505, "HTTP/1 is spoken here")
        elif self._chunked:  # HTTP/1.0 knows no codings, so whoever forwarded it may have read another end
            self._refusal = (400, "not HTTP")

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes <= self._limits.body_bytes:
            self._body.append(part)
        elif self._refusal is None:
            self._refuse_body()

    def on_message_complete(self) -> None:
        self.unfinished = False
        if self._refusal is not None:
            return  # neither this one nor what follows it in the same read
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("ascii")
        request = Request(method, path, query, b"".join(self._body), self._authorization, self._fields)
        self._ready.append((request, self._parser.should_keep_alive() and not self._parser.should_upgrade()))
