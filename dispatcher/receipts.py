"""The receipts listener: providers' last words, kept durably before they are answered.

``/wechat`` takes WeChat's callbacks (providers.md sections 3 and 5): in plain mode, or with an EncodingAESKey in safe
and compat mode; then what is not encrypted is refused, because only an encrypted body is signed. ``/sms`` and the paths
below it take the status reports of the SMS vendors. One receipt is one request, so this is a hot path: a request is
answered by the batch that commits it, and no task is woken for it (docs/decisions/0006-receipts-server.md). A receipt
for an unknown message, a repeated one and one that comes before the send's own answer are all normal.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, get_args

import trio

from dispatcher.callback_keys import read_callback_keys
from dispatcher.channels.sms.pushes import Report, UnreadableReports
from dispatcher.channels.wechat.callback import (
    Delivery,
    UnreadableCallback,
    encrypted_text,
    is_signed,
    query_fields,
    read_callback,
)
from dispatcher.channels.wechat.crypto import CallbackKeys, WrongAppid, WrongKey, is_msg_signed
from dispatcher.channels.wechat.freshness import Freshness, Verdict, is_fresh
from dispatcher.config import Config, ReceiptsConfig
from dispatcher.config_load import read_token
from dispatcher.engine import Engine, wall_clock_ms
from dispatcher.errors import LedgerUnavailable
from dispatcher.httpd import TEXT, Answer, Deferred, Request, answer_all, serve_http
from dispatcher.ledger.api import Receipt
from dispatcher.listening import open_listeners, url_of
from dispatcher.logs import get_logger
from dispatcher.model.heard import Heard
from dispatcher.model.private import Secret
from dispatcher.receipts_sms import SMS_PUSHES, SmsPush

MAX_WAITING = 4096
"""Receipts that wait for their commit; beyond it the provider is told to come again (it tries three times)."""

MAX_FUTURE_MS = 300_000
"""How far beyond our clock a user's deed may lie; what claims more is taken for so much. A wrong year would hold for
ever, because of a follow and an unfollow the later one counts."""

Reason = Literal["signature", "stale", "replayed", "not-encrypted", "key", "appid", "xml", "too-large", "not-http"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a callback is refused, as the metric tells it. Outside only the HTTP status is seen: with a wrong key or appid
the same one as with a wrong signature."""

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
    ``listen`` is where ``serve`` listens unless it is given sockets. With ``keys`` WeChat's callbacks have to be
    encrypted. ``refused`` is told why a callback was not taken.
    """

    def __init__(
        self,
        engine: Engine,
        token: Secret | None,
        listen: str = ReceiptsConfig().listen,
        *,
        keys: CallbackKeys | None = None,
        refused: Callable[[Reason], None] = lambda _reason: None,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._engine = engine
        self._listen = listen
        self._token = None if token is None else token.reveal()
        self._keys = keys
        self._refused = refused
        self._now_ms = now_ms
        self._freshness = Freshness()
        self._waiting: list[Receipt] = []
        self._heard: list[Heard] = []
        self._promised: list[tuple[Deferred, Answer]] = []
        self._nonces: list[tuple[str, str, bytes]] = []
        self._work = trio.Event()

    async def run(self) -> None:
        """Commit what has come in, for ever: the receipts that come during a commit are the next batch.

        Raises what `Engine.receive` raises, except that a ledger which is unavailable is answered 503.
        """
        while True:
            await self._work.wait()
            self._work = trio.Event()
            receipts, self._waiting = self._waiting, []
            heard, self._heard = self._heard, []
            promised, self._promised = self._promised, []
            nonces, self._nonces = self._nonces, []
            try:
                if receipts:
                    await self._engine.receive(receipts)
                if heard:
                    await self._engine.hear(heard)
            except LedgerUnavailable:
                promised = [(deferred, LATER) for deferred, _ in promised]
            else:
                for timestamp, nonce, body in nonces:
                    self._freshness.durable(timestamp, nonce, body)
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
        await serve_http(self.answer, listeners, stop=stop, refused=self._refused_by_server)

    def _refused_by_server(self, status: int) -> None:
        self._refused("too-large" if status in (413, 431) else "not-http")

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
        if request.method != "POST":
            # The endpoint check: it changes nothing, so its nonce need not be remembered.
            if self._token is not None and not is_signed(self._token, fields):
                return self._refuse("signature", NOT_SIGNED)
            if self._token is not None and not is_fresh(fields.get("timestamp", ""), self._now_ms() / 1000):
                return self._refuse("stale", NOT_SIGNED)
            return Answer(fields.get("echostr", "").encode(), content_type=TEXT)
        if self._token is None:
            return self._taken(request.body, None)
        if self._keys is None and not is_signed(self._token, fields):
            return self._refuse("signature", NOT_SIGNED)
        body = request.body
        if self._keys is not None:
            opened = self._opened(self._token, self._keys, fields, body)
            if isinstance(opened, Answer):
                return opened
            body = opened
        timestamp, nonce = fields.get("timestamp", ""), fields.get("nonce", "")
        if self._keys is not None:
            # Another body under the same nonce that is rightly signed is WeChat's own: two of its thirty-bit numbers
            # met in one second. In plain mode nothing tells that from a forgery; refused, it is told again.
            nonce = f"{nonce}/{fields['msg_signature']}"
        match self._freshness.look(timestamp, nonce, request.body, self._now_ms() / 1000):
            case Verdict.STALE:
                return self._refuse("stale", NOT_SIGNED)
            case Verdict.REPLAYED:
                return self._refuse("replayed", NOT_SIGNED)
            case Verdict.AGAIN:
                return SUCCESS
        return self._taken(body, (timestamp, nonce, request.body))

    def _opened(self, token: str, keys: CallbackKeys, fields: Mapping[str, str], body: bytes) -> bytes | Answer:
        """The decrypted callback, or the refusal. Its signature is looked at before anything else."""
        if fields.get("encrypt_type") != "aes":
            return self._refuse("not-encrypted", NOT_SIGNED)
        try:
            encrypted = encrypted_text(body)
        except UnreadableCallback:
            return self._refuse("xml", NOT_XML)
        if not is_msg_signed(token, fields, encrypted):
            return self._refuse("signature", NOT_SIGNED)
        try:
            return keys.open(encrypted).message
        except WrongKey:
            return self._refuse("key", NOT_SIGNED)
        except WrongAppid:
            return self._refuse("appid", NOT_SIGNED)

    def _taken(self, body: bytes, nonce: tuple[str, str, bytes] | None) -> Answer | Deferred:
        """Keep what a proven callback says. ``nonce`` is remembered once it is durable."""
        try:
            said = read_callback(body)
        except UnreadableCallback:
            return self._refuse("xml", NOT_XML)
        if said is None:
            if nonce is not None:
                self._freshness.durable(*nonce)
            return SUCCESS
        if isinstance(said, Delivery):
            return self._keep([Receipt("wechat", said.msgid, _status(said.status))], SUCCESS, nonce=nonce)
        at_ms = min(said.at_ms, self._now_ms() + MAX_FUTURE_MS)
        return self._keep((), SUCCESS, heard=(Heard(said.openid, said.kind, at_ms),), nonce=nonce)

    def _refuse(self, reason: Reason, answer: Answer) -> Answer:
        self._refused(reason)
        return answer

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

    def _keep(
        self,
        receipts: Sequence[Receipt],
        kept: Answer,
        *,
        heard: Sequence[Heard] = (),
        nonce: tuple[str, str, bytes] | None = None,
    ) -> Answer | Deferred:
        """Promise ``kept`` for when they are durable."""
        waiting = len(self._waiting) + len(self._heard)
        # One that is larger by itself (its body is bounded) is taken when nothing else waits, or it never would be.
        if waiting and waiting + len(receipts) + len(heard) > MAX_WAITING:
            return LATER
        deferred = Deferred()
        self._waiting += receipts
        self._heard += heard
        self._promised.append((deferred, kept))
        if nonce is not None:
            self._nonces.append(nonce)
        self._work.set()
        return deferred


def receipt_desk(engine: Engine, config: Config) -> ReceiptDesk:
    """The desk that a configuration with ``[receipts]`` asks for. Raises `ConfigurationError`."""
    section = config.receipts
    assert section is not None
    return ReceiptDesk(
        engine,
        read_token(section.token_file, "receipts.token_file"),
        section.listen,
        keys=read_callback_keys(config),
        refused=engine.meter.callback_refused,
    )


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
