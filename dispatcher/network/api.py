"""The network as the lanes see it: hand over a batch of prepared requests, get outcomes back in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec

MAX_BODY_BYTES = 1024 * 1024
"""Largest answer that is read. Provider answers are under 1 KiB; a page of HTML or a bomb is cut off here."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One prepared request. ``tag`` is the caller's own; the response brings the whole request back.

    ``body`` None is an empty one; GET and HEAD carry none. Nothing of it is printed: the URL may hold a token, the
    headers a secret, the body a phone.

    ``headers`` should be one tuple shared by all requests of a channel: the same object is not set up twice.
    ``fresh`` asks for a connection of its own, for a provider that would not recognise the request if libcurl sent it
    again on its own account (it does so when a reused connection dies before the first byte of the answer).
    """

    pool: str
    url: str
    headers: tuple[str, ...]
    body: bytes | None
    tag: Any = None
    method: str = "POST"
    timeout_ms: int = 10_000
    fresh: bool = False
    want_headers: bool = False

    def __repr__(self) -> str:
        return f"<Request {self.method} to {self.pool}>"


class Failure(StrEnum):
    """Why there is no answer."""

    NOT_SENT = "not-sent"  # nothing of the request can have left: no connection, no TLS
    UNKNOWN = "unknown"  # it may have arrived: reset, time-out, answer cut off or too large


class Response(msgspec.Struct, frozen=True, gc=False):
    """What became of a request: an answer (``status`` > 0) or a ``failure`` with libcurl's error number as ``code``.

    ``retry_after_s`` is the Retry-After header in seconds (0: none). ``resends`` counts how often libcurl sent the
    request again by itself. ``seconds`` is the time from the start of the transfer.
    """

    request: Request
    status: int
    body: bytes
    failure: Failure | None = None
    code: int = 0
    retry_after_s: int = 0
    resends: int = 0
    seconds: float = 0.0
    headers: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        what = f"{self.status}" if self.failure is None else f"{self.failure} ({self.code})"
        return f"<Response {what} from {self.request.pool}>"


Deliver = Callable[[list[Response]], None]
"""Called in trio's thread with the responses that came in since the last time. Must not raise and not wait."""


class Network(Protocol):
    """Sends requests. Every request that was handed over gets exactly one response, also when the network is closed."""

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """Hand over a batch, from trio's thread; returns at once. The caller bounds how many are under way."""

    async def aclose(self) -> None:
        """Let go of all connections. Requests under way end as ``Failure.UNKNOWN``."""


class PoolSettings(msgspec.Struct, frozen=True):
    """Connections to one provider. ``max_age_s``: an idle connection older than this is not used again.

    ``ca_file`` is whose certificates are believed (None: the system's usual authorities), ``cert_file`` and
    ``key_file`` the certificate that we show. ``http2`` offers HTTP/2 to a provider under TLS; requests then share
    connections. It is for providers that recognise a resend only: how often libcurl has sent a request again cannot be
    seen there.
    """

    connections: int
    max_age_s: int = 60
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    http2: bool = False
