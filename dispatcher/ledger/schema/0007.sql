-- Alerts that a rule folds into one message: see docs/digests.md. Times are epoch milliseconds.

-- AUTOINCREMENT, because the number is in the id of the digest's event and must never come again.
CREATE TABLE digests (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    account   TEXT    NOT NULL,
    role      TEXT    NOT NULL,                -- who is to be told
    rule      TEXT    NOT NULL,                -- the rule that folds, or brown-out-digest
    opened_at INTEGER NOT NULL,
    due_at    INTEGER NOT NULL,                -- set by its first member; or when the last one that it waits for came
    members   INTEGER NOT NULL,                -- without those that were taken out
    -- open: takes members; closing: takes none, its event is being made; sent: its event is in the ledger;
    -- empty: every member was taken out before it was due, so there is nothing to tell.
    state     TEXT    NOT NULL CHECK (state IN ('open', 'closing', 'sent', 'empty')),
    owner     INTEGER NOT NULL DEFAULT 0,      -- the process that makes its event; 0: nobody yet
    event     INTEGER,                         -- seq of its event, once sent
    CHECK ((state = 'sent') = (event IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX digests_open ON digests (account, role, rule) WHERE state = 'open';
-- Only what is still to be told is in it, so that looking costs nothing however many there were.
CREATE INDEX digests_due ON digests (due_at) WHERE state IN ('open', 'closing');

CREATE TABLE digest_members (
    alert   INTEGER PRIMARY KEY,
    digest  INTEGER NOT NULL,
    removed TEXT                               -- id of the reversal that took it out before the digest left
) STRICT;
CREATE INDEX digest_members_of ON digest_members (digest);
