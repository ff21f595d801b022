-- Ids are filed into runs and merged into segments, so that a block of them touches few pages however many there are.
-- See docs/decisions/0017-ids-in-runs.md and dispatcher/ledger/sqlite_id_runs.py.

-- Where an id stands that is in no whole segment yet: run of its seq (seq >> 17) << 49 | CRC-32 of the id << 17 | place
-- in the run. It moves to `ids` when its segment is merged.
CREATE TABLE id_runs (
    key INTEGER PRIMARY KEY
) STRICT;

-- One row for each block of 32,768 events that is in the runs: their digests, 32 bits each. Until its segment is merged.
CREATE TABLE id_blocks (
    upto    INTEGER PRIMARY KEY,              -- the last seq of the block
    digests BLOB    NOT NULL
) STRICT;

-- One row for each merged piece of a segment (a 64th of the digests): the set of its digests, a Roaring bitmap.
CREATE TABLE id_sets (
    piece   INTEGER PRIMARY KEY,              -- segment << 6 | piece
    digests BLOB    NOT NULL
) STRICT;

-- Whole segments stay as they are, with one set for all their pieces. What there is of the last one is filed anew when
-- the next process starts.
INSERT INTO id_sets SELECT segment << 6 | 63, digests FROM id_segments
    WHERE upto + 1 = segment + 1 << 20 ORDER BY segment;
DELETE FROM ids WHERE key >= (SELECT (coalesce(max(piece), -1) + 1 >> 6) << 52 FROM id_sets);
DROP TABLE id_segments;
