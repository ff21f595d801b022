"""What only reads the SQLite ledger: the books and the story of one event."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from dispatcher.delivery import CONSENT_WITHDRAWN
from dispatcher.ledger import sqlite_digests
from dispatcher.ledger.api import OPEN_STATES, Books
from dispatcher.ledger.sqlite_consents import taken_back, words_at
from dispatcher.ledger.sqlite_fallback import COUNT_DOUBLES
from dispatcher.ledger.sqlite_held import held_later, hold_of
from dispatcher.ledger.sqlite_id_runs import find_seqs
from dispatcher.ledger.sqlite_open import digest_of
from dispatcher.ledger.sqlite_templates import told_at
from dispatcher.ledger.stories import AlertStory, AttemptStory, Detour, EventStory
from dispatcher.model.alert import ALERT_ID_BITS, EndState
from dispatcher.model.consent import ConsentEntry
from dispatcher.model.event import Event
from dispatcher.model.recipient import ChannelName

CHANNELS: tuple[str, ...] = (*get_args(ChannelName), "wechat_service")
"""Those that recipients list, and those that the send rules add."""
END_STATES: tuple[EndState, ...] = get_args(EndState)

FINGERPRINT = ("count({0})", "sum({0})", "sum(({0}) * ({0}) % 1000003)")
"""Of a set of numbers, in one pass."""


OPEN_COUNT = "SELECT count(*) FROM alerts INDEXED BY alerts_open WHERE ended_at IS NULL"


def open_count(connection: sqlite3.Connection, held_until: int | None = None) -> int:
    """How many alerts have not ended, from the index that holds no others; and digests that are about to be told."""
    count = int(connection.execute(OPEN_COUNT).fetchall()[0][0]) + sqlite_digests.waiting(connection)
    return count if held_until is None else count - held_later(connection, held_until)


def books(connection: sqlite3.Connection) -> Books:
    """The totals of the whole ledger; see `Ledger.books`."""

    def pairs(query: str) -> dict[Any, int]:
        return dict(connection.execute(query).fetchall())

    def number(query: str) -> int:
        return int(connection.execute(query).fetchall()[0][0])

    # One pass over the largest table, with sums instead of groups: grouping would sort ten million rows.
    states = (*sorted(OPEN_STATES), *sorted(END_STATES))
    columns = ["count(*)", *(f"sum(state='{state}')" for state in states)]
    columns += [f"count(answered_at) FILTER (WHERE channel='{channel}')" for channel in CHANNELS]
    open_states = ",".join(f"'{state}'" for state in sorted(OPEN_STATES))
    columns += ["count(answered_at)", f"sum((ended_at IS NULL) <> (state IN ({open_states})))"]
    # The first alert of an event stands at position 0. That as many and the same ones are there is proved by their
    # number and by two sums of them; looking each up would be ten million random reads.
    first = f"(id & {(1 << ALERT_ID_BITS) - 1}) = 0"
    columns += [f"{total.format(f'id >> {ALERT_ID_BITS}')} FILTER (WHERE {first})" for total in FINGERPRINT]
    alerts, *sums = connection.execute(f"SELECT {', '.join(columns)} FROM alerts").fetchall()[0]
    by_state = {state: count or 0 for state, count in zip(states, sums, strict=False)}
    *answers, answered, inconsistent, firsts, sum_of_firsts, squares_of_firsts = sums[len(states) :]
    totals = ", ".join(total.format("seq") for total in FINGERPRINT)
    events, *rest = connection.execute(f"SELECT {totals} FROM events").fetchall()[0]
    differ = [sum_of_firsts, squares_of_firsts] != rest
    attempts = Counter(dict(zip(CHANNELS, answers, strict=True)))
    attempts.update(pairs("SELECT channel, count(*) FROM attempts GROUP BY channel"))
    return Books(
        events=events,
        recipients=number("SELECT count(*) FROM recipients"),
        states={state: count for state, count in by_state.items() if count},
        suppressed_by=pairs("SELECT reason, count(*) FROM alerts WHERE state='suppressed' GROUP BY reason"),
        failed_by=pairs("SELECT reason, count(*) FROM alerts WHERE state='failed' GROUP BY reason"),
        unknown_attempts=number("SELECT count(*) FROM attempts WHERE outcome='unknown'"),
        attempts={channel: count for channel, count in attempts.items() if count},
        # A state or a channel that we do not know is a defect as well.
        inconsistent=(inconsistent or 0) + alerts - sum(by_state.values()) + answered - sum(answers),
        known_doubles=number(COUNT_DOUBLES),
        without_alert=abs(events - firsts) or int(differ),
        digests=sqlite_digests.books(connection),
    )


def explain(connection: sqlite3.Connection, event_id: str) -> EventStory | None:
    """Everything about one event; see `Ledger.explain`."""
    seqs = find_seqs(connection, digest_of(event_id))
    query = "SELECT seq, id, account, swiped_at, accepted_at, payload FROM events WHERE seq=? AND id=?"
    found = [row for seq in seqs for row in connection.execute(query, (seq, event_id)).fetchall()]
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
        detours = connection.execute(
            "SELECT channel, why, at FROM detours WHERE alert=? ORDER BY at, channel, why", (alert_id,)
        ).fetchall()
        read = None if saw is None else msgspec.json.decode(saw)
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
                saw=read,
                day_total=total,
                expires_at=expires,
                due_at=due,
                ended_at=ended,
                attempts=[AttemptStory(*attempt) for attempt in attempts],
                receipts=[dict(zip(("channel", "status", "at", "times"), one, strict=True)) for one in receipts],
                detours=[Detour(*one) for one in detours],
                hold=hold_of(connection, alert_id),
                told=told_at(connection, template, accepted_at),
                consents=_consents(
                    connection, account, role, payload, read, ended if reason == CONSENT_WITHDRAWN else None
                ),
                digest=sqlite_digests.story_of(connection, alert_id) if state == "suppressed" else None,
            )
        )
    members, more = sqlite_digests.members_of(connection, stored_id)
    return EventStory(stored_id, account, swiped_at, accepted_at, payload, alerts, members, more)


def _consents(
    connection: sqlite3.Connection,
    account: str,
    role: str | None,
    payload: str,
    saw: Mapping[str, int] | None,
    cancelled_at: int | None,
) -> list[ConsentEntry]:
    """The word that the send rules looked at when they decided, with its source, which a decision does not keep; of an
    alert that was cancelled for want of consent at ``cancelled_at``, the one that took it back."""
    if role is None:
        return []
    categories = msgspec.json.decode(payload, type=Event).categories
    if cancelled_at is not None:
        return taken_back(connection, account, role, categories, cancelled_at)
    if not saw or "consent_at" not in saw:
        return []
    return words_at(connection, account, role, categories, saw["consent_at"])
