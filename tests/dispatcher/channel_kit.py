"""What the channels' tests share: an alert, responses to it, and one check that nothing of it is printed."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import Any

from dispatcher.model.alert import Alert
from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from dispatcher.network.api import Failure, Request, Response

NOW = 1_704_103_200_000
"""2024-01-01T10:00:00Z, in ms."""

OPENID = "oK3x9_Secret-OpenId-aB7cD2e"
PHONE = "+8613800138000"
TOKEN = "73_Token-aBcDeFgHiJkLmNoPqRsTuVwXyZ"
SECRET = "0123456789abcdef0123456789abcdef"
PRIVATE = (OPENID, PHONE, PHONE[1:], TOKEN, SECRET)


def an_alert(**fields: Any) -> Alert:
    """An alert of a swipe of £72.61 to a recipient with both addresses, on its first channel."""
    event = {
        "id": "e-1",
        "account": "A-1",
        "pan": "************5770",
        "amount": 7261,
        "currency": "GBP",
        "merchant": "shell kings 587",
        "time": datetime(2024, 1, 1, 10, 0, tzinfo=UTC),
    }
    recipient = {"id": 7, "account": "A-1", "openid": OPENID, "phone": PHONE}
    given: dict[str, Any] = {
        "id": 16,
        "event": Event(**(event | fields.pop("event", {}))),
        "recipient": Recipient(**(recipient | fields.pop("recipient", {}))),
        "route": ("wechat", "sms"),
        "accepted_ms": NOW,
        "expires_ms": NOW + 3_600_000,
        "template": "swipe@1",
        "day_total": None,
    }
    return Alert(**(given | fields))


def response_to(request: Request, body: bytes = b"", status: int = 200, **fields: Any) -> Response:
    """The provider's answer, 83 ms later."""
    return Response(request, status, body, **({"seconds": 0.083} | fields))


def no_response_to(request: Request, failure: Failure, code: int, **fields: Any) -> Response:
    """No answer."""
    return response_to(request, b"", 0, failure=failure, code=code, **fields)


def shows_nothing_private(*things: object) -> None:
    """The one check of all tests here: neither form of these holds an address, a token or a secret."""
    for thing in things:
        texts = [repr(thing), str(thing), f"{thing}", f"{[thing]}"]
        if isinstance(thing, BaseException):
            texts += [str(thing.args), "".join(traceback.format_exception(thing))]
        for text in texts:
            assert not [private for private in PRIVATE if private in text], type(thing).__name__
