"""Digests as the ledger speaks of them: what is to be told, what the books count, and what ``explain`` shows. Pure."""

from __future__ import annotations

import msgspec

from dispatcher.model.alert import State


class DueDigest(msgspec.Struct, frozen=True, gc=False):
    """A digest whose members are fixed and of which the recipient is to be told by the event ``event``.

    ``amounts`` is by currency in minor units, refunds against purchases and declined ones as 0; ``since`` and ``until``
    are the first and the last swipe; ``type`` is the type of all members and ``category`` their category, each empty
    when they are of several.
    """

    id: int
    event: str
    account: str
    role: str
    rule: str
    count: int
    amounts: dict[str, int]
    since: int
    until: int
    type: str
    category: str


class DigestBooks(msgspec.Struct, frozen=True):
    """What was folded. ``folded`` alerts are members of ``states`` digests (open, closing, sent, or empty because all
    their members were taken back); ``removed`` were members until they were taken back.

    ``faults`` must be 0: members without a digest, or whose alert is not suppressed by its rule; digests whose number
    of members is wrong; sent ones without their event.
    """

    folded: int = 0
    removed: int = 0
    states: dict[str, int] = {}
    faults: int = 0


class DigestStory(msgspec.Struct, frozen=True):
    """The digest of a folded alert as ``explain`` tells it. ``removed`` is the reversal that took the alert out of it.

    ``told`` is what became of its message, once it has one: (state, channel, reason, when it ended).
    """

    id: int
    event: str
    rule: str
    state: str
    due_at: int
    removed: str | None
    told: tuple[State, str, str | None, int | None] | None


class Member(msgspec.Struct, frozen=True):
    """One member of a digest: the event and the alert that was folded."""

    event: str
    alert: int
