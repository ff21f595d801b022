"""Recipients on SQLite: how they are read beside an event or an alert, and how they are imported."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import cast

import msgspec

from dispatcher.events import epoch_ms
from dispatcher.ledger.api import Imported
from dispatcher.ledger.sqlite_consents import log_all, log_refusal, with_words
from dispatcher.ledger.sqlite_heard import catch_up, close_window, moved
from dispatcher.model.alert import Step
from dispatcher.model.recipient import MAX_RECIPIENTS_PER_ACCOUNT, Consent, Recipient, RecipientLine

REFUSED = "$[11]"
"""Where a card keeps what providers refused."""

FOLLOWED = f"$[{Recipient.__struct_fields__.index('followed_ms')}]"
"""Where a card keeps when the account was last followed."""

# Keys in one order, so that the same thresholds in another order are not a change.
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Recipient).decode


def refuse(connection: sqlite3.Connection, steps: Sequence[Step]) -> None:
    """Write down what providers refused. Row by row, because it is rare."""
    for step in steps:
        if step.refusal is not None and step.refusal.startswith("wechat_service"):
            close_window(connection, step)
        elif step.refusal is not None:
            # A user who followed the account after this answer is not gone; of another channel that says nothing.
            followed = f" AND coalesce(card->>'{FOLLOWED}', 0) <= ?" if step.refusal == "wechat" else " AND ?"
            written = connection.execute(
                # Only of the address that was refused: it may have been mended while the alert was on its way.
                "UPDATE recipients SET card=json_set(card, ?, json(?)) WHERE id=? AND card->>3 IS ? AND card->>4 IS ?"
                " AND card->>5 IS ?" + followed,
                (
                    f'{REFUSED}."{step.refusal}"',
                    _encode({"code": step.code or "", "since": step.at_ms}).decode(),
                    step.alert.recipient.id,
                    step.alert.recipient.openid,
                    step.alert.recipient.phone,
                    step.alert.recipient.email,
                    step.at_ms,
                ),
            ).rowcount
            if written and "/" in step.refusal:
                log_refusal(connection, step)


def import_recipients(
    connection: sqlite3.Connection, lines: Sequence[RecipientLine], now_ms: int | None = None, by: str = ""
) -> Imported:
    """See `Ledger.import_recipients`."""
    added = changed = same = older = 0
    too_many: list[int] = []
    too_many_consents: list[int] = []
    next_id = connection.execute("SELECT coalesce(max(id), 0) FROM recipients").fetchall()[0][0] + 1
    for position, line in enumerate(lines):
        query = "SELECT id, card FROM recipients WHERE account=? AND role=?"
        row = connection.execute(query, (line.account, line.role)).fetchall()
        before = _decode(row[0][1]) if row else None
        given = _recipient(line, next_id if before is None else before.id)
        told = _words(line)
        consents = with_words({} if before is None else before.consents, told)
        if consents is None:
            too_many_consents.append(position)
            continue
        given = msgspec.structs.replace(given, consents=consents)
        if before is None and not _has_room(connection, line.account):
            too_many.append(position)
            continue
        if told:
            if now_ms is None:
                raise ValueError("consents are written down with their time: now_ms is missing")
            log_all(connection, given, told, now_ms, by)
            older += sum(consents[key] != word for key, word in told.items())
        if before is None:
            connection.execute(
                "INSERT INTO recipients (id, account, role, card) VALUES (?,?,?,?)",
                (given.id, line.account, line.role, _encode(given).decode()),
            )
            next_id += 1
            added += 1
            continue
        given = _keeping(given, before)
        if given == before:
            same += 1
            continue
        connection.execute("UPDATE recipients SET card=? WHERE id=?", (_encode(given).decode(), given.id))
        if given.openid != before.openid:
            moved(connection, given)
        changed += 1
    catch_up(connection)
    return Imported(added, changed, same, too_many, older, too_many_consents)


def _keeping(given: Recipient, before: Recipient) -> Recipient:
    """With what was learned of the same addresses."""
    if _address(given) == _address(before):
        # A new address is a new chance: what a provider said of the old one does not hold for it.
        given = msgspec.structs.replace(given, refused=before.refused)
    if given.openid == before.openid:
        given = msgspec.structs.replace(given, service_until_ms=before.service_until_ms, followed_ms=before.followed_ms)
    return given


def _words(line: RecipientLine) -> dict[str, Consent]:
    return {key: Consent(word.given, epoch_ms(word.at), word.source) for key, word in line.consents.items()}


def _recipient(line: RecipientLine, recipient_id: int) -> Recipient:
    return Recipient(
        recipient_id,
        line.account,
        line.role,
        line.openid,
        line.phone,
        line.email,
        line.locale,
        line.timezone,
        line.channels,
        # Of the keys of these the type is narrower in a line.
        cast("dict[str, dict[str, int]]", line.min_amount),
        line.opt_out,
    )


def _address(recipient: Recipient) -> tuple[str | None, ...]:
    return recipient.openid, recipient.phone, recipient.email


def _has_room(connection: sqlite3.Connection, account: str) -> bool:
    query = "SELECT count(*) FROM recipients WHERE account=?"
    return bool(connection.execute(query, (account,)).fetchall()[0][0] < MAX_RECIPIENTS_PER_ACCOUNT)
