"""Somebody who is told about the swipes of an account."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

ChannelName = Literal["wechat", "sms", "email", "webhook"]
"""Channels a recipient may list; one that is not configured is passed over."""

MAX_RECIPIENTS_PER_ACCOUNT = 16
"""Recipients of one account: a main card and its supplementary cards. Alert ids keep four bits for it."""

MAX_SOURCE_CHARS = 200
"""Characters of a consent's source: the number of a form or a recording, not its text. It stands in the card, which is
read with every event of the account."""

MAX_CONSENTS = 64
"""Consents of one recipient, for the same reason: a bank has a handful of categories, four channels and few templates
that somebody asks for one by one."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A provider said that this recipient is not to be reached: ``code`` is its answer, ``since`` epoch ms."""

    code: str
    since: int


class Consent(msgspec.Struct, frozen=True, gc=False):
    """What somebody said about being told: yes (``given``) or no, ``at`` epoch ms, and where that is written down.

    ``source`` is a bank's own words (a form, a call), without card numbers, at most `MAX_SOURCE_CHARS` long.
    """

    given: bool
    at: int
    source: str

    def outweighs(self, other: Consent) -> bool:
        """Whether this word holds against ``other`` about the same: the later one, and of two at one moment the no.

        A total order, so that it does not matter which of them is heard first.
        """
        return (self.at, not self.given, self.source) > (other.at, not other.given, other.source)


class Recipient(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A recipient as the ledger keeps it.

    ``channels`` is in the order of preference. ``min_amount`` is the recipient's own threshold, in minor units:
    ``{"sms": {"CNY": 10000}}``. ``refused`` has one entry per channel (``"wechat"``) or per channel and template
    (``"wechat/swipe"``, WeChat 43101) that the provider says is closed. ``service_until_ms`` is until when WeChat takes
    customer-service messages (epoch ms, 0: not), ``followed_ms`` when the account was last followed, as far as it was
    heard (see `heard`). ``consents`` is what the recipient said last, by ``"category"``, ``"category/channel"`` or
    ``"category/channel/template"``. Cards of earlier versions end before one of the last three.
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
    consents: dict[str, Consent] = {}

    def __repr__(self) -> str:  # a recipient is personal data: a traceback or a log shows its number only
        return f"<Recipient {self.id}>"


class ConsentWord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `Consent` as a bank writes it down, with its time as text."""

    given: bool
    at: Annotated[datetime, Meta(tz=True)]
    source: Annotated[str, Meta(min_length=1, max_length=MAX_SOURCE_CHARS)]


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
    consents: dict[str, ConsentWord] = {}

    def __repr__(self) -> str:
        return "<RecipientLine ****>"
