"""Which event ids the ledger knows: exact for ever, in bounded memory, without an index that is written at random.

A process holds the CRC-32s of all ids that are filed as one Roaring bitmap (about 2.4 MB a million), and the others,
at most some 65,000, in a dictionary. What is in neither is new, and that is nearly everything; for the rest the
dictionary and the file (see ``sqlite_id_runs``) say where the event may stand, and its id is always compared whole.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator, Sequence

import msgspec
from pyroaring import BitMap

from dispatcher.ledger import sqlite_id_runs
from dispatcher.ledger.sqlite_id_runs import (
    FileState,
    file_more,
    find_filed,
    find_old,
    merge_piece,
    read_recent,
    read_state,
    write_block,
)

MAX_KNOWN_IDS = 16_000_000
"""Ids held in memory, 45 to 70 MB (a process stays under 200): forty days of 400,000 swipes, four of four million.
Those of older segments are looked up in their keys each time, some µs a segment."""

SETS = "SELECT digests FROM id_sets WHERE piece IN (SELECT value << ? | ? FROM json_each(?))"

SAMPLE = 64
"""Ids of a batch, at least, by which one that was sent before is told from a new one."""


class IdIndex:
    """One process's view of the ids. What takes a connection runs inside the caller's transaction."""

    def __init__(self) -> None:
        self._loaded = False
        self._known = BitMap()
        self._size = 0
        """How many are in it, at most. Counting them goes through 65,536 containers: 0.7 ms beside other work."""
        self._cold = -1
        """The last segment that is not in ``_known``."""
        self._recent: dict[int, int] = {}
        """Digest and seq of those after ``_kept``."""
        self._same: dict[int, list[int]] = {}
        """Further seqs of recent ids that share a digest."""
        self._kept = -1
        self._state = FileState(0, -1, 0)
        self._committed = self._state

    # ---- what became of the transaction -----------------------------------------------------------------------

    def committed(self) -> None:
        """What was seen is there to stay."""
        self._committed = self._state

    def rolled_back(self) -> None:
        """Events that were seen since the last commit are no more, and their seqs will be others': read all anew."""
        if self._state != self._committed:
            # The state too: the next commit may be about something else, and must not take it for a committed one.
            self._state, self._loaded = self._committed, False

    def settle(self) -> None:
        """Move what was filed from the dictionary to the bitmap: some 20 ms for a block, so it is called between two
        transactions, when nobody waits for our turn to write to end."""
        filed = self._committed.filed
        if not self._loaded or self._kept == filed:
            return
        moved, kept = array("I"), []
        for digest, seq in self._every_recent():
            if seq <= filed:
                moved.append(digest)
            else:
                kept.append((digest, seq))
        self._known.update(array("I", sorted(moved)))  # in order: half as slow
        self._size += len(moved)
        self._recent, self._same = {}, {}
        self._add([seq for _, seq in kept], [digest for digest, _ in kept])
        self._kept = filed

    # ---- looking ----------------------------------------------------------------------------------------------

    def mostly_known(self, digests: Sequence[int]) -> bool:
        """Whether most of these digests are those of ids that this process has seen: a guess from some of them."""
        sample = digests[:: max(1, len(digests) // SAMPLE)]
        known = self._known.intersection_cardinality(BitMap(sample)) + sum(map(self._recent.__contains__, sample))
        return 2 * known >= len(sample)

    def candidates(self, connection: sqlite3.Connection, digests: Sequence[int]) -> list[int]:
        """Seqs of all events whose ids have one of these digests: mostly none, for mostly all ids are new."""
        self._catch_up(connection)
        found: list[int] = []
        for digest in filter(self._recent.__contains__, digests):
            found.append(self._recent[digest])
            found.extend(self._same.get(digest, ()))
        if known := list(BitMap(digests) & self._known):
            found.extend(find_filed(connection, known, self._state, self._cold))
        if self._cold >= 0:
            found.extend(find_old(connection, list(set(digests)), self._cold))
        return found

    @property
    def recent(self) -> int:
        """How many ids are kept by themselves because they are not filed."""
        return sum(1 for _ in self._every_recent())

    @property
    def top(self) -> int:
        """The last seq that was given out, as of `candidates` in this transaction."""
        return self._state.top

    def admitted(self, digests: Sequence[int], first_seq: int) -> None:
        """Add events that were just written with the seqs from ``first_seq`` on. Nothing of the call may fail later."""
        last = first_seq + len(digests) - 1
        self._add(range(first_seq, last + 1), digests)
        self._state = FileState(last, self._state.filed, self._state.merged)

    # ---- keeping up -------------------------------------------------------------------------------------------

    def load(self, connection: sqlite3.Connection) -> None:
        """Read what is filed: 30 to 40 ms a million ids, so it is called beforehand, in a transaction that only reads.
        Again only where that cannot be helped."""
        self._loaded = False
        state, shape = read_state(connection), sqlite_id_runs.SHAPE
        self._known, waiting = BitMap(), BitMap()
        for (digests,) in connection.execute("SELECT digests FROM id_blocks"):
            waiting.update(array("I", digests))
        whole = state.merged >> shape.pieces
        room = max(0, MAX_KNOWN_IDS - len(waiting)) >> shape.segment
        self._cold = max(-1, whole - 1 - room)
        segments = msgspec.json.encode(list(range(self._cold + 1, whole))).decode()
        for piece in range(1 << shape.pieces):
            # Not `|=`, which makes room for twice as many wherever it adds: all pieces would take twice their size.
            together = waiting & BitMap(shape.digests_of(piece))
            for (digests,) in connection.execute(SETS, (shape.pieces, piece, segments)):
                together = together | BitMap.deserialize(digests)
            self._known |= together
        self._size = len(self._known)
        self._recent, self._same = {}, {}
        self._kept = state.filed
        # What is not filed is not read yet.
        self._state = FileState(max(state.filed, 0), state.filed, state.merged)
        self._loaded = True

    def enter(self, connection: sqlite3.Connection) -> None:
        """Be ready for the first event, whatever was loaded before. Files what nobody has filed."""
        state = read_state(connection)
        if state.top >= state.block_end:
            while file_more(connection):
                pass
        self._catch_up(connection)

    def file(self, connection: sqlite3.Connection) -> bool:
        """File a block of recent ids, or merge a piece of those that were; False when there is nothing to do."""
        self._catch_up(connection)
        state = self._state
        upto = state.block_end
        if state.top < upto:
            return merge_piece(connection, state)
        block = [(digest, seq) for digest, seq in self._every_recent() if state.filed < seq <= upto]
        if len(block) != upto - max(state.filed, 0):
            # What is filed stays for good, so it is not taken from a memory that may be wrong.
            self._loaded = False
            return file_more(connection)
        write_block(connection, state, block)
        self._state = FileState(state.top, upto, state.merged)
        return True

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Learn what other processes have admitted and filed meanwhile."""
        state = read_state(connection)
        # After a long pause others may have admitted and filed many: those are not for the dictionary.
        missed = state.filed - self._state.top
        loaded, self._loaded = self._loaded, False  # should anything go wrong on the way
        if not loaded or self._size > MAX_KNOWN_IDS or missed > 1 << sqlite_id_runs.SHAPE.block:
            self.load(connection)
        if state.top > self._state.top:
            seqs, digests = read_recent(connection, self._state.top, state.top)
            self._add(seqs, digests)
        self._state, self._loaded = state, True

    def _add(self, seqs: Sequence[int], digests: Sequence[int]) -> None:
        recent = dict(zip(digests, seqs, strict=True))
        if len(recent) == len(digests) and self._recent.keys().isdisjoint(recent):
            self._recent.update(recent)
        else:
            for digest, seq in zip(digests, seqs, strict=True):
                if self._recent.setdefault(digest, seq) != seq:
                    self._same.setdefault(digest, []).append(seq)

    def _every_recent(self) -> Iterator[tuple[int, int]]:
        """(digest, seq) of the recent ids."""
        yield from self._recent.items()
        for digest, seqs in self._same.items():
            for seq in seqs:
                yield digest, seq
