"""The keys under which counters and marks are kept. Pure.

A key is text up to its last bar, then who is counted: the ledger keeps the first part once for all who share it. So
what has few values (rule, window, channel, category, template) stands before that bar, and who has many behind it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter

import msgspec

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.effects import MAX_WORD_CHARS

_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")

MAX_WORDS = 1_024
"""Remembered categories and templates as parts of keys."""

MAX_MERCHANTS = 8_192
"""Remembered merchants as parts of keys, about 2 MB: the large ones, which are most swipes."""

MAX_MERCHANT_CHARS = 128
"""Of a remembered merchant; the card schemes' own names have 25."""

_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)

_empty = hashlib.blake2b(digest_size=8)
_encode = msgspec.msgpack.Encoder().encode

Who = Callable[[Event, Recipient], str]


def digest_of(value: object) -> str:
    """16 hex digits for a value of plain types, different for different ones but by an accident of 1 in 2**64."""
    try:
        encoded = _encode(value)
    except UnicodeEncodeError:  # half a character, which no JSON of an event can bring
        encoded = repr(value).encode("utf-8", "backslashreplace")
    digest = _empty.copy()  # half of what it costs to make one
    digest.update(encoded)
    return digest.hexdigest()


def word(text: str) -> str:
    """A category or template as part of a key: itself, or its digest when it is no plain word."""
    return _word(text) if len(text) <= MAX_WORD_CHARS else f"~{digest_of(text)}"


@lru_cache(MAX_WORDS)
def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else f"~{digest_of(text)}"


def _merchant(name: str | None) -> str:
    # A longer one is not kept: an event may be 64 KB, and all of it one name.
    return _short_merchant(name) if name is None or len(name) <= MAX_MERCHANT_CHARS else digest_of(name)


@lru_cache(MAX_MERCHANTS)
def _short_merchant(name: str | None) -> str:
    return digest_of(name)


def who_of(per: Sequence[str]) -> Who:
    """Who is counted, of the scopes that have many values: recipient, merchant, account."""
    many = [scope for scope in ("recipient", "merchant", "account") if scope in per]
    if many == ["account"]:
        return lambda event, _recipient: event.account
    if many == ["recipient"]:
        return lambda _event, recipient: str(recipient.id)
    if not many:
        return lambda _event, _recipient: ""
    if many == ["merchant", "account"]:
        return lambda event, _recipient: f"{_merchant(event.merchant)}:{event.account}"
    recipients, merchants, accounts = "recipient" in per, "merchant" in per, "account" in per

    def who(event: Event, recipient: Recipient) -> str:
        # The account comes last: it is the only part that may hold anything.
        parts = []
        if recipients:
            parts.append(str(recipient.id))
        if merchants:
            parts.append(_merchant(event.merchant))
        if accounts:
            parts.append(event.account)
        return ":".join(parts)

    return who


def fingerprint_of(fields: Sequence[str]) -> Callable[[Event], str]:
    """A digest of some fields of an event; its time counts by the millisecond, as the ledger keeps it."""
    if "time" not in fields:
        read = attrgetter(*fields)
        return lambda event: digest_of(read(event))
    others = fingerprint_of([field for field in fields if field != "time"] or ["currency"])
    return lambda event: f"{others(event)}{(event.time - _EPOCH) // _MILLISECOND:x}"
