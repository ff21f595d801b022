"""Digests on SQLite: alerts that a rule folds are gathered by account, role and rule, and leave as one event.

A digest takes members while it is *open*. It is *closing* from the moment that it has as many as its rule says, or
that `take` finds it due: then its members are fixed, so that whoever makes its event, now or after a crash, makes the
same one. It is *sent* once that event is in the ledger, under an id made from the digest's number; a second attempt is
a duplicate there. Each step is one commit, and the event is told like any other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from dispatcher.ledger.digests import DigestBooks, DigestStory, DueDigest, Member
from dispatcher.ledger.sql import read_keys, write_rows
from dispatcher.ledger.sqlite_find import find_event
from dispatcher.ledger.sqlite_ids import IdIndex
from dispatcher.model.alert import ALERT_ID_BITS
from dispatcher.model.event import OWN_ID_PREFIX

MAX_MEMBERS = 10_000
"""Members of one digest; then it leaves, whatever its rule says. They are added up in one transaction (20 ms), and 64
bits hold as many of the largest amounts."""

MAX_SUMMED_AMOUNT = 10**14
"""Minor units. An amount above it is a fault of the source: its alert is counted, but not added (as in the balance of
the day)."""


class Folded(msgspec.Struct, frozen=True, gc=False):
    """One alert to be folded: who would have been told, the rule that folds it, when a digest that it opens leaves, and
    with how many members it leaves at once (None: only in time)."""

    alert: int
    account: str
    role: str
    rule: str
    due_ms: int
    count: int | None


class _Open(msgspec.Struct):
    id: int
    due_at: int
    members: int
    state: str = "open"


_Key = tuple[str, str, str]
_known = msgspec.json.Decoder(tuple[int, str, str, str, int, int])

FIND = (
    "SELECT json_array(id, account, role, rule, due_at, members) FROM digests"
    " WHERE state='open' AND account IN ({keys})"
)
INSERT = "INSERT INTO digests (id, account, role, rule, opened_at, due_at, members, state) {values}"
UPDATE = (
    "UPDATE digests SET due_at=v.column2, members=v.column3, state=v.column4 FROM ({values}) AS v WHERE id=v.column1"
)
JOIN = "INSERT INTO digest_members (alert, digest) {values}"
LAST = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name='digests'"

# What a process that has died or left was about to tell is anybody's; of the living each has its own.
TAKE = (
    "SELECT id, account, role, rule, members FROM digests INDEXED BY digests_due"
    " WHERE state IN ('open','closing') AND due_at<=:now AND (owner IN (0, :owner) OR NOT EXISTS"
    " (SELECT 1 FROM processes p WHERE p.id=digests.owner AND p.alive_until>0)) ORDER BY due_at, id LIMIT :limit"
)
FREEZE = "UPDATE digests SET state='closing', owner=? WHERE id=?"
DROP = "UPDATE digests SET state='empty' WHERE id=?"
WAITING = "SELECT count(*) FROM digests INDEXED BY digests_due WHERE state IN ('open','closing') AND state='closing'"

_MEMBERS = (
    f"FROM digest_members m JOIN events e ON e.seq = m.alert >> {ALERT_ID_BITS} WHERE m.digest=? AND m.removed IS NULL"
)
# What moved no money is worth nothing, and `sum` would fail on what 64 bits do not hold.
_WORTH = (
    f"iif(e.payload->>'amount' NOT BETWEEN -{MAX_SUMMED_AMOUNT} AND {MAX_SUMMED_AMOUNT}"
    " OR e.payload->>'type' = 'decline' OR coalesce(e.payload->>'status', '') LIKE 'declined%',"
    " 0, e.payload->>'amount')"
)
AMOUNTS = f"SELECT e.payload->>'currency', sum({_WORTH}) {_MEMBERS} GROUP BY 1 ORDER BY 1"
_TYPE = "coalesce(e.payload->>'type', 'purchase')"
_CATEGORY = "coalesce(e.payload->>'category', 'swipe')"
FACTS = (
    f"SELECT count(*), min(e.swiped_at), max(e.swiped_at), iif(min({_TYPE})=max({_TYPE}), min({_TYPE}), ''),"
    f" iif(min({_CATEGORY})=max({_CATEGORY}), min({_CATEGORY}), '') {_MEMBERS}"
)
SENT = "UPDATE digests SET state='sent', owner=0, event=? WHERE id=? AND state='closing'"

REMOVE = (
    "UPDATE digest_members SET removed=? WHERE alert BETWEEN ? AND ? AND removed IS NULL AND digest IN"
    " (SELECT id FROM digests WHERE state='open') RETURNING alert, digest"
)
FEWER = "UPDATE digests SET members=members-1 WHERE id=?"


def event_id(digest: int) -> str:
    """The id of the event that tells a digest."""
    return f"{OWN_ID_PREFIX}digest:{digest}"


def fold_members(connection: sqlite3.Connection, rows: Sequence[Folded], now_ms: int) -> None:
    """Put alerts into the open digests of their account, role and rule, in this order, and open those that are missing.

    Part of the admission transaction. A digest that has as many members as the rule says takes no more and is due.
    """
    if not rows:
        return
    found = _find(connection, rows)
    first = last = int(connection.execute(LAST).fetchall()[0][0])
    opened: dict[int, _Key] = {}
    changed: dict[int, _Open] = {}
    members = []
    for row in rows:
        key = (row.account, row.role, row.rule)
        digest = found.get(key)
        if digest is None:
            last += 1
            digest = found[key] = _Open(last, row.due_ms, 0)
            opened[last] = key
        digest.members += 1
        changed[digest.id] = digest
        members.append((row.alert, digest.id))
        if digest.members >= min(row.count or MAX_MEMBERS, MAX_MEMBERS):
            digest.state, digest.due_at = "closing", now_ms
            del found[key]
    # Those that were open are changed first: one may be full now, and another of its key opened after it.
    old = [(one.id, one.due_at, one.members, one.state) for one in changed.values() if one.id <= first]
    new = [
        (one.id, *opened[one.id], now_ms, one.due_at, one.members, one.state)
        for one in changed.values()
        if one.id > first
    ]
    write_rows(connection, UPDATE, old)
    write_rows(connection, INSERT, new)
    write_rows(connection, JOIN, members)


def _find(connection: sqlite3.Connection, rows: Sequence[Folded]) -> dict[_Key, _Open]:
    found = {}
    for text in read_keys(connection, FIND, sorted({row.account for row in rows})):
        digest, account, role, rule, due_at, members = _known.decode(text)
        found[account, role, rule] = _Open(digest, due_at, members)
    return found


def remove_members(connection: sqlite3.Connection, span: tuple[int, int], reversal: str) -> set[int]:
    """Take the alerts of an event (``span``: first and last id) out of digests that are still open, because it was
    taken back; returns those alerts. Of what is closing or sent the cardholder hears, so that stays."""
    removed = connection.execute(REMOVE, (reversal, *span)).fetchall()
    for _, digest in removed:
        connection.execute(FEWER, (digest,))
    return {alert for alert, _ in removed}


def take(connection: sqlite3.Connection, now_ms: int, owner: int, limit: int) -> list[DueDigest]:
    """See `Ledger.take_digests`."""
    due = connection.execute(TAKE, {"now": now_ms, "owner": owner, "limit": limit}).fetchall()
    taken = []
    for digest, account, role, rule, members in due:
        if not members:
            connection.execute(DROP, (digest,))
            continue
        connection.execute(FREEZE, (owner, digest))
        count, since, until, kind, category = connection.execute(FACTS, (digest,)).fetchall()[0]
        amounts = dict(connection.execute(AMOUNTS, (digest,)).fetchall())
        event = event_id(digest)
        taken.append(DueDigest(digest, event, account, role, rule, count, amounts, since, until, kind, category))
    return taken


def sent(connection: sqlite3.Connection, ids: IdIndex, digests: Sequence[int]) -> int:
    """See `Ledger.digests_sent`."""
    closed = 0
    for digest in digests:
        found = find_event(connection, ids, event_id(digest))
        if found is not None:
            closed += connection.execute(SENT, (found[0], digest)).rowcount
    return closed


def waiting(connection: sqlite3.Connection) -> int:
    """How many digests take no more members and have no event yet."""
    return int(connection.execute(WAITING).fetchall()[0][0])


# ---- looking ----------------------------------------------------------------------------------------------------

MAX_LISTED_MEMBERS = 50
"""Members that ``explain`` lists; it says how many more there are."""

FAULTS = (
    "SELECT count(*) FROM digest_members m LEFT JOIN digests d ON d.id=m.digest LEFT JOIN alerts a ON a.id=m.alert"
    " WHERE d.id IS NULL OR a.state IS NOT 'suppressed' OR a.reason IS NOT d.rule",
    "SELECT count(*) FROM digests d WHERE d.members <>"
    " (SELECT count(*) FROM digest_members m WHERE m.digest=d.id AND m.removed IS NULL)"
    " OR (d.state='empty' AND d.members<>0)",
    "SELECT count(*) FROM digests d LEFT JOIN events e ON e.seq=d.event"
    f" WHERE d.state='sent' AND e.id IS NOT '{event_id(0)[:-1]}' || d.id",
)

OF_ALERT = (
    "SELECT d.id, d.rule, d.state, d.due_at, m.removed, d.event"
    " FROM digest_members m JOIN digests d ON d.id=m.digest WHERE m.alert=?"
)
TOLD = "SELECT state, channel, reason, ended_at FROM alerts WHERE id=?"
LIST = (
    f"SELECT e.id, m.alert FROM digest_members m JOIN events e ON e.seq = m.alert >> {ALERT_ID_BITS}"
    " WHERE m.digest=? AND m.removed IS NULL ORDER BY m.alert LIMIT ?"
)


def books(connection: sqlite3.Connection) -> DigestBooks:
    """See `Books.digests`."""
    folded, removed = connection.execute(
        "SELECT count(*) FILTER (WHERE removed IS NULL), count(removed) FROM digest_members"
    ).fetchall()[0]
    states = dict(connection.execute("SELECT state, count(*) FROM digests GROUP BY state ORDER BY state").fetchall())
    faults = sum(int(connection.execute(query).fetchall()[0][0]) for query in FAULTS)
    return DigestBooks(folded, removed, states, faults)


def story_of(connection: sqlite3.Connection, alert: int) -> DigestStory | None:
    """The digest into which an alert was folded, and what became of it; None when it was not."""
    found = connection.execute(OF_ALERT, (alert,)).fetchall()
    if not found:
        return None
    digest, rule, state, due_at, removed, event = found[0]
    # A digest tells one recipient, so its event has one alert.
    told = [] if event is None else connection.execute(TOLD, (event << ALERT_ID_BITS,)).fetchall()
    return DigestStory(digest, event_id(digest), rule, state, due_at, removed, tuple(told[0]) if told else None)


def members_of(connection: sqlite3.Connection, event: str) -> tuple[list[Member], int]:
    """The first members of the digest that an event tells, and how many more there are; none for any other event."""
    number = event.removeprefix(event_id(0)[:-1])
    if number == event:
        return [], 0
    count = connection.execute("SELECT members FROM digests WHERE id=?", (int(number),)).fetchall()
    members = [Member(*row) for row in connection.execute(LIST, (int(number), MAX_LISTED_MEMBERS))]
    return members, max(0, count[0][0] - len(members)) if count else 0
