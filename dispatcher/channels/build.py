"""Makes the configured channels: the one place that knows every provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from dispatcher.channels.base import Channel, Fleet
from dispatcher.channels.sms.generic import GenericSmsChannel
from dispatcher.channels.wechat.channel import WechatChannel
from dispatcher.config import Config
from dispatcher.config_channels import ChannelSection, SmsConfig, WechatConfig
from dispatcher.config_load import read_secret
from dispatcher.errors import ConfigurationError
from dispatcher.model.private import Secret
from dispatcher.network.api import Network, PoolSettings
from ratelimit.retry import RetryPolicy
from templates.library import Library


class Parts(msgspec.Struct, frozen=True):
    """What a channel is made of besides its own section. ``receipt_ms`` None: no channel waits for receipts."""

    library: Library
    network: Network
    retry: RetryPolicy
    receipt_ms: int | None
    secret: Secret | None
    fleet: Fleet | None = None


def _wechat(section: WechatConfig, parts: Parts) -> Channel:
    if parts.secret is None:
        raise ConfigurationError("channels.wechat.secret_file is missing")
    return WechatChannel(
        section, parts.secret, parts.library, parts.network, parts.retry, parts.receipt_ms, parts.fleet
    )


def _sms(section: SmsConfig, parts: Parts) -> Channel:
    return GenericSmsChannel(section, parts.secret, parts.library, parts.retry, parts.receipt_ms)


_MAKERS: dict[type[ChannelSection], Callable[..., Channel]] = {WechatConfig: _wechat, SmsConfig: _sms}


def make_channels(
    config: Config, library: Library, network: Network, environ: Mapping[str, str], fleet: Fleet | None = None
) -> dict[str, Channel]:
    """The configured channels by name; without a ``fleet`` each process is on its own. Raises `ConfigurationError`."""
    settings = config.retry
    retry = RetryPolicy(
        base_seconds=settings.base_seconds,
        cap_seconds=settings.cap_seconds,
        max_attempts=settings.max_attempts,
    )
    receipt_ms = None if config.receipts is None else int(config.receipts.deadline_seconds * 1000)
    channels = {}
    for name, section in config.channels.configured().items():
        parts = Parts(library, network, retry, receipt_ms, read_secret(name, section, environ), fleet)
        channels[name] = _MAKERS[type(section)](section, parts)
    return channels


def pools_of(config: Config) -> dict[str, PoolSettings]:
    """The connections that the configured channels want, by channel."""
    return {name: _pool(section) for name, section in config.channels.configured().items()}


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
