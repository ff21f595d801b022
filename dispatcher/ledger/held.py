"""What the send rules hold, and what people decided about it, as the ledger tells it. All times are epoch ms."""

from __future__ import annotations

import msgspec

HELD_WAIT_MS = 60_000
"""How long whoever waits until nothing is open (``send``, ``demo``) waits for what a rule holds: for the gap between
two alerts, but not for the morning."""

DISCARDED = "discarded:"
"""Begins the reason of an alert that a person discarded; the rule that held it follows."""


class Hold(msgspec.Struct, frozen=True):
    """That an alert was held: by ``rule`` until ``until`` (epoch ms). ``act`` (released, discarded), ``who`` and ``at``
    say what a person decided."""

    rule: str
    until: int
    act: str | None = None
    who: str | None = None
    at: int | None = None


class HeldBy(msgspec.Struct, frozen=True):
    """What one rule holds now. Of ``alerts``, ``waiting`` are held by a storm rule and expire unless a person releases
    them; the others go by themselves. ``oldest`` and ``newest`` say when they were accepted, ``first_due`` and
    ``last_due`` when they go or expire (epoch ms). ``up_to`` is the newest alert's id."""

    rule: str
    alerts: int
    waiting: int
    oldest: int
    newest: int
    first_due: int
    last_due: int
    up_to: int


class HeldAct(msgspec.Struct, frozen=True):
    """What a person did with held alerts: ``act`` is released or discarded, ``at`` in epoch ms."""

    at: int
    act: str
    rule: str
    who: str
    alerts: int


class HeldView(msgspec.Struct, frozen=True):
    """What is held, by rule, and what people did last, the latest first."""

    rules: list[HeldBy]
    acts: list[HeldAct]
