"""The send rules on SQLite: which rules decided an alert, which are in force, and who put them there."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from dispatcher.ledger.people import INITIAL, ChangeRefused, Person, refuse_same_person
from dispatcher.ledger.rule_changes import (
    MAX_OPEN_PROPOSALS,
    Activate,
    Approve,
    Propose,
    Reject,
    RuleAct,
    RuleChange,
)

COLUMNS = (
    "id, version, content, state, from_version, proposed_by, proposed_as, proposed_at, note, predicted,"
    " decided_by, decided_as, decided_at, decision"
)
_NAMES = COLUMNS.split(", ")
INSERT = (
    "INSERT INTO rule_changes (version, content, state, from_version, proposed_by, proposed_as, proposed_at, note,"
    " predicted, decided_by, decided_as, decided_at, decision) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) RETURNING id"
)
DECIDE = (
    "UPDATE rule_changes SET state=?, from_version=?, decided_by=?, decided_as=?, decided_at=?, decision=? WHERE id=?"
)


def keep_ruleset(connection: sqlite3.Connection, version: str, content: str, now_ms: int) -> None:
    """See `Ledger.ruleset`."""
    connection.execute(
        "INSERT OR IGNORE INTO rulesets (version, content, since) VALUES (?,?,?)", (version, content, now_ms)
    )


def ruleset_row(connection: sqlite3.Connection, version: str) -> int:
    """The row of the rules of this version; 0 when they were never kept."""
    # Looked up each time: the commit that wrote it may have failed, and another process's rules may have its row.
    found = connection.execute("SELECT id FROM rulesets WHERE version=?", (version,)).fetchall()
    return int(found[0][0]) if found else 0


def active(connection: sqlite3.Connection, known: int) -> RuleChange | None:
    """See `Ledger.rule_active`."""
    found = _changes(connection, "WHERE state='active' AND id<>?", (known,))
    return found[0] if found else None


def history(connection: sqlite3.Connection, limit: int, version: str | None) -> list[RuleChange]:
    """See `Ledger.rule_history`."""
    clause = "WHERE version=coalesce(?, version) ORDER BY coalesce(decided_at, proposed_at) DESC, id DESC LIMIT ?"
    return _changes(connection, clause, (version, limit))


def act(connection: sqlite3.Connection, act: RuleAct) -> RuleChange:
    """See `Ledger.rule_act`."""
    match act:
        case Activate():
            return _activate(connection, act)
        case Propose():
            return _propose(connection, act)
        case Approve():
            return _approve(connection, act)
        case Reject():
            return _reject(connection, act)


def _activate(connection: sqlite3.Connection, act: Activate) -> RuleChange:
    now = active(connection, 0)
    if now is not None and (act.only_first or now.version == act.version):
        return now
    return _replace(connection, now, _draft(act, "active", now, decided_at=act.at_ms))


def _propose(connection: sqlite3.Connection, act: Propose) -> RuleChange:
    now = active(connection, 0)
    known = _changes(connection, "WHERE version=? ORDER BY id DESC", (act.version,))
    if now is not None and now.version == act.version:
        return now
    if act.only_new and known:
        return known[0]
    for one in known:
        if one.state == "proposed" and one.proposed_by == act.by.name:
            return one
    if connection.execute("SELECT count(*) FROM rule_changes WHERE state='proposed'").fetchall()[0][0] >= (
        MAX_OPEN_PROPOSALS
    ):
        raise ChangeRefused(f"{MAX_OPEN_PROPOSALS} proposals wait for a decision already; approve or reject some")
    return _insert(connection, _draft(act, "proposed", now))


def _approve(connection: sqlite3.Connection, act: Approve) -> RuleChange:
    now = active(connection, 0)
    if now is not None and now.version == act.version:
        raise ChangeRefused(f"rules {act.version} are in force already, since {now.decided_by or now.proposed_by}")
    known = _changes(connection, "WHERE version=? AND state<>'rejected' ORDER BY id DESC", (act.version,))
    if not known:
        raise _unknown(connection, act.version)
    # Each of them: else one whose proposal another had made too could approve the other's.
    proposers = [one.proposed_by for one in known]
    if act.by.name == act.by.account:
        # Who gives no other name is this account, and so is whoever gave one to a proposal from there. The first rules
        # of a ledger were nobody's.
        proposers += [one.proposed_as for one in known if one.proposed_as and one.proposed_by != INITIAL]
    refuse_same_person(act.by.name, proposers, f"rules {act.version}")
    proposed = [one for one in known if one.state == "proposed"]
    if not proposed:  # in force once: back to it
        old = known[0]
        draft = {name: getattr(old, name) for name in _NAMES}
        draft |= {"state": "active", "from_version": now.version if now else None} | _decided(act)
        return _replace(connection, now, draft)
    newest, *others = proposed
    _leave(connection, now)
    for other in others:
        _decide(connection, other, "replaced", other.from_version, act)
    _decide(connection, newest, "active", now.version if now else None, act)
    return _one(connection, newest.id)


def _reject(connection: sqlite3.Connection, act: Reject) -> RuleChange:
    proposed = _changes(connection, "WHERE version=? AND state='proposed' ORDER BY id DESC", (act.version,))
    if not proposed:
        raise _unknown(connection, act.version)
    for one in proposed:
        _decide(connection, one, "rejected", one.from_version, act)
    return _one(connection, proposed[0].id)


def _unknown(connection: sqlite3.Connection, version: str) -> ChangeRefused:
    known = _changes(connection, "WHERE version=? ORDER BY id DESC LIMIT 1", (version,))
    if known and known[0].state == "rejected":
        return ChangeRefused(f"rules {version}: {known[0].decided_by} has rejected them; propose them again")
    if known:
        return ChangeRefused(f"rules {version} are {known[0].state}, not proposed; nothing is to be decided")
    open_ones = [one.version for one in _changes(connection, "WHERE state='proposed' ORDER BY id DESC LIMIT 8", ())]
    waiting = f"these wait for a decision: {', '.join(dict.fromkeys(open_ones))}" if open_ones else "none are proposed"
    return ChangeRefused(f"there are no rules {version} in this ledger; {waiting}")


# ---- rows -------------------------------------------------------------------------------------------------------


def _draft(
    act: Activate | Propose, state: str, now: RuleChange | None, decided_at: int | None = None
) -> dict[str, Any]:
    return {
        "version": act.version,
        "content": act.content,
        "state": state,
        "from_version": None if now is None else now.version,
        "proposed_by": act.by.name,
        "proposed_as": act.by.account,
        "proposed_at": act.at_ms,
        "note": act.note if isinstance(act, Propose) else "",
        "predicted": act.predicted if isinstance(act, Propose) else None,
        "decided_by": None,
        "decided_as": None,
        "decided_at": decided_at,
        "decision": "",
    }


def _decided(act: Approve | Reject) -> dict[str, Any]:
    by: Person = act.by
    return {"decided_by": by.name, "decided_as": by.account, "decided_at": act.at_ms, "decision": act.note}


def _decide(
    connection: sqlite3.Connection, one: RuleChange, state: str, from_version: str | None, act: Approve | Reject
) -> None:
    connection.execute(DECIDE, (state, from_version, *_decided(act).values(), one.id))


def _replace(connection: sqlite3.Connection, now: RuleChange | None, draft: dict[str, Any]) -> RuleChange:
    _leave(connection, now)
    return _insert(connection, draft)


def _leave(connection: sqlite3.Connection, now: RuleChange | None) -> None:
    if now is not None:
        connection.execute("UPDATE rule_changes SET state='replaced' WHERE id=?", (now.id,))


def _insert(connection: sqlite3.Connection, draft: dict[str, Any]) -> RuleChange:
    predicted = draft["predicted"]
    draft = draft | {"predicted": None if predicted is None else msgspec.json.encode(predicted).decode()}
    row = connection.execute(INSERT, [draft[name] for name in _NAMES if name != "id"]).fetchall()
    return _one(connection, row[0][0])


def _one(connection: sqlite3.Connection, number: int) -> RuleChange:
    return _changes(connection, "WHERE id=?", (number,))[0]


def _changes(connection: sqlite3.Connection, clause: str, parameters: Sequence[Any]) -> list[RuleChange]:
    rows = connection.execute(f"SELECT {COLUMNS} FROM rule_changes {clause}", parameters).fetchall()
    found = []
    for row in rows:
        fields = dict(zip(_NAMES, row, strict=True))
        if fields["predicted"] is not None:
            fields["predicted"] = msgspec.json.decode(fields["predicted"])
        found.append(RuleChange(**fields))
    return found
