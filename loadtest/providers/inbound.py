"""What users do on the simulated WeChat, posted to a callback as WeChat does: signed, plain or in safe or compat mode.

Shapes and signatures are from providers.md sections 3 and 5: three tries, of five seconds each.
"""

from __future__ import annotations

from random import Random
from typing import Final

import httpx

from dispatcher.channels.wechat.callback import KINDS
from dispatcher.channels.wechat.crypto import CallbackKeys
from loadtest.poster import signature
from loadtest.providers.receipts import ACCOUNT_ID
from loadtest.providers.sealing import RANDOM_BYTES, Mode, enclosed
from loadtest.providers.service import ServiceMessages

TRIES: Final = 3
TIMEOUT_SECONDS: Final = 5.0


class Inbound:
    """``service`` is told of each deed, too, so that its windows are those that the receiver hears of.

    ``keys`` are wanted for ``compat`` and ``safe``; the first of them encrypts.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        service: ServiceMessages | None = None,
        keys: CallbackKeys | None = None,
        mode: Mode = "plain",
        seed: int = 0,
    ) -> None:
        if mode != "plain" and keys is None:
            raise ValueError(f"{mode} mode needs a key")
        self._url = url
        self._token = token
        self._service = service
        self._keys = keys
        self._mode = mode
        self._random = Random(seed)  # noqa: S311 - a simulation, the same for the same seed

    async def push(self, openid: str, event: str, now: float, more: str = "") -> bool:
        """A user does ``event`` (``subscribe``, ``SCAN``, ``CLICK``, ``text``, …); True when the receiver took it.

        ``more`` are further elements of the event. When cancelled, it may or may not have been taken.
        """
        is_event = event in KINDS and event != "message"
        kind = KINDS[event] if is_event else "message"
        if self._service is not None:
            self._service.heard(openid, kind, now)
        message = _xml(openid, int(now), event, is_event, more or self._usual(event))
        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_SECONDS) as client:
            for _ in range(TRIES):
                query, body = self._signed(message, openid, int(now))
                try:
                    answer = await client.post(self._url, params=query, content=body)
                except httpx.TransportError:
                    continue
                if answer.status_code == 200 and answer.text in ("success", ""):
                    return True
        return False

    def _usual(self, event: str) -> str:
        number = self._random.getrandbits(62)
        match event:
            case "subscribe":
                return "<EventKey><![CDATA[qrscene_7]]></EventKey><Ticket><![CDATA[T]]></Ticket>"
            case "SCAN" | "CLICK":
                return "<EventKey><![CDATA[7]]></EventKey>"
            case "text":
                return f"<Content><![CDATA[hello]]></Content><MsgId>{number}</MsgId>"
        return ""

    def _signed(self, message: bytes, openid: str, now: int) -> tuple[dict[str, str], bytes]:
        stamp, nonce = str(now), str(self._random.getrandbits(30))
        query = {
            "signature": signature(self._token, stamp, nonce),
            "timestamp": stamp,
            "nonce": nonce,
            "openid": openid,
        }
        if self._mode == "plain" or self._keys is None:
            return query, message
        encrypted = self._keys.seal(message, self._random.randbytes(RANDOM_BYTES))
        query |= {"encrypt_type": "aes", "msg_signature": signature(self._token, stamp, nonce, encrypted)}
        return query, enclosed(self._mode, ACCOUNT_ID, message, encrypted)


def _xml(openid: str, now: int, name: str, is_event: bool, more: str) -> bytes:
    kind = f"<MsgType><![CDATA[{'event' if is_event else name}]]></MsgType>"
    event = f"<Event><![CDATA[{name}]]></Event>" if is_event else ""
    return (
        f"<xml><ToUserName><![CDATA[{ACCOUNT_ID}]]></ToUserName>"
        f"<FromUserName><![CDATA[{openid}]]></FromUserName><CreateTime>{now}</CreateTime>{kind}{event}{more}</xml>"
    ).encode()
