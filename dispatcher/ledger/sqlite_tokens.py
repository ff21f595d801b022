"""The fleet's access tokens on SQLite: one row a credential, see `dispatcher.ledger.tokens`."""

from __future__ import annotations

import sqlite3

import msgspec

from dispatcher.ledger import tokens
from dispatcher.ledger.tokens import TokenAnswer, TokenRow

_row = msgspec.json.Decoder(TokenRow)
_encode = msgspec.json.Encoder().encode

READ = "SELECT state FROM tokens WHERE account=?"
WRITE = "INSERT INTO tokens (account, state) VALUES (?,?) ON CONFLICT (account) DO UPDATE SET state=excluded.state"


def ask(connection: sqlite3.Connection, account: str, failed: int | None, now_ms: int) -> TokenAnswer:
    """See `Ledger.token_ask`."""
    row, answer = tokens.ask(before := _read(connection, account), failed, now_ms)
    _write(connection, account, before, row)
    return answer


def fetched(
    connection: sqlite3.Connection,
    account: str,
    lease: int,
    sealed: bytes | None,
    ends_at: int,
    renew_at: int,
    now_ms: int,
) -> TokenRow:
    """See `Ledger.token_fetched`."""
    row = tokens.fetched(before := _read(connection, account), lease, sealed, ends_at, renew_at, now_ms)
    _write(connection, account, before, row)
    return row


def failed(
    connection: sqlite3.Connection, account: str, lease: int, retry_at: int, trouble: str, misconfigured: bool
) -> None:
    """See `Ledger.token_failed`."""
    row = tokens.failed(before := _read(connection, account), lease, retry_at, trouble, misconfigured)
    _write(connection, account, before, row)


def force(connection: sqlite3.Connection, account: str, lease: int, now_ms: int) -> bool:
    """See `Ledger.token_force`."""
    row, allowed = tokens.force(before := _read(connection, account), lease, now_ms)
    _write(connection, account, before, row)
    return allowed


def _read(connection: sqlite3.Connection, account: str) -> TokenRow:
    found = connection.execute(READ, (account,)).fetchall()
    return _row.decode(found[0][0]) if found else TokenRow()


def _write(connection: sqlite3.Connection, account: str, before: TokenRow, row: TokenRow) -> None:
    if row != before:
        connection.execute(WRITE, (account, _encode(row).decode()))
