"""The SQLite ledger when the machine fails: a full disk, a failing disk, power loss."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.worker import InlineLedger, ThreadedLedger
from tests.dispatcher.ledger_kit import (
    NOW,
    Tell,
    accepted,
    admitted,
    alert_story,
    owner_of,
    receipt,
    recipient,
    state_of,
    step,
)

PROJECT = Path(__file__).parents[2]
ANSWER_S = 60
"""Longest that another process of a test may take; none comes near it."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


# ---- a full disk --------------------------------------------------------------------------------------------------


@contextmanager
def no_page_left(connection: sqlite3.Connection) -> Iterator[None]:
    """The file cannot grow, which SQLite reports as a full disk."""
    unlimited = connection.execute("PRAGMA max_page_count").fetchone()[0]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    yield
    connection.execute(f"PRAGMA max_page_count={unlimited}")


async def test_a_full_disk_refuses_what_does_not_fit_and_goes_on_afterwards(path: str) -> None:
    # Given a ledger with an alert in flight, and then no room for more
    ledger = InlineLedger(path)
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-0"))
    before = await ledger.books()
    batch = [accepted(f"e-{number}", merchant="m" * 500) for number in range(1, 50)]
    people = [recipient(f"B-{number}") for number in range(500)]
    words = [receipt("wechat", f"m-{number}") for number in range(1000)]
    outcome = [step(alert, "delivered", code="x" * 9000)]

    # When anything large is written, then it is refused with what to do about it, and with nobody's phone
    with no_page_left(ledger.store.connection):
        for attempt in (
            lambda: ledger.admit(batch, NOW, owner, Tell()),
            lambda: ledger.import_recipients(people),
            lambda: ledger.receipts(words, NOW, owner),
            lambda: ledger.record(outcome, owner),
        ):
            with pytest.raises(LedgerUnavailable) as refusal:
                await attempt()
            assert str(refusal.value) == (
                f"ledger {path}: the disk is full; free some space, nothing accepted was lost"
            )
        # And nothing of it is in the ledger, which can still be read
        assert await ledger.books() == before
        assert await ledger.explain("e-1") is None

    # When there is room again, then the same calls succeed
    assert (await ledger.import_recipients(people)).added == 500
    assert (await ledger.admit(batch, NOW, owner, Tell())).accepted == 49
    assert await ledger.receipts(words, NOW, owner) == []
    await ledger.record(outcome, owner)
    books = await ledger.books()
    assert (books.events, books.recipients, books.balanced) == (50, 501, True)
    assert await state_of(ledger, "e-0") == "delivered"
    await ledger.aclose()


TINY_DISK = """
import sys
from pathlib import Path
import trio
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.worker import ThreadedLedger
from tests.dispatcher.ledger_kit import NOW, Tell, accepted, owner_of

async def main(folder):
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(400_000))
    ledger = ThreadedLedger(str(folder / "ledger.db"))
    owner = await owner_of(ledger)
    async def admit(number):
        batch = [accepted(f"e-{number}-{n}", merchant="m" * 700) for n in range(40)]
        return (await ledger.admit(batch, NOW, owner, Tell())).accepted
    number = 0
    try:
        while True:
            await admit(number)
            number += 1
    except LedgerUnavailable as error:
        assert "the disk is full" in str(error), error
    assert number, "the disk was full before anything was written"
    assert (await ledger.books()).events == number * 40
    ballast.unlink()
    assert await admit(number) == 40
    await ledger.aclose()
    print("went on after", number)

trio.run(main, Path(sys.argv[1]))
"""


def test_a_disk_that_is_full_at_the_commit_itself(tmp_path: Path) -> None:
    # Given a disk of one megabyte, mounted for one process and its children only
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here, so no tiny disk can be mounted")
    mount = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"', "sh"]
    folder = str(tmp_path)
    if subprocess.run([*mount, folder, "true"], capture_output=True, timeout=ANSWER_S, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tiny disk of their own")

    # When a ledger on it is filled until it is refused, then what was acknowledged is there and nothing else
    # And the same batch is accepted after some room was made
    done = run_python(TINY_DISK, folder, before=[*mount, folder])
    assert re.fullmatch(r"went on after [1-9]\d*\n", done.stdout), done.stderr


def run_python(script: str, *arguments: str, before: Any = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, cwd=PROJECT, check=False)


# ---- a failing disk -----------------------------------------------------------------------------------------------

FAILING_DISK = """
import resource, sys
import trio
from dispatcher.errors import LedgerFailed
from dispatcher.ledger.worker import ThreadedLedger
from tests.dispatcher.ledger_kit import NOW, Tell, accepted, owner_of

async def main(path):
    ledger = ThreadedLedger(path)
    owner = await owner_of(ledger)
    await ledger.admit([accepted("kept")], NOW, owner, Tell())
    # From here on every write beyond a size fails with an error that is not "full".
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    batch = [accepted(f"lost-{n}", merchant="m" * 700) for n in range(400)]
    for call in (
        lambda: ledger.admit(batch, NOW, owner, Tell()),
        lambda: ledger.admit([accepted("later")], NOW, owner, Tell()),
        lambda: ledger.open_count(),
    ):
        try:
            await call()
        except LedgerFailed as error:
            print(error)
    await ledger.aclose()

trio.run(main, sys.argv[1])
"""


async def test_a_disk_that_fails_ends_the_ledger(path: str) -> None:
    # Given a disk that fails in the middle of a commit
    done = run_python(FAILING_DISK, path)

    # Then that call and every later one is told so, and none is tried on that file again
    assert done.stdout == f"ledger {path}: the disk failed (SQLITE_IOERR_WRITE); check the disk, then start again\n" * 3
    assert done.returncode == 0, done.stderr

    # And the next process finds what was acknowledged, and nothing else
    ledger = InlineLedger(path)
    assert await state_of(ledger, "kept") == "suppressed"
    assert (await ledger.books()).events == 1
    await ledger.aclose()


# ---- power loss ---------------------------------------------------------------------------------------------------


def lose_power(path: str, to: Path) -> str:
    """Copies what the disk holds while the ledger is still open, without the memory it shares."""
    to.mkdir()
    for name in ("ledger.db", "ledger.db-wal"):
        shutil.copy(Path(path).with_name(name), to / name)
    return str(to / "ledger.db")


async def test_what_was_acknowledged_is_on_disk(path: str, tmp_path: Path) -> None:
    # Given a ledger that is never closed
    ledger = ThreadedLedger(path)
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    copies = [lose_power(path, tmp_path / "after admit")]
    await ledger.record([step(alert, "awaiting", msgid="m-1")], owner)
    copies.append(lose_power(path, tmp_path / "after record"))
    await ledger.receipts([receipt("wechat", "m-1")], NOW, owner)
    copies.append(lose_power(path, tmp_path / "after receipts"))

    # When the power goes right after each acknowledgement, then the next process finds what was acknowledged
    found = []
    for copy in copies:
        other = InlineLedger(copy)
        story = await alert_story(other)
        found.append((story.state, len(story.attempts), len(story.receipts)))
        # And it can go on with it, since nobody holds the dead one's lock
        assert await other.take_over(await owner_of(other), NOW) == (story.state == "sending" or bool(story.receipts))
        await other.aclose()
    assert found == [("sending", 0, 0), ("awaiting", 1, 0), ("awaiting", 1, 1)]
    await ledger.aclose()


async def test_a_commit_that_was_cut_in_the_middle_never_was(path: str, tmp_path: Path) -> None:
    # Given an acknowledged batch, and one whose write the power cut at any place
    ledger = InlineLedger(path)
    owner = await owner_of(ledger)
    await admitted(ledger, owner, accepted("kept"))
    whole = os.stat(path + "-wal").st_size
    await ledger.admit([accepted(f"lost-{n}") for n in range(40)], NOW, owner, Tell())
    more = os.stat(path + "-wal").st_size - whole

    for cut in range(8):
        copy = lose_power(path, tmp_path / f"cut-{cut}")
        os.truncate(copy + "-wal", whole + more * cut // 8)

        # When the ledger is opened, then the first is there whole and the other not at all
        other = InlineLedger(copy)
        assert (await other.books()).events == 1
        assert await other.explain("lost-0") is None
        assert (await other.admit([accepted("kept")], NOW, await owner_of(other), Tell())).duplicates == [0]
        await other.aclose()
    await ledger.aclose()


ACKNOWLEDGE = """
import os, sys
import trio
from dispatcher.ledger.worker import ThreadedLedger
from tests.dispatcher.ledger_kit import NOW, Tell, accepted, admitted, owner_of, receipt, step

async def main(path):
    ledger = ThreadedLedger(path)
    owner = await owner_of(ledger)
    for number in range(3):
        (alert,) = await admitted(ledger, owner, accepted(f"e-{number}"))
        os.write(1, b"acknowledged")
        await ledger.record([step(alert, "awaiting", msgid=f"m-{number}")], owner)
        os.write(1, b"acknowledged")
        await ledger.receipts([receipt("wechat", f"m-{number}")], NOW, owner)
        os.write(1, b"acknowledged")
    await ledger.aclose()

trio.run(main, sys.argv[1])
"""


def test_every_acknowledgement_comes_after_an_fsync(path: str, tmp_path: Path) -> None:
    # Given a process whose system calls are watched
    if shutil.which("strace") is None:
        pytest.skip("no strace here, so nobody counts the fsyncs")
    trace = tmp_path / "trace"
    watch = ["strace", "-f", "-y", "-s", "64", "-e", "trace=fsync,fdatasync,write", "-o", str(trace)]
    if subprocess.run([*watch, "true"], capture_output=True, timeout=ANSWER_S, check=False).returncode:
        pytest.skip("this machine lets nobody trace a process")

    # When it acknowledges nine commits
    done = run_python(ACKNOWLEDGE, path, before=watch)
    assert done.stdout == "acknowledged" * 9, done.stderr

    # Then before each of them the log was fsynced with success
    synced, acknowledged = False, 0
    for told in trace.read_text(errors="replace").splitlines():
        if re.search(r"\bf(data)?sync(\(\d+<.*ledger\.db-wal>\)| resumed>\)) += 0", told):
            synced = True
        elif re.search(r'\bwrite\(1<.*"acknowledged"', told):
            acknowledged += 1
            assert synced, f"acknowledgement {acknowledged} came without an fsync since the last one"
            synced = False
    assert acknowledged == 9
