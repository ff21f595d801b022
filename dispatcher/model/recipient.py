"""Somebody who is told about the swipes of an account."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

ChannelName = Literal["wechat", "sms", "email", "webhook"]
"""Channels a recipient may list; one that is not configured is passed over."""

MAX_RECIPIENTS_PER_ACCOUNT = 16
"""Recipients of one account: a main card and its supplementary cards. Alert ids keep four bits for it."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A provider said that this recipient is not to be reached: ``code`` is its answer, ``since`` epoch ms."""

    code: str
    since: int


class Recipient(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A recipient as the ledger keeps it.

    ``channels`` is in the order of preference. ``min_amount`` is the recipient's own threshold, in minor units:
    ``{"sms": {"CNY": 10000}}``. ``refused`` has one entry per channel (``"wechat"``) or per channel and template
    (``"wechat/swipe"``, WeChat 43101) that the provider says is closed. ``service_until_ms`` is until when WeChat takes
    customer-service messages (epoch ms, 0: not), ``followed_ms`` when the account was last followed, as far as it was
    heard (see `heard`); cards of earlier versions end before these two.
    """

    id: int
    account: str
    role: str = "primary"
    openid: str | None = None
    phone: str | None = None
    email: str | None = None
    locale: str = "zh-CN"
    timezone: str = "Asia/Shanghai"
    channels: tuple[str, ...] = ("wechat", "sms")
    min_amount: dict[str, dict[str, int]] = {}
    opt_out: tuple[str, ...] = ()
    refused: dict[str, Refusal] = {}
    service_until_ms: int = 0
    followed_ms: int = 0

    def __repr__(self) -> str:  # a recipient is personal data: a traceback or a log shows its number only
        return f"<Recipient {self.id}>"


class RecipientLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``recipients import``: what a bank writes down about a recipient."""

    account: Annotated[str, Meta(min_length=1, max_length=128)]
    role: Annotated[str, Meta(min_length=1, max_length=64)] = "primary"
    openid: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    phone: Annotated[str, Meta(pattern=r"^\+[1-9][0-9]{4,14}$")] | None = None
    email: Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)] | None = None
    locale: Annotated[str, Meta(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "zh-CN"
    timezone: str = "Asia/Shanghai"
    channels: Annotated[tuple[ChannelName, ...], Meta(min_length=1, max_length=8)] = ("wechat", "sms")
    min_amount: dict[ChannelName, dict[Annotated[str, Meta(pattern="^[A-Z]{3}$")], Annotated[int, Meta(ge=0)]]] = {}
    opt_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "<RecipientLine ****>"
