"""Makes the configured channels: the one place that knows every provider."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping

import msgspec

from dispatcher.channels.base import Channel, Fleet
from dispatcher.channels.email.channel import EmailChannel
from dispatcher.channels.email.session import SmtpSettings
from dispatcher.channels.email.smtp import SmtpNetwork
from dispatcher.channels.sms.build import make_sms
from dispatcher.channels.sms.vendor import CHANNEL, SECOND
from dispatcher.channels.webhook.channel import WebhookChannel
from dispatcher.channels.webhook.signing import BadSecret, SigningKey
from dispatcher.channels.wechat.channel import WechatChannel
from dispatcher.channels.wechat.service import WechatServiceChannel
from dispatcher.config import Config
from dispatcher.config_channels import ChannelSection, EmailConfig, SmsConfig, WebhookConfig, WechatConfig
from dispatcher.config_load import read_secret, read_secret_file
from dispatcher.errors import ConfigurationError
from dispatcher.model.private import Secret
from dispatcher.network.api import Network, PoolSettings
from dispatcher.network.curl import CurlNetwork
from dispatcher.network.routes import RoutedNetwork
from dispatcher.network.trust import authorities
from ratelimit.retry import RetryPolicy
from templates.library import Library


class Parts(msgspec.Struct, frozen=True):
    """What a channel is made of besides its own section. ``receipt_ms`` None: no channel waits for receipts."""

    library: Library
    network: Network
    retry: RetryPolicy
    receipt_ms: int | None
    secret: Secret | None
    environ: Mapping[str, str]
    fleet: Fleet | None = None


def _wechat(section: WechatConfig, parts: Parts) -> Channel:
    if parts.secret is None:
        raise ConfigurationError("channels.wechat.secret_file is missing")
    return WechatChannel(
        section, parts.secret, parts.library, parts.network, parts.retry, parts.receipt_ms, parts.fleet
    )


def _sms(section: SmsConfig, parts: Parts) -> Channel:
    secret_of = {SECOND: None if section.second is None else read_secret(SECOND, section.second, parts.environ)}
    return make_sms(section, parts.library, parts.retry, parts.receipt_ms, secret_of | {CHANNEL: parts.secret})


def _email(section: EmailConfig, parts: Parts) -> Channel:
    return EmailChannel(section, parts.library, parts.retry)


def _webhook(section: WebhookConfig, parts: Parts) -> Channel:
    if parts.secret is None:
        raise ConfigurationError("channels.webhook.secret_file is missing")
    secrets = {"secret_file" if section.secret_env is None else "secret_env": parts.secret}
    if section.previous_secret_file is not None:
        key = "previous_secret_file"
        secrets[key] = read_secret_file(section.previous_secret_file, f"channels.webhook.{key}")
    keys = []
    for key, secret in secrets.items():
        try:
            keys.append(SigningKey(secret))
        except BadSecret as error:
            raise ConfigurationError(f"channels.webhook.{key}: {error}") from None
    return WebhookChannel(section, keys, parts.library, parts.retry)


_MAKERS: dict[type[ChannelSection], Callable[..., Channel]] = {
    WechatConfig: _wechat,
    SmsConfig: _sms,
    EmailConfig: _email,
    WebhookConfig: _webhook,
}


def make_channels(
    config: Config, library: Library, network: Network, environ: Mapping[str, str], fleet: Fleet | None = None
) -> dict[str, Channel]:
    """The configured channels by name; without a ``fleet`` each process is on its own. Raises `ConfigurationError`."""
    settings = config.retry
    retry = RetryPolicy(
        base_seconds=settings.base_seconds,
        cap_seconds=settings.cap_seconds,
        max_attempts=settings.max_attempts,
        budget_share=settings.budget_share,
        budget_per_second=settings.budget_per_second,
    )
    receipt_ms = None if config.receipts is None else int(config.receipts.deadline_seconds * 1000)
    channels: dict[str, Channel] = {}
    for name, section in config.channels.configured().items():
        parts = Parts(library, network, retry, receipt_ms, read_secret(name, section, environ), environ, fleet)
        channels[name] = _MAKERS[type(section)](section, parts)
    template = channels.get("wechat")
    account = config.channels.wechat
    if account is not None and account.service_messages and isinstance(template, WechatChannel):
        service = WechatServiceChannel(account, template.steward, library, retry)
        channels[service.name] = service
    return channels


def open_network(config: Config, environ: Mapping[str, str]) -> Network:
    """The network of all configured channels; call it inside trio and close it. Raises `ConfigurationError`."""
    email = config.channels.email
    mail = None if email is None else _mail_server(email, read_secret("email", email, environ))
    http = CurlNetwork(pools_of(config))
    return http if mail is None else RoutedNetwork(http, {EmailChannel.name: SmtpNetwork(mail)})


def section_of(channel: str) -> str:
    """The configuration's section that a channel is made from; its rate and connections are that section's."""
    return "wechat" if channel == WechatServiceChannel.name else channel


def pools_of(config: Config) -> dict[str, PoolSettings]:
    """The HTTP connections that the configured channels want, by channel."""
    sections = config.channels.accounts().items()
    return {name: _pool(section) for name, section in sections if not isinstance(section, EmailConfig)}


def _mail_server(section: EmailConfig, secret: Secret | None) -> SmtpSettings:
    if secret is not None and not secret.reveal().isascii():
        raise ConfigurationError("channels.email: the password holds characters that SMTP's log-in cannot carry")
    context = None
    if section.tls != "none":
        try:
            believed = authorities(None if section.ca_file is None else str(section.ca_file))
            context = ssl.create_default_context(cafile=believed)
            if section.client_cert_file is not None and section.client_key_file is not None:
                # A key that is locked would ask on the terminal.
                context.load_cert_chain(section.client_cert_file, section.client_key_file, password=lambda: "")
        except (OSError, ValueError):  # ssl's own error is an OSError
            raise ConfigurationError(
                "channels.email.ca_file, client_cert_file or client_key_file: is not PEM, or does not fit the others"
            ) from None
    return SmtpSettings(
        host=section.host,
        port=section.port,
        tls=section.tls,
        sender=section.sender,
        # The sender's domain is a full name that exists; a machine's own is often neither, and is then refused.
        hello=section.sender.rpartition("@")[2],
        connections=section.connections,
        context=context,
        username=section.username,
        password=secret,
    )


def _pool(section: ChannelSection) -> PoolSettings:
    files = (section.ca_file, section.client_cert_file, section.client_key_file)
    ca_file, cert_file, key_file = (None if path is None else str(path) for path in files)
    return PoolSettings(
        connections=section.connections,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        http2=isinstance(section, WechatConfig) and section.http2,
    )
