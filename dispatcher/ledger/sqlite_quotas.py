"""The fleet's daily quotas on SQLite, one row an account (see `dispatcher.ledger.quotas`), and the alerts' detours."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from dispatcher.ledger import quotas
from dispatcher.ledger.quotas import QuotaRow, QuotaTerms, QuotaView, Report
from dispatcher.ledger.sql import write_rows
from dispatcher.model.alert import Step

_row = msgspec.json.Decoder(QuotaRow)
_encode = msgspec.json.Encoder().encode

READ = "SELECT state FROM quotas WHERE account=?"
WRITE = "INSERT INTO quotas (account, state) VALUES (?,?) ON CONFLICT (account) DO UPDATE SET state=excluded.state"
DETOUR = "INSERT INTO detours (alert, channel, why, at) {values} ON CONFLICT DO NOTHING"


def take(connection: sqlite3.Connection, account: str, report: Report, terms: QuotaTerms, now_ms: int) -> QuotaView:
    """See `Ledger.quota_take`."""
    row, view = quotas.take(_read(connection, account), report, terms, now_ms)
    _write(connection, account, row)
    return view


def reading(connection: sqlite3.Connection, account: str, now_ms: int, at_once: bool) -> int | None:
    """See `Ledger.quota_reading`."""
    row, counted = quotas.reading(before := _read(connection, account), now_ms, at_once)
    if row != before:
        _write(connection, account, row)
    return counted


def told(connection: sqlite3.Connection, account: str, counted: int, used: int, limit: int, now_ms: int) -> None:
    """See `Ledger.quota_told`."""
    _write(connection, account, quotas.told(_read(connection, account), counted, used, limit, now_ms))


def spent(connection: sqlite3.Connection, account: str, now_ms: int) -> None:
    """See `Ledger.quota_spent`."""
    _write(connection, account, quotas.spent(_read(connection, account), now_ms))


def write_detours(connection: sqlite3.Connection, steps: Sequence[Step]) -> None:
    """Keep why alerts moved on or wait although nothing was tried; said once, however often it is repeated."""
    rows = [(one.alert.id, one.alert.channel, one.detour, one.at_ms) for one in steps if one.detour is not None]
    if rows:
        write_rows(connection, DETOUR, rows)


def _read(connection: sqlite3.Connection, account: str) -> QuotaRow:
    found = connection.execute(READ, (account,)).fetchall()
    return _row.decode(found[0][0]) if found else QuotaRow()


def _write(connection: sqlite3.Connection, account: str, row: QuotaRow) -> None:
    connection.execute(WRITE, (account, _encode(row).decode()))
