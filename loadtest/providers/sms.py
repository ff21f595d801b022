"""The simulated SMS gateway with the generic JSON contract (design.md section 4). Pure but for the book."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec
import orjson

from dispatcher.httpd import Answer, Request
from loadtest.providers.book import Book, SmsMessage
from loadtest.providers.faults import NOTHING, Dice
from loadtest.providers.late import SimulatedAnswer
from loadtest.providers.settings import ProviderSettings

THROTTLED: Final = 1
TRY_LATER: Final = 2
BAD_NUMBER: Final = 3
REFUSED_CONTENT: Final = 4
CONFIGURATION: Final = 5

_NUMBER: Final = re.compile(r"\+[1-9][0-9]{4,14}", re.ASCII)
MAX_ID_CHARS: Final = 128


class _Sms(msgspec.Struct, gc=False):
    id: str
    to: str = ""
    text: str = ""
    sign: str = ""


_decode = msgspec.json.Decoder(_Sms).decode


class SmsGateway:
    """One gateway account. ``deliver`` is called with each message; the same id twice is two messages."""

    def __init__(
        self, settings: ProviderSettings, dice: Dice, book: Book, deliver: Callable[[SmsMessage], None]
    ) -> None:
        self.dice = dice
        self._bearer = "Bearer " + settings.sms_secret.reveal()
        self._latency_seconds = settings.latency_seconds
        self._book = book
        self._deliver = deliver

    def send(self, request: Request, now: float) -> Answer:
        """``POST …/sms``: accepted with code 0 and the message's own id."""
        counts = self._book.sms
        counts.requests += 1
        message = _decoded(request.body)
        # Its id is all that a second try has in common with the first, and no id is an error at any try.
        meets = self.dice.meets(message.id if message is not None else "") if self.dice.rolls else NOTHING
        if "bad_gateway" in meets:
            counts.refuse("http502")
            return Answer(b"<html>502 Bad Gateway</html>", status=502, content_type="text/html")
        code, status = self._check(request, message, meets)
        if message is None or code:
            counts.refuse(code)
            return SimulatedAnswer(b'{"code":%d}' % code, status=status, delay_seconds=self._latency_seconds)
        self._deliver(self._book.deliver_sms(message_id=message.id, to=message.to, text=message.text, now=now))
        if "reset" in meets:
            counts.resets += 1
        delay = self._latency_seconds + (self.dice.faults.slow_seconds if "slow" in meets else 0.0)
        return SimulatedAnswer(orjson.dumps({"code": 0, "id": message.id}), delay_seconds=delay, reset="reset" in meets)

    def _check(self, request: Request, message: _Sms | None, meets: frozenset[str]) -> tuple[int, int]:
        """The gateway's code, 0 when it accepts the message, and the HTTP status."""
        if request.method != "POST":
            return CONFIGURATION, 405
        if request.authorization != self._bearer:
            return CONFIGURATION, 401
        if message is None or not 0 < len(message.id) <= MAX_ID_CHARS:
            return CONFIGURATION, 400
        if "throttle" in meets:
            return THROTTLED, 200
        if "busy" in meets:
            return TRY_LATER, 200
        if _NUMBER.fullmatch(message.to) is None:
            return BAD_NUMBER, 200
        if not message.text.strip():
            return REFUSED_CONTENT, 200
        return 0, 200


def _decoded(body: bytes) -> _Sms | None:
    try:
        return _decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
