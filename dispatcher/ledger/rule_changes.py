"""Changes of the send rules, as the ledger keeps them: who proposed which rules, who decided, and what is in force.

The ledger is the common word about it: of any number of processes each follows the one change that is ``active``.
Pure: the acts and the rows. Nobody approves what he has proposed himself (`people`).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dispatcher.ledger.people import Person

MAX_OPEN_PROPOSALS = 64
"""Proposals that wait for a decision. More of them are nobody's work: something writes the file again and again."""

ChangeState = Literal["proposed", "active", "rejected", "replaced"]


class Activate(msgspec.Struct, frozen=True, kw_only=True):
    """Put rules in force without asking anybody. Nothing happens when they are in force."""

    version: str
    content: str
    by: Person
    at_ms: int
    only_first: bool = False
    """Nothing happens either when any other rules are: they were approved."""


class Propose(msgspec.Struct, frozen=True, kw_only=True):
    """Propose rules. Nothing happens when they are in force, or the same person has proposed them."""

    version: str
    content: str
    by: Person
    at_ms: int
    note: str = ""
    predicted: dict[str, Any] | None = None
    only_new: bool = False
    """Nothing happens either when this version was ever proposed before, whatever became of it."""


class Approve(msgspec.Struct, frozen=True, kw_only=True):
    """Put proposed rules in force, or rules that were in force before. Raises `ChangeRefused`."""

    version: str
    by: Person
    at_ms: int
    note: str = ""


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse proposed rules. Raises `ChangeRefused`."""

    version: str
    by: Person
    at_ms: int
    note: str


RuleAct = Activate | Propose | Approve | Reject


class RuleChange(msgspec.Struct, frozen=True, kw_only=True):
    """One row: rules that were proposed, and what became of them. ``predicted`` None: not predicted. Epoch ms.

    ``replaced`` were in force (or another proposal of the same rules was approved). ``decided_by`` is None when
    nobody was asked, and ``from_version`` when there were no rules before.
    """

    id: int
    version: str
    content: str
    state: ChangeState
    from_version: str | None
    proposed_by: str
    proposed_as: str | None
    proposed_at: int
    note: str
    predicted: dict[str, Any] | None
    decided_by: str | None
    decided_as: str | None
    decided_at: int | None
    decision: str
