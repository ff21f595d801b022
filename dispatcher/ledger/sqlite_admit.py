"""Admission on SQLite: deduplicate, decide, count and record the intent, inside one transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from dispatcher.events import Accepted, same_content
from dispatcher.ledger.api import Admission, Counted, Decide, Decisions, Draft
from dispatcher.ledger.sql import read_keys, write_flat, write_rows
from dispatcher.ledger.sqlite_counters import read_counters, read_totals, write_counters, write_totals
from dispatcher.ledger.sqlite_digests import Folded, fold_members
from dispatcher.ledger.sqlite_held import write_holds
from dispatcher.ledger.sqlite_ids import IdIndex
from dispatcher.ledger.sqlite_marks import read_marks, write_marks
from dispatcher.ledger.sqlite_open import digest_of
from dispatcher.ledger.sqlite_reversals import any_early, is_reversal, settle_reversals
from dispatcher.ledger.sqlite_rules import ruleset_row
from dispatcher.model.alert import ALERT_ID_BITS, Alert, State
from dispatcher.model.event import Event
from dispatcher.model.recipient import MAX_RECIPIENTS_PER_ACCOUNT, Recipient
from ratelimit.decision import DayTotal

_encode = msgspec.json.Encoder().encode
_recipients = msgspec.json.Decoder(Recipient)
_known = msgspec.json.Decoder(tuple[str, str])
_names = msgspec.json.Decoder(list[str])

INSERT_EVENTS = "INSERT INTO events (seq, id, digest, account, swiped_at, accepted_at, payload) {values}"
INSERT_ALERTS = (
    "INSERT INTO alerts (id, recipient, template, route, channel, state, reason, saw, ruleset, day_total,"
    " expires_at, owner, ended_at) {values}"
)
# Nearly all of them, so a parameter less is a parameter less.
INSERT_PLAIN_ALERTS = (
    "INSERT INTO alerts (id, recipient, template, route, channel, state, ruleset, day_total,"
    " expires_at, owner) {values}"
)
INSERT_HELD = (
    "INSERT INTO alerts (id, recipient, template, route, channel, state, reason, saw, ruleset, day_total,"
    " expires_at, due_at) {values}"
)


EVENT_COLUMNS, PLAIN_COLUMNS = 7, 10

LAST_CHANGE = "SELECT coalesce(max(id), 0) FROM recipient_changes"
CHANGES = (
    "SELECT (SELECT coalesce(min(id), 0) FROM recipient_changes), (SELECT coalesce(max(id), 0) FROM recipient_changes)"
)
CHANGED = "SELECT json_group_array(account) FROM recipient_changes WHERE id > ?"

LEAST_PREPARED = 64
"""Events from which on a batch is planned before its transaction. Of fewer the planning takes about a millisecond, and
two more statements would cost a lone swipe more than they save."""


class _Counted:
    """See `Counted`: what is counted in this transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def counters(self, keys: Sequence[str]) -> Mapping[str, int]:
        return read_counters(self._connection, keys)

    def totals(self, keys: Sequence[str]) -> Mapping[str, DayTotal]:
        return read_totals(self._connection, keys)

    def marks(self, keys: Sequence[str]) -> Mapping[str, Sequence[int]]:
        return read_marks(self._connection, keys)


class Admitting:
    """The admission of one batch: `prepare` may be called before the transaction, `admit` inside it.

    What is prepared is planned with the recipients of that moment. Whose recipients have changed by the time of the
    transaction stands in ``recipient_changes``; when one of the batch is among them all of it is planned anew.
    """

    def __init__(self, batch: Sequence[Accepted], now_ms: int, owner: int, decide: Decide) -> None:
        self.owner = owner
        self._batch = batch
        self._now_ms = now_ms
        self._decide = decide
        self._digests = [digest_of(accepted.event.id) for accepted in batch]
        self._plan: _Plan | None = None

    def prepare(self, connection: sqlite3.Connection, ids: IdIndex) -> None:
        """Plan the batch, if it is large enough for that to matter and not one that was sent before."""
        if len(self._batch) >= LEAST_PREPARED and not ids.mostly_known(self._digests):
            self._plan = self._planned(connection, self._batch, self._digests)

    def admit(self, connection: sqlite3.Connection, ids: IdIndex) -> Admission:
        """See `Ledger.admit`."""
        batch, digests, now_ms = self._batch, self._digests, self._now_ms
        plan, self._plan = self._plan, None
        fresh, duplicates, conflicts = _deduplicate(connection, ids, batch, digests)
        if not fresh:
            return Admission(0, duplicates, conflicts, [], {})
        if len(fresh) < len(batch):
            digests = [digest_of(accepted.event.id) for accepted in fresh]
            plan = None
        if plan is None or _changed(connection, plan.changes, plan.accounts):
            plan = self._planned(connection, fresh, digests)
        decisions = plan.decide(_Counted(connection))
        if len(decisions.drafts) != len(fresh):
            raise ValueError(f"{len(decisions.drafts)} decisions for {len(fresh)} events")
        ruleset = ruleset_row(connection, decisions.ruleset)
        ended: Counter[tuple[State, str]] = Counter()
        reversals = [n for n, one in enumerate(fresh) if one.event.refers_to is not None and is_reversal(one.event)]
        if reversals or any_early(connection):
            # The cancelled ones of this batch are counted with the others below.
            ended.update(settle_reversals(connection, ids, fresh, reversals, decisions.drafts, now_ms))
        # Sequence numbers are given out here and not by SQLite: the transaction is the only writer, and the rows of
        # two tables can then be written without asking for each key.
        first = ids.top + 1
        plan.events[::EVENT_COLUMNS] = range(first, first + len(fresh))
        write_flat(connection, INSERT_EVENTS, plan.events, EVENT_COLUMNS)
        alerts = _Alerts(connection, ruleset, self.owner, now_ms)
        for seq, accepted, drafts in zip(range(first, first + len(fresh)), fresh, decisions.drafts, strict=True):
            alerts.add(seq, accepted.event, drafts)
        alerts.write()
        ended.update(alerts.ended)
        write_counters(connection, decisions.counters)
        write_totals(connection, decisions.totals)
        write_marks(connection, decisions.marks)
        ids.admitted(digests, first)
        by_rule = dict(Counter(row[6] for row in alerts.held)) if alerts.held else {}
        return Admission(len(fresh), duplicates, conflicts, alerts.leased, dict(ended), by_rule, decisions.noted)

    def _planned(self, connection: sqlite3.Connection, fresh: Sequence[Accepted], digests: Sequence[int]) -> _Plan:
        # First the changes and then the recipients: what changes in between is then planned anew for nothing, and not
        # missed.
        changes = connection.execute(LAST_CHANGE).fetchall()[0][0]
        accounts = {accepted.event.account for accepted in fresh}
        decide = self._decide(fresh, _recipients_of(connection, accounts), self._now_ms)
        events: list[Any] = []
        for accepted, digest in zip(fresh, digests, strict=True):
            event = accepted.event
            payload = accepted.payload.decode()
            events += (None, event.id, digest, event.account, accepted.swiped_ms, self._now_ms, payload)
        return _Plan(changes, accounts, decide, events)


class _Plan(NamedTuple):
    """A batch's rows of events, but for their first column, and the second half of its decision. It holds while none of
    the ``accounts`` is among the ``changes`` after that one."""

    changes: int
    accounts: set[str]
    decide: Callable[[Counted], Decisions]
    events: list[Any]


class _Alerts:
    """The rows of a batch's alerts."""

    def __init__(self, connection: sqlite3.Connection, ruleset: int, owner: int, now_ms: int) -> None:
        self.leased: list[Alert] = []
        self.held: list[tuple[Any, ...]] = []
        self.ended: Counter[tuple[State, str]] = Counter()
        self._plain: list[Any] = []
        self._rows: list[tuple[Any, ...]] = []
        self._folds: list[Folded] = []
        self._connection = connection
        self._ruleset = ruleset
        self._owner = owner
        self._now_ms = now_ms

    def add(self, seq: int, event: Event, drafts: Sequence[Draft]) -> None:
        """The alerts of one event."""
        # An event without an alert would have vanished; a seventeenth alert would have the id of the next event's.
        if not 0 < len(drafts) <= MAX_RECIPIENTS_PER_ACCOUNT:
            raise ValueError(f"an event has 1 to {MAX_RECIPIENTS_PER_ACCOUNT} alerts, not {len(drafts)}")
        ruleset, owner = self._ruleset, self._owner
        alert_id = seq << ALERT_ID_BITS
        for draft in drafts:
            if draft.state == "sending" or draft.state == "queued":
                self.leased.append(_leased(alert_id, event, draft, self._now_ms))
                if draft.saw is None and draft.reason is None:
                    self._plain += _plain_row(alert_id, draft, ruleset, owner)
                else:
                    self._rows.append(_alert_row(alert_id, draft, ruleset, owner, None))
            elif draft.state == "held":
                self.held.append(_held_row(alert_id, draft, ruleset))
            else:
                self._rows.append(_alert_row(alert_id, draft, ruleset, 0, self._now_ms))
                self.ended[draft.state, draft.reason or ""] += 1
                if draft.fold is not None and draft.state == "suppressed":
                    self._folds.append(_folded(alert_id, draft))
            alert_id += 1

    def write(self) -> None:
        """Insert them."""
        connection = self._connection
        write_flat(connection, INSERT_PLAIN_ALERTS, self._plain, PLAIN_COLUMNS)
        write_rows(connection, INSERT_ALERTS, self._rows)
        if self.held:
            write_rows(connection, INSERT_HELD, self.held)
            write_holds(connection, [(row[0], row[6], row[-1]) for row in self.held])
        if self._folds:
            fold_members(connection, self._folds, self._now_ms)


def _changed(connection: sqlite3.Connection, since: int, accounts: set[str]) -> bool:
    """Whether recipients of one of these accounts have changed since that change, as far as is known."""
    first, last = connection.execute(CHANGES).fetchall()[0]
    if last == since:
        return False
    if first > since + 1 or last < since:  # some are forgotten already, or somebody emptied the table
        return True
    (changed,) = connection.execute(CHANGED, (since,)).fetchall()[0]
    return not accounts.isdisjoint(_names.decode(changed))


def _plain_row(alert_id: int, draft: Draft, ruleset: int, owner: int) -> tuple[Any, ...]:
    assert draft.recipient is not None
    route = draft.route
    return (
        alert_id,
        draft.recipient.id,
        draft.template,
        ",".join(route),
        route[0],
        draft.state,
        ruleset,
        draft.day_total,
        draft.expires_ms,
        owner,
    )


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


def _held_row(alert_id: int, draft: Draft, ruleset: int) -> tuple[Any, ...]:
    if draft.recipient is None or not draft.route or draft.due_ms is None or draft.reason is None:
        raise ValueError("an alert that is held needs a recipient, a channel, a rule and a time")
    return (
        alert_id,
        draft.recipient.id,
        draft.template,
        ",".join(draft.route),
        draft.route[0],
        "held",
        draft.reason,
        None if draft.saw is None else _encode(draft.saw).decode(),
        ruleset,
        draft.day_total,
        draft.expires_ms,
        # At its age it is looked at in any case.
        min(draft.due_ms, draft.expires_ms),
    )


def _folded(alert_id: int, draft: Draft) -> Folded:
    if draft.recipient is None or draft.fold is None:
        raise ValueError("an alert that is folded needs a recipient and a digest")
    fold, to = draft.fold, draft.recipient
    return Folded(alert_id, to.account, to.role, fold.rule, fold.due_ms, fold.count)


def _leased(alert_id: int, event: Event, draft: Draft, now_ms: int) -> Alert:
    if draft.recipient is None or not draft.route:
        raise ValueError("an alert to send needs a recipient and a channel")
    return Alert(
        alert_id,
        event,
        draft.recipient,
        draft.route,
        now_ms,
        draft.expires_ms,
        draft.template,
        draft.day_total,
        state=draft.state,
    )


def _deduplicate(
    connection: sqlite3.Connection, ids: IdIndex, batch: Sequence[Accepted], digests: Sequence[int]
) -> tuple[Sequence[Accepted], list[int], list[int]]:
    """The events to admit, and the positions of those seen before with the same or with other content."""
    first: dict[str, int] = {}
    repeated = set()
    for position, accepted in enumerate(batch):
        if first.setdefault(accepted.event.id, position) != position:
            repeated.add(position)
    known: dict[str, bytes] = {}
    query = "SELECT json_array(id, payload) FROM events WHERE seq IN ({keys})"
    for pair in read_keys(connection, query, ids.candidates(connection, digests)):
        event_id, payload = _known.decode(pair)
        if event_id in first:
            known[event_id] = payload.encode()
    if not known and not repeated:
        return batch, [], []
    fresh: list[Accepted] = []
    duplicates: list[int] = []
    conflicts: list[int] = []
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
    query = "SELECT group_concat(card, char(10)) FROM recipients WHERE account IN ({keys})"
    # By their order in the index, so that its pages are gone through once.
    for text in read_keys(connection, query, sorted(accounts)):
        if text is None:  # nobody
            continue
        for recipient in _recipients.decode_lines(text):
            found.setdefault(recipient.account, []).append(recipient)
    for several in found.values():
        if len(several) > 1:
            several.sort(key=lambda recipient: recipient.id)
    return found
