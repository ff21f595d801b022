"""Which ids are known: held against a plain dictionary, with blocks so small that every path is gone through."""

from __future__ import annotations

import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dispatcher.ledger import sqlite_admit, sqlite_id_runs, sqlite_ids, sqlite_read
from dispatcher.ledger.api import Admission
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import Admitting
from dispatcher.ledger.sqlite_id_runs import Shape, read_state
from dispatcher.ledger.sqlite_ids import IdIndex
from tests.dispatcher.ledger_kit import NOW, Tell, accepted

HOUR_MS = 3_600_000


@contextmanager
def ids_in_small_blocks(*, digests: int = 2**32, known: int = 20_000_000) -> Iterator[None]:
    """Blocks of 2 events, runs of 4, segments of 8 that are merged in two pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_id_runs, "SHAPE", Shape(block=1, run=2, segment=3, pieces=1))
        patch.setattr(sqlite_ids, "MAX_KNOWN_IDS", known)
        for module in (sqlite_admit, sqlite_read):
            patch.setattr(module, "digest_of", lambda text: zlib.crc32(text.encode()) % digests)
        yield


@contextmanager
def two_processes() -> Iterator[list[tuple[SqliteStore, int]]]:
    """Two stores on one ledger, each with its owner."""
    with tempfile.TemporaryDirectory() as folder:
        stores = [SqliteStore(str(Path(folder) / "ledger.db")) for _ in range(2)]
        entered = []
        for store in stores:
            store.begin()
            entered.append((store, store.register("p", NOW, NOW + HOUR_MS)))
            store.commit()
        try:
            yield entered
        finally:
            for store in stores:
                store.close()


BATCHES = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 2)), min_size=1, max_size=9)
NO_BATCH = st.just([(0, 1)])
WHICH = st.integers(0, 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["admit", "admit", "fails", "beside one that fails"]), WHICH, BATCHES),
        st.tuples(st.sampled_from(["file", "file", "file and fails"]), WHICH, st.lists(st.just((0, 1)), max_size=6)),
        st.tuples(st.sampled_from(["something else", "load", "restart"]), WHICH, NO_BATCH),
    ),
    min_size=8,
    max_size=30,
)


def filed_seqs(store: SqliteStore) -> list[int]:
    """Where the file says that ids are, in small blocks, each as often as it says so."""
    merged = [key >> 35 << 3 | key & 7 for (key,) in store.connection.execute("SELECT key FROM ids")]
    waiting = [key >> 34 << 2 | key & 3 for (key,) in store.connection.execute("SELECT key FROM id_runs")]
    return sorted(merged + waiting)


def admit(store: SqliteStore, owner: int, batch: list[tuple[int, int]]) -> Admission:
    return store.admit(
        Admitting([accepted(f"e-{number}", amount=amount) for number, amount in batch], NOW, owner, Tell())
    )


def admit_in_vain(store: SqliteStore, owner: int, batch: list[tuple[int, int]]) -> None:
    """An admission whose rules fail, in a commit with others."""

    def broken(*whole: Any) -> Any:
        raise ZeroDivisionError

    events = [accepted(f"e-{number + 100}") for number, _ in batch]
    store.connection.execute("SAVEPOINT call")
    with pytest.raises(ZeroDivisionError):
        store.admit(Admitting(events, NOW, owner, broken))
    store.connection.execute("ROLLBACK TO call")
    store.connection.execute("RELEASE call")


@settings(derandomize=True, deadline=None, max_examples=150, phases=[Phase.generate])
@given(STEPS, st.sampled_from([3, 2**32]), st.sampled_from([0, 9, 17, 20_000_000]))
def test_every_id_is_known_once_it_was_committed_and_never_before(
    steps: list[tuple[str, int, list[tuple[int, int]]]], digests: int, known: int
) -> None:
    # Given two processes on one ledger (with digests that clash or do not, with all ids in memory, some or none)
    with ids_in_small_blocks(digests=digests, known=known), two_processes() as processes:
        stored: dict[str, int] = {}
        for kind, which, batch in steps:
            store, owner = processes[which]
            if kind == "load":
                store.load_ids()
                continue
            if kind == "restart":
                store.load_ids()
                store.begin()
                processes[which] = store, store.register("p", NOW, NOW + HOUR_MS)
                store.commit()
                continue
            store.begin()
            if kind == "something else":
                store.heartbeat(owner, NOW + HOUR_MS)
            elif "file" in kind:
                for _ in batch:
                    store.file_ids()
            else:
                if kind == "beside one that fails":
                    admit_in_vain(store, owner, batch)
                # When a batch comes
                admission = admit(store, owner, batch)
                # Then exactly the new ids are accepted, and the others are what the dictionary says
                expected: dict[str, int] = dict(stored)
                fresh, duplicates, conflicts = 0, [], []
                for position, (number, amount) in enumerate(batch):
                    first = expected.setdefault(f"e-{number}", -amount)
                    if first < 0:
                        expected[f"e-{number}"] = amount
                        fresh += 1
                    elif first == amount:
                        duplicates.append(position)
                    else:
                        conflicts.append(position)
                assert (admission.accepted, admission.duplicates, admission.conflicts) == (fresh, duplicates, conflicts)
                if kind != "fails":
                    stored = expected
            if kind in ("fails", "file and fails"):
                store.rollback()
            else:
                store.commit()
        # And each is found by its id, whichever process looks
        for store, _ in processes:
            assert all(store.explain(event_id) is not None for event_id in stored)
            assert store.explain("e-99") is None
        # And what is filed stands in the file once
        assert filed_seqs(store) == list(range(1, read_state(store.connection).filed + 1))


def test_what_was_undone_is_not_taken_for_committed_by_a_commit_about_something_else() -> None:
    # Given a process that files a block twice in vain (a full disk), and commits something else in between
    with ids_in_small_blocks(), two_processes() as ((store, owner), (other, others)):
        store.begin()
        admit(store, owner, [(number, 1) for number in range(5)])
        store.commit()
        for _ in range(3):
            store.begin()
            store.heartbeat(owner, NOW + HOUR_MS)
            store.commit()
            store.begin()
            store.file_ids()
            store.rollback()
        # When the disk has space again and the block is filed
        store.begin()
        assert store.file_ids()
        store.commit()
        # Then its ids are known, to others too
        for one, its in ((store, owner), (other, others)):
            one.begin()
            assert admit(one, its, [(number, 1) for number in range(5)]).duplicates == [0, 1, 2, 3, 4]
            one.commit()
        assert filed_seqs(store) == [1]


def test_a_batch_that_failed_twice_hides_nothing_that_another_process_admitted() -> None:
    # Given a process that fails to admit, commits something else, and fails again
    with ids_in_small_blocks(), two_processes() as ((store, owner), (other, others)):
        for first in (0, 2):
            store.begin()
            admit(store, owner, [(first, 1), (first + 1, 1)])
            store.rollback()
            store.begin()
            store.heartbeat(owner, NOW + HOUR_MS)
            store.commit()
        # When another one admits events in the same places
        other.begin()
        admit(other, others, [(4, 1), (5, 1)])
        other.commit()
        # Then they are known to the first
        store.begin()
        assert admit(store, owner, [(4, 1), (5, 1)]).duplicates == [0, 1]
        store.commit()


def test_a_block_is_not_filed_from_a_memory_that_lacks_some_of_it() -> None:
    # Given a process that has forgotten an id that is to be filed
    with ids_in_small_blocks(), two_processes() as ((store, owner), (other, others)):
        store.begin()
        admit(store, owner, [(number, 1) for number in range(5)])
        store.commit()
        store._ids._recent.pop(zlib.crc32(b"e-0"))
        # When it files the block, Then it asks the table of events
        store.begin()
        assert store.file_ids()
        store.commit()
        assert filed_seqs(store) == [1]
        other.begin()
        assert admit(other, others, [(0, 1)]).duplicates == [0]
        other.commit()


def test_a_process_that_starts_reads_what_is_known_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a block that nobody has filed yet
    with ids_in_small_blocks(), two_processes() as ((store, owner), (other, _)):
        store.begin()
        admit(store, owner, [(number, 1) for number in range(2)])
        store.commit()
        loads = []
        load = IdIndex.load

        def counted(ids: IdIndex, connection: sqlite3.Connection) -> None:
            loads.append(1)
            load(ids, connection)

        monkeypatch.setattr(IdIndex, "load", counted)
        # When a process starts
        other.load_ids()
        other.begin()
        other.register("later", NOW, NOW + HOUR_MS)
        other.commit()
        # Then it has filed the block, and did not read everything anew in its turn
        assert (filed_seqs(other), loads) == ([1], [1])


def test_a_ledger_from_before_is_filed_when_the_next_process_starts() -> None:
    # Given 50 events that nobody has filed
    with ids_in_small_blocks(), two_processes() as ((store, owner), (other, _)):
        store.begin()
        store.admit(Admitting([accepted(f"e-{number}") for number in range(50)], NOW, owner, Tell()))
        store.commit()
        # When a process starts
        other.begin()
        other.register("later", NOW, NOW + HOUR_MS)
        other.commit()
        # Then all whole blocks of them are filed, and no more
        filed = other.connection.execute("SELECT max(upto) FROM id_blocks").fetchone()[0]
        assert filed == 49
        # And merged are all segments but the last whole one: each id stands in one place.
        assert filed_seqs(other) == list(range(1, 50))
        assert other.connection.execute("SELECT count(*) FROM ids").fetchone()[0] >= 39
        assert other.connection.execute("SELECT min(upto) FROM id_blocks").fetchone()[0] == 41


def test_what_is_filed_is_not_kept_in_memory_twice() -> None:
    # Given 50 recent events of which all whole blocks are filed by another process
    with ids_in_small_blocks(), two_processes() as ((store, owner), (other, _)):
        store.begin()
        store.admit(Admitting([accepted(f"e-{number}") for number in range(50)], NOW, owner, Tell()))
        store.commit()
        filing = True
        while filing:
            other.begin()
            filing = other.file_ids()
            other.commit()
        # When the next event comes
        store.begin()
        store.admit(Admitting([accepted("e-50")], NOW, owner, Tell()))
        store.commit()
        # Then before the next one only those of the last block, which is not whole yet, are kept as recent
        store.begin()
        store.rollback()
        assert store.recent_ids == 2
        assert other.recent_ids == 1


def test_one_that_missed_a_lot_knows_it_all_the_same() -> None:
    # Given a process that sees a single event, and another one that admits and files many meanwhile
    with ids_in_small_blocks(), two_processes() as ((store, owner), (other, others)):
        events = [accepted(f"e-{number}") for number in range(60)]
        store.begin()
        store.admit(Admitting(events[:1], NOW, owner, Tell()))
        store.commit()
        for number in range(1, 60):
            other.begin()
            other.admit(Admitting(events[number : number + 1], NOW, others, Tell()))
            while other.file_ids():
                pass
            other.commit()
        # When all of them come to the first
        store.begin()
        admission = store.admit(Admitting([*events, accepted("e-new")], NOW, owner, Tell()))
        store.commit()
        # Then it knows each of them
        assert (admission.accepted, admission.duplicates) == (1, list(range(60)))


def test_the_known_ids_are_read_while_another_process_writes() -> None:
    # Given a process that is in the middle of its turn
    with ids_in_small_blocks(), two_processes() as ((store, owner), (other, others)):
        store.begin()
        store.admit(Admitting([accepted(f"e-{number}") for number in range(20)], NOW, owner, Tell()))
        store.commit()
        store.begin()
        store.admit(Admitting([accepted("e-20")], NOW, owner, Tell()))
        # When another one reads what is known
        other.load_ids()
        store.commit()
        # Then it need not wait, and knows in its own turn what was written meanwhile
        other.begin()
        admission = other.admit(Admitting([accepted(f"e-{number}") for number in range(22)], NOW, others, Tell()))
        other.commit()
        assert (admission.accepted, admission.duplicates) == (1, list(range(21)))
