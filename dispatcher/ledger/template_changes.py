"""Versions of templates, as the ledger keeps them: what each says, who let it be told, and to how many accounts.

The ledger is the common word about it: every process tells by the versions that are ``active`` or ``approved`` there,
and renders an alert with the version that the alert names, whatever is told by now. Pure: the acts and the rows.

Of a template at most one version is active, and beside it at most one is approved for a part of the accounts. What a
library brings is told at once when it is newer than the active version, or waits as ``proposed`` for somebody's
approval where that is asked for; a version that a person took back does not come back with the next start.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dispatcher.ledger.people import Person

TemplateState = Literal["proposed", "approved", "active", "retired", "rejected", "withdrawn"]
TemplateActName = Literal["load", "propose", "approve", "rollout", "rollback", "reject"]

MAX_OPEN_PROPOSALS = 64
"""Proposed versions of one template. More are nobody's work: something writes the file again and again."""


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """A version as a library brings it. ``digest`` is of what it says; ``approval``: it is told only once somebody else
    than ``by`` has approved it, but for those that a ledger begins with."""

    id: str
    version: int
    digest: str
    content: str
    layouts: dict[str, str]
    by: Person
    approval: bool


class Approve(msgspec.Struct, frozen=True, kw_only=True):
    """Let a proposed version be told to ``percent`` of the accounts, 1 to 100."""

    id: str
    version: int
    percent: int
    by: Person
    at_ms: int
    note: str = ""


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse a proposed version, for good: another try has another version."""

    id: str
    version: int
    by: Person
    at_ms: int
    note: str


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """Tell a version that is told, or was before, to ``percent`` of the accounts, 1 to 100. Below 100 the others stay
    on, or go back to, the version before it."""

    id: str
    version: int
    percent: int
    by: Person
    at_ms: int
    note: str = ""


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """Take the newest version of a template that is told back: all accounts go back to the version before it."""

    id: str
    by: Person
    at_ms: int
    note: str = ""


TemplateAct = Approve | Reject | Rollout | Rollback


class TemplateVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version, without what it says. ``percent`` of the accounts are told it; times are epoch ms. ``before`` is the
    version whose place it took or is to take. ``approved_by`` is None when nobody was asked."""

    id: str
    version: int
    digest: str
    state: TemplateState
    percent: int
    before: int | None
    proposed_by: str
    proposed_as: str | None
    proposed_at: int
    approved_by: str | None
    approved_as: str | None
    approved_at: int | None
    note: str

    @property
    def pinned(self) -> str:
        """As alerts name it."""
        return f"{self.id}@{self.version}"


class TemplateText(msgspec.Struct, frozen=True):
    """What a version says: its file and the layouts that it uses, by name."""

    content: str
    layouts: dict[str, str]


class TemplatesInUse(msgspec.Struct, frozen=True):
    """The versions that are told now, active and approved; ``act`` is the number of the last act."""

    act: int
    versions: list[TemplateVersion]


class TemplateActRow(msgspec.Struct, frozen=True, kw_only=True):
    """One act, and what was told of its template from then on: ``rolling`` to ``percent`` of the accounts, ``active``
    to the others (None: there is none)."""

    n: int
    id: str
    version: int
    act: TemplateActName
    who: str
    who_as: str | None
    at: int
    note: str
    active: int | None
    rolling: int | None
    percent: int


class TemplateHistory(msgspec.Struct, frozen=True):
    """The versions by id, the newest first, and the last acts, the latest first."""

    versions: list[TemplateVersion]
    acts: list[TemplateActRow]
