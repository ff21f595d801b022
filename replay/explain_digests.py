"""What was folded into a digest, and what became of it, in plain sentences."""

from __future__ import annotations

from datetime import UTC, datetime

from dispatcher.ledger.digests import DigestStory
from dispatcher.ledger.stories import EventStory
from dispatcher.model.event import DigestFacts
from templates.money import format_money


def tell_folded(digest: DigestStory) -> str:
    """One sentence about a folded alert."""
    if digest.removed is not None:
        taken_back = f"event {digest.removed} took the swipe back, so it is not told"
        return f"folded into digest {digest.id} by rule {digest.rule}, and taken out of it: {taken_back}"
    return f"folded into digest {digest.id} by rule {digest.rule}, which {_became(digest)}"


def _became(digest: DigestStory) -> str:
    if digest.state == "open":
        return f"leaves {_moment(digest.due_at)} or as soon as it is full"
    if digest.told is None:
        return "takes no more members and is about to be told"
    state, channel, reason, ended_at = digest.told
    event = f"(event {digest.event})"
    if ended_at is None:
        return f"is on its way by {channel} {event}"
    if state == "delivered":
        return f"was delivered by {channel} at {_moment(ended_at)} {event}"
    why = f" ({reason})" if reason else ""
    return f"was not delivered: {state}{why} at {_moment(ended_at)} {event}"


def tell_digest(facts: DigestFacts) -> str:
    """What a digest told, in a line."""
    alerts = "1 alert" if facts.count == 1 else f"{facts.count} alerts"
    sums = ", ".join(format_money(amount, currency, "en") for currency, amount in facts.amounts.items())
    return f"digest of {alerts} folded by rule {facts.rule}, {sums} in all, for {facts.role}"


def tell_members(story: EventStory) -> list[str]:
    """The members of a digest in lines of text; nothing for any other event."""
    if not story.members:
        return []
    lines = ["", "members:", *(f"  event {member.event}, alert {member.alert}" for member in story.members)]
    if story.more_members:
        lines.append(f"  and {story.more_members} more")
    return lines


def _moment(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")
