"""One alert: what one recipient is to be told about one event."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient

ALERT_ID_BITS = 4
"""An alert's id is its event's sequence number shifted by this, plus its position among the event's recipients, so
that the alerts of an event are found by a range of the primary key and need no index of their own."""

OpenState = Literal["held", "queued", "sending", "retrying", "awaiting", "interrupted"]
EndState = Literal["delivered", "suppressed", "failed", "expired", "cancelled"]
State = OpenState | EndState


class Alert(msgspec.Struct, frozen=True, gc=False):
    """An open alert in a process that holds its lease, with all that its channel needs. Times are epoch ms.

    ``route`` is every channel the send rules allow, in order; ``position`` the one it is on now. ``attempts`` counts
    what was handed to a provider so far on all channels; ``first_attempt_ms`` is when the present channel was first
    tried (its idempotency window runs from there). ``state`` is the state it had when it was leased; ``receipt`` what
    the provider's receipt says, when one has come. ``process_died``: its last attempt ended with our process and says
    nothing about the provider. ``late_seconds`` is set when it leaves, from the swipe on, if the rules want an alert so
    old to say that it is late; 0: it says nothing.
    """

    id: int
    event: Event
    recipient: Recipient
    route: tuple[str, ...]
    accepted_ms: int
    expires_ms: int
    template: str
    day_total: int | None
    position: int = 0
    attempts: int = 0
    first_attempt_ms: int | None = None
    state: State = "sending"
    token_refreshed: bool = False
    receipt: str | None = None
    process_died: bool = False
    late_seconds: int = 0

    @property
    def channel(self) -> str:
        """The channel it is on."""
        return self.route[self.position]

    @property
    def key(self) -> str:
        """What makes a resend recognisable to a provider: 32 hex characters, the same for every attempt.

        It comes from the event's id and the recipient's role and not from a row number, so that it stays the same
        when a ledger is lost and the core replays its stream.
        """
        source = f"{self.event.account}\0{self.recipient.role}\0{self.event.id}"
        return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()

    def __repr__(self) -> str:
        return f"<Alert {self.id} {self.state}>"


class Step(msgspec.Struct, frozen=True, gc=False):
    """What is written down about an alert after something happened to it: its next state and, mostly, an attempt.

    ``due_ms`` is when the clock task must look again (None when it ended or stays in memory). ``keep_lease`` is True
    when it goes straight back to its lane in this process. ``refusal`` is a key of ``Recipient.refused`` to set.
    ``code`` None means that no attempt was made (an expiry, say). ``detour`` says why an alert moves on or waits
    although nothing was tried.
    """

    alert: Alert
    state: State
    position: int
    reason: str | None
    due_ms: int | None
    ended: bool
    at_ms: int
    keep_lease: bool = False
    outcome: str | None = None
    code: str | None = None
    msgid: str | None = None
    took_ms: int = 0
    resends: int = 0
    refusal: str | None = None
    detour: str | None = None
