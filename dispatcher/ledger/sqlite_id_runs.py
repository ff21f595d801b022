"""Where the ids of events stand in the file: runs that are merged into segments, so that nothing is written at random.

It is a log-structured merge tree of two levels. An id is known by the CRC-32 of its text, its *digest*, and by its
event's *seq*; both are in one integer, which is the whole row::

    events ──▶ a block of 32,768, sorted ──▶ its run of 131,072 (id_runs) ──▶ its segment of 2^20 (ids), piece by piece

A block goes into a run of at most 400 pages, however old the ledger is. A segment is merged while the next one fills,
1/64 of its digests at a time: that is one more write of each id, side by side. As long as the filing keeps up some 16
runs wait, and an id is looked for in these and in one place of each segment. All of it can be made again from the table
of events.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import Final

import msgspec
from pyroaring import BitMap

from dispatcher.ledger.sql import chunks, values

DIGEST_BITS: Final = 32
DIGEST_MASK: Final = (1 << DIGEST_BITS) - 1

_encode = msgspec.json.Encoder().encode
_numbers = msgspec.json.Decoder(list[int])

SEQS_AND_DIGESTS: Final = (
    "SELECT json_group_array(seq), json_group_array(digest) FROM"
    " (SELECT seq, digest FROM events WHERE seq > ? AND seq <= ? ORDER BY seq)"
)
KEEP_BLOCK: Final = "INSERT INTO id_blocks (upto, digests) VALUES (?,?)"
KEEP_SET: Final = "INSERT INTO id_sets (piece, digests) VALUES (?,?)"
DROP_BLOCKS: Final = "DELETE FROM id_blocks WHERE upto < ?"
# Sorted beforehand: SQLite would do it without the GIL, but takes longer, and others wait for their turn to write.
FILE_KEYS: Final = "INSERT INTO id_runs SELECT value FROM json_each(?)"


class Shape(msgspec.Struct, frozen=True, dict=True):
    """How many events are in what, as powers of two. It is the layout of the file: only tests have another one."""

    block: int = 15
    """Filed at once: some 25 ms of work."""
    run: int = 17
    segment: int = 20
    pieces: int = 6
    """Of digests, in a segment: one is merged in some 12 ms."""

    @cached_property
    def run_shift(self) -> int:
        """Where a run's number begins in a key of ``id_runs``."""
        return DIGEST_BITS + self.run

    @cached_property
    def segment_shift(self) -> int:
        """Where a segment's number begins in a key of ``ids``: 63 bits hold two thousand million events."""
        return DIGEST_BITS + self.segment

    @cached_property
    def state(self) -> str:
        """(last seq that was given out, last seq that is filed, pieces that are merged, counted from the first
        segment's)."""
        merged = "(SELECT coalesce(max(piece), -1) + 1 FROM id_sets)"
        blocks = "(SELECT coalesce(max(upto), -1) FROM id_blocks)"
        filed = f"max({blocks}, ({merged} >> {self.pieces} << {self.segment}) - 1)"
        return f"SELECT (SELECT coalesce(max(seq), 0) FROM events), {filed}, {merged}"

    def digests_of(self, piece: int) -> range:
        """Those that are in one piece of a segment."""
        width = 1 << DIGEST_BITS - self.pieces
        return range(piece * width, piece * width + width)

    @cached_property
    def merge(self) -> str:
        """Write a part of several runs into their segment: its number, the runs, the least and the last digest."""
        digest = f"(k.key >> {self.run} & {DIGEST_MASK})"
        place = (
            f"(k.key >> {self.run_shift} << {self.run} & {(1 << self.segment) - 1}) | (k.key & {(1 << self.run) - 1})"
        )
        first, last = _span("r.value", "?3", "?4", self.run)
        return (
            f"INSERT INTO ids SELECT (?1 << {self.segment_shift}) | ({digest} << {self.segment}) | {place}"
            f" FROM json_each(?2) r CROSS JOIN id_runs k WHERE k.key BETWEEN {first} AND {last} ORDER BY 1"
        )

    @cached_property
    def merged_digests(self) -> str:
        """The digests of a part of a segment, in their order."""
        first, last = _span("?1", "?2", "?3", self.segment)
        digest = f"key >> {self.segment} & {DIGEST_MASK}"
        return f"SELECT json_group_array({digest}) FROM ids WHERE key BETWEEN {first} AND {last}"

    @cached_property
    def drop(self) -> str:
        """Take a part of a run away."""
        first, last = _span("?1", "?2", "?3", self.run)
        return f"DELETE FROM id_runs WHERE key BETWEEN {first} AND {last}"


def _span(number: str, first: str, last: str, bits: int) -> tuple[str, str]:
    """The least and the greatest key of a run or a segment from one digest to another."""
    # In SQLite all of << >> & | are equally strong.
    base = f"({number} << {DIGEST_BITS + bits})"
    return f"{base} | ({first} << {bits})", f"{base} | ({last} << {bits}) | {(1 << bits) - 1}"


SHAPE = Shape()


class FileState(msgspec.Struct, frozen=True, gc=False):
    """How far the ids are, in the transaction that asked."""

    top: int
    """The last seq that was given out."""
    filed: int
    """The last seq whose id is in a run or a segment, -1 for none."""
    merged: int
    """Pieces that are merged, counted from the first segment's."""

    @property
    def block_end(self) -> int:
        """The last seq of the block that is filed next."""
        return self.filed + 1 | (1 << SHAPE.block) - 1

    @property
    def piece_is_due(self) -> bool:
        """Whether to merge a piece. One segment is merged as the next one fills: the work is spread evenly, and at the
        end of the next one nothing of it is left."""
        piece = SHAPE.segment - SHAPE.pieces
        return self.filed + 1 >= (1 << SHAPE.segment) + (self.merged + 1 << piece)


def read_state(connection: sqlite3.Connection) -> FileState:
    """See `FileState`."""
    return FileState(*connection.execute(SHAPE.state).fetchall()[0])


def read_recent(connection: sqlite3.Connection, after: int, upto: int) -> tuple[list[int], list[int]]:
    """Seqs and digests of the events after one seq, up to another."""
    seqs, digests = connection.execute(SEQS_AND_DIGESTS, (after, upto)).fetchall()[0]
    return _numbers.decode(seqs), _numbers.decode(digests)


def set_of_piece(digests: bytes, piece: int) -> bytes:
    """The part of a segment's set that belongs to one piece: for ledgers whose segments had one set each."""
    part: bytes = (BitMap.deserialize(digests) & BitMap(SHAPE.digests_of(piece))).serialize()
    return part


def file_more(connection: sqlite3.Connection) -> bool:
    """File a block as it stands in the table of events, or merge a piece; False when there is nothing to do.

    Reads some 10 MB for it: for what was never filed by those who knew it.
    """
    state = read_state(connection)
    if state.top < state.block_end:
        return merge_piece(connection, state)
    seqs, digests = read_recent(connection, state.filed, state.block_end)
    write_block(connection, state, zip(digests, seqs, strict=True))
    return True


def write_block(connection: sqlite3.Connection, state: FileState, ids: Iterable[tuple[int, int]]) -> None:
    """File a block: (digest, seq) of all its events."""
    upto, run = state.block_end, SHAPE.run
    base, place = upto >> run << SHAPE.run_shift, (1 << run) - 1
    keys = [base | digest << run | seq & place for digest, seq in ids]
    keys.sort()
    connection.execute(FILE_KEYS, (_encode(keys).decode(),))
    connection.execute(KEEP_BLOCK, (upto, array("I", [key >> run & DIGEST_MASK for key in keys]).tobytes()))


def merge_piece(connection: sqlite3.Connection, state: FileState) -> bool:
    """Merge a piece of a segment's runs, if it is time to."""
    if not state.piece_is_due:
        return False
    segment, piece = divmod(state.merged, 1 << SHAPE.pieces)
    first, last = SHAPE.digests_of(piece)[0], SHAPE.digests_of(piece)[-1]
    runs = _runs_of(segment)
    connection.execute(SHAPE.merge, (segment, _encode(runs).decode(), first, last))
    text = connection.execute(SHAPE.merged_digests, (segment, first, last)).fetchall()[0][0]
    connection.execute(KEEP_SET, (state.merged, BitMap(_numbers.decode(text)).serialize()))
    for run in runs:
        connection.execute(SHAPE.drop, (run, first, last))
    if piece + 1 == 1 << SHAPE.pieces:  # the segment is whole: its sets are all in id_sets
        connection.execute(DROP_BLOCKS, (segment + 1 << SHAPE.segment,))
    return True


def find_filed(connection: sqlite3.Connection, digests: Sequence[int], state: FileState, after: int = -1) -> list[int]:
    """Seqs of the filed ids with one of these digests, of the segments after that one."""
    whole, merging = divmod(state.merged, 1 << SHAPE.pieces)
    runs = range(whole << SHAPE.segment - SHAPE.run, (state.filed >> SHAPE.run) + 1)
    segments = range(after + 1, whole + (merging > 0))
    found = _find(connection, "id_runs", digests, runs, SHAPE.run)
    return found + _find(connection, "ids", digests, segments, SHAPE.segment)


def find_old(connection: sqlite3.Connection, digests: Sequence[int], last: int) -> list[int]:
    """The same in the segments up to that one."""
    return _find(connection, "ids", digests, range(last + 1), SHAPE.segment)


def find_seqs(connection: sqlite3.Connection, digest: int) -> list[int]:
    """Seqs of all events whose ids have this digest, without a process's memory: it looks through the recent ones."""
    state = read_state(connection)
    recent = connection.execute("SELECT seq FROM events WHERE seq > ? AND digest=?", (state.filed, digest)).fetchall()
    return [*(seq for (seq,) in recent), *find_filed(connection, [digest], state)]


def _runs_of(segment: int) -> list[int]:
    """The runs of which a segment is merged."""
    return list(range(segment << SHAPE.segment - SHAPE.run, segment + 1 << SHAPE.segment - SHAPE.run))


@cache
def _finding(table: str, count: int, bits: int) -> str:
    first, last = _span("n.value", "v.column1", "v.column1", bits)
    return (
        f"SELECT json_group_array(k.key) FROM json_each(?) n CROSS JOIN ({values(count, 1)}) AS v"
        f" CROSS JOIN {table} k WHERE k.key BETWEEN {first} AND {last}"
    )


def _find(
    connection: sqlite3.Connection, table: str, digests: Sequence[int], where: Sequence[int], bits: int
) -> list[int]:
    found: list[int] = []
    if where:
        numbers, place = _encode(list(where)).decode(), (1 << bits) - 1
        for part in chunks([(digest,) for digest in digests]):
            text = connection.execute(
                _finding(table, len(part), bits), [numbers, *(row[0] for row in part)]
            ).fetchall()[0][0]
            keys = _numbers.decode(text)
            found.extend((key >> DIGEST_BITS + bits << bits) | (key & place) for key in keys)
    return found
