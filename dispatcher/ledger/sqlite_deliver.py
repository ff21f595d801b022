"""Delivery on SQLite: fencing, outcomes, what is due, receipts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from dispatcher.ledger.api import Receipt
from dispatcher.ledger.sql import read_keys, write_rows
from dispatcher.ledger.sqlite_fallback import WORD, hold_seen, keep_back_seen
from dispatcher.ledger.sqlite_quotas import write_detours
from dispatcher.ledger.sqlite_recipients import refuse
from dispatcher.model.alert import ALERT_ID_BITS, Alert, State, Step
from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _LeasedRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    id: int
    recipient: Recipient
    template: str
    route: str
    channel: str
    state: State
    day_total: int | None
    attempts: int
    first_at: int | None
    expires_at: int
    accepted_at: int
    swiped_at: int
    receipt: str | None
    process_died: int
    payload: Event


_leased = msgspec.json.Decoder(list[_LeasedRow])
_ids = msgspec.json.Decoder(list[int])
_awaiting = msgspec.json.Decoder(list[tuple[int, str, str]])

LOAD = f"""
SELECT json_group_array(json_array(a.id, json(r.card), a.template, a.route, a.channel, a.state, a.day_total,
       a.attempts, a.first_at, a.expires_at, e.accepted_at, e.swiped_at,
       {WORD},
       a.state <> 'awaiting' AND a.attempts > 0 AND EXISTS (SELECT 1 FROM attempts t
        WHERE t.alert = a.id AND t.n = a.attempts AND t.code = 'process-died'),
       json(e.payload)))
FROM alerts a JOIN events e ON e.seq = a.id >> {ALERT_ID_BITS} JOIN recipients r ON r.id = a.recipient
WHERE a.id IN ({{keys}})
"""

FENCE = (
    "UPDATE alerts SET state='sending' FROM ({values}) AS v WHERE alerts.id=v.column1 AND owner=? AND state='queued'"
)

# A message id belongs to a channel: on another one it may be some other message's.
RECORD = (
    "UPDATE alerts SET state=v.column2, reason=v.column3, channel=v.column4, due_at=v.column5,"
    " owner=v.column6, ended_at=v.column7, attempts=v.column8, first_at=v.column9,"
    " msgid=iif(alerts.channel=v.column4, coalesce(v.column10, msgid), NULL) FROM ({values}) AS v"
    " WHERE alerts.id=v.column1 AND alerts.owner=? AND alerts.ended_at IS NULL"
)

# The same for an attempt that was accepted, which stands in its alert. Nothing but the receipt follows.
ACCEPTED = (
    "UPDATE alerts SET state=v.column2, reason=NULL, due_at=v.column3, owner=0, ended_at=v.column4, attempts=v.column5,"
    " first_at=v.column6, msgid=coalesce(v.column7, msgid), answered_at=v.column8, took=v.column9, code=v.column10,"
    " answered_to=owner"
    " FROM ({values}) AS v WHERE alerts.id=v.column1 AND alerts.owner=? AND alerts.ended_at IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM attempts t WHERE t.alert=v.column1 AND t.n=v.column5 AND t.owner=alerts.owner)"
)

# It goes on to another channel: what was accepted on this one becomes an attempt like the others.
MOVE_ANSWER = (
    "INSERT INTO attempts (alert, n, owner, channel, at, took, outcome, code, msgid)"
    " SELECT id, attempts, answered_to, channel, answered_at, took, 'accepted', code, msgid FROM alerts"
    " WHERE id=? AND owner=? AND answered_at IS NOT NULL ON CONFLICT DO NOTHING"
)
CLEAR_ANSWER = "UPDATE alerts SET answered_at=NULL, answered_to=NULL, took=NULL, code=NULL WHERE id=? AND owner=?"

# An attempt that was given up as lost with its process may still get its answer. Others have decided by the unknown
# outcome meanwhile, so unknown it stays, but the story tells what the provider said.
ATTEMPTS = (
    "INSERT INTO attempts (alert, n, owner, channel, at, took, outcome, code, msgid) SELECT * FROM ({values}) AS v"
    " WHERE NOT EXISTS (SELECT 1 FROM alerts a"
    " WHERE a.id=v.column1 AND a.attempts=v.column2 AND a.answered_to=v.column3)"
    " ON CONFLICT (alert, n, owner) DO UPDATE SET at=excluded.at, took=excluded.took, msgid=excluded.msgid,"
    " code=excluded.outcome || ':' || coalesce(excluded.code, '') WHERE attempts.code='process-died'"
)

ANSWERED = (
    "SELECT json_group_array(a.id) FROM alerts a WHERE a.id IN ({keys}) AND a.owner=0 AND a.state='awaiting'"
    " AND EXISTS (SELECT 1 FROM receipts s WHERE s.channel=a.channel AND s.msgid=a.msgid)"
)

WAITING = "SELECT json_group_array(id) FROM alerts WHERE id IN ({keys}) AND owner=0 AND state='awaiting'"

MAY_LEAVE = "SELECT json_group_array(id) FROM alerts WHERE owner=? AND state='sending' AND id IN ({keys})"

DUE = (
    "SELECT json_group_array(id) FROM (SELECT id FROM alerts WHERE owner=0 AND channel=? AND due_at<=?"
    " AND ended_at IS NULL ORDER BY due_at, id LIMIT ?)"
)

# An alert whose receipt or policy is still to be applied is not about to be sent: a retry is, and what was held.
LEASE = (
    "UPDATE alerts SET owner=v.column2, due_at=NULL, state=iif(state IN ('retrying','held'), v.column3, state)"
    " FROM ({values}) AS v WHERE alerts.id=v.column1"
)

AWAITING = (
    "SELECT json_group_array(json_array(id, channel, msgid)) FROM alerts"
    " WHERE msgid IN ({keys}) AND state='awaiting' AND owner=0"
)


def fence(connection: sqlite3.Connection, alert_ids: Sequence[int], owner: int) -> list[int]:
    """See `Ledger.fence`."""
    keep_back_seen(connection, alert_ids, owner)
    if write_rows(connection, FENCE, [(alert_id,) for alert_id in alert_ids], (owner,)) == len(alert_ids):
        return []
    may_leave: set[int] = set()
    for text in read_keys(connection, MAY_LEAVE, alert_ids, (owner,)):
        may_leave.update(_ids.decode(text))
    return [alert_id for alert_id in alert_ids if alert_id not in may_leave]


def record(connection: sqlite3.Connection, steps: Sequence[Step], owner: int) -> frozenset[int]:
    """See `Ledger.record`; returns the alerts that were held because they had been seen (they wait for their word), for
    `answered_already`."""
    steps, held = hold_seen(connection, steps, owner)
    connection.execute("SAVEPOINT record")
    if not _record(connection, steps, owner, keep_answers=True):
        # Some of the alerts are not the owner's any more; then what a provider said of them is kept as attempts.
        connection.execute("ROLLBACK TO record")
        _record(connection, steps, owner, keep_answers=False)
    connection.execute("RELEASE record")
    refuse(connection, steps)
    write_detours(connection, steps)
    return held


def _record(connection: sqlite3.Connection, steps: Sequence[Step], owner: int, *, keep_answers: bool) -> bool:
    """Write the steps down; False when an answer that was to stand in its alert found it in other hands."""
    rows: dict[int, tuple[Any, ...]] = {}
    answers: dict[int, tuple[Any, ...]] = {}
    attempts: list[tuple[Any, ...]] = []
    for step in steps:
        alert = step.alert
        alert_id = alert.id
        if alert.state == "awaiting" and (step.outcome is not None or step.position != alert.position):
            connection.execute(MOVE_ANSWER, (alert_id, owner))
            connection.execute(CLEAR_ANSWER, (alert_id, owner))
        if (
            keep_answers
            and step.outcome == "accepted"
            and not step.resends
            and not step.keep_lease
            and alert_id not in rows
            and alert_id not in answers
        ):
            answers[alert_id] = _answer(step)
            continue
        n = alert.attempts
        if step.outcome is not None:
            for _ in range(step.resends):
                n += 1
                attempts.append((alert_id, n, owner, alert.channel, step.at_ms, 0, "unknown", "resent", None))
            n += 1
            attempts.append(
                (alert_id, n, owner, alert.channel, step.at_ms, step.took_ms, step.outcome, step.code, step.msgid)
            )
        # One UPDATE takes one row for each alert, and of two an arbitrary one; so steps of one alert are followed
        # here, up to the one that lets go of it.
        known = rows.get(alert_id)
        if alert_id not in answers and (known is None or known[_OWNER]):
            rows[alert_id] = _after(step, n, owner)
    write_rows(connection, RECORD, list(rows.values()), (owner,))
    found = write_rows(connection, ACCEPTED, list(answers.values()), (owner,))
    write_rows(connection, ATTEMPTS, attempts)
    return found == len(answers)


_OWNER = 5
"""Position of the owner in a row of `_after`; 0 once the alert is let go."""


def _answer(step: Step) -> tuple[Any, ...]:
    alert = step.alert
    at_ms = step.at_ms
    return (
        alert.id,
        step.state,
        step.due_ms,
        at_ms if step.ended else None,
        alert.attempts + 1,
        at_ms - step.took_ms if alert.first_attempt_ms is None else alert.first_attempt_ms,
        step.msgid,
        at_ms,
        step.took_ms,
        step.code,
    )


def _after(step: Step, attempts: int, owner: int) -> tuple[Any, ...]:
    alert = step.alert
    same_channel = step.position == alert.position
    first = alert.first_attempt_ms if same_channel else None
    if first is None and same_channel and step.outcome is not None:
        first = step.at_ms - step.took_ms
    return (
        alert.id,
        step.state,
        step.reason,
        alert.route[step.position],
        step.due_ms,
        owner if step.keep_lease else 0,
        step.at_ms if step.ended else None,
        attempts,
        first,
        step.msgid,
    )


def answered_already(
    connection: sqlite3.Connection, steps: Sequence[Step], owner: int, held: frozenset[int]
) -> list[Alert]:
    """Alerts that now wait for a receipt which came before the send's own answer, and those that were held because of
    one; leased again."""
    waiting = {step.alert.id for step in steps if step.state == "awaiting"}
    early = [one for text in read_keys(connection, ANSWERED, sorted(waiting)) for one in _ids.decode(text)]
    if held:
        # Unless another step of the same batch had let go of it before.
        back = [one for text in read_keys(connection, WAITING, sorted(held)) for one in _ids.decode(text)]
        early = sorted({*early, *back})
    return _lease(connection, early, owner, "awaiting")


def due(
    connection: sqlite3.Connection, channel: str, now_ms: int, owner: int, limit: int, lease_as: State
) -> list[Alert]:
    """See `Ledger.due`."""
    text = connection.execute(DUE, (channel, now_ms, limit)).fetchall()[0][0]
    return _lease(connection, _ids.decode(text), owner, lease_as)


def _lease(connection: sqlite3.Connection, ids: Sequence[int], owner: int, lease_as: State) -> list[Alert]:
    """Take free alerts, in this order; they come back with the state they had before."""
    loaded: dict[int, Alert] = {}
    for text in read_keys(connection, LOAD, ids):
        loaded.update((row.id, _as_alert(row)) for row in _leased.decode(text))
    write_rows(connection, LEASE, [(alert_id, owner, lease_as) for alert_id in loaded], ())
    return [loaded[alert_id] for alert_id in ids if alert_id in loaded]


def receipts(
    connection: sqlite3.Connection, receipts: Sequence[Receipt], now_ms: int, owner: int
) -> list[tuple[Alert, Receipt]]:
    """See `Ledger.receipts`."""
    write_rows(
        connection,
        "INSERT INTO receipts (channel, msgid, status, at) {values}"
        " ON CONFLICT (channel, msgid, status) DO UPDATE SET times=times+1",
        [(receipt.channel, receipt.msgid, receipt.status, now_ms) for receipt in receipts],
    )
    by_message = {(receipt.channel, receipt.msgid): receipt for receipt in receipts}
    found: dict[int, Receipt] = {}
    for text in read_keys(connection, AWAITING, list({receipt.msgid for receipt in receipts})):
        for alert_id, channel, msgid in _awaiting.decode(text):
            if (channel, msgid) in by_message:
                found[alert_id] = by_message[channel, msgid]
    return [(alert, found[alert.id]) for alert in _lease(connection, sorted(found), owner, "awaiting")]


def _as_alert(row: _LeasedRow) -> Alert:
    route = tuple(row.route.split(","))
    return Alert(
        id=row.id,
        event=msgspec.structs.replace(row.payload, time=EPOCH + timedelta(milliseconds=row.swiped_at)),
        recipient=row.recipient,
        route=route,
        accepted_ms=row.accepted_at,
        expires_ms=row.expires_at,
        template=row.template,
        day_total=row.day_total,
        position=route.index(row.channel),
        attempts=row.attempts,
        first_attempt_ms=row.first_at,
        state=row.state,
        receipt=row.receipt,
        process_died=bool(row.process_died),
    )
