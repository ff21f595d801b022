"""Which event ids the ledger knows: exact for ever, in bounded memory, without an index that is written at random.

An index of random ids costs a page read, logged and written for every event once it has outgrown the cache: a full
ledger took 61 % of an empty one's events. So the ids lie in segments of 2^20 events in order of time::

    events ──▶ recent (in memory, at most some 65,000) ──▶ filed by the block of 32,768 into the segment's keys

A process holds the CRC-32s of all ids as one Roaring bitmap (about 2.4 MB a million). What is not in it is new, and
that is nearly everything; for the rest the recent ones and the segments' keys say where the event may stand, and its id
is always compared whole. Everything here is derived from the table of events and can be made again from it.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Sequence

import msgspec
from pyroaring import BitMap

from dispatcher.ledger.sql import chunks, values

SEGMENT_BITS = 20
PLACE_MASK = (1 << SEGMENT_BITS) - 1
SEGMENT_SHIFT = SEGMENT_BITS + 32
MAX_SEGMENT = (1 << 63 - SEGMENT_SHIFT) - 1
"""The key is a signed 64-bit integer: room for two thousand million events."""

BLOCK_EVENTS = 32_768
"""Events filed at once: some 50 ms of work, on at most 3,000 pages. Smaller blocks write a segment more often."""

MAX_KNOWN_IDS = 20_000_000
"""Ids held in memory, about 48 MB (a process stays under 200): fifty days of 400,000 swipes, five of four million.
Those of older segments are looked up in their keys each time, some µs a segment."""

_numbers = msgspec.json.Decoder(list[int])

TOP = "(SELECT coalesce(max(seq), 0) FROM events)"
FILED = "(SELECT coalesce(max(upto), -1) FROM id_segments)"
SEQS_AND_DIGESTS = (
    "SELECT json_group_array(seq), json_group_array(digest) FROM"
    " (SELECT seq, digest FROM events WHERE seq > ? AND seq <= ? ORDER BY seq)"
)
FILE_KEYS = (
    f"INSERT INTO ids SELECT (seq >> {SEGMENT_BITS} << {SEGMENT_SHIFT}) | (digest << {SEGMENT_BITS})"
    f" | (seq & {PLACE_MASK}) FROM events WHERE seq BETWEEN ? AND ? ORDER BY 1"
)
FILE_SEGMENT = (
    "INSERT INTO id_segments (segment, upto, digests) VALUES (?,?,?)"
    " ON CONFLICT (segment) DO UPDATE SET upto=excluded.upto, digests=excluded.digests"
)
_RANGE = f"(s.segment << {SEGMENT_SHIFT}) | (v.column1 << {SEGMENT_BITS})"
PLACES = (
    "SELECT json_group_array(k.key) FROM ({values}) AS v CROSS JOIN id_segments s CROSS JOIN ids k"
    f" WHERE s.segment BETWEEN ? AND ? AND k.key BETWEEN {_RANGE} AND {_RANGE} | {PLACE_MASK}"
)


class IdIndex:
    """One process's view of the ids. Every method runs inside the caller's transaction."""

    def __init__(self) -> None:
        self._loaded = False
        self._known = BitMap()
        self._size = 0
        """How many are in it, at most. Counting them goes through 65,536 containers: 0.7 ms beside other work."""
        self._cold = -1
        """The last segment that is not in ``_known``."""
        self._recent: dict[int, int] = {}
        self._same: dict[int, list[int]] = {}
        """Further seqs of recent ids that share a digest."""
        self._seen = 0
        self._filed = -1
        self._committed = (0, -1)

    # ---- what became of the transaction -----------------------------------------------------------------------

    def committed(self) -> None:
        """What was seen is there to stay."""
        self._committed = self._seen, self._filed

    def rolled_back(self) -> None:
        """Events that were seen since the last commit are no more, and their seqs will be others': read all anew."""
        if (self._seen, self._filed) != self._committed:
            self._loaded = False

    # ---- looking ----------------------------------------------------------------------------------------------

    def perhaps_known(self, digests: Sequence[int]) -> int:
        """How many of these digests some id has that this process has seen: a guess that costs next to nothing."""
        return self._known.intersection_cardinality(BitMap(digests))

    def candidates(self, connection: sqlite3.Connection, digests: Sequence[int]) -> list[int]:
        """Seqs of all events whose ids have one of these digests: mostly none, for mostly all ids are new."""
        self._catch_up(connection)
        known = list(BitMap.intersection(BitMap(digests), self._known))
        found: list[int] = []
        for digest in known:
            if digest in self._recent:
                found.append(self._recent[digest])
                found.extend(self._same.get(digest, ()))
        if known:
            found.extend(_filed_places(connection, known, self._cold + 1))
        if self._cold >= 0:
            found.extend(_filed_places(connection, list(set(digests)), 0, self._cold))
        return found

    @property
    def recent(self) -> int:
        """How many ids are kept by themselves because no block holds them yet."""
        return len(self._recent) + sum(map(len, self._same.values()))

    @property
    def top(self) -> int:
        """The last seq that was given out, as of `candidates` in this transaction."""
        return self._seen

    def admitted(self, digests: Sequence[int], first_seq: int) -> None:
        """Add events that were just written with the seqs from ``first_seq`` on. Nothing of the call may fail later."""
        self._add(range(first_seq, first_seq + len(digests)), digests)

    # ---- keeping up -------------------------------------------------------------------------------------------

    def load(self, connection: sqlite3.Connection) -> None:
        """Read the sets of the segments, the newest first: 25 ms a million ids. Files what has never been filed."""
        while file_block(connection):
            pass
        self._known, self._cold = BitMap(), -1
        for segment, digests in connection.execute("SELECT segment, digests FROM id_segments ORDER BY segment DESC"):
            if len(self._known) + (1 << SEGMENT_BITS) > MAX_KNOWN_IDS:
                self._cold = segment
                break
            self._known |= BitMap.deserialize(digests)
        self._size = len(self._known)
        self._recent, self._same = {}, {}
        self._filed = connection.execute(f"SELECT {FILED}").fetchall()[0][0]
        self._seen = max(self._filed, 0)
        self._loaded = True

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Learn what other processes have admitted and filed meanwhile."""
        if not self._loaded or self._size > MAX_KNOWN_IDS:
            self.load(connection)
        top, filed = connection.execute(f"SELECT {TOP}, {FILED}").fetchall()[0]
        if top > self._seen:
            seqs, digests = connection.execute(SEQS_AND_DIGESTS, (self._seen, top)).fetchall()[0]
            self._add(_numbers.decode(seqs), _numbers.decode(digests))
        if filed != self._filed:
            self._filed = filed
            self._keep_recent(filed)

    def _add(self, seqs: Sequence[int], digests: Sequence[int]) -> None:
        recent = dict(zip(digests, seqs, strict=True))
        if len(recent) == len(digests) and self._recent.keys().isdisjoint(recent):
            self._recent.update(recent)
        else:
            for digest, seq in zip(digests, seqs, strict=True):
                if self._recent.setdefault(digest, seq) != seq:
                    self._same.setdefault(digest, []).append(seq)
        self._known.update(digests)
        self._size += len(digests)
        self._seen = seqs[-1]

    def _keep_recent(self, after: int) -> None:
        every = [*self._recent.items(), *((digest, seq) for digest, more in self._same.items() for seq in more)]
        kept = [(digest, seq) for digest, seq in every if seq > after]
        self._recent, self._same = {}, {}
        for digest, seq in kept:
            if self._recent.setdefault(digest, seq) != seq:
                self._same.setdefault(digest, []).append(seq)


def file_block(connection: sqlite3.Connection) -> bool:
    """File the oldest block of recent ids, if there is a whole one; False when there is none."""
    top, filed = connection.execute(f"SELECT {TOP}, {FILED}").fetchall()[0]
    first = filed + 1
    upto = first | (BLOCK_EVENTS - 1)
    if top < upto:
        return False
    connection.execute(FILE_KEYS, (first, upto))
    digests = _numbers.decode(connection.execute(SEQS_AND_DIGESTS, (filed, upto)).fetchall()[0][1])
    segment = upto >> SEGMENT_BITS
    known = connection.execute("SELECT digests FROM id_segments WHERE segment=?", (segment,)).fetchall()
    bitmap = BitMap.deserialize(known[0][0]) if known else BitMap()
    bitmap.update(array("I", sorted(digests)))
    connection.execute(FILE_SEGMENT, (segment, upto, bitmap.serialize()))
    return True


def find_seqs(connection: sqlite3.Connection, digest: int) -> list[int]:
    """Seqs of all events whose ids have this digest, without a process's memory: it looks through the recent ones."""
    filed = connection.execute(f"SELECT {FILED}").fetchall()[0][0]
    recent = connection.execute("SELECT seq FROM events WHERE seq > ? AND digest=?", (filed, digest)).fetchall()
    return [*(seq for (seq,) in recent), *_filed_places(connection, [digest], 0)]


def _filed_places(
    connection: sqlite3.Connection, digests: Sequence[int], first: int, last: int = MAX_SEGMENT
) -> list[int]:
    found: list[int] = []
    for part in chunks([(digest,) for digest in digests]):
        statement = PLACES.replace("{values}", values(len(part), 1))
        text = connection.execute(statement, [*(row[0] for row in part), first, last]).fetchall()[0][0]
        keys = _numbers.decode(text)
        found.extend((key >> SEGMENT_SHIFT << SEGMENT_BITS) | (key & PLACE_MASK) for key in keys)
    return found
