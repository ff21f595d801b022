"""The story of one event, as the ledger tells it to ``explain``: plain data."""

from __future__ import annotations

from typing import Any

import msgspec

from dispatcher.ledger.digests import DigestStory, Member
from dispatcher.ledger.held import Hold
from dispatcher.ledger.template_changes import TemplateActRow
from dispatcher.model.alert import State
from dispatcher.model.consent import ConsentEntry


class AttemptStory(msgspec.Struct, frozen=True):
    """One attempt as ``explain`` tells it; ``at`` epoch ms, ``took`` ms."""

    n: int
    channel: str
    at: int
    took: int
    outcome: str
    code: str | None
    msgid: str | None


class Detour(msgspec.Struct, frozen=True):
    """Why an alert left ``channel``, or waits for it, without an attempt; ``at`` epoch ms, the first time."""

    channel: str
    why: str
    at: int


class AlertStory(msgspec.Struct, frozen=True):
    """One alert as ``explain`` tells it."""

    id: int
    role: str | None
    template: str
    ruleset: str
    route: list[str]
    channel: str
    state: State
    reason: str | None
    saw: dict[str, int] | None
    day_total: int | None
    expires_at: int
    due_at: int | None
    ended_at: int | None
    attempts: list[AttemptStory]
    receipts: list[dict[str, Any]]
    detours: list[Detour] = []
    digest: DigestStory | None = None
    hold: Hold | None = None
    consents: list[ConsentEntry] = []
    """The word that decided, when one did."""
    told: TemplateActRow | None = None
    """The last act about its template when it was decided: which versions were told, and to how many accounts."""


class EventStory(msgspec.Struct, frozen=True):
    """Everything the ledger knows about one event. The event of a digest has ``members``, and ``more_members`` that are
    not listed."""

    id: str
    account: str
    swiped_at: int
    accepted_at: int
    payload: str
    alerts: list[AlertStory]
    members: list[Member] = []
    more_members: int = 0
