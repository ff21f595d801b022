"""Opening a SQLite ledger: settings, migrations, the words for what can go wrong, and the owners' locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import struct
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from dispatcher.errors import LedgerFailed, LedgerUnavailable

APPLICATION_ID = 0x53774265  # "SwBe", so that `file` and we can tell a ledger from another database
SCHEMA_VERSION = 1
BUSY_SECONDS = 10.0
"""How long a commit waits for another process's. A commit takes milliseconds; ten seconds mean that one hangs."""

CACHE_KIB = 32 * 1024
"""Page cache of one process: the hot ends of the indexes of 10 M alerts fit, and 200 MB resident stay far."""

WAL_PAGES = 4096
"""Checkpoint each 16 MiB of log: half as many page writes as at SQLite's 4 MiB, and a restart reads it in moments."""

_FATAL_PRIMARY = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT}


def connect(path: str) -> sqlite3.Connection:
    """Open or create the ledger at ``path`` (``:memory:`` for tests) and bring its layout up to date.

    Raises `LedgerUnavailable` with a line that says what to do.
    """
    if path != ":memory:":
        parent = Path(path).parent
        if not parent.is_dir():
            raise LedgerUnavailable(f"ledger: the folder {parent} does not exist; create it or change ledger.url")
        with contextlib.suppress(FileExistsError, OSError):
            # The ledger holds phones and openids: nobody but its owner may read it.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with explained(path):
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    if path != ":memory:":
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerUnavailable(f"ledger {path}: this file system cannot hold a write-ahead log; use a local disk")
    connection.execute("PRAGMA synchronous=FULL")  # an acknowledgement means durable: fsync at every commit
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("BEGIN IMMEDIATE")
    try:
        _migrate(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise LedgerUnavailable(f"ledger {path}: this is a database of another program; choose another file")
    if version > SCHEMA_VERSION:
        raise LedgerUnavailable(
            f"ledger {path}: written by a newer Swipebell (layout {version}, this one knows {SCHEMA_VERSION}); "
            "run that version or restore a backup"
        )
    for step in range(version + 1, SCHEMA_VERSION + 1):
        script = files("dispatcher.ledger.schema").joinpath(f"{step:04}.sql").read_text(encoding="utf-8")
        for statement in _statements(script):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={step}")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")


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
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerUnavailable(
            f"ledger {path}: another process has held it for {BUSY_SECONDS:.0f} seconds; see which one uses the file"
        )
    if primary in _FATAL_PRIMARY:
        # After a failed fsync the kernel may have dropped the pages and call the next fsync good: never go on.
        return LedgerFailed(f"ledger {path}: the disk failed ({name}); check the disk, then start again")
    return LedgerFailed(f"ledger {path}: {name}; this is a defect of Swipebell or of the file, please report it")


class OwnerLocks:
    """One byte of a file beside the ledger per owner, locked for as long as that process lives.

    The kernel lets go of the lock when the process dies in whatever way, so its leases can be taken over at once
    instead of after their time; a pid would not do, since two containers may share the file but not the pids. The
    locks belong to the open file (F_OFD_SETLK), so that two engines in one process do not see through each other.
    Where the platform has none, leases run out by time alone.
    """

    def __init__(self, path: str) -> None:
        self._file: int | None = None
        if path != ":memory:" and hasattr(fcntl, "F_OFD_SETLK"):
            self._file = os.open(path + ".owners", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def hold(self, owner: int) -> None:
        """Lock this owner's byte for the life of the process."""
        self._lock(owner, fcntl.F_WRLCK)

    def release(self, owner: int) -> None:
        """Unlock it again."""
        self._lock(owner, fcntl.F_UNLCK)

    def is_dead(self, owner: int) -> bool | None:
        """True when nobody holds it, False when somebody does, None when it cannot be known."""
        if self._file is None:
            return None
        if not self._lock(owner, fcntl.F_WRLCK):
            return False
        self._lock(owner, fcntl.F_UNLCK)
        return True

    def close(self) -> None:
        """Close the file; what is held is released."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self, owner: int, kind: int) -> bool:
        if self._file is None:
            return False
        # struct flock: l_type, l_whence, l_start, l_len, l_pid (0, as OFD locks want it)
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, owner, 1, 0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, request)
        except OSError:
            return False
        return True
