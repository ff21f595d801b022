"""Counters of the send rules on SQLite.

A counter's key is text up to its last bar, then who is counted: ``day|Asia/Shanghai|2026-11-24|CNY|`` and the account.
The first part is the same for most counters of a batch, so it is kept once, as a kind with a short number; a page then
holds three times as many counters, and all of a kind go at once when their time is over.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from dispatcher.ledger.sql import read_keys, write_rows
from ratelimit.decision import DayTotal

_Value = TypeVar("_Value")

FORGOTTEN_AT_ONCE = 2_000
"""Counters dropped in one transaction, some milliseconds of work: a day has millions of them."""

_values = msgspec.json.Decoder(dict[str, int])
_totals = msgspec.json.Decoder(dict[str, tuple[int, int]])
_kinds = msgspec.json.Decoder(list[tuple[str, int, int]])

KINDS = "SELECT json_group_array(json_array(name, id, keep_until)) FROM counter_kinds WHERE name IN ({keys})"
VALUES = "SELECT json_group_object(who, value) FROM counters WHERE kind=? AND who IN ({keys})"
WRITE = "INSERT INTO counters (kind, who, value) {values} ON CONFLICT (kind, who) DO UPDATE SET value=excluded.value"
TOTALS = "SELECT json_group_object(who, json_array(value, events)) FROM counters WHERE kind=? AND who IN ({keys})"
WRITE_TOTALS = (
    "INSERT INTO counters (kind, who, value, events) {values}"
    " ON CONFLICT (kind, who) DO UPDATE SET value=excluded.value, events=excluded.events"
)
KEEP = (
    "INSERT INTO counter_kinds (name, keep_until) VALUES (?,?)"
    " ON CONFLICT (name) DO UPDATE SET keep_until=excluded.keep_until RETURNING id"
)
OVER = "SELECT id FROM counter_kinds WHERE keep_until < ? ORDER BY id LIMIT 1"
FORGET = "DELETE FROM counters WHERE kind=?1 AND who IN (SELECT who FROM counters WHERE kind=?1 LIMIT ?2)"


def split(key: str) -> tuple[str, str]:
    """Kind and who; one behind the other they are the key."""
    kind, bar, who = key.rpartition("|")
    return kind + bar, who


def read_counters(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, int]:
    """The values of those that exist, by key."""
    return _read(connection, keys, VALUES, _values)


def read_totals(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, DayTotal]:
    """The day totals that exist, by key."""
    return _read(connection, keys, TOTALS, _totals)


def _read(
    connection: sqlite3.Connection, keys: Iterable[str], query: str, decoder: msgspec.json.Decoder[dict[str, _Value]]
) -> dict[str, _Value]:
    wanted: dict[str, list[str]] = {}
    for key in keys:
        kind, who = split(key)
        wanted.setdefault(kind, []).append(who)
    numbers = kind_numbers(connection, list(wanted))
    values: dict[str, _Value] = {}
    for kind, known in numbers.items():
        for text in read_keys(connection, query, sorted(wanted[kind]), (known[0],)):
            for who, value in decoder.decode(text).items():
                values[kind + who] = value
    return values


def write_counters(connection: sqlite3.Connection, counters: Mapping[str, tuple[int, int]]) -> None:
    """Set each to its value; (value, keep until in epoch ms) by key. A kind is kept as long as any of it is to be."""
    _write(connection, counters, WRITE)


def write_totals(connection: sqlite3.Connection, totals: Mapping[str, tuple[int, int, int]]) -> None:
    """The same of day totals; (total, events, keep until in epoch ms) by key."""
    _write(connection, totals, WRITE_TOTALS)


def _write(connection: sqlite3.Connection, changed: Mapping[str, tuple[int, ...]], statement: str) -> None:
    rows: dict[str, list[tuple[Any, ...]]] = {}
    keep: dict[str, int] = {}
    for key, (*values, keep_until) in changed.items():
        kind, who = split(key)
        if kind not in rows:
            rows[kind], keep[kind] = [], keep_until
        rows[kind].append((who, *values))
        if keep_until > keep[kind]:
            keep[kind] = keep_until
    numbers = kind_numbers(connection, list(rows))
    for kind, several in rows.items():
        number, kept_until = numbers.get(kind, (0, -1))
        if kept_until < keep[kind]:
            number = connection.execute(KEEP, (kind, keep[kind])).fetchall()[0][0]
        several.sort()  # as the table is, so that its pages are gone through once
        write_rows(connection, statement, [(number, *row) for row in several])


def forget_counters(connection: sqlite3.Connection, now_ms: int) -> int:
    """Drop some of those whose time is over; returns how many, ``FORGOTTEN_AT_ONCE`` when there may be more."""
    forgotten = 0
    while forgotten < FORGOTTEN_AT_ONCE:
        over = connection.execute(OVER, (now_ms,)).fetchall()
        if not over:
            break
        limit = FORGOTTEN_AT_ONCE - forgotten
        dropped = connection.execute(FORGET, (over[0][0], limit)).rowcount
        forgotten += dropped
        if dropped < limit:
            connection.execute("DELETE FROM counter_kinds WHERE id=?", over[0])
    return forgotten


def kind_numbers(connection: sqlite3.Connection, kinds: Sequence[Any]) -> dict[str, tuple[int, int]]:
    """(number, keep until) of the kinds that exist. Asked for each time: the commit that made one may have failed."""
    found: dict[str, tuple[int, int]] = {}
    for text in read_keys(connection, KINDS, kinds):
        found.update((name, (number, keep_until)) for name, number, keep_until in _kinds.decode(text))
    return found
