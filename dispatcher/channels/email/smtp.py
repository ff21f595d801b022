"""A `Network` that speaks SMTP: a bounded number of connections, each in a thread of its own.

Mail servers take tens of messages a second from one sender and answer each after a disk write, so a thread a connection
costs nothing that matters, and the dialogue can be the library's (see `session`). A connection is kept for the next
message and tried with RSET before it is used again, while nothing has left; if it does not live, a new one is made.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

import trio

from dispatcher.channels.email.session import Broken, Refused, Session, SmtpSettings, Stage
from dispatcher.logs import get_logger
from dispatcher.network.api import Deliver, Failure, Network, Request, Response

MAX_CONNECTION_MESSAGES = 100
"""Messages on one connection: many servers end it after a hundred and count what comes after as an error."""

IDLE_S = 20.0
"""How long a connection is kept without work: servers wait five minutes, their load balancers often half of one."""

QUIT_S = 1.0
"""For the answer to QUIT, which changes nothing any more."""

CLOSE_WAIT_S = 6.0
"""How long `aclose` waits for threads whose sockets were shut. They end at once, but for one that is just connecting
(5 s) or asks the resolver (longer, and nothing can stop it)."""

CLOSED_CODE = -1
_DEFECT_CODE = -2

log = get_logger("smtp")

_Job = tuple[int, Request, Deliver]


class SmtpNetwork(Network):
    """See the module. Make it inside trio. A request's URL is ``mailto:ADDRESS``, its body the whole message.

    A response with a status carries the server's reply as ``body`` and the `Stage` it came at as its one header.
    ``Failure.NOT_SENT``: the server cannot have the end of the message. ``Failure.UNKNOWN``: it may have it, and did
    not say. A request's time-out holds from when it gets a connection until its answer, TLS and log-in included.
    """

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._token = trio.lowlevel.current_trio_token()
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._outbox: deque[tuple[Deliver, Response]] = deque()
        # Whoever takes a request out of here answers it, so that each is answered once. dict.pop is atomic.
        self._open: dict[int, tuple[Request, Deliver]] = {}
        self._sessions: set[Session] = set()
        self._threads: list[threading.Thread] = []
        self._count = 0
        self._closing = False

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """See `Network.submit`. Raises RuntimeError once it is closed."""
        if self._closing:
            raise RuntimeError("the network is closed")
        for request in requests:
            self._count += 1
            self._open[self._count] = (request, deliver)
            self._inbox.put((self._count, request, deliver))
        for _ in range(min(len(self._open), self._settings.connections) - len(self._threads)):
            thread = threading.Thread(target=self._work, name=f"smtp-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    async def aclose(self) -> None:
        """See `Network.aclose`. What the server cannot have as a whole ends as ``NOT_SENT``."""
        if self._closing:
            return
        self._closing = True
        for _ in self._threads:
            self._inbox.put(None)
        for session in tuple(self._sessions):
            session.abort()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._join)
            await trio.lowlevel.checkpoint()
        for number in tuple(self._open):  # a thread that still asks the resolver
            self._answer(number, failure=Failure.UNKNOWN, code=CLOSED_CODE)
        self._drain_outbox()

    def _join(self) -> None:
        deadline = time.monotonic() + CLOSE_WAIT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # ---- in the threads ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        session: Session | None = None
        try:
            while True:
                try:
                    job = self._inbox.get(timeout=None if session is None else IDLE_S)
                except queue.Empty:
                    self._end(session)
                    session = None
                    continue
                if job is None:
                    break
                number, request, _ = job
                if self._closing:
                    self._answer(number, failure=Failure.NOT_SENT, code=CLOSED_CODE)
                    continue
                session = self._deliver_one(session, number, request)
        finally:
            self._end(session)

    def _deliver_one(self, session: Session | None, number: int, request: Request) -> Session | None:
        """Send one message; the session that can be used for the next, if any."""
        start = time.monotonic()
        deadline = start + request.timeout_ms / 1000
        sent_whole = False
        try:
            session = self._ready_session(session, deadline)
            session.hand_over(request.url.removeprefix("mailto:"), request.body or b"", deadline)
            sent_whole = True
            status, text = session.verdict()
            self._answer(number, status=status, text=text, stage=Stage.DATA, start=start)
        except Refused as refused:
            status = refused.status
            self._answer(number, status=status, text=refused.text, stage=refused.stage, start=start)
            if refused.stage in (Stage.OPEN, Stage.AUTH):
                return None
        except Broken as broken:
            failure = Failure.UNKNOWN if sent_whole else Failure.NOT_SENT
            self._answer(number, failure=failure, code=CLOSED_CODE if self._closing else broken.code, start=start)
            self._drop(session)
            return None
        except Exception as error:  # noqa: BLE001 - a defect in one message must not end a thread that others wait for
            log.error("smtp_defect", error=type(error).__name__)
            failure = Failure.UNKNOWN if sent_whole else Failure.NOT_SENT
            self._answer(number, failure=failure, code=_DEFECT_CODE, start=start)
            self._drop(session)
            return None
        if status == 421 or session is None or session.messages >= MAX_CONNECTION_MESSAGES:
            self._end(session)
            return None
        return session

    def _ready_session(self, session: Session | None, deadline: float) -> Session:
        if session is not None:
            if session.still_there(deadline):
                return session
            self._drop(session)
        session = Session(self._settings)
        self._sessions.add(session)
        try:
            session.open(deadline)
        except BaseException:
            self._drop(session)
            raise
        if self._closing:  # it was opened while `aclose` shut the others
            self._drop(session)
            raise Broken(CLOSED_CODE)
        return session

    def _end(self, session: Session | None) -> None:
        if session is not None:
            session.quit(time.monotonic() + QUIT_S)
            self._sessions.discard(session)

    def _drop(self, session: Session | None) -> None:
        if session is not None:
            session.close()
            self._sessions.discard(session)

    def _answer(
        self,
        number: int,
        *,
        status: int = 0,
        text: bytes = b"",
        stage: str = "",
        failure: Failure | None = None,
        code: int = 0,
        start: float | None = None,
    ) -> None:
        found = self._open.pop(number, None)
        if found is None:
            return
        request, deliver = found
        seconds = 0.0 if start is None else time.monotonic() - start
        headers = (stage.encode(),) if stage else ()
        self._outbox.append((deliver, Response(request, status, text, failure, code, seconds=seconds, headers=headers)))
        try:
            self._token.run_sync_soon(self._drain_outbox, idempotent=True)
        except trio.RunFinishedError:  # the run ended without closing us: nobody is left to hear
            self._closing = True

    # ---- in trio's thread -------------------------------------------------------------------------------------

    def _drain_outbox(self) -> None:
        batches: dict[Deliver, list[Response]] = {}
        while self._outbox:
            deliver, response = self._outbox.popleft()
            batches.setdefault(deliver, []).append(response)
        for deliver, responses in batches.items():
            deliver(responses)
