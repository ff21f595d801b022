"""The simulated SMS gateways of Aliyun and Tencent Cloud (providers.md sections 6.1 and 6.2). Pure but for the book.

``…/aliyun/`` takes SendSms in the query, ``…/tencent/`` takes it as JSON; both check the signature with a computation
of their own and the number's windows, and post status reports in the vendor's form. The account's id is `KEY_ID`, its
secret that of the generic gateway. Messages stand in the same book; their ``id`` is our word (OutId, SessionContext).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import orjson

from dispatcher.channels.sms.segments import with_sign
from dispatcher.httpd import Answer, Request
from loadtest.providers.book import Book, SmsMessage
from loadtest.providers.faults import NOTHING, Dice
from loadtest.providers.late import SimulatedAnswer
from loadtest.providers.settings import ProviderSettings
from loadtest.providers.sms_windows import PerNumber, Window
from templates.limits import segments

KEY_ID: Final = "SimulatedKeyId0"
MAX_SKEW_SECONDS: Final = 300
MAX_NONCES: Final = 100_000
"""Of Aliyun's that are remembered: far more than come in one window of its clock."""

_NUMBER: Final = re.compile(r"\+?[1-9][0-9]{4,14}", re.ASCII)
_PROOF: Final = re.compile(r"(?:^|[ ,])(Credential|SignedHeaders|Signature)=([^, ]+)")


class Refused(Exception):
    """A vendor's code and message for what it does not take."""

    def __init__(self, code: str, message: str = "", status: int = 200) -> None:
        super().__init__(code)
        self.code = code
        self.message = message or code
        self.status = status


class Sms:
    """What a request asks for, once it is read."""

    __slots__ = ("number", "ours", "sign", "text")

    def __init__(self, number: str, sign: str, text: str, ours: str) -> None:
        self.number = number
        self.sign = sign
        self.text = text
        self.ours = ours


class _Vendor(Protocol):
    busy: str
    throttled: str

    def reset(self) -> None: ...

    def read(self, request: Request, secret: str, now: float) -> Sms: ...

    def too_many(self, window: Window) -> Refused: ...

    def accepted(self, sms: Sms, serial: str) -> bytes: ...

    def refused(self, why: Refused) -> bytes: ...


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_time(at: float, now: float, code: str, status: int = 200) -> None:
    if abs(now - at) > MAX_SKEW_SECONDS:
        raise Refused(code, status=status)


class Aliyun:
    """SendSms of 2017-05-25."""

    busy = "isp.SYSTEM_ERROR"
    throttled = "Throttling.User"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """No nonce was used yet."""
        self._nonces: dict[str, None] = {}

    def read(self, request: Request, secret: str, now: float) -> Sms:
        """The message. Raises `Refused`."""
        self._check_signature(request, secret, now)
        asked = dict(parse_qsl(request.query, keep_blank_values=True))
        number = asked.get("PhoneNumbers", "")
        if "," in number:
            raise Refused("isv.MOBILE_COUNT_OVER_LIMIT")
        if _NUMBER.fullmatch(number) is None:
            raise Refused("isv.MOBILE_NUMBER_ILLEGAL")
        if not asked.get("SignName"):
            raise Refused("isv.SMS_SIGNATURE_ILLEGAL")
        if not asked.get("TemplateCode"):
            raise Refused("isv.SMS_TEMPLATE_ILLEGAL")
        try:
            values = json.loads(asked.get("TemplateParam", "{}"))
            text = asked["TemplateCode"] + " " + " ".join(f"{name}={value}" for name, value in values.items())
        except (ValueError, AttributeError):
            raise Refused("isv.INVALID_JSON_PARAM") from None
        return Sms(number, asked["SignName"], text, asked.get("OutId", ""))

    def _check_signature(self, request: Request, secret: str, now: float) -> None:
        given = dict(_PROOF.findall(request.authorization))
        if given.get("Credential") != KEY_ID:
            raise Refused("InvalidAccessKeyId.NotFound", status=404)
        names = given.get("SignedHeaders", "").split(";")
        fields = "".join(f"{name}:{request.field(name)}\n" for name in names)
        canonical = (
            f"{request.method}\n{request.path}\n{request.query}\n{fields}\n{';'.join(names)}\n{_sha256(request.body)}"
        )
        wanted = _mac(secret.encode(), f"ACS3-HMAC-SHA256\n{_sha256(canonical.encode())}").hex()
        if not hmac.compare_digest(given.get("Signature", "").encode(), wanted.encode()):
            raise Refused("SignatureDoesNotMatch", status=400)
        _check_time(_epoch(request.field("x-acs-date")), now, "InvalidTimeStamp.Expired", 400)
        nonce = request.field("x-acs-signature-nonce")
        if nonce in self._nonces:
            raise Refused("SignatureNonceUsed", status=400)
        self._nonces[nonce] = None
        if len(self._nonces) > MAX_NONCES:
            del self._nonces[next(iter(self._nonces))]

    def too_many(self, window: Window) -> Refused:
        """The code for a window that is full."""
        return Refused("isv.BUSINESS_LIMIT_CONTROL", f"触发{window.name}级流控Permits:{window.limit}")

    def accepted(self, sms: Sms, serial: str) -> bytes:
        """The answer to a message that was taken."""
        return orjson.dumps({"Code": "OK", "Message": "OK", "BizId": serial, "RequestId": serial})

    def refused(self, why: Refused) -> bytes:
        """The answer to one that was not."""
        return orjson.dumps({"Code": why.code, "Message": why.message, "RequestId": "0"})


class Tencent:
    """SendSms of 2021-01-11."""

    busy = "InternalError.OtherError"
    throttled = "RequestLimitExceeded"

    def reset(self) -> None:
        """It remembers nothing."""

    def read(self, request: Request, secret: str, now: float) -> Sms:
        """The message. Raises `Refused`."""
        self._check_signature(request, secret, now)
        try:
            asked: dict[str, Any] = json.loads(request.body)
            (number,) = asked["PhoneNumberSet"]
            values = " ".join(asked.get("TemplateParamSet", []))
        except (ValueError, TypeError, KeyError):
            raise Refused("InvalidParameterValue.IncorrectPhoneNumber") from None
        if not isinstance(number, str) or _NUMBER.fullmatch(number) is None:
            raise Refused("InvalidParameterValue.IncorrectPhoneNumber")
        if not asked.get("SignName"):
            raise Refused("FailedOperation.SignatureIncorrectOrUnapproved")
        if not asked.get("TemplateId"):
            raise Refused("FailedOperation.TemplateIncorrectOrUnapproved")
        return Sms(number, asked["SignName"], f"{asked['TemplateId']} {values}", asked.get("SessionContext", ""))

    def _check_signature(self, request: Request, secret: str, now: float) -> None:
        given = dict(_PROOF.findall(request.authorization))
        key_id, _, scope = given.get("Credential", "").partition("/")
        if key_id != KEY_ID:
            raise Refused("AuthFailure.SecretIdNotFound")
        stamp = request.field("x-tc-timestamp")
        canonical = (
            f"POST\n{request.path}\n\ncontent-type:application/json\nhost:{request.field('host')}\n\n"
            f"content-type;host\n{_sha256(request.body)}"
        )
        key = f"TC3{secret}".encode()
        for part in scope.split("/"):
            key = _mac(key, part)
        wanted = _mac(key, f"TC3-HMAC-SHA256\n{stamp}\n{scope}\n{_sha256(canonical.encode())}").hex()
        if not hmac.compare_digest(given.get("Signature", "").encode(), wanted.encode()):
            raise Refused("AuthFailure.SignatureFailure")
        _check_time(float(stamp) if stamp.isdigit() else 0.0, now, "AuthFailure.SignatureExpire")

    def too_many(self, window: Window) -> Refused:
        """The code for a window that is full."""
        return Refused(f"LimitExceeded.{window.name}")

    def accepted(self, sms: Sms, serial: str) -> bytes:
        """The answer to a message that was taken."""
        status = {"SerialNo": serial, "PhoneNumber": sms.number, "Fee": segments(with_sign(sms.text, sms.sign))}
        status |= {"SessionContext": sms.ours, "Code": "Ok", "Message": "send success", "IsoCode": "CN"}
        return orjson.dumps({"Response": {"SendStatusSet": [status], "RequestId": serial}})

    def refused(self, why: Refused) -> bytes:
        """The answer to one that was not: of the number, or of the whole call."""
        said = {"Code": why.code, "Message": why.message}
        if why.code.startswith(("AuthFailure.", "RequestLimit", "InternalError.")):
            return orjson.dumps({"Response": {"Error": said, "RequestId": "0"}})
        return orjson.dumps({"Response": {"SendStatusSet": [said | {"SerialNo": "", "Fee": 0}], "RequestId": "0"}})


def _epoch(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


class VendorGateway:
    """One account at one vendor. ``deliver`` is called with each message that was taken and the vendor's id for it; the
    same word of ours twice is two messages."""

    def __init__(
        self,
        vendor: _Vendor,
        windows: tuple[Window, ...],
        settings: ProviderSettings,
        dice: Dice,
        book: Book,
        deliver: Callable[[SmsMessage, str], None],
    ) -> None:
        self.dice = dice
        self._vendor = vendor
        self._secret = settings.sms_secret.reveal()
        self._latency_seconds = settings.latency_seconds
        self._windows = windows if settings.sms_windows else ()
        self._book = book
        self._deliver = deliver
        self._serial = 0
        self.reset()

    def reset(self) -> None:
        """Fresh windows for every number; the vendor's ids go on, for none may come twice."""
        self._numbers = PerNumber(self._windows)
        self._vendor.reset()

    def send(self, request: Request, now: float) -> Answer:
        """One SendSms."""
        counts = self._book.sms
        counts.requests += 1
        try:
            sms = self._read(request, now)
            # Our word is all that a second try has in common with the first.
            key = sms.ours or f"{sms.number}/{sms.text}"
            meets = self.dice.meets(key) if self.dice.rolls else NOTHING
            if "bad_gateway" in meets:
                counts.refuse("http502")
                return Answer(b"<html>502 Bad Gateway</html>", status=502, content_type="text/html")
            self._take(sms, meets, now)
        except Refused as why:
            counts.refuse(why.code)
            body = self._vendor.refused(why)
            return SimulatedAnswer(body, status=why.status, delay_seconds=self._latency_seconds)
        self._serial += 1
        serial = f"{self._serial:018}^0"
        text = with_sign(sms.text, sms.sign)
        self._deliver(self._book.deliver_sms(message_id=sms.ours, to=sms.number, text=text, now=now), serial)
        counts.resets += "reset" in meets
        delay = self._latency_seconds + (self.dice.faults.slow_seconds if "slow" in meets else 0.0)
        return SimulatedAnswer(self._vendor.accepted(sms, serial), delay_seconds=delay, reset="reset" in meets)

    def _read(self, request: Request, now: float) -> Sms:
        if request.method != "POST":
            raise Refused("UnsupportedHTTPMethod", status=405)
        return self._vendor.read(request, self._secret, now)

    def _take(self, sms: Sms, meets: frozenset[str], now: float) -> None:
        if "throttle" in meets:
            raise Refused(self._vendor.throttled)
        if "busy" in meets:
            raise Refused(self._vendor.busy)
        if (window := self._numbers.full(sms.number, now)) is not None:
            raise self._vendor.too_many(window)
        self._numbers.accept(sms.number, now)


def aliyun_report(message: SmsMessage, serial: str, at: float) -> bytes:
    """The push ``SmsReport`` of one message."""
    when = _clock_text(at)
    delivered = message.status == "delivered"
    report = {
        "phone_number": message.to,
        "send_time": when,
        "report_time": when,
        "success": delivered,
        "err_code": "DELIVERED" if delivered else "UNDELIV",
        "err_msg": "delivered" if delivered else "undelivered",
        "sms_size": str(segments(message.text)) if message.text else "0",
        "biz_id": serial,
        "out_id": message.id,
    }
    return orjson.dumps([report])


def tencent_report(message: SmsMessage, serial: str, at: float) -> bytes:
    """The push of one message's status."""
    delivered = message.status == "delivered"
    report = {
        "user_receive_time": _clock_text(at),
        "nationcode": "86",
        "mobile": message.to,
        "report_status": "SUCCESS" if delivered else "FAIL",
        "errmsg": "DELIVRD" if delivered else "UNDELIV",
        "description": "delivered" if delivered else "undelivered",
        "sid": serial,
        "ext": message.id,
    }
    return orjson.dumps([report])


def _clock_text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone(timezone(timedelta(hours=8))).strftime("%Y-%m-%d %H:%M:%S")


REPORTS: Final = {"aliyun": aliyun_report, "tencent": tencent_report}
