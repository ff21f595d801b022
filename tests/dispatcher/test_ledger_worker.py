"""Group commit: which calls share a transaction, and what becomes of them when something fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dispatcher.errors import LedgerFailed, LedgerUnavailable
from dispatcher.ledger.api import Decisions
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import LEAST_PREPARED
from dispatcher.ledger.worker import CALLS_PER_COMMIT, InlineLedger, ThreadedLedger
from tests.dispatcher.ledger_kit import (
    HELD_S,
    NOW,
    Commits,
    Tell,
    Told,
    accepted,
    admitted,
    in_halves,
    owner_of,
    recipient,
    step,
    tell,
)


@pytest.fixture
async def commits(tmp_path: Path) -> AsyncIterator[Commits]:
    made = Commits(str(tmp_path / "ledger.db"))
    yield made
    await made.ledger.aclose()


# ---- what shares a commit -----------------------------------------------------------------------------------------


async def test_calls_that_come_during_a_commit_share_the_next_one(commits: Commits) -> None:
    # Given a commit that takes its time
    ledger = commits.ledger
    owner = await owner_of(ledger)
    commits.sizes.clear()
    told: Told = []

    # When calls of all kinds arrive meanwhile
    async with commits.in_one_commit(owner) as nursery:
        for number in range(5):
            nursery.start_soon(
                tell, told, "admit", lambda n=number: ledger.admit([accepted(f"e-{n}")], NOW, owner, Tell())
            )
        nursery.start_soon(tell, told, "beat", lambda: ledger.heartbeat(owner, NOW))
        nursery.start_soon(tell, told, "import", lambda: ledger.import_recipients([recipient()]))

    # Then they were one commit, and each has its own answer
    assert commits.sizes == [1, 7]
    assert min(commits.seconds) > 0
    assert sum(answer.accepted for name, answer in told if name == "admit") == 5
    assert {name for name, _ in told} == {"admit", "beat", "import"}
    assert (await ledger.books()).events == 6


async def test_a_commit_has_a_largest_size(commits: Commits) -> None:
    ledger = commits.ledger
    owner = await owner_of(ledger)
    commits.sizes.clear()

    async with commits.in_one_commit(owner) as nursery:
        for number in range(2 * CALLS_PER_COMMIT + 1):
            nursery.start_soon(ledger.admit, [accepted(f"e-{number}")], NOW, owner, Tell())

    assert commits.sizes == [1, CALLS_PER_COMMIT, CALLS_PER_COMMIT, 1]
    assert (await ledger.books()).events == 2 * CALLS_PER_COMMIT + 2


async def test_calls_of_one_commit_see_each_other_in_their_order(commits: Commits) -> None:
    # Given the same event from several feeders at once
    ledger = commits.ledger
    owner = await owner_of(ledger)
    told: Told = []

    async with commits.in_one_commit(owner) as nursery:
        for number in range(4):
            batch = [accepted("same", amount=number // 2)]
            nursery.start_soon(tell, told, "admit", lambda batch=batch: ledger.admit(batch, NOW, owner, Tell()))

    # Then one of them has it, and the others hear what was said in the same commit
    answers = [answer for _, answer in told]
    assert sum(answer.accepted for answer in answers) == 1
    assert sum(len(answer.duplicates) for answer in answers) == 1
    assert sum(len(answer.conflicts) for answer in answers) == 2


async def test_an_answer_comes_after_its_commit(commits: Commits, tmp_path: Path) -> None:
    # When a call has returned, then every other process sees what it did
    other = InlineLedger(str(tmp_path / "ledger.db"))
    owner = await owner_of(commits.ledger)
    for number in range(20):
        await commits.ledger.admit([accepted(f"e-{number}")], NOW, owner, Tell())
        assert (await other.books()).events == number + 1
    await other.aclose()


# ---- what fails ---------------------------------------------------------------------------------------------------


class BrokenRules(Exception):
    pass


async def test_a_call_that_fails_does_not_hurt_its_neighbours(commits: Commits) -> None:
    # Given a commit of which some calls fail, before or after they have written something
    ledger = commits.ledger
    owner = await owner_of(ledger)
    told: Told = []

    @in_halves
    def broken(*arguments: Any) -> Decisions:
        raise BrokenRules

    @in_halves
    def forgetful(*arguments: Any) -> Decisions:
        return Decisions([], {})

    @in_halves
    def overflowing(*arguments: Any) -> Decisions:
        told = Tell().decide(*arguments)
        return Decisions(told.drafts, {"beyond 64 bits": (2**63, NOW)})  # found out when the event is written already

    async with commits.in_one_commit(owner) as nursery:
        for name, decide in (("a", Tell()), ("b", broken), ("c", overflowing), ("d", forgetful), ("e", Tell())):
            nursery.start_soon(tell, told, name, lambda n=name, d=decide: ledger.admit([accepted(n)], NOW, owner, d))

    # Then only they are told, and only their events are missing
    answers = dict(told)
    assert isinstance(answers["b"], BrokenRules)
    assert isinstance(answers["d"], ValueError)
    assert isinstance(answers["c"], OverflowError)
    assert [answers[name].accepted for name in "ae"] == [1, 1]
    assert [await ledger.explain(name) is None for name in "abcde"] == [False, True, True, True, False]
    # And the ledger goes on
    assert (await ledger.admit([accepted("b")], NOW, owner, Tell())).accepted == 1


async def test_a_commit_that_fails_fails_all_its_calls(commits: Commits, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given calls that share a commit, and a disk that has no room for it
    ledger = commits.ledger
    owner = await owner_of(ledger)
    told: Told = []
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: ledger.admit([accepted("e-1")], NOW, owner, Tell()),
        lambda: ledger.import_recipients([recipient()]),
        lambda: ledger.take_over(owner, NOW),
    ]

    async with commits.in_one_commit(owner) as nursery:
        for call in calls:
            nursery.start_soon(tell, told, "call", call)
        await wait_all_tasks_blocked()
        the_second_commit(monkeypatch, LedgerUnavailable("ledger: the disk is full"))

    # Then each is told so, and nothing of them is in the ledger
    assert [str(answer) for _, answer in told] == ["ledger: the disk is full"] * 3
    monkeypatch.undo()
    books = await ledger.books()
    assert (books.events, books.recipients) == (1, 0), "only what was committed before stands"

    # When there is room again, then the same calls succeed
    assert (await calls[0]()).accepted == 1
    assert (await calls[1]()).added == 1
    assert await calls[2]() == 0


def the_second_commit(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """From now on one commit succeeds and the next ones fail."""
    commit, left = SqliteStore.commit, iter([True])

    def second(store: SqliteStore) -> None:
        if not next(left, False):
            raise error
        commit(store)

    monkeypatch.setattr(SqliteStore, "commit", second)


@pytest.mark.parametrize("large", [1, 100])
async def test_a_call_that_finds_no_room_takes_nothing_half_with_it(commits: Commits, large: int) -> None:
    # Given calls that share a commit, and no room for what one of them writes (of which SQLite gives up the statement
    # or the whole transaction, by its own rules)
    ledger = commits.ledger
    owner = await owner_of(ledger)
    batch = [accepted(f"large-{number}", merchant="m" * (60_000 // large)) for number in range(large)]
    connection = ledger._store.connection
    told: Told = []
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "a": lambda: ledger.admit([accepted("a")], NOW, owner, Tell()),
        "large-0": lambda: ledger.admit(batch, NOW, owner, Tell()),
        "b": lambda: ledger.admit([accepted("b")], NOW, owner, Tell()),
    }

    async with commits.in_one_commit(owner) as nursery:
        # The thread is held by the rules, so the connection is nobody's at the moment.
        unlimited = connection.execute("PRAGMA max_page_count").fetchone()[0]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 3}")
        for name, call in calls.items():
            nursery.start_soon(tell, told, name, call)

    # Then the large one is refused, and of each one the ledger holds what its caller was told
    answers = dict(told)
    assert isinstance(answers["large-0"], LedgerUnavailable)
    for name, answer in answers.items():
        refused = isinstance(answer, LedgerUnavailable)
        assert refused or answer.accepted == 1
        assert (await ledger.explain(name) is None) == refused

    # When there is room again, then each call ends well
    connection.execute(f"PRAGMA max_page_count={unlimited}")
    for call in calls.values():
        await call()
    books = await ledger.books()
    assert (books.events, books.balanced) == (large + 3, True)


async def test_after_a_failed_disk_nothing_touches_the_file_any_more(
    commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a disk that fails in a commit, while more calls wait than the next commit takes
    ledger = commits.ledger
    owner = await owner_of(ledger)
    begun: list[bool] = []
    told: Told = []
    begin = SqliteStore.begin

    def counting(store: SqliteStore, *meanwhile: Any) -> None:
        begun.append(True)
        begin(store, *meanwhile)

    async with commits.in_one_commit(owner) as nursery:
        for number in range(CALLS_PER_COMMIT + 5):
            nursery.start_soon(
                tell, told, "admit", lambda n=number: ledger.admit([accepted(f"e-{n}")], NOW, owner, Tell())
            )
        await wait_all_tasks_blocked()
        the_second_commit(monkeypatch, LedgerFailed("ledger: the disk failed"))
        monkeypatch.setattr(SqliteStore, "begin", counting)

    # Then all of them are told, those too that had been handed over before it was known
    assert len(told) == CALLS_PER_COMMIT + 5
    assert all(isinstance(answer, LedgerFailed) for _, answer in told)
    assert len(begun) == 1
    # And every later call
    monkeypatch.undo()
    with pytest.raises(LedgerFailed, match="the disk failed"):
        await ledger.open_count()


@pytest.mark.parametrize("where", ["observer", "rules", "planning"])
async def test_a_thread_that_would_die_tells_everybody_instead(tmp_path: Path, where: str) -> None:
    # Given a defect that ends threads
    @in_halves
    def broken(*arguments: Any) -> Any:
        raise SystemExit(3)

    def dying(*arguments: Any) -> Any:
        raise SystemExit(3)

    ledger = ThreadedLedger(str(tmp_path / "ledger.db"), broken if where == "observer" else None)
    with trio.fail_after(HELD_S):
        if where in ("rules", "planning"):
            owner = await owner_of(ledger)
            batch = [accepted(f"e-{number}") for number in range(1 if where == "rules" else LEAST_PREPARED)]
            decide = broken if where == "rules" else dying
            with pytest.raises(LedgerFailed, match="SystemExit"):
                await ledger.admit(batch, NOW, owner, decide)
        else:
            await owner_of(ledger)  # its commit was good

        # When the ledger is used afterwards, then nobody waits for ever
        with pytest.raises(LedgerFailed, match="its thread failed"):
            await ledger.open_count()
        await ledger.aclose()


# ---- cancellation and the end -------------------------------------------------------------------------------------


async def test_a_call_whose_task_is_cancelled_is_seen_through(commits: Commits) -> None:
    # Given a call that waits for its commit
    ledger = commits.ledger
    owner = await owner_of(ledger)
    told: Told = []
    scope = trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await tell(told, "admit", lambda: ledger.admit([accepted("e-1")], NOW, owner, Tell()))

    # When its task is cancelled meanwhile
    async with commits.in_one_commit(owner) as nursery:
        nursery.start_soon(cancelled)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert told == []

    # Then it is committed all the same, and its task knows
    assert [answer.accepted for _, answer in told] == [1]
    assert await ledger.explain("e-1") is not None


async def test_closing_finishes_what_was_handed_over(commits: Commits, tmp_path: Path) -> None:
    # Given calls that wait for their commit
    ledger = commits.ledger
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-0"))
    told: Told = []

    async with commits.in_one_commit(owner) as nursery:
        for number in range(1, CALLS_PER_COMMIT + 3):
            batch = [accepted(f"e-{number}")]
            nursery.start_soon(tell, told, "admit", lambda batch=batch: ledger.admit(batch, NOW, owner, Tell()))
        nursery.start_soon(tell, told, "record", lambda: ledger.record([step(alert, "delivered")], owner))
        await wait_all_tasks_blocked()
        # When it is closed meanwhile, twice
        nursery.start_soon(ledger.aclose)
        nursery.start_soon(ledger.aclose)
        await wait_all_tasks_blocked()
        # And somebody comes too late
        with pytest.raises(trio.ClosedResourceError):
            await ledger.open_count()

    # Then what was handed over in time is done, and the file is closed
    assert not any(isinstance(answer, Exception) for _, answer in told)
    assert not (tmp_path / "ledger.db-wal").exists()
    again = InlineLedger(str(tmp_path / "ledger.db"))
    books = await again.books()
    assert (books.events, books.states["delivered"]) == (CALLS_PER_COMMIT + 4, 1)
    await again.aclose()


async def test_an_inline_ledger_ends_like_the_other(tmp_path: Path) -> None:
    ledger = InlineLedger(str(tmp_path / "ledger.db"))
    await ledger.aclose()
    await ledger.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await ledger.open_count()


NEVER_CLOSED = """
import sys
import trio
from dispatcher.ledger.worker import ThreadedLedger
from tests.dispatcher.ledger_kit import NOW, Tell, accepted, owner_of

async def main(path):
    ledger = ThreadedLedger(path)
    owner = await owner_of(ledger)
    await ledger.admit([accepted("e-1")], NOW, owner, Tell())
    if sys.argv[2] == "error":
        raise KeyError("an end that nobody planned")

trio.run(main, sys.argv[1])
"""


@pytest.mark.parametrize(("how", "status"), [("return", 0), ("error", 1)])
async def test_a_run_that_ends_without_closing_does_not_hang(tmp_path: Path, how: str, status: int) -> None:
    # When a process ends and nobody has closed its ledger
    path = str(tmp_path / "ledger.db")
    command = [sys.executable, "-W", "error", "-c", NEVER_CLOSED, path, how]
    project = Path(__file__).parents[2]
    done = await trio.to_thread.run_sync(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=HELD_S, cwd=project, check=False)
    )

    # Then it ends, and the next one finds what it had acknowledged
    assert done.returncode == status, done.stderr
    assert ("an end that nobody planned" in done.stderr) == bool(status)
    ledger = InlineLedger(path)
    assert await ledger.explain("e-1") is not None
    await ledger.aclose()
