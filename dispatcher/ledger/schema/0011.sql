-- Ids are filed into runs and merged into segments, so that a block of them touches few pages however many there are.
-- See docs/decisions/0017-ids-in-runs.md and dispatcher/ledger/sqlite_id_runs.py.

-- Where an id stands that is in no whole segment yet: run of its seq (seq >> 17) << 49 | CRC-32 of the id << 17 | place
-- in the run. It moves to `ids` when its segment is merged.
CREATE TABLE id_runs (
    key INTEGER PRIMARY KEY
) STRICT;

-- One row for each block of 32,768 events that is in the runs: their digests, 32 bits each, as this kind of machine
-- has them in memory. Until its segment is merged.
CREATE TABLE id_blocks (
    upto    INTEGER PRIMARY KEY,              -- the last seq of the block
    digests BLOB    NOT NULL
) STRICT;

-- One row for each merged piece of a segment (a 64th of the digests): the set of its digests, a Roaring bitmap.
CREATE TABLE id_sets (
    piece   INTEGER PRIMARY KEY,              -- segment << 6 | piece
    digests BLOB    NOT NULL
) STRICT;

-- Whole segments stay as they are, and their sets are cut into pieces. What there is of the last one is filed anew when
-- the next process starts.
INSERT INTO id_sets
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 63)
    SELECT segment << 6 | i, set_of_piece(digests, i) FROM id_segments CROSS JOIN n
    WHERE upto + 1 = segment + 1 << 20 ORDER BY segment, i;
DELETE FROM ids WHERE key >= (SELECT (coalesce(max(piece), -1) + 1 >> 6) << 52 FROM id_sets);
DROP TABLE id_segments;
