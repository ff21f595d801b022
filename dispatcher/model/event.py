"""One swipe as the core system told it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

MAX_ID_CHARS = 128
"""An event id longer than this is refused: it is a key of the ledger, remembered for weeks."""

MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1

OWN_ID_PREFIX = "swipebell:"
"""Begins the ids of the events that Swipebell makes itself; the door refuses it."""

DIGEST = "digest"
"""Type and category of the event that tells of folded alerts."""

MAX_FACTS = 16
"""Entries of an event's ``facts``: the longest notice shows eight."""

MAX_FACT_CHARS = 200
"""Characters of one of them: three parts of an SMS, more than any field but a mail has room for."""

Int64 = Annotated[int, Meta(ge=MIN_INT64, le=MAX_INT64)]
Zoned = Annotated[datetime, Meta(tz=True)]


class DigestFacts(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What a digest tells. ``role``: the only recipient of the account who is told. ``count``: the members, 1 or more.

    ``amounts`` is what they moved by currency, in minor units, refunds against purchases and declined ones as nothing.
    ``since`` and ``until`` are the first and the last swipe, epoch ms. ``rule`` folded them; ``type`` is the type of
    all of them and ``category`` their category, each empty when they are of several.
    """

    role: str
    count: int
    amounts: dict[str, int]
    since: int
    until: int
    rule: str
    type: str = ""
    category: str = ""

    def __repr__(self) -> str:  # what somebody spent is theirs
        return f"<DigestFacts of {self.count}>"


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One swipe event. Fields that are not listed stay in the stored payload and are ignored.

    ``amount`` is an integer in the currency's minor units (ISO 4217 exponent: 0 for KRW, 3 for KWD), negative for a
    refund. ``time`` is the moment of the swipe, with a zone. ``pan`` is masked before an ``Event`` exists.
    ``facts`` is what a notice tells besides: ``{"due_date": "2026-11-25", "minimum_due_minor": 10000}``; which names
    mean something is in ``templates.facts``, the others are kept and ignored. The door lets in strings and 64-bit
    integers only (``event_checks``); but an event that was stored before it knew of facts may have anything there, and
    must still be read, so the type says nothing and ``fact`` is how to ask.
    ``digest`` is Swipebell's own (written as ``swipebell:digest``, which no core has as a field of its own): no event
    from outside has it.
    """

    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
    account: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
    amount: Int64
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")]
    time: Zoned
    type: str = "purchase"
    category: str = "swipe"
    pan: str | None = None
    merchant: str | None = None
    mcc: str | None = None
    city: str | None = None
    country: str | None = None
    status: str | None = None
    refers_to: str | None = None
    orig_amount: Int64 | None = None
    orig_currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] | None = None
    facts: Any = None
    digest: DigestFacts | None = msgspec.field(default=None, name="swipebell:digest")

    def fact(self, name: str) -> str | int | None:
        """What is told under that name in ``facts``; None when nothing is, or nothing that the door would let in."""
        if type(self.facts) is not dict:
            return None
        told = self.facts.get(name)
        return told if type(told) in (str, int) else None

    @property
    def categories(self) -> tuple[str, ...]:
        """Those whose rules are asked about it: its own, and of a digest also that of its members, where all have one,
        first."""
        if self.digest is None or not self.digest.category:
            return (self.category,)
        return (self.digest.category, self.category)

    def __repr__(
        self,
    ) -> str:  # account, card and merchant are the cardholder's: a traceback shows the id only
        return f"<Event {self.id!r}>"
