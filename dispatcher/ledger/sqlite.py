"""The ledger on SQLite: the synchronous half, run by one thread that owns the connection (see ``worker``).

Methods run inside a transaction that the caller opened with ``begin`` and ends with ``commit``; several of them share
one (group commit). They hold no lock and keep nothing in memory that the file does not hold.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from dispatcher.events import Accepted, same_content
from dispatcher.ledger.api import (
    Admission,
    Books,
    Decide,
    EventStory,
    Imported,
    Receipt,
)
from dispatcher.ledger.sql import read_keys, write_rows
from dispatcher.ledger.sqlite_open import OwnerLocks, connect, explained
from dispatcher.ledger.sqlite_read import books, explain
from dispatcher.model.alert import ALERT_ID_BITS, Alert, State, Step
from dispatcher.model.event import Event
from dispatcher.model.recipient import MAX_RECIPIENTS_PER_ACCOUNT, Recipient, RecipientLine

_RECIPIENT_JSON = (
    "json_array(r.id, r.account, r.role, r.openid, r.phone, r.email, r.locale, r.timezone,"
    " json(r.channels), json(r.min_amount), json(r.opt_out), json(r.refused))"
)
_recipients = msgspec.json.Decoder(list[Recipient])
_pairs = msgspec.json.Decoder(list[tuple[str, int]])
_encode = msgspec.json.Encoder().encode


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
    payload: Event


_leased = msgspec.json.Decoder(list[_LeasedRow])

_LOAD = f"""
SELECT json_group_array(json_array(a.id, {_RECIPIENT_JSON}, a.template, a.route, a.channel, a.state, a.day_total,
       a.attempts, a.first_at, a.expires_at, e.accepted_at, e.swiped_at,
       (SELECT status FROM receipts s WHERE s.channel = a.channel AND s.msgid = a.msgid ORDER BY s.at DESC LIMIT 1),
       json(e.payload)))
FROM alerts a JOIN events e ON e.seq = a.id >> {ALERT_ID_BITS} JOIN recipients r ON r.id = a.recipient
WHERE a.id IN ({{keys}})
"""


class SqliteStore:
    """The operations of `Ledger`, synchronous, on one SQLite connection."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.connection = connect(path)
        self._locks = OwnerLocks(path)
        self._ruleset = 0

    def begin(self) -> None:
        """Open a transaction; waits for other processes."""
        with explained(self.path):
            self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit and fsync. Raises `LedgerUnavailable` (disk full) or `LedgerFailed`; then nothing was written."""
        with explained(self.path):
            self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the open transaction, if there still is one."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file and let go of the owners' locks."""
        self.connection.close()
        self._locks.close()

    # ---- processes and leases ---------------------------------------------------------------------------------

    def register(self, name: str, now_ms: int, alive_until_ms: int) -> int:
        """See `Ledger.register`."""
        row = self.connection.execute(
            "INSERT INTO processes (name, started_at, alive_until) VALUES (?,?,?) RETURNING id",
            (name, now_ms, alive_until_ms),
        ).fetchall()
        owner = int(row[0][0])
        self._locks.hold(owner)
        return owner

    def heartbeat(self, owner: int, alive_until_ms: int) -> bool:
        """See `Ledger.heartbeat`."""
        statement = "UPDATE processes SET alive_until=? WHERE id=? AND alive_until>0"
        return self.connection.execute(statement, (alive_until_ms, owner)).rowcount == 1

    def leave(self, owner: int, now_ms: int) -> None:
        """See `Ledger.leave`."""
        self._free(owner, now_ms)
        self.connection.execute("UPDATE processes SET alive_until=0 WHERE id=?", (owner,))
        self._locks.release(owner)

    def take_over(self, owner: int, now_ms: int) -> int:
        """See `Ledger.take_over`."""
        freed = 0
        others = self.connection.execute(
            "SELECT id, alive_until FROM processes WHERE id <> ? AND alive_until > 0", (owner,)
        ).fetchall()
        for other, alive_until in others:
            if alive_until > now_ms and self._locks.is_dead(other) is not True:
                continue
            freed += self._free(other, now_ms)
            self.connection.execute("UPDATE processes SET alive_until=0 WHERE id=?", (other,))
        return freed

    def _free(self, owner: int, now_ms: int) -> int:
        """Let go of an owner's alerts; what may have left with it gets an attempt of unknown outcome."""
        held = "owner=:owner AND ended_at IS NULL"
        parameters = {"owner": owner, "now": now_ms}
        self.connection.execute(
            "INSERT OR IGNORE INTO attempts (alert, n, owner, channel, at, took, outcome, code)"
            " SELECT id, attempts + 1, owner, channel, :now, 0, 'unknown', 'process-died'"
            f" FROM alerts WHERE {held} AND state='sending'",
            parameters,
        )
        return self.connection.execute(
            "UPDATE alerts SET attempts = attempts + (state='sending'),"
            " first_at = CASE state WHEN 'sending' THEN coalesce(first_at, :now) ELSE first_at END,"
            " state = CASE state WHEN 'sending' THEN 'interrupted' WHEN 'queued' THEN 'retrying' ELSE state END,"
            f" owner=0, due_at=:now WHERE {held}",
            parameters,
        ).rowcount

    # ---- admission --------------------------------------------------------------------------------------------

    def admit(self, batch: Sequence[Accepted], now_ms: int, owner: int, decide: Decide) -> Admission:
        """See `Ledger.admit`."""
        fresh, duplicates, conflicts = self._deduplicate(batch)
        if not fresh:
            return Admission(0, duplicates, conflicts, [], {})
        recipients = self._recipients_of({accepted.event.account for accepted in fresh})
        decisions = decide(fresh, recipients, now_ms, self._read_counters)
        # Sequence numbers are given out here and not by SQLite: the transaction is the only writer, and the rows of
        # two tables can then be written without asking for each key.
        seq = self.connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchall()[0][0]
        events, rows, alerts = [], [], []
        ended: Counter[tuple[State, str]] = Counter()
        for accepted, drafts in zip(fresh, decisions.drafts, strict=True):
            seq += 1
            event = accepted.event
            swiped_at = int(event.time.timestamp() * 1000)
            events.append((seq, event.id, event.account, swiped_at, now_ms, accepted.payload.decode()))
            for place, draft in enumerate(drafts):
                alert_id = (seq << ALERT_ID_BITS) | place
                is_open = draft.state in ("sending", "queued")
                recipient = draft.recipient
                rows.append(
                    (
                        alert_id,
                        None if recipient is None else recipient.id,
                        draft.template,
                        ",".join(draft.route),
                        draft.route[0] if draft.route else "",
                        draft.state,
                        draft.reason,
                        None if draft.saw is None else _encode(draft.saw).decode(),
                        self._ruleset,
                        draft.day_total,
                        draft.expires_ms,
                        owner if is_open else 0,
                        None if is_open else now_ms,
                    )
                )
                if not is_open:
                    ended[draft.state, draft.reason or ""] += 1
                elif recipient is not None:
                    alerts.append(
                        Alert(
                            id=alert_id,
                            event=event,
                            recipient=recipient,
                            route=draft.route,
                            accepted_ms=now_ms,
                            expires_ms=draft.expires_ms,
                            template=draft.template,
                            day_total=draft.day_total,
                            state=draft.state,
                        )
                    )
        write_rows(
            self.connection,
            "INSERT INTO events (seq, id, account, swiped_at, accepted_at, payload) {values}",
            events,
        )
        write_rows(
            self.connection,
            "INSERT INTO alerts (id, recipient, template, route, channel, state, reason, saw, ruleset, day_total,"
            " expires_at, owner, ended_at) {values}",
            rows,
        )
        counters = [(key, value, keep) for key, (value, keep) in decisions.counters.items()]
        write_rows(
            self.connection,
            "INSERT INTO counters (key, value, keep_until) {values}"
            " ON CONFLICT (key) DO UPDATE SET value=excluded.value, keep_until=excluded.keep_until",
            counters,
        )
        return Admission(len(fresh), duplicates, conflicts, alerts, dict(ended))

    def _deduplicate(self, batch: Sequence[Accepted]) -> tuple[list[Accepted], list[int], list[int]]:
        """The events to admit, and the positions of those seen before with the same or with other content."""
        first: dict[str, int] = {}
        repeated = set()
        for position, accepted in enumerate(batch):
            if first.setdefault(accepted.event.id, position) != position:
                repeated.add(position)
        known: dict[str, bytes] = {}
        for pair in read_keys(
            self.connection, "SELECT json_array(id, payload) FROM events WHERE id IN ({keys})", list(first)
        ):
            event_id, payload = msgspec.json.decode(pair, type=tuple[str, str])
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

    def _recipients_of(self, accounts: set[str]) -> dict[str, list[Recipient]]:
        found: dict[str, list[Recipient]] = {}
        statement = f"SELECT json_group_array({_RECIPIENT_JSON}) FROM recipients r WHERE r.account IN ({{keys}})"
        for text in read_keys(self.connection, statement, list(accounts)):
            for recipient in _recipients.decode(text):
                found.setdefault(recipient.account, []).append(recipient)
        for several in found.values():
            several.sort(key=lambda recipient: recipient.id)
        return found

    def _read_counters(self, keys: Sequence[str]) -> dict[str, int]:
        statement = "SELECT json_group_array(json_array(key, value)) FROM counters WHERE key IN ({keys})"
        values: dict[str, int] = {}
        for text in read_keys(self.connection, statement, list(keys)):
            values.update(_pairs.decode(text))
        return values

    # ---- delivery ---------------------------------------------------------------------------------------------

    def fence(self, alert_ids: Sequence[int], owner: int) -> None:
        """See `Ledger.fence`."""
        write_rows(
            self.connection,
            "UPDATE alerts SET state='sending' FROM ({values}) AS v"
            " WHERE alerts.id=v.column1 AND owner=? AND ended_at IS NULL",
            [(alert_id,) for alert_id in alert_ids],
            (owner,),
        )

    def record(self, steps: Sequence[Step], owner: int) -> list[Alert]:
        """See `Ledger.record`."""
        rows: list[tuple[Any, ...]] = []
        attempts: list[tuple[Any, ...]] = []
        for step in steps:
            alert = step.alert
            tried = step.outcome is not None
            n = alert.attempts
            if tried:
                for _ in range(step.resends):
                    n += 1
                    attempts.append((alert.id, n, owner, alert.channel, step.at_ms, 0, "unknown", "resent", None))
                n += 1
                attempts.append(
                    (
                        alert.id,
                        n,
                        owner,
                        alert.channel,
                        step.at_ms,
                        step.took_ms,
                        step.outcome,
                        step.code,
                        step.msgid,
                    )
                )
            first = alert.first_attempt_ms if step.position == alert.position else None
            if tried and first is None and step.position == alert.position:
                first = step.at_ms - step.took_ms
            rows.append(
                (
                    alert.id,
                    step.state,
                    step.reason,
                    alert.route[step.position] if alert.route else "",
                    step.due_ms,
                    owner if step.keep_lease else 0,
                    step.at_ms if step.ended else None,
                    n,
                    first,
                    step.msgid,
                )
            )
        write_rows(
            self.connection,
            "UPDATE alerts SET state=v.column2, reason=v.column3, channel=v.column4, due_at=v.column5,"
            " owner=v.column6, ended_at=v.column7, attempts=v.column8, first_at=v.column9,"
            " msgid=coalesce(v.column10, msgid) FROM ({values}) AS v"
            " WHERE alerts.id=v.column1 AND alerts.owner=? AND alerts.ended_at IS NULL",
            rows,
            (owner,),
        )
        write_rows(
            self.connection,
            "INSERT OR IGNORE INTO attempts (alert, n, owner, channel, at, took, outcome, code, msgid) {values}",
            attempts,
        )
        self._refuse(steps)
        return self._answered_already(steps, owner)

    def _refuse(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.refusal is not None:
                self.connection.execute(
                    "UPDATE recipients SET refused=json_set(refused, ?, json(?)) WHERE id=?",
                    (
                        f'$."{step.refusal}"',
                        _encode({"code": step.code or "", "since": step.at_ms}).decode(),
                        step.alert.recipient.id,
                    ),
                )

    def _answered_already(self, steps: Sequence[Step], owner: int) -> list[Alert]:
        """Alerts that now wait for a receipt which came before the send's own answer, leased again."""
        waiting = {step.msgid: step.alert.id for step in steps if step.state == "awaiting" and step.msgid}
        if not waiting:
            return []
        early = [
            waiting[msgid]
            for msgid in read_keys(self.connection, "SELECT msgid FROM receipts WHERE msgid IN ({keys})", list(waiting))
        ]
        return self._lease(early, owner, "awaiting") if early else []

    def due(self, channel: str, now_ms: int, owner: int, limit: int, lease_as: State) -> list[Alert]:
        """See `Ledger.due`."""
        text = self.connection.execute(
            "SELECT json_group_array(id) FROM (SELECT id FROM alerts WHERE owner=0 AND channel=? AND due_at<=?"
            " AND ended_at IS NULL ORDER BY due_at LIMIT ?)",
            (channel, now_ms, limit),
        ).fetchall()[0][0]
        ids = msgspec.json.decode(text, type=list[int])
        return self._lease(ids, owner, lease_as) if ids else []

    def _lease(self, ids: Sequence[int], owner: int, lease_as: State) -> list[Alert]:
        """Take free alerts; they come back with the state they had before."""
        alerts: list[Alert] = []
        for text in read_keys(self.connection, _LOAD, ids):
            alerts.extend(_as_alert(row) for row in _leased.decode(text))
        alerts.sort(key=lambda alert: alert.id)
        # An alert whose receipt or policy is still to be applied is not about to be sent: only the others are.
        write_rows(
            self.connection,
            "UPDATE alerts SET owner=v.column2, due_at=NULL, state=iif(state='retrying', v.column3, state)"
            " FROM ({values}) AS v WHERE alerts.id=v.column1",
            [(alert.id, owner, lease_as) for alert in alerts],
        )
        return alerts

    def receipts(self, receipts: Sequence[Receipt], now_ms: int, owner: int) -> list[tuple[Alert, Receipt]]:
        """See `Ledger.receipts`."""
        by_message = {(receipt.channel, receipt.msgid): receipt for receipt in receipts}
        for receipt in receipts:
            self.connection.execute(
                "INSERT INTO receipts (channel, msgid, status, at) VALUES (?,?,?,?)"
                " ON CONFLICT DO UPDATE SET times=times+1",
                (receipt.channel, receipt.msgid, receipt.status, now_ms),
            )
        found: list[tuple[Alert, Receipt]] = []
        for channel, msgid in by_message:
            text = self.connection.execute(
                "SELECT json_group_array(id) FROM alerts WHERE msgid=? AND channel=? AND state='awaiting' AND owner=0",
                (msgid, channel),
            ).fetchall()[0][0]
            ids = msgspec.json.decode(text, type=list[int])
            found.extend((alert, by_message[channel, msgid]) for alert in self._lease(ids, owner, "awaiting"))
        return found

    # ---- looking, and what changes rarely ---------------------------------------------------------------------

    def open_count(self) -> int:
        """See `Ledger.open_count`."""
        query = "SELECT count(*) FROM alerts INDEXED BY alerts_open WHERE ended_at IS NULL"
        return int(self.connection.execute(query).fetchall()[0][0])

    def books(self) -> Books:
        """See `Ledger.books`."""
        return books(self.connection)

    def explain(self, event_id: str) -> EventStory | None:
        """See `Ledger.explain`."""
        return explain(self.connection, event_id)

    def ruleset(self, version: str, content: str, now_ms: int) -> None:
        """See `Ledger.ruleset`."""
        self.connection.execute(
            "INSERT OR IGNORE INTO rulesets (version, content, since) VALUES (?,?,?)",
            (version, content, now_ms),
        )
        query = "SELECT id FROM rulesets WHERE version=?"
        self._ruleset = int(self.connection.execute(query, (version,)).fetchall()[0][0])

    def forget_counters(self, now_ms: int) -> int:
        """See `Ledger.forget_counters`."""
        return self.connection.execute("DELETE FROM counters WHERE keep_until < ?", (now_ms,)).rowcount

    def import_recipients(self, lines: Sequence[RecipientLine]) -> Imported:
        """See `Ledger.import_recipients`."""
        added = changed = same = 0
        too_many: list[int] = []
        for position, line in enumerate(lines):
            address = (line.openid, line.phone, line.email)
            rest = (
                line.locale,
                line.timezone,
                _encode(line.channels).decode(),
                _encode(line.min_amount).decode(),
                _encode(line.opt_out).decode(),
            )
            row = self.connection.execute(
                "SELECT openid, phone, email, locale, timezone, channels, min_amount, opt_out FROM recipients"
                " WHERE account=? AND role=?",
                (line.account, line.role),
            ).fetchall()
            if not row:
                query = "SELECT count(*) FROM recipients WHERE account=?"
                if self.connection.execute(query, (line.account,)).fetchall()[0][0] >= MAX_RECIPIENTS_PER_ACCOUNT:
                    too_many.append(position)
                    continue
                added += 1
            elif row[0] == (*address, *rest):
                same += 1
                continue
            else:
                changed += 1
            # A new address is a new chance: what a provider said of the old one does not hold for it.
            self.connection.execute(
                "INSERT INTO recipients (account, role, openid, phone, email, locale, timezone, channels, min_amount,"
                " opt_out) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (account, role) DO UPDATE SET"
                " refused = CASE WHEN openid IS excluded.openid AND phone IS excluded.phone"
                " AND email IS excluded.email THEN refused ELSE '{}' END,"
                " openid=excluded.openid, phone=excluded.phone, email=excluded.email, locale=excluded.locale,"
                " timezone=excluded.timezone, channels=excluded.channels, min_amount=excluded.min_amount,"
                " opt_out=excluded.opt_out",
                (line.account, line.role, *address, *rest),
            )
        return Imported(added, changed, same, too_many)


def _as_alert(row: _LeasedRow) -> Alert:
    route = tuple(row.route.split(","))
    swiped = datetime.fromtimestamp(row.swiped_at / 1000, UTC)
    return Alert(
        id=row.id,
        event=msgspec.structs.replace(row.payload, time=swiped),
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
    )
