"""The channels' sections of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
)
from dispatcher.config_sms import SecondSmsVendor, SmsConfig

__all__ = ["ChannelSection", "ChannelsConfig", "SmsConfig", "WechatConfig"]


class WechatConfig(Section, frozen=True, kw_only=True):
    """Template messages of a WeChat service account.

    ``daily_quota`` is the account's own (100,000 for a new verified account, says WeChat's page of the
    template interface); ``template_ids`` maps our template to the account's private one; ``on_unknown``
    says what follows an answer that was never seen. ``ca_file`` and the client certificate are for a private line's
    gateway; ``http2`` offers HTTP/2, where resends of libcurl's own cannot be counted (docs/decisions/0003).
    """

    appid: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    base_url: UrlText = "https://api.weixin.qq.com"
    secret_file: Path | None = None
    secret_env: EnvironmentName | None = None
    rate_per_second: Rate = 200
    daily_quota: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 100_000
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


ChannelSection = WechatConfig | SmsConfig | SecondSmsVendor
"""A section of a channel: each has a rate, connections and a place for its secret."""


class ChannelsConfig(Section, frozen=True, kw_only=True):
    """A channel without a section is passed over."""

    wechat: WechatConfig | None = None
    sms: SmsConfig | None = None

    def configured(self) -> dict[str, ChannelSection]:
        """The sections that are there, by the channel's name."""
        sections = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: section for name, section in sections.items() if section is not None}

    def accounts(self) -> dict[str, ChannelSection]:
        """The same with the accounts inside of a channel (``"sms.second"``): whatever has connections and a secret."""
        accounts = self.configured()
        if self.sms is not None and self.sms.second is not None:
            accounts["sms.second"] = self.sms.second
        return accounts
