"""Group commit: the one thread that owns the SQLite connection, and the ledger that the engine awaits.

While one transaction is being fsynced, the calls that arrive wait in a queue; the next transaction takes them all. A
lone call is committed at once, a flood in large commits, and every caller resumes only after the fsync of its own.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, TypeVar

import trio

from dispatcher.errors import LedgerFailed, LedgerUnavailable
from dispatcher.ledger import sqlite_held, sqlite_read
from dispatcher.ledger.api import Books
from dispatcher.ledger.held import HeldView
from dispatcher.ledger.operations import Operations
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_open import explain_error, reading
from dispatcher.ledger.stories import EventStory

CALLS_PER_COMMIT = 32
"""Most calls that share a commit. Of events the gate lets in four full batches: some tens of ms of work."""

PREPARED_AT_ONCE = 4
"""Calls of a commit that are prepared before it: as many full batches as the gate lets in. One that is planned takes
some 5 MB, so calls beyond that are planned in the transaction."""

_Read = TypeVar("_Read")

CommitObserver = Callable[[int, float], None]
"""(calls in the commit, seconds it took), told after each commit from the ledger's thread."""


class _Call:
    __slots__ = ("done", "error", "operation", "prepare", "result")

    def __init__(
        self, operation: Callable[[SqliteStore], Any], prepare: Callable[[SqliteStore], None] | None = None
    ) -> None:
        self.operation = operation
        self.prepare = prepare
        self.done = trio.Event()
        self.result: Any = None
        self.error: BaseException | None = None


class ThreadedLedger(Operations):
    """The ledger for real use. Make it inside trio; ``observe`` is told of every commit.

    A call that was handed over is seen through: it is shielded from cancellation until its commit is decided.
    After `LedgerFailed` (a failed fsync, a corrupt file) every other call raises it too and nothing touches the file
    any more: the process has to stop. After ``aclose`` a call raises `trio.ClosedResourceError`.
    """

    def __init__(self, path: str, observe: CommitObserver | None = None) -> None:
        super().__init__()
        self._store = SqliteStore(path)
        # No bound of its own: every entry is a task that waits for it, and tasks are bounded by lanes and intake.
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._observe = observe
        self._last_taken = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    async def _run(
        self, operation: Callable[[SqliteStore], Any], prepare: Callable[[SqliteStore], None] | None = None
    ) -> Any:
        self._must_be_usable()
        call = _Call(operation, prepare)
        self._calls.put(call)
        with trio.CancelScope(shield=True):
            await call.done.wait()
        if call.error is not None:
            raise call.error
        return call.result

    async def books(self) -> Books:
        """See `Ledger.books`. Reads apart, so that nobody waits for it; every commit so far is in it."""
        return await self._read_apart(sqlite_read.books)

    async def explain(self, event_id: str) -> EventStory | None:
        """See `Ledger.explain`."""
        return await self._read_apart(lambda connection: sqlite_read.explain(connection, event_id))

    async def open_count(self, held_until: int | None = None) -> int:
        """See `Ledger.open_count`. Reads apart: counting a large backlog must not keep anybody from writing."""
        return await self._read_apart(lambda connection: sqlite_read.open_count(connection, held_until))

    async def held(self, rule: str | None = None) -> HeldView:
        """See `Ledger.held`. Reads apart."""
        return await self._read_apart(lambda connection: sqlite_held.held(connection, rule))

    async def _read_apart(self, read: Callable[[sqlite3.Connection], _Read]) -> _Read:
        self._must_be_usable()
        # Not given up when cancelled: its connection would go on reading while the file is being closed.
        return await trio.to_thread.run_sync(reading, self._store.path, read, abandon_on_cancel=False)

    async def aclose(self) -> None:
        """Finish what was handed over, then close the file. The second time it only waits for the first."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    def _work(self) -> None:
        going_on = True
        while going_on and (call := self._calls.get()) is not None:
            calls = [call]
            self._commit(calls)
            try:
                self._token.run_sync_soon(_wake, calls)
            except trio.RunFinishedError:  # the run ended while we committed: nobody waits any more
                going_on = False
            going_on = going_on and not self._last_taken
        self._store.close()

    def _gather(self, calls: list[_Call]) -> None:
        """Take along what has been handed over by now."""
        while len(calls) < CALLS_PER_COMMIT and not self._last_taken:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            if call is None:
                self._last_taken = True
            else:
                calls.append(call)

    def _commit(self, calls: list[_Call]) -> None:
        if self._failure is not None:  # they were handed over before it was known
            self._gather(calls)
            for call in calls:
                call.error = self._failure
            return
        started = perf_counter()
        try:
            self._failure = commit_calls(self._store, calls, self._gather)
            if self._observe is not None:
                self._observe(len(calls), perf_counter() - started)
        except BaseException as error:  # noqa: BLE001 - whatever it is, a dead thread would leave every caller waiting
            self._failure = LedgerFailed(
                f"ledger {self._store.path}: its thread failed ({type(error).__name__}); "
                "this is a defect of Swipebell, please report it"
            )


class InlineLedger(Operations):
    """The same ledger without its thread, for tests under MockClock (a worker thread counts as idle there)."""

    def __init__(self, path: str = ":memory:") -> None:
        super().__init__()
        self.store = SqliteStore(path)

    async def _run(
        self, operation: Callable[[SqliteStore], Any], prepare: Callable[[SqliteStore], None] | None = None
    ) -> Any:
        await trio.lowlevel.checkpoint()
        self._must_be_usable()
        call = _Call(operation, prepare)
        self._failure = commit_calls(self.store, [call])
        if call.error is not None:
            raise call.error
        return call.result

    async def aclose(self) -> None:
        """Close the file."""
        self._closed = True
        await trio.lowlevel.cancel_shielded_checkpoint()
        self.store.close()


def commit_calls(
    store: SqliteStore, calls: list[_Call], gather: Callable[[list[_Call]], None] | None = None
) -> LedgerFailed | None:
    """Run the calls in one transaction and set the result or error of each; returns what ends the ledger, if anything.

    ``gather`` adds calls. Until it is our turn to write they are added and prepared: waiting for another process makes
    the commit larger, and shorter for what can be done beforehand.

    A call that fails by itself is rolled back alone; when the commit fails, all of them have failed.
    """
    seen = prepared = 0

    def prepare_one() -> bool:
        nonlocal seen, prepared
        if gather is not None:
            gather(calls)
        for call in calls[seen:]:
            seen += 1
            if call.prepare is not None and prepared < PREPARED_AT_ONCE:
                prepared += 1
                # What goes wrong here goes wrong in the transaction as well, where it is somebody's answer.
                with contextlib.suppress(Exception):
                    call.prepare(store)
                return True
        return False

    try:
        while prepare_one():
            pass
        store.begin(prepare_one)
        for call in calls:
            store.connection.execute("SAVEPOINT call")
            try:
                call.result = call.operation(store)
            except Exception as error:
                if not store.connection.in_transaction:  # SQLite gave the whole transaction up (disk full, I/O)
                    raise
                call.error = explain_error(error, store.path) if isinstance(error, sqlite3.Error) else error
                store.connection.execute("ROLLBACK TO call")
            store.connection.execute("RELEASE call")
        store.commit()
    except BaseException as error:  # every caller must hear of it
        explained = _give_up(store, error)
        if gather is not None:  # also those that came while we waited: the next wait would be as long
            gather(calls)
        for call in calls:
            call.result, call.error = None, explained
        if not isinstance(error, Exception):
            raise
        return explained if isinstance(explained, LedgerFailed) else None
    return next((call.error for call in calls if isinstance(call.error, LedgerFailed)), None)


def _give_up(store: SqliteStore, error: BaseException) -> LedgerUnavailable | LedgerFailed:
    """Undo the transaction; returns what the callers are to be told."""
    try:
        store.rollback()
    except sqlite3.Error as second:
        error = second
    if isinstance(error, LedgerUnavailable | LedgerFailed):
        return error
    if isinstance(error, sqlite3.Error):
        return explain_error(error, store.path)
    return LedgerFailed(
        f"ledger {store.path}: {type(error).__name__} in a commit; this is a defect of Swipebell, please report it"
    )


def _wake(calls: Sequence[_Call]) -> None:
    for call in calls:
        call.done.set()
