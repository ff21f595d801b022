"""Opening a SQLite ledger: settings, migrations, and the words for what can go wrong."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from dispatcher.errors import LedgerFailed, LedgerUnavailable
from dispatcher.ledger.locks import BUSY_SECONDS, busy
from dispatcher.ledger.sqlite_id_runs import set_of_piece

APPLICATION_ID = 0x53774265  # "SwBe", so that `file` and we can tell a ledger from another database
SCHEMA_VERSION = 11
CACHE_KIB = 16 * 1024
"""Page cache of one process: the day's counters, the run of ids being filed and the ends of the tables fit."""

WAL_PAGES = 4096
"""Checkpoint each 16 MiB of log: half as many page writes as at SQLite's 4 MiB, and a restart reads it in moments."""

OPENING_PAUSE_SECONDS = 0.01
"""Between two tries to open a file that other processes are opening: each needs it alone for a few milliseconds."""

_Read = TypeVar("_Read")

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_FATAL_PRIMARY = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT}


def connect(path: str) -> sqlite3.Connection:
    """Open or create the ledger at ``path`` (``:memory:`` for tests) and bring its layout up to date.

    Raises `LedgerUnavailable` with a line that says what to do.
    """
    if path != ":memory:":
        parent = os.path.dirname(path) or "."
        if not os.path.isdir(parent):
            raise LedgerUnavailable(f"ledger: the folder {parent} does not exist; create it or change ledger.url")
        with contextlib.suppress(OSError):  # there already, or SQLite says next why it cannot be
            # The ledger holds phones and openids: nobody but its owner may read it.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    with explained(path):
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        try:
            connection.create_function("crc32", 1, digest_of, deterministic=True)
            connection.create_function("set_of_piece", 2, set_of_piece, deterministic=True)
            _prepare_patiently(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def reading(path: str, read: Callable[[sqlite3.Connection], _Read]) -> _Read:
    """What ``read`` finds in one view of the ledger, by a connection of its own: it waits for nobody and nobody waits
    for it. As long as it goes on the log cannot be cut. Raises `LedgerUnavailable` or `LedgerFailed`."""
    where = Path(path).absolute().as_uri() + "?mode=rw"  # never makes an empty file in the place of a lost one
    open_it = sqlite3.connect
    with explained(path), contextlib.closing(open_it(where, BUSY_SECONDS, isolation_level=None, uri=True)) as own:
        own.execute("PRAGMA query_only=ON")
        own.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        own.execute("BEGIN")
        return read(own)


def digest_of(event_id: str) -> int:
    """The short number by which an event's id is looked up. Two ids may share one."""
    return zlib.crc32(event_id.encode())


def _prepare_patiently(connection: sqlite3.Connection, path: str) -> None:
    """Prepare, however many processes open the file at the same time."""
    # For its own locks SQLite waits, but not when a file goes over to write-ahead logging: there it says busy at once.
    give_up_at = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return _prepare(connection, path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() >= give_up_at:
                raise
        time.sleep(OPENING_PAUSE_SECONDS)


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    # First without changing anything: the file may be another program's.
    with _transaction(connection, "BEGIN"):
        _layout(connection, path)
    if path != ":memory:":
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerUnavailable(f"ledger {path}: this file system cannot hold a write-ahead log; use a local disk")
    connection.execute("PRAGMA synchronous=FULL")  # an acknowledgement means durable: fsync at every commit
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
    # Not in memory: what the books sort on a ledger of millions would all stay resident.
    connection.execute("PRAGMA temp_store=FILE")
    with _transaction(connection, "BEGIN IMMEDIATE"):
        for step in range(_layout(connection, path) + 1, SCHEMA_VERSION + 1):
            script = files("dispatcher.ledger.schema").joinpath(f"{step:04}.sql").read_text(encoding="utf-8")
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        # Written even when it is up to date: SQLite opens a file that may not be written without a word, and the first
        # batch would be the one to find out.
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _layout(connection: sqlite3.Connection, path: str) -> int:
    """The version of the file's layout, 0 for an empty one. Raises `LedgerUnavailable` when it is not for us."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (tables or application or version):
        raise LedgerUnavailable(f"ledger {path}: this is a database of another program; choose another file")
    if version > SCHEMA_VERSION:
        raise LedgerUnavailable(
            f"ledger {path}: written by a newer Swipebell (layout {version}, this one knows {SCHEMA_VERSION}); "
            "run that version or restore a backup"
        )
    return version


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit the migration's transaction first, so statements are cut here.
    text = ""
    for line in script.splitlines():
        text += line + "\n"
        if sqlite3.complete_statement(text):
            yield text
            text = ""


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn SQLite's errors into ours: whose fault, and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain_error(error, path) from error


def explain_error(error: sqlite3.Error, path: str) -> LedgerUnavailable | LedgerFailed:
    """The error of ours that says what a SQLite error means for the operator."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    primary = None if code is None else code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return LedgerUnavailable(f"ledger {path}: the disk is full; free some space, nothing accepted was lost")
    if primary == sqlite3.SQLITE_NOTADB:
        return LedgerUnavailable(f"ledger {path}: this file is not a ledger; choose another file or restore a backup")
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY):
        return LedgerUnavailable(
            f"ledger {path}: cannot be opened for writing; check the owner and permissions of file and folder"
        )
    if primary in _BUSY:
        return LedgerUnavailable(busy(path))
    if primary in _FATAL_PRIMARY:
        # After a failed fsync the kernel may have dropped the pages and call the next fsync good: never go on.
        return LedgerFailed(f"ledger {path}: the disk failed ({name}); check the disk, then start again")
    return LedgerFailed(f"ledger {path}: {name}; this is a defect of Swipebell or of the file, please report it")
