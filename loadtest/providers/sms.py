"""The simulated SMS gateway with the generic JSON contract (design.md section 4). Pure but for the book."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec
import orjson

from dispatcher.httpd import Answer, Request
from loadtest.providers.book import Book, SmsMessage
from loadtest.providers.faults import Dice
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
        counts, dice = self._book.sms, self.dice
        faults = dice.faults
        counts.requests += 1
        if dice.falls(faults.bad_gateway):
            counts.refuse("http502")
            return Answer(b"<html>502 Bad Gateway</html>", status=502, content_type="text/html")
        message, code, status = self._check(request)
        if message is None:
            counts.refuse(code)
            return SimulatedAnswer(b'{"code":%d}' % code, status=status, delay_seconds=self._latency_seconds)
        self._deliver(self._book.deliver_sms(message_id=message.id, to=message.to, text=message.text, now=now))
        reset = dice.falls(faults.reset)
        if reset:
            counts.resets += 1
        delay = self._latency_seconds + (faults.slow_seconds if dice.falls(faults.slow) else 0.0)
        return SimulatedAnswer(orjson.dumps({"code": 0, "id": message.id}), delay_seconds=delay, reset=reset)

    def _check(self, request: Request) -> tuple[_Sms | None, int, int]:
        """The message when it is accepted, otherwise None with the gateway's code and the HTTP status."""
        faults = self.dice.faults
        if request.method != "POST":
            return None, CONFIGURATION, 405
        if request.authorization != self._bearer:
            return None, CONFIGURATION, 401
        try:
            message = _decode(request.body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None, CONFIGURATION, 400
        if not 0 < len(message.id) <= MAX_ID_CHARS:
            return None, CONFIGURATION, 400
        if self.dice.falls(faults.throttle):
            return None, THROTTLED, 200
        if self.dice.falls(faults.busy):
            return None, TRY_LATER, 200
        if _NUMBER.fullmatch(message.to) is None:
            return None, BAD_NUMBER, 200
        if not message.text.strip():
            return None, REFUSED_CONTENT, 200
        return message, 0, 200
