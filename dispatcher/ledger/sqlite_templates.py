"""Versions of templates on SQLite: what they say, which are told, and who said so."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from dispatcher.ledger.people import ChangeRefused, Person, refuse_same_person
from dispatcher.ledger.template_changes import (
    MAX_OPEN_PROPOSALS,
    Approve,
    Offered,
    Reject,
    Rollback,
    Rollout,
    TemplateAct,
    TemplateActName,
    TemplateActRow,
    TemplateHistory,
    TemplatesInUse,
    TemplateState,
    TemplateText,
    TemplateVersion,
)

_COLUMNS = TemplateVersion.__struct_fields__
_ACT_COLUMNS = TemplateActRow.__struct_fields__
INSERT = (
    "INSERT INTO template_versions (id, version, digest, content, layouts, state, percent, before,"
    " proposed_by, proposed_as, proposed_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
)
SET = "UPDATE template_versions SET state=?, percent=?, before=? WHERE id=? AND version=?"
NOTE = "UPDATE template_versions SET note=? WHERE id=? AND version=?"
SIGN = "UPDATE template_versions SET approved_by=?, approved_as=?, approved_at=? WHERE id=? AND version=?"
LOG = (
    "INSERT INTO template_acts (id, version, act, who, who_as, at, note, active, rolling, percent)"
    " VALUES (?,?,?,?,?,?,?,?,?,?)"
)


def offered(connection: sqlite3.Connection, versions: Sequence[Offered], now_ms: int) -> list[TemplateVersion]:
    """See `Ledger.templates_offered`."""
    # There was nobody to ask yet about what a ledger begins with.
    beginning = not connection.execute("SELECT 1 FROM template_acts LIMIT 1").fetchall()
    for one in versions:
        _offer(connection, one, now_ms, one.approval and not beginning)
    return [_known(connection, one.id, one.version) for one in versions]


def in_use(connection: sqlite3.Connection, known: int) -> TemplatesInUse | None:
    """See `Ledger.templates_in_use`."""
    last = int(connection.execute("SELECT coalesce(max(n), 0) FROM template_acts").fetchall()[0][0])
    if last == known:
        return None
    return TemplatesInUse(last, _versions(connection, "WHERE percent > 0 ORDER BY id, version"))


def texts(connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, TemplateText]:
    """See `Ledger.template_texts`."""
    query = "SELECT content, layouts FROM template_versions WHERE id=? AND version=?"
    found = {}
    for name in names:
        template, _, version = name.rpartition("@")
        for content, layouts in connection.execute(query, (template, version)).fetchall():
            found[name] = TemplateText(content, msgspec.json.decode(layouts))
    return found


def history(connection: sqlite3.Connection, limit: int, template: str | None, version: int | None) -> TemplateHistory:
    """See `Ledger.template_history`."""
    clause, given = "WHERE id=coalesce(?1, id) AND version=coalesce(?2, version)", (template, version)
    rows = connection.execute(
        f"SELECT {', '.join(_ACT_COLUMNS)} FROM template_acts {clause} ORDER BY n DESC LIMIT ?3", (*given, limit)
    ).fetchall()
    acts = [TemplateActRow(**dict(zip(_ACT_COLUMNS, row, strict=True))) for row in rows]
    return TemplateHistory(_versions(connection, f"{clause} ORDER BY id, version DESC", given), acts)


def told_at(connection: sqlite3.Connection, name: str, at_ms: int) -> TemplateActRow | None:
    """The act by which the template of ``name`` (``swipe@2``) was told at that moment; None: not recorded."""
    query = (
        f"SELECT {', '.join(_ACT_COLUMNS)} FROM template_acts"
        " WHERE id=? AND at<=? AND act NOT IN ('propose', 'reject') ORDER BY n DESC LIMIT 1"
    )
    rows = connection.execute(query, (name.rpartition("@")[0], at_ms)).fetchall()
    return TemplateActRow(**dict(zip(_ACT_COLUMNS, rows[0], strict=True))) if rows else None


def act(connection: sqlite3.Connection, act: TemplateAct) -> TemplateVersion:
    """See `Ledger.template_act`."""
    match act:
        case Approve():
            version = _approve(connection, act)
        case Reject():
            version = _reject(connection, act)
        case Rollout():
            version = _rollout(connection, act)
        case Rollback():
            version = _rollback(connection, act)
    return _known(connection, act.id, version)


# ---- what a library brings ------------------------------------------------------------------------------------------


def _offer(connection: sqlite3.Connection, one: Offered, now_ms: int, asked: bool) -> None:
    known = _version(connection, one.id, one.version)
    active = _told(connection, one.id, "active")
    if known is None:
        waiting = "SELECT count(*) FROM template_versions WHERE id=? AND state='proposed'"
        if asked and connection.execute(waiting, (one.id,)).fetchall()[0][0] >= MAX_OPEN_PROPOSALS:
            raise ChangeRefused(
                f"{MAX_OPEN_PROPOSALS} versions of template {one.id} wait for approval; approve or reject some"
            )
        row = (one.id, one.version, one.digest, one.content, msgspec.json.encode(one.layouts).decode())
        state = "proposed" if asked else "retired"
        connection.execute(INSERT, (*row, state, 0, _number(active), one.by.name, one.by.account, now_ms))
        if asked:
            _log(connection, "propose", one.id, one.version, one.by, now_ms, "")
    elif known.digest != one.digest or known.state != "proposed" or asked:
        return  # another content is the caller's to refuse; what people decided stays
    if not asked and (active is None or one.version > active.version):
        rolling = _told(connection, one.id, "approved")
        if rolling is not None and rolling.version < one.version:
            _set(connection, rolling, "retired", 0, rolling.before)
        _tell_all(connection, _known(connection, one.id, one.version), active)
        _log(connection, "load", one.id, one.version, one.by, now_ms, "")


# ---- what people decide ---------------------------------------------------------------------------------------------


def _approve(connection: sqlite3.Connection, act: Approve) -> int:
    one = _asked_for(connection, act.id, act.version)
    if one.state == "rejected":
        raise ChangeRefused(f"template {one.pinned} was rejected; give the next try a higher version")
    if one.state != "proposed":
        raise ChangeRefused(f"template {one.pinned} is {_words(one)}, not proposed; nothing is to be approved")
    refuse_same_person(act.by.name, [one.proposed_by], f"template {one.pinned}")
    _tell(connection, one, act.percent)
    connection.execute(SIGN, (act.by.name, act.by.account, act.at_ms, one.id, one.version))
    _log(connection, "approve", one.id, one.version, act.by, act.at_ms, act.note)
    return one.version


def _reject(connection: sqlite3.Connection, act: Reject) -> int:
    one = _asked_for(connection, act.id, act.version)
    if one.state != "proposed":
        raise ChangeRefused(f"template {one.pinned} is {_words(one)}, not proposed; nothing is to be rejected")
    _set(connection, one, "rejected", 0, one.before)
    _log(connection, "reject", one.id, one.version, act.by, act.at_ms, act.note)
    return one.version


def _rollout(connection: sqlite3.Connection, act: Rollout) -> int:
    one = _asked_for(connection, act.id, act.version)
    if one.state in ("proposed", "rejected"):
        raise ChangeRefused(f"template {one.pinned} is {_words(one)}; it has to be approved before it is rolled out")
    if one.percent == act.percent:
        raise ChangeRefused(f"template {one.pinned} is {_words(one)} already")
    _tell(connection, one, act.percent)
    _log(connection, "rollout", one.id, one.version, act.by, act.at_ms, act.note)
    return one.version


def _rollback(connection: sqlite3.Connection, act: Rollback) -> int:
    rolling, active = _told(connection, act.id, "approved"), _told(connection, act.id, "active")
    if rolling is not None:
        _set(connection, rolling, "withdrawn", 0, rolling.before)
        _log(connection, "rollback", rolling.id, rolling.version, act.by, act.at_ms, act.note)
        return rolling.version
    if active is None:
        _asked_for(connection, act.id, None)
        raise ChangeRefused(f"no version of template {act.id} is told; there is nothing to roll back")
    before = _earlier(connection, active)
    if before is None:
        raise ChangeRefused(f"template {active.pinned} has no version before it; there is nothing to go back to")
    _set(connection, active, "withdrawn", 0, active.before)
    _set(connection, before, "active", 100, before.before)
    _log(connection, "rollback", active.id, active.version, act.by, act.at_ms, act.note)
    return active.version


def _tell(connection: sqlite3.Connection, one: TemplateVersion, percent: int) -> None:
    """Tell a version to so many accounts."""
    rolling, active = _told(connection, one.id, "approved"), _told(connection, one.id, "active")
    if rolling is not None and rolling.version != one.version:
        raise ChangeRefused(
            f"template {rolling.pinned} is {_words(rolling)}: roll it out to all (swipebell templates rollout"
            f" {rolling.pinned} --percent 100) or back (swipebell templates rollback {one.id}) first"
        )
    if percent == 100:
        _tell_all(connection, one, active)
        return
    if active is not None and active.version == one.version:
        before = _earlier(connection, one)
        if before is None:
            raise ChangeRefused(f"template {one.pinned} has no version before it that the others could stay on")
        _set(connection, one, "retired", 0, one.before)  # both cannot be active, not even in between
        _set(connection, before, "active", 100, before.before)
        active = before
    _set(connection, one, "approved", percent, _number(active))


def _earlier(connection: sqlite3.Connection, one: TemplateVersion) -> TemplateVersion | None:
    """The version that was told before this one and that nobody has taken back since."""
    seen, number = {one.version}, one.before
    while number is not None and number not in seen:
        seen.add(number)
        found = _version(connection, one.id, number)
        if found is None or found.state not in ("withdrawn", "rejected"):
            return found
        number = found.before
    return None


def _tell_all(connection: sqlite3.Connection, one: TemplateVersion, active: TemplateVersion | None) -> None:
    if active is not None:
        _set(connection, active, "retired", 0, active.before)
    _set(connection, one, "active", 100, _number(active))


def _words(one: TemplateVersion) -> str:
    return f"told to {one.percent} % of the accounts" if one.percent else one.state


def _asked_for(connection: sqlite3.Connection, template: str, version: int | None) -> TemplateVersion:
    """The version that somebody named; of any version when it is None. Raises `ChangeRefused` for one that there is
    not."""
    known = _versions(connection, "WHERE id=? ORDER BY version DESC", (template,))
    for one in known:
        if version in (None, one.version):
            return one
    if known:
        there = ", ".join(f"{one.version} ({_words(one)})" for one in known[:8])
        raise ChangeRefused(f"there is no template {template}@{version} in this ledger; its versions are {there}")
    raise ChangeRefused(f"there is no template {template} in this ledger; a service that has loaded it writes it down")


# ---- rows -----------------------------------------------------------------------------------------------------------


def _number(one: TemplateVersion | None) -> int | None:
    return None if one is None else one.version


def _set(
    connection: sqlite3.Connection, one: TemplateVersion, state: TemplateState, percent: int, before: int | None
) -> None:
    connection.execute(SET, (state, percent, before, one.id, one.version))


def _log(
    connection: sqlite3.Connection,
    name: TemplateActName,
    template: str,
    version: int,
    by: Person,
    at_ms: int,
    note: str,
) -> None:
    rolling, active = _told(connection, template, "approved"), _told(connection, template, "active")
    percent = 0 if rolling is None else rolling.percent
    told = (_number(active), _number(rolling), percent)
    connection.execute(LOG, (template, version, name, by.name, by.account, at_ms, note, *told))
    connection.execute(NOTE, (note, template, version))


def _told(connection: sqlite3.Connection, template: str, state: TemplateState) -> TemplateVersion | None:
    found = _versions(connection, "WHERE id=? AND state=?", (template, state))
    return found[0] if found else None


def _version(connection: sqlite3.Connection, template: str, version: int) -> TemplateVersion | None:
    found = _versions(connection, "WHERE id=? AND version=?", (template, version))
    return found[0] if found else None


def _known(connection: sqlite3.Connection, template: str, version: int) -> TemplateVersion:
    return _versions(connection, "WHERE id=? AND version=?", (template, version))[0]


def _versions(connection: sqlite3.Connection, clause: str, parameters: Sequence[Any] = ()) -> list[TemplateVersion]:
    rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM template_versions {clause}", parameters).fetchall()
    return [TemplateVersion(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]
