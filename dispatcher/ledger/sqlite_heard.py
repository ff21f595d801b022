"""What was heard of WeChat users, on SQLite: recipients found by their openid, and their cards changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from dispatcher.ledger.sql import read_keys, write_rows
from dispatcher.ledger.sqlite_consents import log_heard
from dispatcher.ledger.sqlite_open import digest_of
from dispatcher.model.alert import Step
from dispatcher.model.heard import LONGEST_WINDOW_MS, Heard, after_hearing
from dispatcher.model.recipient import Recipient

OPENIDS_AT_ONCE = 65_536
"""New recipients that wait until they can be found by openid in one sorted go (0.2 s in the ledger's thread, during an
import), or until somebody asks. The fewer at once, the more pages are written again and again."""

SERVICE_UNTIL = f"$[{Recipient.__struct_fields__.index('service_until_ms')}]"
"""Where a card keeps until when customer-service messages may be sent."""

_cards = msgspec.json.Decoder(Recipient)
_encode = msgspec.json.Encoder(order="deterministic").encode

FIND = (
    "SELECT group_concat(r.card, char(10)) FROM openids o JOIN recipients r ON r.id=o.recipient"
    " WHERE o.digest IN ({keys})"
)
CHANGE = "UPDATE recipients SET card=v.column2 FROM ({values}) AS v WHERE recipients.id=v.column1"
CATCH_UP = (
    "INSERT OR IGNORE INTO openids SELECT crc32(card->>3), id FROM recipients"
    " WHERE id>? AND id<=? AND card->>3 IS NOT NULL ORDER BY 1, 2"
)
# Only a window that was open when the provider said so: the user may have written again since.
CLOSE = (
    f"UPDATE recipients SET card=json_set(card, '{SERVICE_UNTIL}', 0) WHERE id=? AND card->>3 IS ?"
    f" AND (card->>'{SERVICE_UNTIL}') BETWEEN 1 AND ?"
)


def heard(connection: sqlite3.Connection, told: Sequence[Heard], now_ms: int | None = None) -> int:
    """See `Ledger.heard`."""
    if not told:
        return 0
    by_openid: dict[str, list[Heard]] = {}
    for fact in told:
        by_openid.setdefault(fact.openid, []).append(fact)
    catch_up(connection, at_least=1)
    changed: list[tuple[int, str]] = []
    digests = sorted({digest_of(openid) for openid in by_openid})
    for text in read_keys(connection, FIND, digests):
        if text is None:
            continue
        # Two recipients of one openid are two cards, and one of two rows may be out of date: so by their id.
        for recipient in {one.id: one for one in _cards.decode_lines(text)}.values():
            facts = by_openid.get(recipient.openid or "")
            if facts is None:  # another openid of the same digest
                continue
            log_heard(connection, recipient, facts, now_ms)
            after = after_hearing(recipient, facts)
            if after is not recipient:
                changed.append((recipient.id, _encode(after).decode()))
    write_rows(connection, CHANGE, changed)
    return len(changed)


def catch_up(connection: sqlite3.Connection, *, at_least: int | None = None) -> None:
    """Let new recipients be found by their openid, when there are so many of them."""
    ((up_to, last),) = connection.execute(
        "SELECT up_to, (SELECT coalesce(max(id), 0) FROM recipients) FROM openids_known"
    ).fetchall()
    if last - up_to >= (OPENIDS_AT_ONCE if at_least is None else at_least):
        connection.execute(CATCH_UP, (up_to, last))
        connection.execute("UPDATE openids_known SET up_to=?", (last,))


def moved(connection: sqlite3.Connection, recipient: Recipient) -> None:
    """A recipient has another openid than before."""
    if recipient.openid is not None:
        row = (digest_of(recipient.openid), recipient.id)
        connection.execute("INSERT OR IGNORE INTO openids (digest, recipient) VALUES (?,?)", row)


def close_window(connection: sqlite3.Connection, step: Step) -> None:
    """The provider takes no more customer-service messages for this recipient until they write again."""
    recipient = step.alert.recipient
    connection.execute(CLOSE, (recipient.id, recipient.openid, step.at_ms + LONGEST_WINDOW_MS))
