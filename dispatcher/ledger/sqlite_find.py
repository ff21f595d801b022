"""An event by the core's id, on SQLite."""

from __future__ import annotations

import sqlite3

from dispatcher.ledger.sqlite_ids import IdIndex
from dispatcher.ledger.sqlite_open import digest_of


def find_event(connection: sqlite3.Connection, ids: IdIndex, event_id: str) -> tuple[int, str] | None:
    """(sequence number, stored payload) of an accepted event; None when the id is not remembered."""
    for seq in ids.candidates(connection, [digest_of(event_id)]):
        found = connection.execute("SELECT payload FROM events WHERE seq=? AND id=?", (seq, event_id)).fetchall()
        if found:
            return seq, str(found[0][0])
    return None
