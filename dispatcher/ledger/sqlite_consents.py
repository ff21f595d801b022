"""What recipients agreed to, on SQLite: the word that holds on their card, and every word in the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from dispatcher.ledger.sql import write_rows
from dispatcher.model.alert import Step
from dispatcher.model.consent import ConsentChange, Consented, ConsentEntry
from dispatcher.model.heard import Heard
from dispatcher.model.recipient import MAX_CONSENTS, Consent, Recipient

ANY_CATEGORY = "*"
"""In the log: a provider tells about a channel or a template, whatever categories are told there."""

PROVIDER = "provider"
"""Who entered what a provider told."""

REPEATED_MS = 24 * 3_600_000
"""Refusals of one template within a day are one word: those of the alerts that were on their way together."""

COLUMNS = "account, role, key, given, at, source, written_at, by"
# The same word again, in whatever order, is the line that there is.
WRITE = f"INSERT OR IGNORE INTO consent_log ({COLUMNS}) {{values}}"
HISTORY = f"SELECT {COLUMNS} FROM consent_log WHERE account=? ORDER BY at, written_at, role, key, given, source"
LATEST_OF_SOURCE = "SELECT coalesce(max(at), 0) FROM consent_log WHERE account=? AND role=? AND key=? AND source=?"

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Recipient).decode


def consent(connection: sqlite3.Connection, changes: Sequence[ConsentChange], now_ms: int) -> Consented:
    """See `Ledger.consent`."""
    changed = same = older = 0
    unknown: list[int] = []
    too_many: list[int] = []
    for position, change in enumerate(changes):
        query = "SELECT card FROM recipients WHERE account=? AND role=?"
        row = connection.execute(query, (change.account, change.role)).fetchall()
        if not row:
            unknown.append(position)
            continue
        before = _decode(row[0][0])
        merged = with_words(before.consents, {change.key: change.consent})
        if merged is None:
            too_many.append(position)
        elif before.consents.get(change.key) == change.consent:
            same += 1
        else:
            log_all(connection, before, {change.key: change.consent}, now_ms, change.by)
            if merged == before.consents:
                older += 1
                continue
            after = msgspec.structs.replace(before, consents=merged)
            connection.execute("UPDATE recipients SET card=? WHERE id=?", (_encode(after).decode(), after.id))
            changed += 1
    return Consented(changed, same, older, unknown, too_many)


def consents_of(connection: sqlite3.Connection, account: str) -> list[ConsentEntry]:
    """See `Ledger.consents_of`."""
    return [_entry(row) for row in connection.execute(HISTORY, (account,)).fetchall()]


def words_at(
    connection: sqlite3.Connection, account: str, role: str, categories: Sequence[str], at: int
) -> list[ConsentEntry]:
    """The words about categories that were said at this moment, for an alert that one of them decided."""
    return [
        entry
        for entry in consents_of(connection, account)
        if entry.role == role and entry.at == at and entry.key.split("/", 1)[0] in categories
    ]


def taken_back(
    connection: sqlite3.Connection, account: str, role: str, categories: Sequence[str], until: int
) -> list[ConsentEntry]:
    """The last word about categories, when it is a no, that was written down by ``until``."""
    words = [
        entry
        for entry in consents_of(connection, account)
        if entry.role == role and entry.key.split("/", 1)[0] in categories and entry.written_at <= until
    ]
    last = max(words, key=lambda entry: (entry.at, not entry.given), default=None)
    return [] if last is None or last.given else [last]


def with_words(known: Mapping[str, Consent], told: Mapping[str, Consent]) -> dict[str, Consent] | None:
    """What holds now; None when that is more than a card takes."""
    merged = dict(known)
    for key, word in told.items():
        before = merged.get(key)
        if before is None or word.outweighs(before):
            merged[key] = word
    return merged if len(merged) <= MAX_CONSENTS else None


def log_all(
    connection: sqlite3.Connection, recipient: Recipient, told: Mapping[str, Consent], now_ms: int, by: str
) -> None:
    """Write words into the log, as far as they are not there."""
    rows = [
        (recipient.account, recipient.role, key, int(word.given), word.at, word.source, now_ms, by)
        for key, word in told.items()
    ]
    write_rows(connection, WRITE, rows)


def log_refusal(connection: sqlite3.Connection, step: Step) -> None:
    """A provider said that the cardholder has switched a template off: ``step.refusal`` is channel and template."""
    recipient = step.alert.recipient
    key = f"{ANY_CATEGORY}/{step.refusal}"
    source = f"{step.alert.channel}:{step.code or ''}"
    last = connection.execute(LATEST_OF_SOURCE, (recipient.account, recipient.role, key, source)).fetchall()[0][0]
    if step.at_ms - last >= REPEATED_MS:
        log_all(connection, recipient, {key: Consent(False, step.at_ms, source)}, step.at_ms, PROVIDER)


def log_heard(connection: sqlite3.Connection, recipient: Recipient, facts: Sequence[Heard], now_ms: int | None) -> None:
    """The user of WeChat has followed or left the account: a word about all that is told there."""
    for fact in facts:
        if fact.kind in ("follow", "unfollow"):
            given = fact.kind == "follow"
            word = Consent(given, fact.at_ms, "wechat:subscribe" if given else "wechat:unsubscribe")
            written_at = fact.at_ms if now_ms is None else now_ms
            log_all(connection, recipient, {f"{ANY_CATEGORY}/wechat": word}, written_at, PROVIDER)


def _entry(row: tuple[str, str, str, int, int, str, int, str]) -> ConsentEntry:
    account, role, key, given, at, source, written_at, by = row
    return ConsentEntry(
        account=account,
        role=role,
        key=key,
        given=bool(given),
        at=at,
        source=source,
        written_at=written_at,
        by=by,
    )
