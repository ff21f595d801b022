"""What is special to the SQLite ledger: the file, its settings, which files it refuses, and how it looks things up."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import LedgerFailed, LedgerUnavailable
from dispatcher.ledger.locks import OwnerLocks
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_open import APPLICATION_ID, SCHEMA_VERSION
from dispatcher.ledger.worker import InlineLedger
from tests.dispatcher.ledger_kit import (
    HOUR_MS,
    NOW,
    Tell,
    accepted,
    admitted,
    attempts_of,
    owner_of,
    receipt,
    recipient,
    state_of,
    step,
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


@contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection]:
    """The connection that a ledger at ``path`` uses."""
    with closing(SqliteStore(path)) as store:
        yield store.connection


def ask(connection: sqlite3.Connection, query: str) -> Any:
    return connection.execute(query).fetchone()[0]


# ---- the file -----------------------------------------------------------------------------------------------------


def test_the_settings_that_the_promise_needs_are_in_force(path: str) -> None:
    with opened(path) as connection:
        assert ask(connection, "PRAGMA journal_mode") == "wal"
        assert ask(connection, "PRAGMA synchronous") == 2, "FULL: every commit is fsynced"
        assert ask(connection, "PRAGMA foreign_keys") == 1
        assert ask(connection, "PRAGMA busy_timeout") == 5_000
        assert ask(connection, "PRAGMA cache_size") == -16 * 1024
        assert ask(connection, "PRAGMA wal_autocheckpoint") == 4096
        assert ask(connection, "PRAGMA application_id") == APPLICATION_ID
        assert ask(connection, "PRAGMA user_version") == SCHEMA_VERSION
        assert connection.isolation_level is None, "Python must not open transactions of its own"


def test_nobody_else_may_read_the_files(path: str, tmp_path: Path) -> None:
    # Given a process that would let everybody read what it writes
    before = os.umask(0)
    try:
        # When it makes a ledger and writes to it
        with closing(SqliteStore(path)) as store:
            store.begin()
            store.import_recipients([recipient()])
            store.commit()
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)

    # Then each of its files is for its owner alone, for there are phones in them
    names = ("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.owners")
    assert modes == dict.fromkeys(names, 0o600)


def test_every_table_is_strict(path: str) -> None:
    with opened(path) as connection:
        tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema='main'").fetchall()
        strict = {name: bool(flag) for name, flag in tables if not name.startswith("sqlite_")}
        assert set(strict) >= {"events", "alerts", "attempts", "receipts", "recipients", "counters", "processes"}
        assert all(strict.values()), strict
        with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT value in INTEGER column"):
            connection.execute("INSERT INTO counters VALUES (1, 'key', 'many', 1)")


async def test_a_ledger_keeps_what_it_holds_when_it_is_opened_again(path: str) -> None:
    # Given an empty file, as somebody may have made it to set its owner
    os.close(os.open(path, os.O_CREAT, 0o640))
    ledger = InlineLedger(path)
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    await ledger.record([step(alert, "awaiting", msgid="m-1")], owner)
    before = await ledger.books(), await ledger.explain("e-1")
    await ledger.aclose()

    # When it is opened again, then all of it is there
    ledger = InlineLedger(path)
    assert (await ledger.books(), await ledger.explain("e-1")) == before
    assert (await ledger.admit([accepted("e-1")], NOW, await owner_of(ledger), Tell())).duplicates == [0]
    await ledger.aclose()
    # And the mode that somebody chose stands
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


# ---- files that are not for us ------------------------------------------------------------------------------------


def another_programs(path: str) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.execute("PRAGMA user_version=1")
    return "this is a database of another program; choose another file"


def another_programs_without_tables(path: str) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id=1234")
    return "this is a database of another program; choose another file"


def newer(path: str) -> str:
    with opened(path) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        connection.execute("PRAGMA journal_mode=DELETE")
    return (
        f"written by a newer Swipebell (layout {SCHEMA_VERSION + 1}, this one knows {SCHEMA_VERSION}); "
        "run that version or restore a backup"
    )


def text(path: str) -> str:
    Path(path).write_text("id,account\n" * 1000)
    return "this file is not a ledger; choose another file or restore a backup"


@pytest.mark.parametrize("make", [another_programs, another_programs_without_tables, newer, text])
def test_a_file_that_is_not_for_us_is_refused_and_left_as_it_is(path: str, tmp_path: Path, make: Any) -> None:
    # Given such a file
    reason = make(path)
    (tmp_path / "ledger.db.owners").unlink(missing_ok=True)
    content = Path(path).read_bytes()

    # When it is to be opened as a ledger, then one line says why not
    with pytest.raises(LedgerUnavailable) as refusal:
        SqliteStore(path)
    assert str(refusal.value) == f"ledger {path}: {reason}"

    # And nothing was changed or left beside it
    assert Path(path).read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="cannot be opened for writing; check the owner and permissions"):
        SqliteStore(str(tmp_path))


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=re.escape(f"the folder {tmp_path}/no does not exist; create it")):
        SqliteStore(str(tmp_path / "no" / "ledger.db"))


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    with pytest.raises(LedgerUnavailable, match="does not exist; create it"):
        SqliteStore(str(tmp_path / "no" / "ledger.db"))


def test_the_owners_file_cannot_be_opened(path: str, tmp_path: Path) -> None:
    (tmp_path / "ledger.db.owners").mkdir()
    with pytest.raises(LedgerUnavailable, match=r"ledger\.db\.owners beside it cannot be opened"):
        SqliteStore(path)


@pytest.mark.parametrize("forbidden", ["folder", "file"])
def test_a_place_that_may_not_be_written(path: str, tmp_path: Path, forbidden: str) -> None:
    SqliteStore(path).close()
    place = tmp_path if forbidden == "folder" else Path(path)
    place.chmod(0o500)
    try:
        if os.access(place, os.W_OK):
            pytest.skip("this user (root?) may write everywhere; run the suite as another one to see this test")
        with pytest.raises(LedgerUnavailable, match="check the owner and permissions of file and folder"):
            SqliteStore(path)
    finally:
        place.chmod(0o700)


# ---- what the tables refuse ---------------------------------------------------------------------------------------


async def test_the_table_takes_no_alert_that_nobody_would_look_at(path: str) -> None:
    # Given a defect of ours that would leave an alert open, with no owner and no time to look at it again
    ledger = InlineLedger(path)
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    good = step(alert, "retrying")
    wrong = {name: getattr(good, name) for name in good.__struct_fields__} | {"due_ms": None}

    # When it is recorded, then the ledger stops instead
    with pytest.raises(LedgerFailed, match="SQLITE_CONSTRAINT_CHECK; this is a defect of Swipebell"):
        await ledger.record([type(good)(**wrong)], owner)
    with pytest.raises(LedgerFailed):
        await ledger.open_count()
    await ledger.aclose()

    # And the alert is still there for the next process
    ledger = InlineLedger(path)
    assert await state_of(ledger) == "sending"
    await ledger.aclose()


@pytest.mark.parametrize(
    "defect",
    ["state='delivered'", "ended_at=1", "state='lost'"],
    ids=["end without a time", "open with an end", "no such state"],
)
async def test_the_books_do_not_balance_with_an_alert_whose_state_does_not_fit_its_end(path: str, defect: str) -> None:
    ledger = InlineLedger(path)
    owner = await owner_of(ledger)
    await admitted(ledger, owner, accepted("e-1"))
    assert (await ledger.books()).balanced
    ledger.store.connection.execute(f"UPDATE alerts SET {defect}")
    assert not (await ledger.books()).balanced
    await ledger.aclose()


# ---- the owners' locks --------------------------------------------------------------------------------------------


async def test_who_let_go_of_its_lock_is_dead_at_once(path: str) -> None:
    # Given two processes with long leases, as two open files of one process are to the kernel
    here, there = InlineLedger(path), InlineLedger(path)
    living = await owner_of(here, "here", lease_ms=HOUR_MS)
    dead = await owner_of(there, "there", lease_ms=HOUR_MS)
    await admitted(here, living, accepted("e-1"))
    await admitted(there, dead, accepted("e-2"))

    # When both live, then neither takes from the other, however often they ask
    for _ in range(3):
        assert await here.take_over(living, NOW) == 0
        assert await there.take_over(dead, NOW) == 0

    # When one ends without leaving, then its alerts are taken over before its lease has run out
    await there.aclose()
    assert await here.take_over(living, NOW) == 1
    assert [await state_of(here, name) for name in ("e-1", "e-2")] == ["sending", "interrupted"]
    assert await attempts_of(here, "e-2") == [(1, "wechat", "unknown", "process-died")]
    await here.aclose()


async def test_several_owners_of_one_open_file_do_not_take_each_other_for_dead(path: str) -> None:
    ledger = InlineLedger(path)
    first, second = [await owner_of(ledger, lease_ms=HOUR_MS) for _ in range(2)]
    await admitted(ledger, first, accepted("e-1"))

    assert await ledger.take_over(second, NOW) == 0
    # And asking has not opened the lock for others
    other = InlineLedger(path)
    assert await other.take_over(await owner_of(other), NOW) == 0
    await other.aclose()
    await ledger.aclose()


def test_without_a_file_only_time_tells(tmp_path: Path) -> None:
    locks = OwnerLocks(":memory:")
    locks.hold(1)
    assert locks.is_dead(1) is None
    locks.release(1)
    locks.close()


# ---- how things are looked up -------------------------------------------------------------------------------------

GROWING = {"alerts", "a", "events", "e", "attempts", "t", "receipts", "s", "recipients", "r", "counters"}
"""Tables that grow, and their names in our statements: a scan of one is a cost that grows with the ledger."""


async def test_nothing_on_the_path_of_an_event_reads_a_whole_table() -> None:
    # Given every statement of an event's life
    ledger = InlineLedger()
    said: list[str] = []
    ledger.store.connection.set_trace_callback(said.append)
    owner = await owner_of(ledger)
    alerts = await admitted(ledger, owner, *(accepted(f"e-{n}") for n in range(7)), decide=Tell("queued"))
    await ledger.fence([alert.id for alert in alerts], owner)
    await ledger.receipts([receipt("wechat", "m-1")], NOW, owner)
    await ledger.record([step(alert, "awaiting", msgid=f"m-{n}") for n, alert in enumerate(alerts)], owner)
    await ledger.receipts([receipt("wechat", "m-2"), receipt("wechat", "m-3")], NOW, owner)
    await ledger.due("wechat", NOW + HOUR_MS, owner, 10, "queued")
    await ledger.record([step(alerts[4], "retrying", refusal="wechat")], owner)
    await ledger.take_over(owner, NOW)
    await ledger.heartbeat(owner, NOW + HOUR_MS)
    await ledger.open_count()
    await ledger.explain("e-1")
    await ledger.leave(owner, NOW)
    ledger.store.connection.set_trace_callback(None)
    statements = [one for one in said if one.split()[0] in ("SELECT", "UPDATE", "INSERT", "DELETE")]
    assert sum("alerts" in one for one in statements) >= 10, "the trace has seen the hot statements"

    # When SQLite says how it goes about them
    plans = {
        one: [row[3] for row in ledger.store.connection.execute("EXPLAIN QUERY PLAN " + one)] for one in statements
    }

    # Then it looks up, and reads whole only the index of what is open
    scans = {
        (one[:70], detail)
        for one, plan in plans.items()
        for detail in plan
        if detail.startswith("SCAN") and detail.split()[1] in GROWING and "INDEX alerts_open" not in detail
    }
    assert scans == set()
    used = " ".join(detail for plan in plans.values() for detail in plan)
    assert "SEARCH alerts USING INTEGER PRIMARY KEY (rowid=?)" in used
    assert re.search(r"SEARCH alerts USING .*INDEX alerts_open \(owner=\? AND channel=\? AND due_at<\?\)", used)
    assert re.search(r"SEARCH alerts USING INDEX alerts_open \(owner=\?\)", used)
    assert re.search(r"SEARCH alerts USING INDEX alerts_awaiting \(msgid=\?\)", used)
    assert not any("TEMP B-TREE" in detail for one, plan in plans.items() if "due_at<=" in one for detail in plan)
    await ledger.aclose()
