"""The receipts listener: providers' last words, kept durably before they are answered.

``/wechat`` takes WeChat's callbacks in plain mode (providers.md sections 3 and 5.1), ``/sms`` the generic gateway's
status reports. Receipts that come together are committed together; a receipt for an unknown message, a repeated one
and one that comes before the send's own answer are all normal.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from xml.etree.ElementTree import ParseError

import msgspec
import trio
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher.config import ReceiptsConfig
from dispatcher.config_load import read_token
from dispatcher.engine import Engine
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger.api import Receipt
from dispatcher.model.private import Secret

MAX_BODY_BYTES = 64 * 1024
"""A delivery event has 400 bytes; a page of status reports stays far below this."""

MAX_WAITING = 4096
"""Receipts that wait for their commit; beyond it the provider is told to come again (it tries three times)."""


_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,32}")


class _SmsReport(msgspec.Struct):
    id: str
    status: str
    code: str | int | None = None


class ReceiptDesk:
    """Collects receipts into batches. ``run`` is its task; ``app`` the ASGI application.

    ``token`` signs WeChat's callbacks and is the bearer token of SMS reports; None (loopback only) checks nothing.
    """

    def __init__(self, engine: Engine, token: Secret | None) -> None:
        self._engine = engine
        self._token = token
        self._waiting: list[tuple[Receipt, trio.Event]] = []
        self._work = trio.Event()
        self._error: LedgerUnavailable | None = None
        self.app = Starlette(
            routes=[
                Route("/wechat", self.wechat, methods=["GET", "POST"]),
                Route("/sms", self.sms, methods=["POST"]),
            ]
        )

    async def run(self) -> None:
        """Commit what has come in, for ever."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            batch, self._waiting = self._waiting, []
            try:
                await self._engine.receive([receipt for receipt, _ in batch])
                self._error = None
            except LedgerUnavailable as error:
                self._error = error
            for _, done in batch:
                done.set()

    async def _keep(self, receipts: list[Receipt]) -> bool:
        """Wait until they are durable; False when they cannot be."""
        if len(self._waiting) + len(receipts) > MAX_WAITING:
            return False
        done = trio.Event()
        self._waiting += [(receipt, done) for receipt in receipts]
        self._work.set()
        await done.wait()
        return self._error is None

    async def wechat(self, request: Request) -> Response:
        """WeChat's callback: the endpoint check (GET) and events (POST), both signed in the query."""
        query = request.query_params
        if not self._signed(request):
            return Response("signature", 401)
        if request.method == "GET":
            return Response(query.get("echostr", ""), media_type="text/plain")
        body = await _read(request)
        if body is None:
            return Response("too large", 413)
        try:
            root = fromstring(body)
        except (ParseError, DefusedXmlException, ValueError):
            return Response("xml", 400)
        if root.findtext("Event") == "TEMPLATESENDJOBFINISH" and (msgid := root.findtext("MsgID")):
            status = _status(root.findtext("Status") or "")
            if not await self._keep([Receipt("wechat", msgid[:64], status)]):
                return Response("later", 503)
        return Response("success", media_type="text/plain")

    async def sms(self, request: Request) -> Response:
        """The generic gateway's status reports, one or an array; a bearer token or WeChat's signature proves them."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        bearer = self._token is not None and hmac.compare_digest(given.encode(), self._token.reveal().encode())
        if not bearer and not self._signed(request):
            return Response("a bearer token or a signature is wanted", 401)
        body = await _read(request)
        if body is None:
            return Response("too large", 413)
        try:
            reports = msgspec.json.decode(body, type=_SmsReport | list[_SmsReport])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Response("json", 400)
        several = reports if isinstance(reports, list) else [reports]
        receipts = [
            Receipt("sms", one.id[:64], "delivered" if one.status == "delivered" else f"failed:sms:{_code(one.code)}")
            for one in several
        ]
        if receipts and not await self._keep(receipts):
            return Response("later", 503)
        return Response('{"code":0}', media_type="application/json")

    def _signed(self, request: Request) -> bool:
        """Whether the query carries WeChat's signature (providers.md section 5.1; SHA-1 is WeChat's choice)."""
        if self._token is None:
            return True
        query = request.query_params
        joined = "".join(sorted([self._token.reveal(), query.get("timestamp", ""), query.get("nonce", "")]))
        signature = query.get("signature", "")
        return hmac.compare_digest(signature.encode(), hashlib.sha1(joined.encode()).hexdigest().encode())  # noqa: S324


def receipt_desk(engine: Engine, section: ReceiptsConfig) -> ReceiptDesk:
    """The desk that a configuration asks for. Raises `ConfigurationError`."""
    if section.aes_key_file is not None:
        raise ConfigurationError(
            "receipts.aes_key_file: WeChat's AES mode is not built yet; choose plain mode and remove the key"
        )
    return ReceiptDesk(engine, read_token(section.token_file, "receipts.token_file"))


def _status(text: str) -> str:
    """``success`` or ``failed:<why>``; WeChat writes one of them with a blank (providers.md section 3)."""
    if text == "success":
        return "delivered"
    return f"failed:{_code(text.removeprefix('failed:').strip().replace(' ', '-'))}"


def _code(given: object) -> str:
    """A provider's code as it may be stored and shown: whatever is not a short word could be anything, a phone too."""
    text = str(given)
    return text if _CODE.fullmatch(text) and sum(map(str.isdigit, text)) < 8 else "other"


async def _read(request: Request) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)
