"""The fence between two channels on SQLite: a success that is known keeps the next channel from ringing.

An alert goes on to its next channel by one UPDATE of the one process that holds its lease; that commit is the fence.
What a provider says of the channel before it is looked at once more inside the same transaction, so a success is either
known before the fence, and nothing else is sent, or it comes after it and is a *known double*
(docs/decisions/0011-fallback-fence.md). Nothing is kept for that: the attempt has moved to the table of attempts
with its message id, the receipt is there, and the two are joined.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

import msgspec

from dispatcher.delivery import held_back
from dispatcher.ledger.api import Receipt
from dispatcher.ledger.sql import read_keys
from dispatcher.model.alert import Step

LAST_WORD = (
    "(SELECT status FROM receipts s WHERE s.channel=a.channel AND s.msgid=a.msgid ORDER BY s.at DESC, s.status LIMIT 1)"
)
"""What the provider of alert ``a``'s present channel said of it."""

LATE_SUCCESS = (
    "(SELECT 'delivered:' || t.channel FROM attempts t JOIN receipts s ON s.channel=t.channel AND s.msgid=t.msgid"
    " WHERE t.alert=a.id AND t.channel<>a.channel AND s.status='delivered' ORDER BY t.n LIMIT 1)"
)
"""The success of a channel that alert ``a`` has left."""

IS_SEEN = f"({LAST_WORD}='delivered' OR {LATE_SUCCESS} IS NOT NULL)"
"""Whether the cardholder has seen alert ``a``, as far as a provider has said so."""

WORD = f"iif({LAST_WORD}='delivered', 'delivered', coalesce({LATE_SUCCESS}, {LAST_WORD}))"
"""What is known of alert ``a``: a success on any channel before a failure on the present one. It says of the same
alerts that they were seen as ``IS_SEEN`` does, or an alert that is held here would be held for ever."""

_SEEN = (
    f"SELECT json_group_array(a.id) FROM alerts a WHERE a.owner=? AND a.ended_at IS NULL AND a.id IN ({{keys}})"
    f" AND {IS_SEEN}"
)

# Which of two channels is the later one is read from the route. The numbers of attempts do not say: a process that has
# lost its lease may add the answer of a channel left behind under any number (docs/decisions/0011-fallback-fence.md).
_LATER = "instr(','||a.route||',', ','||u.channel||',') > instr(','||a.route||',', ','||t.channel||',')"

# A success after the fence is a double when a later channel rang, or may have, and has not said that it failed.
_RANG = (
    "(a.state='sending' OR (a.answered_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM receipts w"
    " WHERE w.channel=a.channel AND w.msgid=a.msgid AND w.status LIKE 'failed%'))"
    f" OR EXISTS (SELECT 1 FROM attempts u WHERE u.alert=a.id AND {_LATER}"
    " AND u.outcome IN ('accepted','unknown') AND NOT EXISTS (SELECT 1 FROM receipts w"
    " WHERE w.channel=u.channel AND w.msgid=u.msgid AND w.status LIKE 'failed%')))"
)

_DOUBLES = (
    "attempts t {how} JOIN receipts d ON d.channel=t.channel AND d.msgid=t.msgid AND d.status='delivered'"
    " JOIN alerts a ON a.id=t.alert AND a.channel<>t.channel WHERE t.msgid {which} AND " + _RANG
)

COUNT_DOUBLES = "SELECT count(DISTINCT t.alert) FROM " + _DOUBLES.format(
    how="INDEXED BY attempts_message", which="IS NOT NULL"
)
"""For the books. From the index that holds only attempts with a message, which are those of channels left behind."""

_NEW_DOUBLES = "SELECT json_array(d.channel, d.msgid, d.times) FROM " + _DOUBLES.format(how="", which="IN ({keys})")

# It waits for its word and is due at once. Only one that was tried before can have left a channel.
_KEEP_BACK = (
    "UPDATE alerts AS a SET state='awaiting', owner=0, due_at=0 WHERE a.owner=? AND a.state='queued' AND a.attempts>0"
    f" AND {LATE_SUCCESS} IS NOT NULL AND a.id IN ({{keys}}) RETURNING 1"
)

_ids = msgspec.json.Decoder(list[int])
_told = msgspec.json.Decoder(tuple[str, str, int])


def hold_seen(
    connection: sqlite3.Connection, steps: Sequence[Step], owner: int
) -> tuple[Sequence[Step], frozenset[int]]:
    """The steps, with those turned back that would ring again, or end without success, what a provider says was seen;
    and the alerts of those.

    Such an alert waits for its receipt once more, is due at once, and comes back with the word that is there.
    """
    doubtful = {step.alert.id for step in steps if step.outcome != "accepted" and _would_pass_over(step)}
    if not doubtful:
        return steps, frozenset()
    seen: set[int] = set()
    for text in read_keys(connection, _SEEN, sorted(doubtful), (owner,)):
        seen.update(_ids.decode(text))
    if not seen:
        return steps, frozenset()
    held = [held_back(step) if step.alert.id in seen and _would_pass_over(step) else step for step in steps]
    return held, frozenset(seen)


def keep_back_seen(connection: sqlite3.Connection, alert_ids: Sequence[int], owner: int) -> None:
    """Take those out of their lane, just before they leave it, that a channel before has delivered meanwhile."""
    for _ in read_keys(connection, _KEEP_BACK, alert_ids, (owner,)):
        pass


def _would_pass_over(step: Step) -> bool:
    alert = step.alert
    if alert.state == "awaiting" and step.outcome is None and step.state != "delivered":
        return True
    return alert.position > 0 and step.outcome != "accepted" and step.state in ("failed", "expired", "cancelled")


def new_doubles(connection: sqlite3.Connection, receipts: Sequence[Receipt]) -> int:
    """See `Ledger.new_doubles`."""
    times = Counter((receipt.channel, receipt.msgid) for receipt in receipts if receipt.status == "delivered")
    found = read_keys(connection, _NEW_DOUBLES, list({msgid for _, msgid in times}))
    # Said as often as this batch says it: so it was never said before.
    return sum(times.get((channel, msgid)) == said for channel, msgid, said in {_told.decode(one) for one in found})
