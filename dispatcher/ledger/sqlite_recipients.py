"""Recipients on SQLite: how they are read beside an event or an alert, and how they are imported."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from dispatcher.ledger.api import Imported
from dispatcher.model.alert import Step
from dispatcher.model.recipient import MAX_RECIPIENTS_PER_ACCOUNT, RecipientLine

RECIPIENT_JSON = (
    "json_array(r.id, r.account, r.role, r.openid, r.phone, r.email, r.locale, r.timezone,"
    " json(r.channels), json(r.min_amount), json(r.opt_out), json(r.refused))"
)
"""A row of recipients ``r`` in the order of `Recipient`'s fields."""

# Keys in one order, so that the same thresholds in another order are not a change.
_encode = msgspec.json.Encoder(order="deterministic").encode


def refuse(connection: sqlite3.Connection, steps: Sequence[Step]) -> None:
    """Write down what providers refused. Row by row, because it is rare."""
    for step in steps:
        if step.refusal is not None:
            connection.execute(
                # Only of the address that was refused: it may have been mended while the alert was on its way.
                "UPDATE recipients SET refused=json_set(refused, ?, json(?)) WHERE id=? AND openid IS ? AND phone IS ?",
                (
                    f'$."{step.refusal}"',
                    _encode({"code": step.code or "", "since": step.at_ms}).decode(),
                    step.alert.recipient.id,
                    step.alert.recipient.openid,
                    step.alert.recipient.phone,
                ),
            )


def import_recipients(connection: sqlite3.Connection, lines: Sequence[RecipientLine]) -> Imported:
    """See `Ledger.import_recipients`."""
    added = changed = same = 0
    too_many: list[int] = []
    for position, line in enumerate(lines):
        given = (
            line.openid,
            line.phone,
            line.email,
            line.locale,
            line.timezone,
            _encode(line.channels).decode(),
            _encode(line.min_amount).decode(),
            _encode(line.opt_out).decode(),
        )
        row = connection.execute(
            "SELECT openid, phone, email, locale, timezone, channels, min_amount, opt_out FROM recipients"
            " WHERE account=? AND role=?",
            (line.account, line.role),
        ).fetchall()
        if row and row[0] == given:
            same += 1
            continue
        if row:
            changed += 1
        elif _has_room(connection, line.account):
            added += 1
        else:
            too_many.append(position)
            continue
        # A new address is a new chance: what a provider said of the old one does not hold for it.
        connection.execute(
            "INSERT INTO recipients (account, role, openid, phone, email, locale, timezone, channels, min_amount,"
            " opt_out) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (account, role) DO UPDATE SET"
            " refused = CASE WHEN openid IS excluded.openid AND phone IS excluded.phone"
            " AND email IS excluded.email THEN refused ELSE '{}' END,"
            " openid=excluded.openid, phone=excluded.phone, email=excluded.email, locale=excluded.locale,"
            " timezone=excluded.timezone, channels=excluded.channels, min_amount=excluded.min_amount,"
            " opt_out=excluded.opt_out",
            (line.account, line.role, *given),
        )
    return Imported(added, changed, same, too_many)


def _has_room(connection: sqlite3.Connection, account: str) -> bool:
    query = "SELECT count(*) FROM recipients WHERE account=?"
    return bool(connection.execute(query, (account,)).fetchall()[0][0] < MAX_RECIPIENTS_PER_ACCOUNT)
