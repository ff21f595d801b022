"""Changes of the send rules, as the ledger keeps them: who proposed which rules, who decided, and what is in force.

The ledger is the common word about it: of any number of processes each follows the one change that is ``active``.
Pure: the acts, the rows, and the rule that nobody approves what he has proposed himself.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Literal

import msgspec

from dispatcher.errors import SwipebellError

MAX_NAME_CHARS = 64
"""Of a person's name. A longer one is a text that belongs into the note."""

MAX_NOTE_CHARS = 1_000
"""Of a note: why, in a few sentences; the change itself is kept whole beside it."""

MAX_OPEN_PROPOSALS = 64
"""Proposals that wait for a decision. More of them are nobody's work: something writes the file again and again."""

INITIAL = "initial"
"""Who proposed the first rules of a ledger for which approval is asked: nobody was there to be asked."""

ChangeState = Literal["proposed", "active", "rejected", "replaced"]


class RuleChangeRefused(SwipebellError):
    """The operator's fault: the change cannot be decided like that. The rules in force stay in force."""

    exit_status = 2


class Person(msgspec.Struct, frozen=True):
    """Who acts: the name that was given, and the account of the operating system that gave it (None: not known)."""

    name: str
    account: str | None = None


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
    """Put proposed rules in force, or rules that were in force before. Raises `RuleChangeRefused`."""

    version: str
    by: Person
    at_ms: int
    note: str = ""


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse proposed rules. Raises `RuleChangeRefused`."""

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


def same_person(one: str, other: str) -> bool:
    """Whether two names are those of one person, however they are spelled: width, case, blanks and invisible
    characters make no difference."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))


def checked_name(name: str) -> str:
    """``name`` without blanks around it. Raises `RuleChangeRefused` when it is none."""
    name = " ".join(name.split())
    if not _plain(name) or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise RuleChangeRefused(f"--by: a name has 1 to {MAX_NAME_CHARS} printable characters")
    if same_person(name, INITIAL):
        raise RuleChangeRefused(f"--by: {INITIAL!r} stands for the first rules of a ledger; use a person's name")
    return name


def checked_note(note: str) -> str:
    """``note`` on one line. Raises `RuleChangeRefused` when it is too long or not text."""
    note = " ".join(note.split())
    if len(note) > MAX_NOTE_CHARS or not note.isprintable():
        raise RuleChangeRefused(f"--note: a note has at most {MAX_NOTE_CHARS:,} printable characters")
    return note


def refuse_same_person(by: str, proposers: list[str], version: str) -> None:
    """Raises `RuleChangeRefused` when ``by`` is among those who proposed ``version``."""
    for proposer in proposers:
        if same_person(by, proposer):
            raise RuleChangeRefused(
                f"rules {version}: {by} has proposed them and cannot approve them; somebody else has to"
            )
