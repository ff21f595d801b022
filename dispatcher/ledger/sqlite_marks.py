"""Marks of the send rules on SQLite: the moments that a rolling window, a gap or a fingerprint remembers.

A mark's key is split as a counter's is, and its kind is kept in the same table. But most kinds of marks have no end
(``gap|<rule>|``), so each mark has its own, and they are gone through in turns of a bounded size to drop those whose
time is over. An index by time would cost every alert more than that does. A kind goes when none of its marks is left:
there may be many, as categories and accounts with a bar in them are parts of kinds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

import msgspec

from dispatcher.ledger.sql import read_keys, write_rows
from dispatcher.ledger.sqlite_counters import KEEP, kind_numbers, split
from dispatcher.model.event import MAX_INT64

MAX_TIMES = 2_048
"""Moments kept of one key, the newest: twice the largest limit of a rolling cap, for those that are still to come. The
rules keep far fewer; no fault of theirs can fill a page of the ledger for every alert."""

LOOKED_AT_ONCE = 10_000
"""Marks gone through in one transaction, some milliseconds of work. Of ten million each is met within a day."""

START = (0, "")
"""Before the first mark."""

_times = msgspec.json.Decoder(dict[str, tuple[int, ...]])
_encode = msgspec.json.Encoder().encode

VALUES = "SELECT json_group_object(who, json(times)) FROM marks WHERE kind=? AND who IN ({keys})"
WRITE = (
    "INSERT INTO marks (kind, who, times, keep_until) {values} ON CONFLICT (kind, who)"
    " DO UPDATE SET times=excluded.times, keep_until=excluded.keep_until"
)
LAST = "SELECT kind, who FROM marks WHERE (kind, who) > (?,?) ORDER BY kind, who LIMIT 1 OFFSET ?"
FORGET = "DELETE FROM marks WHERE (kind, who) > (?,?) AND (kind, who) <= (?,?) AND keep_until < ?"
FORGET_REST = "DELETE FROM marks WHERE (kind, who) > (?,?) AND keep_until < ?"
FORGET_KINDS = (
    f"DELETE FROM counter_kinds WHERE id IN (SELECT id FROM counter_kinds k WHERE keep_until={MAX_INT64}"
    " AND NOT EXISTS (SELECT 1 FROM marks WHERE kind=k.id) LIMIT ?)"
)


def read_marks(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The moments of those that exist, by key; ascending, epoch ms."""
    wanted: dict[str, list[str]] = {}
    for key in keys:
        kind, who = split(key)
        wanted.setdefault(kind, []).append(who)
    found: dict[str, tuple[int, ...]] = {}
    for kind, (number, _) in kind_numbers(connection, list(wanted)).items():
        for text in read_keys(connection, VALUES, sorted(wanted[kind]), (number,)):
            for who, times in _times.decode(text).items():
                found[kind + who] = times
    return found


def write_marks(connection: sqlite3.Connection, marks: Mapping[str, tuple[tuple[int, ...], int]]) -> None:
    """Set each to its moments; (moments, keep until in epoch ms) by key. Costs nothing when there are none."""
    if not marks:
        return
    rows: dict[str, list[tuple[str, str, int]]] = {}
    for key, (times, keep_until) in marks.items():
        kind, who = split(key)
        rows.setdefault(kind, []).append((who, _encode(times[-MAX_TIMES:]).decode(), keep_until))
    numbers = kind_numbers(connection, list(rows))
    for kind, several in rows.items():
        number = numbers[kind][0] if kind in numbers else _new_kind(connection, kind)
        several.sort()  # as the table is, so that its pages are gone through once
        write_rows(connection, WRITE, [(number, *row) for row in several])


def _new_kind(connection: sqlite3.Connection, kind: str) -> int:
    # It stays as long as any of its marks.
    return int(connection.execute(KEEP, (kind, MAX_INT64)).fetchall()[0][0])


def forget_marks(connection: sqlite3.Connection, now_ms: int, after: tuple[int, str]) -> tuple[int, tuple[int, str]]:
    """Drop those whose time is over among the next ones ``after`` that mark; returns how many, and where to go on."""
    last = connection.execute(LAST, (*after, LOOKED_AT_ONCE - 1)).fetchall()
    if not last:
        forgotten = connection.execute(FORGET_REST, (*after, now_ms)).rowcount
        connection.execute(FORGET_KINDS, (LOOKED_AT_ONCE,))
        return forgotten, START
    return connection.execute(FORGET, (*after, *last[0], now_ms)).rowcount, last[0]
