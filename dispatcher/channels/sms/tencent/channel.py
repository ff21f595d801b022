"""SMS over Tencent Cloud, action SendSms of 2021-01-11 (providers.md section 6.2)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
import orjson

from dispatcher.channels.sms.parameters import VendorTemplates
from dispatcher.channels.sms.tencent.answers import TABLE
from dispatcher.channels.sms.tencent.signature import CONTENT_TYPE, authorization
from dispatcher.channels.sms.vendor import CHANNEL, Terms, VendorChannel, phone_of, shown_code
from dispatcher.config_sms import SmsVendor
from dispatcher.delivery import Answer
from dispatcher.model.alert import Alert
from dispatcher.model.private import Secret
from dispatcher.network.api import Request, Response
from templates.library import Library

ACTION, VERSION = "SendSms", "2021-01-11"

MAX_PARAM_UNITS = 12
"""A longer variable is refused on some accounts (providers.md section 6.2)."""


class _Status(msgspec.Struct, gc=False):
    code: str = msgspec.field(name="Code")
    serial_no: Any = msgspec.field(name="SerialNo", default=None)


class _Error(msgspec.Struct, gc=False):
    code: str = msgspec.field(name="Code")


class _Response(msgspec.Struct, gc=False):
    error: _Error | None = msgspec.field(name="Error", default=None)
    statuses: list[_Status] = msgspec.field(name="SendStatusSet", default_factory=list)


class _Body(msgspec.Struct, gc=False):
    response: _Response = msgspec.field(name="Response")


_decode = msgspec.json.Decoder(_Body).decode


class TencentChannel(VendorChannel):
    """One application at Tencent Cloud. ``clock`` is epoch seconds: the vendor allows five minutes around it."""

    vendor = "tencent"
    table = TABLE

    def __init__(
        self,
        section: SmsVendor,
        secret: Secret,
        library: Library,
        terms: Terms,
        account: str = CHANNEL,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises `ConfigurationError`, see `VendorTemplates`."""
        super().__init__(section, terms, account)
        self._secret = secret
        self._key_id = section.access_key_id or ""
        self._app_id = section.sdk_app_id
        self._region = section.region
        self._sign = section.sign.strip("【】")
        self._url = section.base_url.rstrip("/") + "/"
        parts = urlsplit(self._url)
        self._host, self._path = parts.netloc, parts.path
        self._templates = VendorTemplates(account, section, library, MAX_PARAM_UNITS)
        self._clock = clock

    def prepare(self, alert: Alert) -> Request:
        """See `Channel.prepare`. One number a request: then its code is the answer."""
        filled = self._templates.fill(alert)
        body = orjson.dumps(
            {
                "PhoneNumberSet": [phone_of(alert)],
                "SmsSdkAppId": self._app_id,
                "TemplateId": filled.code,
                "SignName": self._sign,
                "TemplateParamSet": list(filled.values.values()),
                "SessionContext": alert.key,
            }
        )
        at = int(self._clock())
        proof = authorization(
            key_id=self._key_id, secret=self._secret, host=self._host, body=body, at=at, path=self._path
        )
        return Request(
            pool=self.account,
            url=self._url,
            headers=(
                f"Content-Type: {CONTENT_TYPE}",
                f"Authorization: {proof}",
                f"X-TC-Action: {ACTION}",
                f"X-TC-Version: {VERSION}",
                f"X-TC-Timestamp: {at}",
                f"X-TC-Region: {self._region}",
            ),
            body=body,
            tag=alert,
            timeout_ms=self._timeout_ms,
            fresh=True,
        )

    def classify(self, alert: Alert, response: Response) -> Answer:
        """See `Channel.classify`. Errors come with HTTP 200, too; what another status says is said by a proxy."""
        if response.failure is not None or response.status != 200:
            return self.without_code(alert, response, "unreadable")
        try:
            said = _decode(response.body).response
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self.without_code(alert, response, "unreadable")
        if said.error is not None:
            code = shown_code(said.error.code)
            # "Ok" is a number's code; as the error of a call it is nothing that we know.
            return self.from_table(alert, response, "other" if code == "Ok" else code)
        if len(said.statuses) != 1:
            return self.without_code(alert, response, "unreadable")
        code = shown_code(said.statuses[0].code)
        serial_no = said.statuses[0].serial_no
        if code == "Ok" and not (isinstance(serial_no, str) and serial_no):
            return self.without_code(alert, response, "no-id")
        return self.from_table(alert, response, code)
