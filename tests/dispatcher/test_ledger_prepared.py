"""Admissions that were planned before their transaction, while others wrote."""

from __future__ import annotations

import fcntl
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from dispatcher.admission import Admitter
from dispatcher.events import Accepted
from dispatcher.ledger import sqlite_admit
from dispatcher.ledger.api import Admission, Counted, Decide, Decisions
from dispatcher.ledger.locks import NEXT_BYTE, TURN_BYTE, WriterTurn, lock_byte, open_locks
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import LEAST_PREPARED, Admitting
from dispatcher.ledger.worker import PREPARED_AT_ONCE, ThreadedLedger
from dispatcher.model.consent import ConsentChange
from dispatcher.model.heard import Heard
from dispatcher.model.recipient import Consent, Recipient
from ratelimit.brownout import SHIFT, BrownOutTerms
from ratelimit.rules import load_rules
from templates.library import Library
from tests.dispatcher.ledger_kit import HELD_S, LEASE_MS, NOW, Tell, accepted, in_halves, owner_of, recipient, step

SIZE = LEAST_PREPARED
CHANGES_KEPT = 1_024


class Process:
    """One of several that share a ledger."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(str(path))
        self.write(lambda store: store.import_recipients([recipient("A-1"), recipient("A-2")], NOW))
        self.owner: int = self.write(lambda store: store.register("x", NOW, NOW + LEASE_MS))

    def write(self, work: Callable[[SqliteStore], Any]) -> Any:
        self.store.begin()
        found = work(self.store)
        self.store.commit()
        return found

    def prepared(self, batch: Sequence[Accepted], decide: Any) -> Admitting:
        admitting = Admitting(batch, NOW, self.owner, decide)
        self.store.prepare(admitting)
        return admitting

    def admit(self, admitting: Admitting) -> Admission:
        found: Admission = self.write(lambda store: store.admit(admitting))
        return found


OTHER_RULES = 'version = 1\n[[rule]]\nid = "x"\neffect = "expire_after"\ncategory = "swipe"\nhours = 700\n'


class Quota:
    """A quota that has run low: all that has another channel goes there."""

    terms = BrownOutTerms({}, {}, {}, frozenset())
    level = SHIFT

    def __init__(self) -> None:
        self.taken: list[str] = []

    def took_away(self, step: str) -> None:
        self.taken.append(step)


class Watched:
    """Rules that tell everybody, and remember each time that they were asked to plan: the recipients."""

    def __init__(self) -> None:
        self.plans: list[dict[str, Sequence[Recipient]]] = []

    def __call__(
        self, batch: Sequence[Accepted], told: Mapping[str, Sequence[Recipient]], now_ms: int
    ) -> Callable[[Counted], Decisions]:
        self.plans.append(dict(told))
        return Tell()(batch, told, now_ms)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    made = Process(tmp_path / "ledger.db"), Process(tmp_path / "ledger.db")
    yield made
    for process in made:
        process.store.close()


def batch_of(account: str = "A-1", first: int = 0) -> list[Accepted]:
    return [accepted(f"e-{number}", account=account) for number in range(first, first + SIZE)]


def test_a_batch_is_planned_once_while_nothing_changes(processes: tuple[Process, Process]) -> None:
    # Given a batch that one process has planned
    one, other = processes
    rules = Watched()
    waiting = one.prepared(batch_of(), rules)
    assert len(rules.plans) == 1
    # When another process admits a batch of the same account first
    before = other.admit(other.prepared(batch_of(first=SIZE), Watched()))
    found = one.admit(waiting)
    # Then it is admitted as it was planned, behind the other's, and the counters have seen both
    assert len(rules.plans) == 1
    assert (before.accepted, found.accepted) == (SIZE, SIZE)
    assert [alert.id >> 4 for alert in found.alerts] == list(range(SIZE + 1, 2 * SIZE + 1))
    values = one.store.connection.execute("SELECT value FROM counters").fetchall()
    assert values == [(2 * SIZE,)]
    stored = one.store.connection.execute("SELECT seq, id FROM events ORDER BY seq").fetchall()
    assert stored == [(seq, f"e-{(seq - 1 + SIZE) % (2 * SIZE)}") for seq in range(1, 2 * SIZE + 1)]


WORD = Consent(False, NOW, "call")
CHANGES: dict[str, Callable[[SqliteStore], Any]] = {
    "an import": lambda store: store.import_recipients([recipient("A-1", locale="en")], NOW),
    "another recipient": lambda store: store.import_recipients([recipient("A-1", role="spouse")], NOW),
    "a word": lambda store: store.consent([ConsentChange(account="A-1", key="swipe", consent=WORD)], NOW),
    "a follower who left": lambda store: store.heard([Heard("o-A-1-primary", "unfollow", NOW)]),
    "another account's row": lambda store: store.connection.execute(
        "UPDATE recipients SET account='A-3' WHERE account='A-1'"
    ),
    "somebody removed it": lambda store: store.connection.execute("DELETE FROM recipients WHERE account='A-1'"),
    "a table that was emptied": lambda store: store.connection.execute("DELETE FROM recipient_changes"),
    "more than are kept": lambda store: store.import_recipients(
        [recipient(f"B-{number}") for number in range(CHANGES_KEPT + 1)], NOW
    ),
}


UNSURE = ("more than are kept", "a table that was emptied")
"""Nobody knows whether a recipient of the batch was among them."""


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_planned_with_recipients_that_have_changed_is_planned_anew(
    processes: tuple[Process, Process], change: str
) -> None:
    # Given a batch that one process has planned
    one, other = processes
    rules = Watched()
    waiting = one.prepared(batch_of(), rules)
    # When another process changes a recipient of it before it is written
    other.write(CHANGES[change])
    found = one.admit(waiting)
    # Then it was decided with the recipients as they were then
    assert found.accepted == SIZE
    stored = one.store.connection.execute("SELECT count(*) FROM recipients WHERE account='A-1'").fetchall()[0][0]
    assert len(rules.plans) == 2
    assert len(rules.plans[1].get("A-1", ())) == stored
    assert (rules.plans[0] == rules.plans[1]) is (change in UNSURE)


def test_a_refusal_in_the_same_commit_is_known_to_what_was_planned_before_it(
    processes: tuple[Process, Process],
) -> None:
    # Given an alert on its way, and a batch that is planned while its answer comes
    one, _ = processes
    (alert,) = one.admit(one.prepared([accepted("e-first")], Tell())).alerts
    rules = Watched()
    waiting = one.prepared(batch_of(), rules)
    refused = step(alert, "retrying", outcome="recipient_gone", code="43004", refusal="wechat")
    # When the answer is written in the commit of the batch, before it
    one.store.begin()
    one.store.record([refused], one.owner)
    one.store.admit(waiting)
    one.store.commit()
    # Then the batch was decided with what it said
    assert [told["A-1"][0].refused.keys() for told in rules.plans] == [set(), {"wechat"}]


def test_a_plan_is_used_with_the_rules_that_made_it_and_what_it_gave_up_counts_once(
    processes: tuple[Process, Process],
) -> None:
    # Given a quota that runs low, a batch that was planned, and other rules in force since
    one, other = processes
    first, second = load_rules("version = 1\n", "t"), load_rules(OTHER_RULES, "t")
    quota = Quota()
    admitter = Admitter(first, Library.load(), {"wechat": False, "sms": True}, {"wechat": quota})
    for rules in (first, second):
        one.write(lambda store, rules=rules: store.ruleset(rules.version_id, rules.content, NOW))
    waiting = one.prepared(batch_of(), admitter)
    admitter.put_in_force(second)
    # When it is admitted, and so is another one that had to be planned twice
    one.admit(waiting)
    again = one.prepared(batch_of(first=SIZE), admitter)
    other.write(CHANGES["an import"])
    one.admit(again)
    # Then each alert was decided by the rules of its plan, and was taken from the channel once
    by_rules = one.store.connection.execute(
        "SELECT r.version, count(*) FROM alerts a JOIN rulesets r ON r.id = a.ruleset GROUP BY 1"
    ).fetchall()
    assert dict(by_rules) == {first.version_id: SIZE, second.version_id: SIZE}
    assert quota.taken == ["shift"] * 2 * SIZE


def test_changes_of_other_accounts_or_that_were_taken_back_change_no_plan(processes: tuple[Process, Process]) -> None:
    # Given a batch that one process has planned
    one, other = processes
    rules = Watched()
    waiting = one.prepared(batch_of(), rules)
    # When another account's recipient changes, and a change of ours is rolled back
    other.write(lambda store: store.import_recipients([recipient("A-2", locale="en")], NOW))
    other.store.begin()
    other.store.import_recipients([recipient("A-1", locale="en")], NOW)
    other.store.rollback()
    # Then the plan stands
    assert one.admit(waiting).accepted == SIZE
    assert len(rules.plans) == 1


def test_what_another_process_admitted_meanwhile_is_a_duplicate(processes: tuple[Process, Process]) -> None:
    # Given one batch that two processes have planned
    one, other = processes
    rules = Watched()
    batch = batch_of()
    waiting = one.prepared([*batch, accepted("e-new"), accepted("e-0", amount=1)], rules)
    # When the other one is first
    other.admit(other.prepared(batch, Watched()))
    found = one.admit(waiting)
    # Then only the new event is admitted, and planned by itself
    assert (found.accepted, found.duplicates, found.conflicts) == (1, list(range(SIZE)), [SIZE + 1])
    assert one.store.connection.execute("SELECT id, digest FROM events WHERE seq > ?", (SIZE,)).fetchall() == [
        ("e-new", sqlite_admit.digest_of("e-new"))
    ]
    assert one.store.connection.execute("SELECT value FROM counters").fetchall() == [(SIZE + 1,)]


def test_what_came_before_and_what_is_small_is_not_planned_before_its_turn(processes: tuple[Process, Process]) -> None:
    # Given a batch that is known already, and one with an event too few
    one, _ = processes
    one.admit(one.prepared(batch_of(), Watched()))
    again, small = Watched(), Watched()
    first, second = one.prepared(batch_of(), again), one.prepared(batch_of(first=SIZE)[1:], small)
    assert (again.plans, small.plans) == ([], [])
    # Then it is never planned, and the other in its transaction
    assert one.admit(first).duplicates == list(range(SIZE))
    assert one.admit(second).accepted == SIZE - 1
    assert (again.plans, len(small.plans)) == ([], 1)


def test_whoever_fails_while_it_waits_does_not_stay_the_next_one(tmp_path: Path) -> None:
    # Given a process that has its turn, and one whose planning fails while it waits for it
    path = str(tmp_path / "ledger.db")
    turns = [WriterTurn(path) for _ in range(3)]
    turns[0].take()
    with pytest.raises(ZeroDivisionError):
        turns[1].take(lambda: bool(1 / 0))
    # Then a third one is the next at once
    locks = open_locks(path)
    assert lock_byte(locks, NEXT_BYTE, fcntl.F_WRLCK)
    assert not lock_byte(locks, TURN_BYTE, fcntl.F_WRLCK)
    os.close(locks)
    for turn in turns:
        turn.close()


class BrokenRules(Exception):
    pass


async def test_rules_that_cannot_plan_refuse_their_own_batch_only(tmp_path: Path) -> None:
    # Given rules that fail in their first half
    ledger = ThreadedLedger(str(tmp_path / "ledger.db"))
    owner = await owner_of(ledger)

    def broken(*arguments: Any) -> Any:
        raise BrokenRules

    # Then whoever asked hears of it, nothing of the batch is there, and the ledger goes on
    with pytest.raises(BrokenRules):
        await ledger.admit(batch_of(), NOW, owner, broken)
    assert (await ledger.admit(batch_of(), NOW, owner, Tell())).accepted == SIZE
    await ledger.aclose()


async def test_batches_are_planned_while_another_process_writes(tmp_path: Path) -> None:
    # Given another process in the middle of a transaction
    ledger = ThreadedLedger(str(tmp_path / "ledger.db"))
    owner = await owner_of(ledger)
    other = SqliteStore(str(tmp_path / "ledger.db"))
    other.begin()
    planned: queue.SimpleQueue[str] = queue.SimpleQueue()
    written: list[str] = []
    names = [f"batch {number}" for number in range(PREPARED_AT_ONCE + 1)]

    def rules(name: str) -> Decide:
        def plan(*arguments: Any) -> Callable[[Counted], Decisions]:
            planned.put(name)
            return in_halves(lambda *whole: decided(*whole))(*arguments)

        def decided(*whole: Any) -> Decisions:
            written.append(name)
            return Tell().decide(*whole)

        return plan

    async with trio.open_nursery() as nursery:
        # When batches come one after the other, then all but the last are planned while they wait for their turn
        for number, name in enumerate(names):
            nursery.start_soon(ledger.admit, batch_of(first=number * SIZE), NOW, owner, rules(name))
            if number < PREPARED_AT_ONCE:
                assert await trio.to_thread.run_sync(planned.get, True, HELD_S) == name
        assert written == []
        other.commit()
    # Then all are admitted, those before the last as they were planned
    assert written == names
    assert (planned.get(timeout=HELD_S), planned.empty()) == (names[-1], True)
    assert (await ledger.books()).events == len(names) * SIZE
    await ledger.aclose()
    other.close()
