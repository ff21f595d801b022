"""Reversals on SQLite: what was taken back before anybody was told is not told at all.

Inside the admission transaction, and only for batches that hold a reversal (or while one waits for its event). A
reversal *undoes* an event when it takes all of it back: the same account, the same currency, the same amount. Then of
each recipient

- an alert that is certainly untouched (held by a rule, in its lane but not fenced, or waiting for a retry after nothing
  but definite refusals) ends as ``cancelled`` by the reversal, and the reversal's own alert for that recipient as
  ``suppressed(reversed-before-sending)``: who was not told of a purchase would only wonder about its reversal;
- anything else may have been seen, so the reversal's alert goes out as the correction.

A lane asks the ledger for leave before it sends a fenced alert (`Ledger.fence`), and what is leased by a lane that
does not ask stands as ``sending``, so a cancelled alert cannot leave. See docs/decisions/0012-reversals.md.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

import msgspec

from dispatcher.events import Accepted
from dispatcher.ledger.api import Draft
from dispatcher.ledger.sql import read_keys, write_rows
from dispatcher.ledger.sqlite_find import find_event
from dispatcher.ledger.sqlite_ids import IdIndex
from dispatcher.model.alert import ALERT_ID_BITS, EndState, State
from dispatcher.model.event import Event
from ratelimit.rulefile import REVERSED

REVERSAL = "reversal"

EARLY_KEEP_MS = 24 * 3_600_000
"""How long a reversal is remembered whose event has not come: a day later the event would be expired by the default
rule. It bounds the table, too, to the strays of one day."""

# Held by nobody who could be sending it, and no attempt that anybody can have seen.
CANCEL = (
    "UPDATE alerts SET state='cancelled', reason=?, owner=0, due_at=NULL, ended_at=? WHERE id BETWEEN ? AND ?"
    " AND ended_at IS NULL AND state IN ('held','queued','retrying') AND answered_at IS NULL AND NOT EXISTS"
    " (SELECT 1 FROM attempts t WHERE t.alert=alerts.id AND t.outcome IN ('accepted','unknown'))"
)
UNTOLD = "SELECT recipient FROM alerts WHERE id BETWEEN ? AND ? AND state='cancelled'"

REMEMBER = (
    "INSERT INTO early_reversals (id, reversal, account, amount, currency, at) {values} ON CONFLICT (id) DO NOTHING"
)
EARLY = "SELECT json_array(id, reversal, account, amount, currency) FROM early_reversals WHERE id IN ({keys})"

_event = msgspec.json.Decoder(Event)
_early = msgspec.json.Decoder(tuple[str, str, str, int, str])


def is_reversal(event: Event) -> bool:
    """Whether the event takes another one back. A refund is not: its purchase did happen. Nor is one that was
    declined."""
    return event.type == REVERSAL and event.refers_to is not None and not _declined(event)


def any_early(connection: sqlite3.Connection) -> bool:
    """Whether some reversal waits for its event. Asked once a batch."""
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM early_reversals)").fetchall()[0][0])


def settle_reversals(
    connection: sqlite3.Connection,
    known: IdIndex,
    fresh: Sequence[Accepted],
    reversals: Sequence[int],
    drafts: list[list[Draft]],
    now_ms: int,
) -> Counter[tuple[State, str]]:
    """Change the drafts of a batch as its reversals (their positions in it) say; returns how many alerts of earlier
    batches were cancelled, by (state, reason)."""
    place = {accepted.event.id: position for position, accepted in enumerate(fresh)}
    _meet_early(connection, fresh, drafts)
    cancelled: Counter[tuple[State, str]] = Counter()
    early = []
    for position in reversals:
        event = fresh[position].event
        wanted = event.refers_to
        assert wanted is not None
        if wanted in place:
            beside = place[wanted]
            if undoes(event, fresh[beside].event):
                drafts[beside] = [_ended(draft, "cancelled", event.id) for draft in drafts[beside]]
                untold = {
                    draft.recipient.id for draft in drafts[beside] if draft.state == "cancelled" and draft.recipient
                }
                drafts[position] = _without(drafts[position], untold)
            continue
        found = find_event(connection, known, wanted)
        if found is None:
            early.append((wanted, event.id, event.account, abs(event.amount), event.currency, now_ms))
            continue
        seq, payload = found
        if undoes(event, _event.decode(payload)):
            span = (seq << ALERT_ID_BITS, (seq + 1 << ALERT_ID_BITS) - 1)
            if count := connection.execute(CANCEL, (event.id, now_ms, *span)).rowcount:
                cancelled["cancelled", event.id] += count
            drafts[position] = _without(drafts[position], {row[0] for row in connection.execute(UNTOLD, span)})
    if early:
        connection.execute("DELETE FROM early_reversals WHERE at < ?", (now_ms - EARLY_KEEP_MS,))
        write_rows(connection, REMEMBER, early)
    return cancelled


def _meet_early(connection: sqlite3.Connection, fresh: Sequence[Accepted], drafts: list[list[Draft]]) -> None:
    """Cancel what was reversed before it came. The reversal has been told by itself, because nobody could know whether
    its event would ever come; to tell the event now would say the opposite of what is true."""
    ids = {accepted.event.id: position for position, accepted in enumerate(fresh)}
    met = [_early.decode(text) for text in read_keys(connection, EARLY, list(ids))]
    for event_id, reversal, account, amount, currency in met:
        event = fresh[ids[event_id]].event
        if _undone(event, account, amount, currency):
            drafts[ids[event_id]] = [_ended(draft, "cancelled", reversal) for draft in drafts[ids[event_id]]]
        connection.execute("DELETE FROM early_reversals WHERE id=?", (event_id,))


def undoes(reversal: Event, event: Event) -> bool:
    """Whether the reversal takes the whole event back. After a part of it (a filling station's estimate) money is still
    owed, so both are told."""
    return _undone(event, reversal.account, abs(reversal.amount), reversal.currency)


def _undone(event: Event, account: str, amount: int, currency: str) -> bool:
    # A declined swipe moved nothing: that it was tried is what its alert tells. The reversal of a reversal brings the
    # purchase back, of which the cardholder has to know.
    if event.type == REVERSAL or _declined(event):
        return False
    return (event.account, abs(event.amount), event.currency) == (account, amount, currency)


def _declined(event: Event) -> bool:
    return event.status is not None and event.status.lower().startswith("declined")


def _without(drafts: list[Draft], untold: set[int]) -> list[Draft]:
    return [
        _ended(draft, "suppressed", REVERSED) if draft.recipient is not None and draft.recipient.id in untold else draft
        for draft in drafts
    ]


def _ended(draft: Draft, state: EndState, reason: str) -> Draft:
    """The draft with this end, unless the rules had given it one already."""
    if draft.state not in ("sending", "queued", "held"):
        return draft
    return msgspec.structs.replace(draft, state=state, reason=reason)
