"""Maker and checker: who proposes a change, who approves it, and that nobody approves what he has proposed himself.

Pure. Used for changed rules (`rule_changes`) and for new versions of templates (`template_changes`).
"""

from __future__ import annotations

import unicodedata

import msgspec

from dispatcher.errors import SwipebellError

MAX_NAME_CHARS = 64
"""Of a person's name. A longer one is a text that belongs into the note."""

MAX_NOTE_CHARS = 1_000
"""Of a note: why, in a few sentences; the change itself is kept whole beside it."""

INITIAL = "initial"
"""Who proposed what a ledger began with where approval is asked for: nobody was there to be asked."""


class ChangeRefused(SwipebellError):
    """The operator's fault: the change cannot be decided like that. What is in force stays in force."""

    exit_status = 2


class Person(msgspec.Struct, frozen=True):
    """Who acts: the name that was given, and the account of the operating system that gave it (None: not known)."""

    name: str
    account: str | None = None


def same_person(one: str, other: str) -> bool:
    """Whether two names are those of one person, however they are spelled: width, case, blanks and invisible
    characters make no difference."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))


def checked_name(name: str) -> str:
    """``name`` without blanks around it. Raises `ChangeRefused` when it is none."""
    name = " ".join(name.split())
    if not _plain(name) or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise ChangeRefused(f"--by: a name has 1 to {MAX_NAME_CHARS} printable characters")
    if same_person(name, INITIAL):
        raise ChangeRefused(f"--by: {INITIAL!r} stands for what a ledger began with; use a person's name")
    return name


def checked_note(note: str) -> str:
    """``note`` on one line. Raises `ChangeRefused` when it is too long or not text."""
    note = " ".join(note.split())
    if len(note) > MAX_NOTE_CHARS or not note.isprintable():
        raise ChangeRefused(f"--note: a note has at most {MAX_NOTE_CHARS:,} printable characters")
    return note


def refuse_same_person(by: str, proposers: list[str], what: str) -> None:
    """Raises `ChangeRefused` when ``by`` is among those who proposed ``what`` ("rules 1f3a", "template swipe@2")."""
    them = "them" if what.startswith("rules") else "it"
    for proposer in proposers:
        if same_person(by, proposer):
            raise ChangeRefused(f"{what}: {by} has proposed {them} and cannot approve {them}; somebody else has to")
