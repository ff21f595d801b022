"""Digests on SQLite: the place where folded alerts are handed over; their tables come with the digests."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec


class Folded(msgspec.Struct, frozen=True, gc=False):
    """One alert to be folded: who would have been told, the rule that folds it, when a digest that it opens leaves, and
    with how many members it leaves at once (None: only in time)."""

    alert: int
    account: str
    role: str
    rule: str
    due_ms: int
    count: int | None


def fold_members(connection: sqlite3.Connection, rows: Sequence[Folded], now_ms: int) -> None:
    """Put alerts into the open digests of their account, role and rule. Part of the admission transaction."""
    raise NotImplementedError("digests are not there yet")
