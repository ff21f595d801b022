-- What the send rules keep: alerts held until later, marks, who let go of what was held, and consents.
-- See docs/decisions/0013-held-alerts-and-marks.md.

-- An alert in the state `held` (open, owner 0) waits for its due_at; its reason is the rule that holds it. The few that
-- are held are counted, released and discarded by rule.
CREATE INDEX alerts_held ON alerts (reason, due_at) WHERE state = 'held';

-- That an alert was held, for its story: the alert itself forgets it when it goes on.
CREATE TABLE holds (
    alert INTEGER PRIMARY KEY,
    rule  TEXT    NOT NULL,
    until INTEGER NOT NULL,                   -- when it was to go, or to expire if nobody released it
    act   INTEGER                             -- of held_acts, when a person decided
) STRICT;

-- Who released or discarded what was held.
CREATE TABLE held_acts (
    id     INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    act    TEXT    NOT NULL,                  -- released, discarded
    rule   TEXT    NOT NULL,
    who    TEXT    NOT NULL,
    alerts INTEGER NOT NULL,
    UNIQUE (at, act, rule, who)
) STRICT;

-- Moments that a rule remembers of a key: of rolling windows, gaps and fingerprints. The kinds are those of counters, but
-- a kind of marks has no end: each mark has its own.
CREATE TABLE marks (
    kind       INTEGER NOT NULL,
    who        TEXT    NOT NULL,
    times      TEXT    NOT NULL,              -- JSON array of epoch ms, ascending
    keep_until INTEGER NOT NULL,
    PRIMARY KEY (kind, who)
) STRICT, WITHOUT ROWID;

-- What recipients agreed to and took back, with its proof. What counts stands on the recipient's card; here every word
-- stays for good. Of one word there is one line, however often it is told.
CREATE TABLE consent_log (
    account    TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    key        TEXT    NOT NULL,              -- category, category/channel or category/channel/template; */… by a provider
    given      INTEGER NOT NULL,
    at         INTEGER NOT NULL,              -- when it was said
    source     TEXT    NOT NULL,
    written_at INTEGER NOT NULL,
    by         TEXT    NOT NULL,
    PRIMARY KEY (account, role, key, at, given, source)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER consent_log_is_not_deleted BEFORE DELETE ON consent_log
BEGIN SELECT raise(ABORT, 'consent_log is append-only'); END;
CREATE TRIGGER consent_log_is_not_changed BEFORE UPDATE ON consent_log
BEGIN SELECT raise(ABORT, 'consent_log is append-only'); END;
