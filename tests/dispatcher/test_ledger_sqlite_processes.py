"""The SQLite ledger and other processes on the same file: opening, deduplication, waiting, sudden death."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.locks import NEXT_BYTE, lock_byte, open_locks
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.worker import InlineLedger, ThreadedLedger
from tests.dispatcher.ledger_kit import HOUR_MS, NOW, Tell, accepted, attempts_of, owner_of

PROJECT = Path(__file__).parents[2]
ANSWER_S = 60
"""Longest that another process of a test may take; none comes near it."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


OPEN_AT_ONCE = """
import sys
from dispatcher.ledger.sqlite import SqliteStore
print("ready", flush=True)
sys.stdin.readline()
store = SqliteStore(sys.argv[1])
store.begin()
store.register(sys.argv[2], 1, 2)
store.commit()
store.close()
"""


@contextmanager
def processes(script: str, count: int, path: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have said ready and wait for a line."""
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, path, str(number)],
            text=True,
            cwd=PROJECT,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        )
        for number in range(count)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_processes_that_open_a_new_ledger_at_the_same_moment(tmp_path: Path) -> None:
    # Given processes that all find no file yet
    path = str(tmp_path / "ledger.db")
    with processes(OPEN_AT_ONCE, 6, path) as started:
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

        # When they open it, then all of them get it
        answers = [process.communicate(timeout=ANSWER_S) for process in started]
    assert [process.returncode for process in started] == [0] * 6, answers
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM processes").fetchone() == (6,)


SAME_STREAM = """
import sys
import trio
from dispatcher.ledger.worker import ThreadedLedger
from tests.dispatcher.ledger_kit import NOW, Tell, accepted, owner_of

async def main(path, number):
    ledger = ThreadedLedger(path)
    owner = await owner_of(ledger, number)
    print("ready", flush=True)
    sys.stdin.readline()
    total = 0
    for start in range(0, 200, 10):
        batch = [accepted(f"e-{n}") for n in range(start, start + 30)]
        total += (await ledger.admit(batch, NOW, owner, Tell())).accepted
    print(total)
    await ledger.aclose()

trio.run(main, *sys.argv[1:])
"""


async def test_two_processes_with_the_same_stream_admit_each_event_once(path: str) -> None:
    # Given two processes that read the same overlapping batches at the same time
    with processes(SAME_STREAM, 2, path) as started:
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        totals = [int(process.communicate(timeout=ANSWER_S)[0]) for process in started]

    # Then together they have accepted and counted each event once
    ledger = InlineLedger(path)
    assert sum(totals) == (await ledger.books()).events == 220
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM counters WHERE who='A-1'").fetchone() == (220,)
    await ledger.aclose()


HOLD = """
import sys
import trio
from dispatcher.ledger.worker import InlineLedger
from tests.dispatcher.ledger_kit import HOUR_MS, accepted, admitted, owner_of

async def main(path):
    ledger = InlineLedger(path)
    owner = await owner_of(ledger, "there", lease_ms=HOUR_MS)
    await admitted(ledger, owner, accepted("e-1"))
    print("ready", flush=True)
    sys.stdin.readline()

trio.run(main, sys.argv[1])
"""


async def test_a_killed_process_is_taken_over_at_once(path: str) -> None:
    # Given another process with a long lease
    ledger = InlineLedger(path)
    owner = await owner_of(ledger)
    with processes(HOLD, 1, path) as (other,):
        # When it lives, then its alert is its own
        assert await ledger.take_over(owner, NOW) == 0
        assert await ledger.due("wechat", NOW, owner, 9, "sending") == []

        # When it is killed, then its alert is taken over without waiting for the lease
        other.send_signal(signal.SIGKILL)
        other.wait(ANSWER_S)
        assert await ledger.take_over(owner, NOW) == 1
    assert await attempts_of(ledger) == [(1, "wechat", "unknown", "process-died")]
    (alert,) = await ledger.due("wechat", NOW, owner, 9, "sending")
    assert (alert.state, alert.attempts) == ("interrupted", 1)
    await ledger.aclose()


async def test_a_commit_waits_for_another_process(path: str) -> None:
    # Given another process in the middle of its commit
    ledger = ThreadedLedger(path)
    owner = await owner_of(ledger)
    with closing(SqliteStore(path)) as other:
        other.begin()
        other.register("other", NOW, NOW + HOUR_MS)

        # When a batch comes meanwhile, then it is admitted as soon as the other is done
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.admit, [accepted("e-1")], NOW, owner, Tell())
            await wait_all_tasks_blocked()
            other.commit()
    assert (await ledger.books()).events == 1
    await ledger.aclose()


async def test_another_process_that_hangs_is_named_as_the_reason(path: str) -> None:
    # Given another process that holds the ledger for longer than anybody waits
    ledger = InlineLedger(path)
    owner = await owner_of(ledger)
    ledger.store.turn.patience_seconds = 0.0
    ledger.store.connection.execute("PRAGMA busy_timeout=0")
    with closing(SqliteStore(path)) as other:
        other.begin()
        with pytest.raises(LedgerUnavailable, match="another process has held it for 5 seconds; see which one"):
            await ledger.admit([accepted("e-1")], NOW, owner, Tell())
        other.rollback()

    # When it has let go, then the same call succeeds
    assert (await ledger.admit([accepted("e-1")], NOW, owner, Tell())).accepted == 1
    await ledger.aclose()


WAIT_FOR_THE_TURN = """
import sys
from dispatcher.ledger.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
store.turn.patience_seconds = 1000
print("ready", flush=True)
sys.stdin.readline()
store.begin()
"""


async def test_a_process_stopped_while_it_waits_keeps_nobody_from_writing(path: str) -> None:
    # Given a process that waits for its turn, as the next one
    waiting = processes(WAIT_FOR_THE_TURN, 1, path)
    with closing(SqliteStore(path)) as store, closing(SqliteStore(path)) as third, waiting as (other,):
        store.begin()
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
        while next_is_free(path):  # noqa: ASYNC110 - another process tells nobody
            await trio.sleep(0.01)
        # When it is stopped, and the turn is given
        other.send_signal(signal.SIGSTOP)
        store.commit()
        # Then others write, if not by turns
        third.turn.patience_seconds = 0.05
        third.begin()
        third.commit()
        other.kill()


def next_is_free(path: str) -> bool:
    """Whether nobody waits for the turn."""
    file = open_locks(path)
    try:
        return lock_byte(file, NEXT_BYTE, fcntl.F_WRLCK)
    finally:
        os.close(file)


HOLD_THE_TURN = """
import sys
from dispatcher.ledger.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
store.begin()
print("ready", flush=True)
sys.stdin.readline()
"""


async def test_one_that_writes_without_pause_lets_another_in(path: str) -> None:
    # Given a process that begins its next commit as soon as one is done
    turns, at_work, stop = 0, threading.Event(), threading.Event()

    def write_without_pause() -> None:
        nonlocal turns
        with closing(SqliteStore(path)) as greedy:
            while not stop.is_set():
                greedy.begin()
                at_work.set()
                stop.wait(0.002)  # a commit's work
                at_work.clear()
                greedy.commit()
                turns += 1

    thread = threading.Thread(target=write_without_pause)
    waited = []
    with closing(SqliteStore(path)) as modest:
        thread.start()
        try:
            # When another one wants to write twenty times, each time in the middle of such a commit
            for _ in range(20):
                assert at_work.wait(ANSWER_S)
                before = turns
                modest.begin()
                waited.append(turns - before)
                modest.commit()
        finally:
            stop.set()
            thread.join()
    # Then it waited for about one commit each time, and not for a chance
    assert statistics.median(waited) <= 2


async def test_a_writer_that_dies_in_its_turn_leaves_it_to_the_next(path: str) -> None:
    # Given a process that was killed in the middle of a commit
    InlineLedger(path).store.close()
    with processes(HOLD_THE_TURN, 1, path) as (other,):
        other.send_signal(signal.SIGKILL)
        other.wait(ANSWER_S)
    # Then the next one writes at once
    with closing(SqliteStore(path)) as store:
        store.turn.patience_seconds = 0.0
        store.begin()
        store.commit()
