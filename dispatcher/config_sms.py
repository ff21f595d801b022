"""The SMS channel's section of the configuration: one vendor, or two that share the traffic by weight."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from dispatcher.config_parts import (
    Connections,
    EnvironmentName,
    PerMinute,
    Rate,
    ResendOrLeave,
    Section,
    TimeoutSeconds,
    UrlText,
    Word,
    check_client_certificate,
    check_secret,
    check_url,
    is_loopback,
)

Vendor = Literal["generic", "aliyun", "tencent"]

BASE_URLS: dict[Vendor, str] = {
    "aliyun": "https://dysmsapi.aliyuncs.com",
    "tencent": "https://sms.tencentcloudapi.com",
}
"""Where a vendor listens (providers.md sections 6.1 and 6.2); the generic gateway's is the bank's own."""

Codes = dict[Word, Word]
Params = dict[Word, Annotated[tuple[Word, ...], Meta(max_length=32)]]


class SmsVendor(Section, frozen=True, kw_only=True):
    """One account at one vendor.

    ``generic`` is a JSON gateway that takes our text: ``base_url`` is the URL that messages are posted to, and one on
    this machine may go without a secret. ``aliyun`` and ``tencent`` take the parameters of a template that they have
    approved: ``template_codes`` maps our template to theirs, ``template_params`` to the parameters in their order, each
    a field of ours or ``theirs=ours``; ``access_key_id`` is the account (Tencent: SecretId) and the secret its key;
    ``sign`` is the approved signature. Tencent also wants its ``sdk_app_id`` and a ``region``.
    """

    base_url: UrlText = ""
    vendor: Vendor = "generic"
    secret_file: Path | None = None
    secret_env: EnvironmentName | None = None
    access_key_id: Annotated[str, Meta(pattern="^[A-Za-z0-9]{8,128}$")] | None = None
    sdk_app_id: Annotated[str, Meta(pattern="^[0-9]{1,20}$")] | None = None
    region: Annotated[str, Meta(pattern="^[a-z0-9-]{1,32}$")] = "ap-guangzhou"
    template_codes: Codes = msgspec.field(default_factory=dict)
    template_params: Params = msgspec.field(default_factory=dict)
    sign: Annotated[str, Meta(max_length=64)] = ""
    rate_per_second: Rate = 50
    connections: Connections = 8
    timeout_seconds: TimeoutSeconds = 10.0
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.base_url:
            if self.vendor not in BASE_URLS:
                raise ValueError("base_url: is missing; it is the URL that messages are posted to")
            msgspec.structs.force_setattr(self, "base_url", BASE_URLS[self.vendor])
        check_url("base_url", self.base_url, https_unless_loopback=True)
        check_client_certificate(self.client_cert_file, self.client_key_file)
        if self.vendor == "generic":
            local = is_loopback(urlsplit(self.base_url).hostname or "")
            why = None if local else "the gateway is not on this machine and wants a bearer token"
            check_secret(self.secret_file, self.secret_env, needed_because=why)
            return
        check_secret(
            self.secret_file, self.secret_env, needed_because=f'vendor "{self.vendor}" takes signed requests only'
        )
        for key, what in _WANTED[self.vendor].items():
            if not getattr(self, key):
                raise ValueError(f'{key}: is missing; vendor "{self.vendor}" needs {what}')


_WANTED: dict[Vendor, dict[str, str]] = {
    "aliyun": {
        "access_key_id": "the AccessKey ID that belongs to the secret",
        "sign": "the approved SignName, without 【】",
        "template_codes": 'the approved templates, such as { swipe = "SMS_123456789" }',
        "template_params": 'what they are filled with, such as { swipe = ["card=tail", "amount", "merchant"] }',
    },
    "tencent": {
        "access_key_id": "the SecretId that belongs to the secret",
        "sdk_app_id": "the SdkAppId of the SMS application",
        "sign": "the approved SignName, without 【】",
        "template_codes": 'the approved templates, such as { swipe = "1234567" }',
        "template_params": 'what they are filled with, in order, such as { swipe = ["tail", "amount", "merchant"] }',
    },
}
"""Keys without which a vendor refuses everything, and what to write there."""


class SecondSmsVendor(SmsVendor, frozen=True, kw_only=True):
    """The second vendor. ``weight`` is its share of the traffic in percent while both are well; a small share goes to
    each of them in any case, so that it is known how it is. Its rate bounds its part."""

    weight: Annotated[int, Meta(ge=0, le=100)] = 10


class SmsConfig(SmsVendor, frozen=True, kw_only=True):
    """The channel. ``rate_per_second`` is that of the whole channel, ``second`` takes a part of it.

    ``on_unknown`` is by category, because SMS has no key by which a provider could tell the second request from the
    first.
    """

    template_rates: dict[Word, Rate] = msgspec.field(default_factory=dict)
    recipient_per_minute: PerMinute | None = None
    on_unknown: dict[Word, ResendOrLeave] = msgspec.field(default_factory=lambda: {"swipe": "leave"})
    second: SecondSmsVendor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        second = self.second
        if second is None:
            return
        if second.vendor == self.vendor != "generic":
            # Their status reports could not be told apart, and one vendor's accounts fail together.
            raise ValueError(f'second.vendor: is "{self.vendor}" like the first one; allowed is another vendor')
        if second.vendor == "generic" and second.base_url == self.base_url:
            raise ValueError("second.base_url: is the first one's, too; allowed is another gateway")
