"""Makes the SMS channel that a section asks for: one vendor's, or two of them by weight."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.channels.sms.aliyun.channel import AliyunChannel
from dispatcher.channels.sms.generic import GenericSmsChannel
from dispatcher.channels.sms.tencent.channel import TencentChannel
from dispatcher.channels.sms.vendor import CHANNEL, SECOND, Terms
from dispatcher.channels.sms.weighted import Vendor, WeightedSms
from dispatcher.config_sms import SmsConfig, SmsVendor
from dispatcher.errors import ConfigurationError
from dispatcher.model.private import Secret
from ratelimit.retry import RetryPolicy
from ratelimit.weights import WeightSettings
from templates.library import Library


def make_sms(
    section: SmsConfig,
    library: Library,
    retry: RetryPolicy,
    receipt_ms: int | None,
    secrets: Mapping[str, Secret | None],
) -> Vendor | WeightedSms:
    """The channel; ``secrets`` by account (``sms``, ``sms.second``). Raises `ConfigurationError`."""
    terms = Terms.of(section, retry, receipt_ms)
    first = _make(section, secrets.get(CHANNEL), library, terms, CHANNEL)
    if section.second is None:
        return first
    second = _make(section.second, secrets.get(SECOND), library, terms, SECOND)
    settings = WeightSettings(home=section.second.weight)
    return WeightedSms(first, second, terms=terms, settings=settings, second_rate=section.second.rate_per_second)


def _make(section: SmsVendor, secret: Secret | None, library: Library, terms: Terms, account: str) -> Vendor:
    if section.vendor == "generic":
        return GenericSmsChannel(section, secret, library, terms.retry, terms.receipt_ms, account, terms.on_unknown)
    if secret is None:
        raise ConfigurationError(f"channels.{account}.secret_file is missing")
    kind = AliyunChannel if section.vendor == "aliyun" else TencentChannel
    return kind(section, secret, library, terms, account)
