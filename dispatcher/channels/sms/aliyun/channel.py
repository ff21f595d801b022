"""SMS over Aliyun, action SendSms of Dysmsapi 2017-05-25 (providers.md section 6.1)."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
import orjson

from dispatcher.channels.sms.aliyun.answers import HOUR_MS, MINUTE_MS, TABLE
from dispatcher.channels.sms.aliyun.signature import canonical_query, signed_headers
from dispatcher.channels.sms.parameters import VendorTemplates
from dispatcher.channels.sms.vendor import CHANNEL, Terms, VendorChannel, phone_of, shown_code
from dispatcher.config_sms import SmsVendor
from dispatcher.delivery import Answer
from dispatcher.model.alert import Alert
from dispatcher.model.private import Secret
from dispatcher.network.api import Request, Response
from templates.library import Library

ACTION, VERSION = "SendSms", "2017-05-25"

_WINDOW = re.compile("触发(分钟|小时|天)级流控")


class _Body(msgspec.Struct, gc=False):
    code: str = msgspec.field(name="Code")
    message: Any = msgspec.field(name="Message", default=None)
    biz_id: Any = msgspec.field(name="BizId", default=None)


_decode = msgspec.json.Decoder(_Body).decode


def _random_nonce() -> str:
    return uuid.uuid4().hex


class AliyunChannel(VendorChannel):
    """One account at Aliyun. ``clock`` is epoch seconds: the signature is good for some minutes around it."""

    vendor = "aliyun"
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
        nonce: Callable[[], str] = _random_nonce,
    ) -> None:
        """Raises `ConfigurationError`, see `VendorTemplates`."""
        super().__init__(section, terms, account)
        self._secret = secret
        self._key_id = section.access_key_id or ""
        self._sign = section.sign.strip("【】")
        self._url = section.base_url.rstrip("/") + "/"
        parts = urlsplit(self._url)
        self._host, self._path = parts.netloc, parts.path
        self._templates = VendorTemplates(account, section, library)
        self._clock = clock
        self._nonce = nonce

    def prepare(self, alert: Alert) -> Request:
        """See `Channel.prepare`."""
        filled = self._templates.fill(alert)
        phone = phone_of(alert)
        query = canonical_query(
            {
                "PhoneNumbers": phone.removeprefix("+86").removeprefix("+"),
                "SignName": self._sign,
                "TemplateCode": filled.code,
                "TemplateParam": orjson.dumps(filled.values).decode(),
                "OutId": alert.key,
            }
        )
        headers = signed_headers(
            key_id=self._key_id,
            secret=self._secret,
            host=self._host,
            path=self._path,
            query=query,
            action=ACTION,
            version=VERSION,
            nonce=self._nonce(),
            at=self._clock(),
        )
        return Request(
            pool=self.account,
            url=f"{self._url}?{query}",
            headers=tuple(f"{name}: {value}" for name, value in headers.items() if name != "host"),
            body=None,
            tag=alert,
            timeout_ms=self._timeout_ms,
            fresh=True,
        )

    def classify(self, alert: Alert, response: Response) -> Answer:
        """See `Channel.classify`. A refusal comes with HTTP 4xx and its code in the body."""
        if response.failure is not None:
            return self.without_code(alert, response, "unreadable")
        try:
            body = _decode(response.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self.without_code(alert, response, "unreadable")
        code = shown_code(body.code)
        if code == "OK":
            # Acceptance is HTTP 200 with the message's id; anything else may be from somewhere else.
            accepted = response.status == 200 and isinstance(body.biz_id, str) and body.biz_id
            return self.from_table(alert, response, code) if accepted else self.without_code(alert, response, "no-id")
        if response.status >= 500 and not self.table.knows(code):
            return self.without_code(alert, response, "unreadable")  # it may have been taken before
        said = body.message if isinstance(body.message, str) else ""
        return self.from_table(alert, response, code, pause_ms=partial(self._pause_ms, said))

    def _pause_ms(self, said: str, pause_ms: int) -> int:
        """How long this number is closed. Minute and hour are windows of the calendar; the day is the last 24 hours,
        which may free a place at any time, so a look every hour; without a word of it the table's."""
        found = _WINDOW.search(said)
        if found is None:
            return pause_ms
        now_ms = int(self._clock() * 1000)
        if found[1] == "分钟":
            return MINUTE_MS - now_ms % MINUTE_MS
        return HOUR_MS - now_ms % HOUR_MS if found[1] == "小时" else HOUR_MS
