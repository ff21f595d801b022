"""Digests leave: those that are due become events of our own and are admitted like any other.

The ledger gathers the members (`dispatcher.ledger.sqlite_digests`). Here their digest becomes an event that tells one
recipient. Between the two commits, that of the event and that which closes the digest, a process may die: the next one
makes the same event again, the ledger knows its id, and the digest is closed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import trio

from dispatcher.events import Accepted
from dispatcher.ledger.api import Ledger
from dispatcher.ledger.digests import DueDigest
from dispatcher.model.event import DIGEST, DigestFacts, Event
from dispatcher.model.recipient import Recipient
from ratelimit.effects import Rule, When
from ratelimit.rules import Rules
from templates.facts import main_currency

LOOK_S = 1.0
"""How often the ledger is asked for digests that are due: one leaves late by this at most."""

DIGEST_BATCH = 128
"""Digests told at a time. They go over a lane's capacity, as what is due does, because nobody could wait for them; a
full lane keeps the next ones back. A million accounts at 20:00 are told as fast as the lanes empty."""

NOT_FOR_DIGESTS = frozenset({"min_amount", "cap", "min_gap", "dedup", "storm"})
"""Effects that have had their say about the members: a digest that they suppressed would lose what they folded, and one
that they folded would never be told. Opt-out, consent, quiet hours, age, route and priority hold for it, those of its
members' category as well as those of its own (`Event.categories`)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder().encode


def as_event(digest: DueDigest, now_ms: int) -> Accepted:
    """The event that tells a digest. It happens ``now_ms`` (epoch ms), so that it is not late however old its members
    are; its amount is what they moved in the currency that moved most."""
    currency = main_currency(digest.amounts)
    event = Event(
        id=digest.event,
        account=digest.account,
        amount=digest.amounts[currency],
        currency=currency,
        time=_EPOCH + timedelta(milliseconds=now_ms),
        type=DIGEST,
        category=DIGEST,
        digest=DigestFacts(
            role=digest.role,
            count=digest.count,
            amounts=digest.amounts,
            since=digest.since,
            until=digest.until,
            rule=digest.rule,
            type=digest.type,
            category=digest.category,
        ),
    )
    return Accepted(event, _encode(event), now_ms)


def rules_for_digests(rules: Rules) -> Rules:
    """Those of the rules that a digest is decided by; one that names the category ``digest`` is always among them."""

    def holds(rule: Rule) -> bool:
        effect, when = type(rule).__struct_config__.tag, getattr(rule, "when", None)
        return effect not in NOT_FOR_DIGESTS or (isinstance(when, When) and DIGEST in when.category)

    return msgspec.structs.replace(rules, rule=tuple(rule for rule in rules.rule if holds(rule)))


def told_by(event: Event, recipients: Sequence[Recipient]) -> list[Recipient]:
    """Whom a digest tells, without the least amounts of their own: the one whose alerts it folds, if there still is."""
    assert event.digest is not None
    role = event.digest.role
    return [msgspec.structs.replace(one, min_amount={}) for one in recipients if one.role == role]


class Digests:
    """Tells what is due; called from the clock task."""

    def __init__(
        self, ledger: Ledger, admit: Callable[[Sequence[Accepted]], Awaitable[object]], now_ms: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._admit = admit
        self._now_ms = now_ms
        self._look_at = 0.0

    async def tell_due(self, owner: int) -> bool:
        """Tell up to a batch of digests that are due; True when there may be more. Mostly it does nothing.

        Raises what the ledger does, and then what was not told is told by a later call, of this process or another.
        """
        if trio.current_time() < self._look_at:
            return False
        due = await self._ledger.take_digests(self._now_ms(), owner, DIGEST_BATCH)
        if due:
            await self._admit([as_event(digest, self._now_ms()) for digest in due])
            await self._ledger.digests_sent([digest.id for digest in due])
        if len(due) == DIGEST_BATCH:
            return True
        self._look_at = trio.current_time() + LOOK_S
        return False
