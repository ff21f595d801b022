-- Ids in runs by time instead of one index of all of them: see docs/decisions/0010-ids-in-segments.md.

-- Where an id stands: segment of its seq (seq >> 20) << 52 | CRC-32 of the id << 20 | place in the segment. A segment's
-- keys are written in blocks, each sorted, so that what is written stays together however old the ledger is.
CREATE TABLE ids (
    key INTEGER PRIMARY KEY
) STRICT;

-- One row for each 1,048,576 events: which of them are filed in `ids`, and the set of their CRC-32s (a Roaring bitmap),
-- by which a process knows in memory that an id is new.
CREATE TABLE id_segments (
    segment INTEGER PRIMARY KEY,
    upto    INTEGER NOT NULL,                 -- the last seq that is filed
    digests BLOB    NOT NULL
) STRICT;

-- Events that are filed in no segment yet are filed when the next process starts.
DROP INDEX events_digest;
