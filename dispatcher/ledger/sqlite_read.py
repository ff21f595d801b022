"""What only reads the SQLite ledger: the books and the story of one event."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from dispatcher.ledger.api import AlertStory, AttemptStory, Books, EventStory
from dispatcher.ledger.sqlite_open import digest_of
from dispatcher.model.alert import ALERT_ID_BITS


def books(connection: sqlite3.Connection) -> Books:
    """The totals of the whole ledger; see `Ledger.books`."""

    def pairs(query: str) -> dict[Any, int]:
        return dict(connection.execute(query).fetchall())

    def number(query: str) -> int:
        return int(connection.execute(query).fetchall()[0][0])

    return Books(
        events=number("SELECT count(*) FROM events"),
        recipients=number("SELECT count(*) FROM recipients"),
        states=pairs("SELECT state, count(*) FROM alerts GROUP BY state"),
        suppressed_by=pairs("SELECT reason, count(*) FROM alerts WHERE state='suppressed' GROUP BY reason"),
        failed_by=pairs("SELECT reason, count(*) FROM alerts WHERE state='failed' GROUP BY reason"),
        unknown_attempts=number("SELECT count(*) FROM attempts WHERE outcome='unknown'"),
        attempts=pairs(
            "SELECT channel, sum(n) FROM (SELECT channel, count(*) AS n FROM attempts GROUP BY channel UNION ALL"
            " SELECT channel, count(answered_at) FROM alerts GROUP BY channel) GROUP BY channel HAVING sum(n) > 0"
        ),
        # The first alert of an event stands at position 0, so one join by key proves that each event has one.
        inconsistent=number(
            "SELECT count(*) FROM alerts WHERE (ended_at IS NULL)"
            " <> (state IN ('queued','sending','retrying','awaiting','interrupted'))"
        ),
        without_alert=number(
            "SELECT count(*) FROM events e"
            f" WHERE NOT EXISTS (SELECT 1 FROM alerts a WHERE a.id = e.seq << {ALERT_ID_BITS})"
        ),
    )


def explain(connection: sqlite3.Connection, event_id: str) -> EventStory | None:
    """Everything about one event; see `Ledger.explain`."""
    found = connection.execute(
        "SELECT seq, id, account, swiped_at, accepted_at, payload FROM events WHERE digest=? AND id=?",
        (digest_of(event_id), event_id),
    ).fetchall()
    if not found:
        return None
    seq, stored_id, account, swiped_at, accepted_at, payload = found[0]
    alerts = []
    rows = connection.execute(
        "SELECT a.id, r.role, a.template, coalesce(s.version, ''), a.route, a.channel, a.state, a.reason, a.saw,"
        " a.day_total, a.expires_at, a.due_at, a.ended_at FROM alerts a"
        " LEFT JOIN recipients r ON r.id = a.recipient LEFT JOIN rulesets s ON s.id = a.ruleset"
        " WHERE a.id BETWEEN ? AND ? ORDER BY a.id",
        (seq << ALERT_ID_BITS, (seq + 1 << ALERT_ID_BITS) - 1),
    ).fetchall()
    for row in rows:
        alert_id, role, template, ruleset, route, channel, state, reason, saw, total, expires, due, ended = row
        attempts = connection.execute(
            "SELECT n, channel, at, took, outcome, code, msgid FROM attempts WHERE alert=?1 UNION ALL"
            " SELECT attempts, channel, answered_at, took, 'accepted', code, msgid FROM alerts"
            " WHERE id=?1 AND answered_at IS NOT NULL ORDER BY 1, 3",
            (alert_id,),
        ).fetchall()
        receipts = connection.execute(
            "SELECT DISTINCT r.channel, r.status, r.at, r.times FROM receipts r JOIN"
            " (SELECT channel, msgid FROM attempts WHERE alert=?1 UNION"
            " SELECT channel, msgid FROM alerts WHERE id=?1) sent"
            " ON sent.channel=r.channel AND sent.msgid=r.msgid ORDER BY r.at",
            (alert_id,),
        ).fetchall()
        alerts.append(
            AlertStory(
                id=alert_id,
                role=role,
                template=template,
                ruleset=ruleset,
                route=[name for name in route.split(",") if name],
                channel=channel,
                state=state,
                reason=reason,
                saw=None if saw is None else msgspec.json.decode(saw),
                day_total=total,
                expires_at=expires,
                due_at=due,
                ended_at=ended,
                attempts=[AttemptStory(*attempt) for attempt in attempts],
                receipts=[dict(zip(("channel", "status", "at", "times"), one, strict=True)) for one in receipts],
            )
        )
    return EventStory(stored_id, account, swiped_at, accepted_at, payload, alerts)
