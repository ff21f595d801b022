"""An event by the core's id, on SQLite."""

from __future__ import annotations

import sqlite3

from dispatcher.ledger.sqlite_open import digest_of


def find_event(connection: sqlite3.Connection, event_id: str) -> tuple[int, str] | None:
    """(sequence number, stored payload) of an accepted event; None when the id is not remembered."""
    found = connection.execute(
        "SELECT seq, payload FROM events WHERE digest=? AND id=?", (digest_of(event_id), event_id)
    ).fetchall()
    return (int(found[0][0]), str(found[0][1])) if found else None
