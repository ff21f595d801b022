"""Sends events by ``POST /v1/events``: a batch a request, one request a connection at a time."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cache

import certifi
import httpx
import msgspec
import trio

from dispatcher.errors import ConfigurationError, SwipebellError
from dispatcher.model.private import Secret
from loadtest.load.backlog import FRESH_S
from loadtest.load.lines import Chunk
from loadtest.load.tally import Tally
from loadtest.load.window import Window

PATH = "/v1/events"
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""Seconds. A request waits for the commit, and longer where the lanes are full."""
AGAIN_S = (0.05, 1.0)
"""First and longest wait before a body is sent again after anything but 202, unless the answer says how long."""
MAX_AGAIN_S = 5.0
BODY_EVENTS = 1024
"""Most events of a body; fewer where answers are slow (`Window`)."""
REFUSED_TRIES = 3
"""A body that is answered 4xx so often is refused for good (408 and 429 ask to try again and do not count). More than
once, because what stands in front of a target may say 404 while the target starts."""
SHOWN_ERROR = 200
"""Characters of what a target says of a refusal."""
CHECK_S = 10.0


class _Rejected(msgspec.Struct):
    line: int = 0
    error: str = ""


class _Answer(msgspec.Struct):
    accepted: int = 0
    duplicate: int = 0
    rejected: list[_Rejected] = []
    rejected_in_all: int | None = None
    error: str = ""


class HttpSender:
    """One connection; see `Sender`. ``now`` gives seconds from the begin of the run.

    ``keep``: it sends what is fresh. A chunk that meets 429 and is no longer fresh is given there, so that newer ones
    can be sent instead. Without it a chunk is sent until it is answered.
    """

    def __init__(
        self,
        url: str,
        token: Secret | None,
        tally: Tally,
        now: Callable[[], float],
        keep: Callable[[Chunk], None] | None = None,
    ) -> None:
        self._url = url
        self._connected = False
        self._headers = _headers(token)
        self._tally = tally
        self._now = now
        self._keep = keep
        self._window = Window(BODY_EVENTS)
        self._chunk: Chunk | None = None
        self._offered = trio.Event()
        self.reconnected = 0
        self.last_error: str | None = None

    @property
    def room(self) -> int:
        """See `Sender`."""
        return self._window.size if self._connected and self._chunk is None else 0

    def offer(self, chunk: Chunk) -> None:
        """See `Sender`."""
        self._chunk = chunk
        self._offered.set()

    async def run(self) -> None:
        """See `Sender`."""
        # A client of its own: httpx's pool is searched for every request.
        async with httpx.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=TIMEOUT, trust_env=False, verify=_trust(self._url)
        ) as client:
            self._connected = True
            while True:
                await self._offered.wait()
                self._offered = trio.Event()
                assert self._chunk is not None
                await self._send(client, self._chunk)
                self._chunk = None

    async def _send(self, client: httpx.AsyncClient, chunk: Chunk) -> None:
        """Until it is answered or refused: whatever else comes means that the whole body is to be sent again."""
        pause = AGAIN_S[0]
        refusals = 0
        while True:
            wait = pause
            began = self._now()
            try:
                response = await client.post(PATH, content=chunk.body)
            except httpx.HTTPError as error:
                self.reconnected += 1
                self.last_error = type(error).__name__
            else:
                status = response.status_code
                answer = _answer(response.content)
                taken = status == httpx.codes.ACCEPTED and answer is not None
                # A refusal is quick however full the target is: it is no reason to send more at a time.
                self._window.answered(chunk.count if taken else 0, self._now() - began)
                if taken and answer is not None:
                    self._take(answer, chunk)
                    return
                self.last_error = _words(status, answer)
                if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
                    self._tally.push_back(chunk.count, self._now())
                    wait = _retry_after(response, pause)
                    if self._keep is not None and self._now() - self._tally.scheduled[chunk.first] > FRESH_S:
                        chunk.again = True
                        self._keep(chunk)
                        return
                elif response.is_client_error and status != httpx.codes.REQUEST_TIMEOUT:
                    refusals += 1
                    if refusals == REFUSED_TRIES:
                        self._refuse(chunk, self.last_error)
                        return
            chunk.again = True
            await trio.sleep(wait)
            pause = min(2 * pause, AGAIN_S[1])

    def _take(self, answer: _Answer, chunk: Chunk) -> None:
        rejected = {chunk.first + one.line - 1: one.error for one in answer.rejected if 1 <= one.line <= chunk.count}
        duplicate = 0 if chunk.again else answer.duplicate
        self._tally.answer(chunk.first, chunk.count, self._now(), duplicate=duplicate, rejected=rejected)

    def _refuse(self, chunk: Chunk, why: str) -> None:
        # A target may have taken a part of it; the ledger then holds more than was acknowledged, and says so.
        numbers = range(chunk.first, chunk.first + chunk.count)
        self._tally.refused_whole += chunk.count
        self._tally.refusal = why
        self._tally.answer(chunk.first, chunk.count, self._now(), duplicate=0, rejected=dict.fromkeys(numbers, why))


def _words(status: int, answer: _Answer | None) -> str:
    said = "" if answer is None else "".join(filter(str.isprintable, answer.error))[:SHOWN_ERROR]
    return f"HTTP {status}: {said}" if said else f"HTTP {status}"


def _answer(content: bytes) -> _Answer | None:
    """None when it is not an engine's: something else listens there."""
    try:
        return msgspec.json.decode(content, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@cache
def _trust(url: str) -> ssl.SSLContext | bool:
    """Made once: reading the certificate authorities takes 50 ms, and over http:// nobody needs them."""
    return ssl.create_default_context(cafile=certifi.where()) if url.startswith("https:") else False


def _headers(token: Secret | None) -> dict[str, str]:
    headers = {"Content-Type": "application/x-ndjson"}
    return headers if token is None else {**headers, "Authorization": f"Bearer {token.reveal()}"}


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), MAX_AGAIN_S) if text.isdecimal() else otherwise


async def check_http(url: str, token: Secret | None) -> None:
    """Whether an HTTP intake listens there that takes our token. Raises one line that says what to do."""
    where = f"--target {url}"
    try:
        async with httpx.AsyncClient(
            base_url=url, headers=_headers(token), timeout=CHECK_S, trust_env=False, verify=_trust(url)
        ) as client:
            # No event in it: 400 from an intake that would have read it.
            response = await client.post(PATH, content=b"")
    except httpx.HTTPError as error:
        why = str(error).lower() or type(error).__name__
        raise SwipebellError(f"{where}: cannot be reached ({why}); is it running, and is it this port?") from None
    if response.status_code == httpx.codes.UNAUTHORIZED:
        wrong = "wants a token" if token is None else "does not take this token"
        raise ConfigurationError(f"{where}: {wrong} (401); name the file that holds it with --token-file")
    if response.status_code not in (httpx.codes.BAD_REQUEST, httpx.codes.ACCEPTED):
        raise SwipebellError(
            f"{where}: answers {response.status_code} to POST {PATH}; is it Swipebell's HTTP intake, and this port?"
        )
