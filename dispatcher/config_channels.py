"""The channels' sections of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
from dispatcher.config_sms import SecondSmsVendor, SmsConfig
from dispatcher.model.event import MAX_INT64

__all__ = ["ChannelSection", "ChannelsConfig", "SecondSmsVendor", "SmsConfig", "WechatConfig"]

Amounts = Annotated[
    dict[Annotated[str, Meta(pattern="^[A-Z]{3}$")], Annotated[int, Meta(ge=0, le=MAX_INT64)]], Meta(max_length=256)
]
"""Minor units by currency. There are 180 currencies."""


class WechatConfig(Section, frozen=True, kw_only=True):
    """Template messages of a WeChat service account.

    ``daily_quota`` is the account's own (100,000 for a new verified account, says WeChat's page of the
    template interface), for as long as WeChat cannot be asked; of it ``quota_reserve_percent`` are left to alerts that
    the rules call urgent; where they have no ``priority``, to swipes of at least ``reserve_from`` and to
    ``reserve_categories``. When it runs low, swipes below ``brownout_minimum`` (then
    below ``brownout_digest_below``) leave the channel first. ``template_ids`` maps our template to the account's
    private one; ``on_unknown``
    says what follows an answer that was never seen. ``ca_file`` and the client certificate are for a private line's
    gateway; ``service_messages`` sends customer-service messages to whoever has a window for them open; ``http2``
    offers HTTP/2, where resends of libcurl's own cannot be counted (docs/decisions/0003).

    ``rate_per_second`` and ``template_rates`` (by our template's name) are of all processes of the ledger together;
    ``recipient_per_minute`` is what one recipient gets at most from each process (None: no limit of ours).
    """

    appid: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    base_url: UrlText = "https://api.weixin.qq.com"
    secret_file: Path | None = None
    secret_env: EnvironmentName | None = None
    rate_per_second: Rate = 200
    template_rates: dict[Word, Rate] = msgspec.field(default_factory=dict)
    recipient_per_minute: PerMinute | None = None
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
    service_messages: bool = False

    def __post_init__(self) -> None:
        check_url("base_url", self.base_url, https_unless_loopback=True)
        if self.url is not None:
            check_url("url", self.url, https_unless_loopback=False)
        check_client_certificate(self.client_cert_file, self.client_key_file)
        why = "appid is given, and there is no access token without a secret"
        check_secret(self.secret_file, self.secret_env, needed_because=why)
        # Paths such as /cgi-bin/... are appended.
        msgspec.structs.force_setattr(self, "base_url", self.base_url.rstrip("/"))


MailAddress = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$", max_length=254)]
MailConnections = Annotated[int, Meta(ge=1, le=64)]
"""Each is a thread; sixty-four saturate any relay."""


class EmailConfig(Section, frozen=True, kw_only=True):
    """A mail server that takes our messages (a relay of the bank's, or a provider's).

    ``tls``: ``starttls`` (the server must offer it), ``implicit`` (from the first byte, mostly port 465) or ``none``,
    which is for a relay on this machine. With ``username`` there must be a secret, the password. ``on_unknown`` is by
    category; one that is not named is sent again with the same Message-ID.
    """

    host: Word
    sender: MailAddress
    port: Annotated[int, Meta(ge=1, le=65_535)] = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    username: Word | None = None
    secret_file: Path | None = None
    secret_env: EnvironmentName | None = None
    sender_name: Annotated[str, Meta(max_length=64)] = ""
    rate_per_second: Rate = 20
    template_rates: dict[Word, Rate] = msgspec.field(default_factory=dict)
    recipient_per_minute: PerMinute | None = None
    connections: MailConnections = 4
    timeout_seconds: TimeoutSeconds = 30.0
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    on_unknown: dict[Word, ResendOrLeave] = msgspec.field(default_factory=lambda: {"swipe": "resend"})

    def __post_init__(self) -> None:
        if self.tls == "none" and not is_loopback(self.host):
            raise ValueError('tls: "none" is allowed for a loopback address only; say "starttls" or "implicit"')
        if not self.sender_name.isprintable():
            raise ValueError("sender_name: holds a line break or another control character")
        if self.username is not None and not (self.username.isascii() and self.username.isprintable()):
            raise ValueError("username: allowed are printable ASCII characters")
        check_client_certificate(self.client_cert_file, self.client_key_file)
        why = None if self.username is None else "username is given, and the log-in needs a password"
        check_secret(self.secret_file, self.secret_env, needed_because=why)
        if self.username is None and (self.secret_file is not None or self.secret_env is not None):
            raise ValueError("username: is missing although there is a secret; the log-in needs both")


class WebhookConfig(Section, frozen=True, kw_only=True):
    """A system of the bank's, or anybody's, that takes alerts as signed HTTPS POSTs (Standard Webhooks).

    The secret is ``whsec_`` and base64. While it is being changed, the previous one in ``previous_secret_file`` signs
    as well.
    """

    url: UrlText
    secret_file: Path | None = None
    secret_env: EnvironmentName | None = None
    previous_secret_file: Path | None = None
    rate_per_second: Rate = 100
    template_rates: dict[Word, Rate] = msgspec.field(default_factory=dict)
    recipient_per_minute: PerMinute | None = None
    connections: Connections = 16
    timeout_seconds: TimeoutSeconds = 10.0
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None

    def __post_init__(self) -> None:
        check_url("url", self.url, https_unless_loopback=True)
        check_client_certificate(self.client_cert_file, self.client_key_file)
        why = "every request is signed, so that the receiver can tell ours from others"
        check_secret(self.secret_file, self.secret_env, needed_because=why)


ChannelSection = WechatConfig | SmsConfig | SecondSmsVendor | EmailConfig | WebhookConfig
"""A section of a channel: each has a rate, connections and a place for its secret."""


class ChannelsConfig(Section, frozen=True, kw_only=True):
    """A channel without a section is passed over."""

    wechat: WechatConfig | None = None
    sms: SmsConfig | None = None
    email: EmailConfig | None = None
    webhook: WebhookConfig | None = None

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
