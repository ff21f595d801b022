"""The receipts listener: providers' last words, kept durably before they are answered.

``/wechat`` takes WeChat's callbacks in plain mode (providers.md sections 3 and 5.1), ``/sms`` and the paths below it
the status reports of the SMS vendors. One receipt is one request, so this is a hot path: a request is answered by the
batch that commits it, and no task is woken for it (docs/decisions/0006-receipts-server.md). A receipt for an unknown
message, a repeated one and one that comes before the send's own answer are all normal.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Sequence

import trio

from dispatcher.channels.sms.pushes import Report, UnreadableReports
from dispatcher.channels.wechat.callback import UnreadableCallback, is_signed, query_fields, read_callback
from dispatcher.config import ReceiptsConfig
from dispatcher.config_load import read_token
from dispatcher.engine import Engine
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.httpd import TEXT, Answer, Deferred, Request, answer_all, serve_http
from dispatcher.ledger.api import Receipt
from dispatcher.listening import open_listeners, url_of
from dispatcher.logs import get_logger
from dispatcher.model.private import Secret
from dispatcher.receipts_sms import SMS_PUSHES, SmsPush

MAX_WAITING = 4096
"""Receipts that wait for their commit; beyond it the provider is told to come again (it tries three times)."""

_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,32}")

SUCCESS = Answer(b"success", content_type=TEXT)
LATER = Answer(b"later", 503, TEXT, headers=(("Retry-After", "1"),))
BROKEN = Answer(b"error", 500, TEXT)
NOT_FOUND = Answer(b"not found", 404, TEXT)
NOT_SIGNED = Answer(b"signature", 401, TEXT)
NO_PROOF = Answer(b"a token or a signature is wanted", 401, TEXT, headers=(("WWW-Authenticate", "Bearer"),))
NOT_XML = Answer(b"xml", 400, TEXT)
NOT_JSON = Answer(b"json", 400, TEXT)
GET_OR_POST = Answer(b"GET or POST", 405, TEXT, headers=(("Allow", "GET, HEAD, POST"),))
POST_ONLY = Answer(b"POST", 405, TEXT, headers=(("Allow", "POST"),))

log = get_logger("receipts")


class ReceiptDesk:
    """Collects receipts into batches: ``run`` commits them, ``serve`` lets them in.

    ``token`` signs WeChat's callbacks and is the bearer token of SMS reports; None (loopback only) checks nothing.
    ``listen`` is where ``serve`` listens unless it is given sockets.
    """

    def __init__(self, engine: Engine, token: Secret | None, listen: str = ReceiptsConfig().listen) -> None:
        self._engine = engine
        self._listen = listen
        self._token = None if token is None else token.reveal()
        self._waiting: list[Receipt] = []
        self._promised: list[tuple[Deferred, Answer]] = []
        self._work = trio.Event()

    async def run(self) -> None:
        """Commit what has come in, for ever: the receipts that come during a commit are the next batch.

        Raises what `Engine.receive` raises, except that a ledger which is unavailable is answered 503.
        """
        while True:
            await self._work.wait()
            self._work = trio.Event()
            receipts, self._waiting = self._waiting, []
            promised, self._promised = self._promised, []
            try:
                await self._engine.receive(receipts)
            except LedgerUnavailable:
                promised = [(deferred, LATER) for deferred, _ in promised]
            answer_all(promised)

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener] | None,
        stop: Callable[[], Awaitable[object]],
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``stop`` returns, then accept no more; what is in work has five seconds, so `run` must outlive
        this. Reports the URL. ``listeners`` None: opens its own, and raises `PortInUse`. Closes them in any case.
        """
        if listeners is None:
            listeners = await open_listeners(self._listen, "receipts.listen")
        task_status.started(url_of(listeners))
        await serve_http(self.answer, listeners, stop=stop)

    def answer(self, request: Request) -> Answer | Deferred:
        """What a request gets, or the promise of it: an answer that says success follows the commit."""
        try:
            if request.path == "/wechat":
                return self._wechat(request)
            if (push := SMS_PUSHES.get(request.path)) is not None:
                return self._sms(request, push)
        except Exception as error:  # noqa: BLE001 - a body from outside must not end the engine, whatever it does to us
            log.error("receipt_failed", path=request.path, error=type(error).__name__)
            return BROKEN
        return NOT_FOUND

    def _wechat(self, request: Request) -> Answer | Deferred:
        """WeChat's callback: the endpoint check (GET) and events (POST), both signed in the query."""
        if request.method not in ("POST", "GET", "HEAD"):
            return GET_OR_POST
        fields = query_fields(request.query)
        if self._token is not None and not is_signed(self._token, fields):
            return NOT_SIGNED
        if request.method != "POST":
            return Answer(fields.get("echostr", "").encode(), content_type=TEXT)
        try:
            delivery = read_callback(request.body)
        except UnreadableCallback:
            return NOT_XML
        if delivery is None:
            return SUCCESS
        return self._keep([Receipt("wechat", delivery.msgid, _status(delivery.status))], SUCCESS)

    def _sms(self, request: Request, push: SmsPush) -> Answer | Deferred:
        """A vendor's status reports; a token, as bearer or in the query, or WeChat's signature proves them."""
        if request.method != "POST":
            return POST_ONLY
        if self._token is not None and not self._is_proven(self._token, request):
            return NO_PROOF
        try:
            reports = push.read(request.body)
        except UnreadableReports:
            return NOT_JSON
        return self._keep([_sms_receipt(one) for one in reports], push.taken) if reports else push.taken

    def _is_proven(self, token: str, request: Request) -> bool:
        """Aliyun and Tencent post to a URL and can add no header, so the token may stand in its query."""
        scheme, _, given = request.authorization.partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip().encode("latin-1"), token):
            return True
        fields = query_fields(request.query)
        return ("token" in fields and _same(fields["token"].encode("utf-8", "surrogatepass"), token)) or is_signed(
            token, fields
        )

    def _keep(self, receipts: Sequence[Receipt], kept: Answer) -> Answer | Deferred:
        """Promise ``kept`` for when they are durable."""
        if len(self._waiting) + len(receipts) > MAX_WAITING:
            return LATER
        deferred = Deferred()
        self._waiting += receipts
        self._promised.append((deferred, kept))
        self._work.set()
        return deferred


def receipt_desk(engine: Engine, section: ReceiptsConfig) -> ReceiptDesk:
    """The desk that a configuration asks for. Raises `ConfigurationError`."""
    if section.aes_key_file is not None:
        raise ConfigurationError(
            "receipts.aes_key_file: WeChat's AES mode is not built yet; choose plain mode and remove the key"
        )
    return ReceiptDesk(engine, read_token(section.token_file, "receipts.token_file"), section.listen)


def _same(given: bytes, token: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given, token.encode())


def _sms_receipt(report: Report) -> Receipt:
    return Receipt("sms", report.msgid, "delivered" if report.delivered else f"failed:sms:{_code(report.code)}")


def _status(text: str) -> str:
    """``delivered`` or ``failed:<why>``; WeChat writes one of them with a blank (providers.md section 3)."""
    if text == "success":
        return "delivered"
    return f"failed:{_code(text.removeprefix('failed:').strip().replace(' ', '-'))}"


def _code(given: object) -> str:
    """A provider's code as it may be stored and shown: whatever is not a short word could be anything, a phone too."""
    text = str(given)
    return text if _CODE.fullmatch(text) and sum(map(str.isdigit, text)) < 8 else "other"
