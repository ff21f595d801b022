"""What the stateful test of the ledger draws from, and how it models one alert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from dispatcher.model.alert import Alert, State, Step
from tests.dispatcher.ledger_kit import HOUR_MS, NOW, accepted, receipt, step

ACCOUNTS = {"A": ("primary",), "B": ("primary", "second"), "C": ()}
ROUTE = ("wechat", "sms")
REVERSALS = [accepted(f"r-{n}", account="ABC"[n % 3], type="reversal", refers_to=f"e-{n}", amount=-1) for n in range(9)]
"""They undo those of the events below that have the amount 1."""

EVENTS = [accepted(f"e-{n}", account="ABC"[n % 3], amount=amount) for n in range(9) for amount in (1, 2)]

EXPIRES = NOW + HOUR_MS
HOLDS: dict[str, int | None] = {"night": 1500, "storm": None}
"""Rules that hold: for how many ms, or until a person decides or the alert expires."""

some = st.integers(0, 2**16)
"""Which of those that there are."""

messages = st.sampled_from(["m-1", "m-2", "m-3"])
outcomes = st.sampled_from(
    ["awaiting"] * 3
    + ["deadline"] * 2
    + ["retrying", "later", "lost", "next", "gone", "again", "delivered", "failed", "expired"]
)

words = st.builds(receipt, st.sampled_from(ROUTE), messages, st.sampled_from(["delivered", "failed:x"]))
leases = st.sampled_from(["sending", "queued"])

TURN: dict[str, Any] = {
    "which": some,
    "ms": st.sampled_from([1000, 500, 0]),
    "lease_as": leases,
    "fenced": st.booleans(),
    "picks": st.lists(st.tuples(some, outcomes, messages, st.integers(0, 1)), min_size=2, max_size=6),
}


@dataclass
class Modelled:
    """One alert, as the ledger should have it."""

    person: tuple[str, str] | None
    state: str
    owner: int
    ended: bool
    route: tuple[str, ...] = ROUTE
    position: int = 0
    due: int | None = None
    attempts: int = 0
    msgid: str | None = None
    held_by: str | None = None

    @property
    def channel(self) -> str:
        return self.route[self.position] if self.route else ""


def step_of(alert: Alert, kind: str, msgid: str, resends: int, now_ms: int) -> Step:
    """What a lane may say of an alert."""
    fields: dict[str, Any] = {"at_ms": now_ms, "resends": resends}
    has_next = alert.position + 1 < len(alert.route)
    if kind == "gone":
        fields["refusal"] = alert.channel
    if kind in ("next", "gone"):
        if not has_next:
            return step(alert, "failed", outcome="permanent", **fields)
        return step(alert, "retrying", position=alert.position + 1, due_ms=now_ms, **fields)
    if kind == "deadline":
        fields = {"at_ms": now_ms, "outcome": None, "code": None}
        if not has_next:
            return step(alert, "failed", **fields)
        return step(alert, "retrying", position=alert.position + 1, due_ms=now_ms, **fields)
    if kind == "lost":
        return step(alert, "retrying", outcome="unknown", code="timeout", due_ms=now_ms, **fields)
    if kind == "again":
        return step(alert, "sending", keep_lease=True, outcome="refresh_token", **fields)
    if kind == "awaiting":
        return step(alert, "awaiting", msgid=msgid, due_ms=now_ms + 1000, **fields)
    if kind in ("retrying", "later"):
        return step(alert, "retrying", due_ms=now_ms + (0 if kind == "retrying" else 1000), **fields)
    if kind == "failed":
        # No lane ends an alert as failed by an answer that accepts it.
        return step(alert, "failed", outcome="permanent", **fields)
    if kind == "delivered":
        fields["msgid"] = msgid
    state: State = "delivered" if kind == "delivered" else "expired"
    return step(alert, state, **fields)
