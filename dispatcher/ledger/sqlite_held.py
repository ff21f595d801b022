"""What the send rules hold, on SQLite: what is held, and what people decide about it.

An alert in the state ``held`` is free and has a time at which it is due, so the clock task leases it like a retry. One
that a storm rule holds is due when it expires: a person lets go of it before, or ends it. They do so from another
process, in batches, beside the service.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from dispatcher.ledger.held import DISCARDED, HeldAct, HeldBy, HeldView, Hold
from dispatcher.ledger.sql import write_rows
from dispatcher.model.alert import ALERT_ID_BITS

HELD_AT_ONCE = 1_000
"""Alerts let go or ended in one transaction: about 10 ms of work, for which the service's batches wait."""

ACTS_SHOWN = 20
"""What people did last. All of it stays in the table, and in the story of each alert."""

_ids = msgspec.json.Decoder(list[int])

HOLD = "INSERT INTO holds (alert, rule, until) {values}"
STORY = "SELECT h.rule, h.until, d.act, d.who, d.at FROM holds h LEFT JOIN held_acts d ON d.id = h.act WHERE h.alert=?"
COUNT = "SELECT count(*) FROM alerts INDEXED BY alerts_held WHERE state='held' AND due_at > ?"
VIEW = (
    "SELECT h.reason, h.count, h.waiting, o.accepted_at, n.accepted_at, h.first, h.last, h.newest FROM"
    " (SELECT reason, count(*) AS count, sum(due_at >= expires_at) AS waiting, min(id) AS oldest, max(id) AS newest,"
    " min(due_at) AS first, max(due_at) AS last FROM alerts INDEXED BY alerts_held"
    " WHERE state='held' {only} GROUP BY reason) AS h"
    f" JOIN events o ON o.seq = h.oldest >> {ALERT_ID_BITS} JOIN events n ON n.seq = h.newest >> {ALERT_ID_BITS}"
    " ORDER BY h.reason"
)
ACTS = "SELECT at, act, rule, who, alerts FROM held_acts {only} ORDER BY at DESC, id DESC LIMIT ?"

# What was released is due before that moment, so it is not found a second time.
WAITING = (
    "SELECT json_group_array(id) FROM (SELECT id FROM alerts INDEXED BY alerts_held WHERE state='held' AND reason=?"
    " AND due_at > ? AND due_at >= expires_at AND id <= ? LIMIT ?)"
)
ANY = (
    "SELECT json_group_array(id) FROM (SELECT id FROM alerts INDEXED BY alerts_held WHERE state='held' AND reason=?"
    " AND id <= ? LIMIT ?)"
)
RELEASE = "UPDATE alerts SET due_at=?1 WHERE id IN (SELECT value FROM json_each(?2))"
DISCARD = (
    "UPDATE alerts SET state='cancelled', reason=?3, due_at=NULL, ended_at=?1"
    " WHERE id IN (SELECT value FROM json_each(?2))"
)
ACT = (
    "INSERT INTO held_acts (at, act, rule, who, alerts) VALUES (?,?,?,?,?)"
    " ON CONFLICT (at, act, rule, who) DO UPDATE SET alerts=alerts+excluded.alerts RETURNING id"
)
DECIDED = "UPDATE holds SET act=? WHERE alert IN (SELECT value FROM json_each(?))"


def write_holds(connection: sqlite3.Connection, held: Sequence[tuple[Any, ...]]) -> None:
    """Keep that alerts are held, as (alert, rule, until); a reversal or a person may end it."""
    write_rows(connection, HOLD, held)


def hold_of(connection: sqlite3.Connection, alert_id: int) -> Hold | None:
    """How an alert was held; None when it was not."""
    found = connection.execute(STORY, (alert_id,)).fetchall()
    return Hold(*found[0]) if found else None


def held_later(connection: sqlite3.Connection, until_ms: int) -> int:
    """How many alerts are held until later than that."""
    return int(connection.execute(COUNT, (until_ms,)).fetchall()[0][0])


def held(connection: sqlite3.Connection, rule: str | None) -> HeldView:
    """See `Ledger.held`."""
    one: tuple[str, ...] = () if rule is None else (rule,)
    rows = connection.execute(VIEW.format(only="AND reason=?" if one else ""), one).fetchall()
    acts = connection.execute(ACTS.format(only="WHERE rule=?" if one else ""), (*one, ACTS_SHOWN)).fetchall()
    return HeldView([HeldBy(*row) for row in rows], [HeldAct(*row) for row in acts])


def release(connection: sqlite3.Connection, rule: str, now_ms: int, who: str, up_to: int) -> int:
    """See `Ledger.release_held`."""
    text = connection.execute(WAITING, (rule, now_ms, up_to, HELD_AT_ONCE)).fetchall()[0][0]
    if count := len(_ids.decode(text)):
        connection.execute(RELEASE, (now_ms, text))
        _decided(connection, "released", rule, now_ms, who, text, count)
    return count


def discard(connection: sqlite3.Connection, rule: str, now_ms: int, who: str, up_to: int) -> int:
    """See `Ledger.discard_held`."""
    text = connection.execute(ANY, (rule, up_to, HELD_AT_ONCE)).fetchall()[0][0]
    if count := len(_ids.decode(text)):
        connection.execute(DISCARD, (now_ms, text, DISCARDED + rule))
        _decided(connection, "discarded", rule, now_ms, who, text, count)
    return count


def _decided(
    connection: sqlite3.Connection, act: str, rule: str, now_ms: int, who: str, alerts: str, count: int
) -> None:
    number = connection.execute(ACT, (now_ms, act, rule, who, count)).fetchall()[0][0]
    connection.execute(DECIDED, (number, alerts))
