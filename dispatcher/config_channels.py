"""The channels' sections of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from dispatcher.config_parts import (
    Connections,
    EnvironmentName,
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
from dispatcher.model.event import MAX_INT64

Amounts = Annotated[
    dict[Annotated[str, Meta(pattern="^[A-Z]{3}$")], Annotated[int, Meta(ge=0, le=MAX_INT64)]], Meta(max_length=256)
]
"""Minor units by currency. There are 180 currencies."""


class WechatConfig(Section, frozen=True, kw_only=True):
    """Template messages of a WeChat service account.

    ``daily_quota`` is the account's own (100,000 for a new verified account, says WeChat's page of the
    template interface), for as long as WeChat cannot be asked; of it ``quota_reserve_percent`` are left to swipes of
    at least ``reserve_from`` and to ``reserve_categories``. When it runs low, swipes below ``brownout_minimum`` (then
    below ``brownout_digest_below``) leave the channel first. ``template_ids`` maps our template to the account's
    private one; ``on_unknown``
    says what follows an answer that was never seen. ``ca_file`` and the client certificate are for a private line's
    gateway; ``http2`` offers HTTP/2, where resends of libcurl's own cannot be counted (docs/decisions/0003).
    """

    appid: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    base_url: UrlText = "https://api.weixin.qq.com"
    secret_file: Path | None = None
    secret_env: EnvironmentName | None = None
    rate_per_second: Rate = 200
    daily_quota: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 100_000
    quota_reserve_percent: Annotated[int, Meta(ge=0, le=90)] = 10
    reserve_from: Amounts = msgspec.field(default_factory=lambda: {"CNY": 500_000})
    reserve_categories: Annotated[tuple[Word, ...], Meta(max_length=64)] = ("fraud",)
    brownout_minimum: Amounts = msgspec.field(default_factory=lambda: {"CNY": 10_000})
    brownout_digest_below: Amounts = msgspec.field(default_factory=lambda: {"CNY": 30_000})
    connections: Connections = 64
    timeout_seconds: TimeoutSeconds = 10.0
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    http2: bool = False
    template_ids: dict[Word, Word] = msgspec.field(default_factory=dict)
    url: UrlText | None = None
    on_unknown: ResendOrLeave = "resend"

    def __post_init__(self) -> None:
        check_url("base_url", self.base_url, https_unless_loopback=True)
        if self.url is not None:
            check_url("url", self.url, https_unless_loopback=False)
        check_client_certificate(self.client_cert_file, self.client_key_file)
        why = "appid is given, and there is no access token without a secret"
        check_secret(self.secret_file, self.secret_env, needed_because=why)
        # Paths such as /cgi-bin/... are appended.
        msgspec.structs.force_setattr(self, "base_url", self.base_url.rstrip("/"))


class SmsConfig(Section, frozen=True, kw_only=True):
    """A JSON gateway; ``base_url`` is the URL that messages are posted to, ``sign`` the sender's signature.

    A gateway on this machine may go without a secret. ``on_unknown`` is by category, because SMS has no key
    by which a provider could tell the second request from the first.
    """

    base_url: UrlText
    vendor: Literal["generic"] = "generic"
    secret_file: Path | None = None
    secret_env: EnvironmentName | None = None
    sign: Annotated[str, Meta(max_length=64)] = ""
    rate_per_second: Rate = 50
    connections: Connections = 8
    timeout_seconds: TimeoutSeconds = 10.0
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    on_unknown: dict[Word, ResendOrLeave] = msgspec.field(default_factory=lambda: {"swipe": "leave"})

    def __post_init__(self) -> None:
        check_url("base_url", self.base_url, https_unless_loopback=True)
        check_client_certificate(self.client_cert_file, self.client_key_file)
        local = is_loopback(urlsplit(self.base_url).hostname or "")
        why = None if local else "the gateway is not on this machine and wants a bearer token"
        check_secret(self.secret_file, self.secret_env, needed_because=why)


ChannelSection = WechatConfig | SmsConfig
"""A section of a channel: each has a rate, connections and a place for its secret."""


class ChannelsConfig(Section, frozen=True, kw_only=True):
    """A channel without a section is passed over."""

    wechat: WechatConfig | None = None
    sms: SmsConfig | None = None

    def configured(self) -> dict[str, ChannelSection]:
        """The sections that are there, by the channel's name."""
        sections = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: section for name, section in sections.items() if section is not None}
