"""What each cardholder saw: the providers' own account of the messages that were really shown.

It is the second opinion on the ledger. A message that WeChat recognised as one it had (the same user and
``client_msg_id`` within ten minutes) was shown once; one whose answer was reset after acceptance was shown; a lost
delivery report changes nothing; a message whose report says that it failed was not shown, whether the report came or
not. A text message is shown each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from loadtest.providers.book import Book, SmsMessage, WechatMessage

SHOWN: Final = frozenset({None, "success", "delivered"})
"""Statuses of a message that reached its cardholder; None: the provider sends no reports."""


class Shown(msgspec.Struct, frozen=True, gc=False):
    """One message on one cardholder's screen. ``recipient`` is the openid, the phone or the address, ``key`` the
    alert's own (``client_msg_id``, SMS id), ``at`` epoch seconds of its acceptance."""

    channel: str
    recipient: str
    key: str | None
    at: float

    def __repr__(self) -> str:
        return f"<Shown on {self.channel}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class AlertShown(msgspec.Struct, gc=False):
    """How often one alert was shown: on WeChat, by SMS."""

    wechat: int = 0
    sms: int = 0


def shown_on(book: Book, channel: str, recipient: str | None = None, part: slice = slice(None)) -> list[Shown]:
    """The messages of a channel that were shown, in the order in which they were accepted; ``part`` is of these.

    With a ``recipient`` only his. O(messages of the channel).
    """
    rows: Iterable[WechatMessage] | Iterable[SmsMessage]
    rows = book.wechat_messages if channel == "wechat" else book.sms_messages
    found = (_shown(channel, row) for row in rows if row.status in SHOWN)
    return [one for one in found if recipient is None or one.recipient == recipient][part]


def _shown(channel: str, row: WechatMessage | SmsMessage) -> Shown:
    if isinstance(row, WechatMessage):
        return Shown(channel, row.openid, row.client_msg_id, row.at)
    return Shown(channel, row.to, row.id, row.at)


def by_alert(shown: Iterable[Shown]) -> dict[str | None, AlertShown]:
    """Shown messages by the alert's key; the key None gathers those that had none."""
    alerts: dict[str | None, AlertShown] = {}
    for one in shown:
        alert = alerts.setdefault(one.key, AlertShown())
        if one.channel == "wechat":
            alert.wechat += 1
        else:
            alert.sms += 1
    return alerts


def doubles(shown: Iterable[Shown]) -> Iterator[tuple[str | None, AlertShown]]:
    """The alerts that somebody saw more than once on one channel."""
    for key, alert in by_alert(shown).items():
        if alert.wechat > 1 or alert.sms > 1:
            yield key, alert


_decode = msgspec.json.Decoder(Shown).decode


def read_shown(lines: bytes) -> list[Shown]:
    """Shown messages out of an answer of ``/_book/seen``."""
    return [_decode(line) for line in lines.splitlines()]
