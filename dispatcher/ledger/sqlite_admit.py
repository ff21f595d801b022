"""Admission on SQLite: deduplicate, decide, count and record the intent, inside one transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from dispatcher.events import Accepted, same_content
from dispatcher.ledger.api import Admission, Decide, Draft
from dispatcher.ledger.sql import read_keys, write_rows
from dispatcher.ledger.sqlite_recipients import RECIPIENT_JSON
from dispatcher.model.alert import ALERT_ID_BITS, Alert, State
from dispatcher.model.recipient import MAX_RECIPIENTS_PER_ACCOUNT, Recipient

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_encode = msgspec.json.Encoder().encode
_recipients = msgspec.json.Decoder(list[Recipient])
_counters = msgspec.json.Decoder(list[tuple[str, int]])
_known = msgspec.json.Decoder(tuple[str, str])


def admit(
    connection: sqlite3.Connection, batch: Sequence[Accepted], now_ms: int, owner: int, ruleset: int, decide: Decide
) -> Admission:
    """See `Ledger.admit`; ``ruleset`` is the row of the rules that ``decide`` goes by."""
    fresh, duplicates, conflicts = _deduplicate(connection, batch)
    if not fresh:
        return Admission(0, duplicates, conflicts, [], {})
    recipients = _recipients_of(connection, {accepted.event.account for accepted in fresh})
    decisions = decide(fresh, recipients, now_ms, lambda keys: _read_counters(connection, keys))
    if len(decisions.drafts) != len(fresh):
        raise ValueError(f"{len(decisions.drafts)} decisions for {len(fresh)} events")
    # Sequence numbers are given out here and not by SQLite: the transaction is the only writer, and the rows of
    # two tables can then be written without asking for each key.
    seq = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchall()[0][0]
    events: list[tuple[Any, ...]] = []
    rows: list[tuple[Any, ...]] = []
    alerts: list[Alert] = []
    ended: Counter[tuple[State, str]] = Counter()
    for accepted, drafts in zip(fresh, decisions.drafts, strict=True):
        # An event without an alert would have vanished; a seventeenth alert would have the id of the next event's.
        if not 0 < len(drafts) <= MAX_RECIPIENTS_PER_ACCOUNT:
            raise ValueError(f"an event has 1 to {MAX_RECIPIENTS_PER_ACCOUNT} alerts, not {len(drafts)}")
        seq += 1
        event = accepted.event
        # In whole numbers, because a float of seconds loses a millisecond now and then.
        swiped_at = (event.time - EPOCH) // _MILLISECOND
        events.append((seq, event.id, event.account, swiped_at, now_ms, accepted.payload.decode()))
        for place, draft in enumerate(drafts):
            alert_id = (seq << ALERT_ID_BITS) | place
            is_open = draft.state in ("sending", "queued")
            rows.append(_alert_row(alert_id, draft, ruleset, owner if is_open else 0, None if is_open else now_ms))
            if is_open:
                alerts.append(_leased(alert_id, accepted, draft, now_ms))
            else:
                ended[draft.state, draft.reason or ""] += 1
    write_rows(connection, "INSERT INTO events (seq, id, account, swiped_at, accepted_at, payload) {values}", events)
    write_rows(
        connection,
        "INSERT INTO alerts (id, recipient, template, route, channel, state, reason, saw, ruleset, day_total,"
        " expires_at, owner, ended_at) {values}",
        rows,
    )
    write_rows(
        connection,
        "INSERT INTO counters (key, value, keep_until) {values}"
        " ON CONFLICT (key) DO UPDATE SET value=excluded.value, keep_until=excluded.keep_until",
        [(key, value, keep_until) for key, (value, keep_until) in decisions.counters.items()],
    )
    return Admission(len(fresh), duplicates, conflicts, alerts, dict(ended))


def _alert_row(alert_id: int, draft: Draft, ruleset: int, owner: int, ended_at: int | None) -> tuple[Any, ...]:
    return (
        alert_id,
        None if draft.recipient is None else draft.recipient.id,
        draft.template,
        ",".join(draft.route),
        draft.route[0] if draft.route else "",
        draft.state,
        draft.reason,
        None if draft.saw is None else _encode(draft.saw).decode(),
        ruleset,
        draft.day_total,
        draft.expires_ms,
        owner,
        ended_at,
    )


def _leased(alert_id: int, accepted: Accepted, draft: Draft, now_ms: int) -> Alert:
    if draft.recipient is None or not draft.route:
        raise ValueError("an alert to send needs a recipient and a channel")
    return Alert(
        id=alert_id,
        event=accepted.event,
        recipient=draft.recipient,
        route=draft.route,
        accepted_ms=now_ms,
        expires_ms=draft.expires_ms,
        template=draft.template,
        day_total=draft.day_total,
        state=draft.state,
    )


def _deduplicate(
    connection: sqlite3.Connection, batch: Sequence[Accepted]
) -> tuple[list[Accepted], list[int], list[int]]:
    """The events to admit, and the positions of those seen before with the same or with other content."""
    first: dict[str, int] = {}
    repeated = set()
    for position, accepted in enumerate(batch):
        if first.setdefault(accepted.event.id, position) != position:
            repeated.add(position)
    known: dict[str, bytes] = {}
    query = "SELECT json_array(id, payload) FROM events WHERE id IN ({keys})"
    for pair in read_keys(connection, query, list(first)):
        event_id, payload = _known.decode(pair)
        known[event_id] = payload.encode()
    fresh, duplicates, conflicts = [], [], []
    for position, accepted in enumerate(batch):
        event_id = accepted.event.id
        if event_id not in known and position not in repeated:
            fresh.append(accepted)
        elif same_content(known.get(event_id, batch[first[event_id]].payload), accepted.payload):
            duplicates.append(position)
        else:
            conflicts.append(position)
    return fresh, duplicates, conflicts


def _recipients_of(connection: sqlite3.Connection, accounts: set[str]) -> dict[str, list[Recipient]]:
    found: dict[str, list[Recipient]] = {}
    query = f"SELECT json_group_array({RECIPIENT_JSON}) FROM recipients r WHERE r.account IN ({{keys}})"
    for text in read_keys(connection, query, list(accounts)):
        for recipient in _recipients.decode(text):
            found.setdefault(recipient.account, []).append(recipient)
    for several in found.values():
        several.sort(key=lambda recipient: recipient.id)
    return found


def _read_counters(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, int]:
    query = "SELECT json_group_array(json_array(key, value)) FROM counters WHERE key IN ({keys})"
    values: dict[str, int] = {}
    for text in read_keys(connection, query, list(keys)):
        values.update(_counters.decode(text))
    return values
