-- The ledger's first layout. Times are epoch milliseconds, UTC. See docs/decisions/0001-ledger-layout.md.

CREATE TABLE events (
    seq         INTEGER PRIMARY KEY,          -- order of admission
    id          TEXT    NOT NULL UNIQUE,      -- the core's id: the deduplication key
    account     TEXT    NOT NULL,
    swiped_at   INTEGER NOT NULL,             -- the swipe's own time (or its restamp)
    accepted_at INTEGER NOT NULL,
    payload     TEXT    NOT NULL              -- as received, card numbers masked
) STRICT;

CREATE TABLE recipients (
    id         INTEGER PRIMARY KEY,
    account    TEXT NOT NULL,
    role       TEXT NOT NULL,
    openid     TEXT,
    phone      TEXT,
    email      TEXT,
    locale     TEXT NOT NULL,
    timezone   TEXT NOT NULL,
    channels   TEXT NOT NULL,                 -- JSON array, in order of preference
    min_amount TEXT NOT NULL DEFAULT '{}',    -- JSON {channel: {currency: minor units}}
    opt_out    TEXT NOT NULL DEFAULT '[]',    -- JSON array of categories
    refused    TEXT NOT NULL DEFAULT '{}',    -- JSON {channel or channel/template: {code, since}}
    UNIQUE (account, role)
) STRICT;

CREATE TABLE rulesets (
    id      INTEGER PRIMARY KEY,
    version TEXT NOT NULL UNIQUE,             -- hash of the content
    content TEXT NOT NULL,
    since   INTEGER NOT NULL
) STRICT;

-- id = event seq * 16 + position among the event's recipients, so the alerts of an event are a range of the key.
CREATE TABLE alerts (
    id         INTEGER PRIMARY KEY,
    recipient  INTEGER,                       -- NULL: nobody to tell
    template   TEXT    NOT NULL,              -- pinned: swipe@1
    route      TEXT    NOT NULL,              -- channels the rules allowed, in order, comma-separated
    channel    TEXT    NOT NULL,              -- where it is now
    -- queued, sending, retrying, awaiting, interrupted; or ended: delivered, suppressed, failed, expired, cancelled.
    -- The books prove that it fits ended_at; a CHECK of it on every row cost a tenth of the ledger's time.
    state      TEXT    NOT NULL,
    reason     TEXT,                          -- the rule that suppressed it, or why it failed
    saw        TEXT,                          -- JSON: the values the deciding rule saw
    ruleset    INTEGER NOT NULL,
    day_total  INTEGER,                       -- minor units: the account's net total of that local day
    attempts   INTEGER NOT NULL DEFAULT 0,
    first_at   INTEGER,                       -- first attempt on the present channel
    msgid      TEXT,                          -- the provider's word for it
    expires_at INTEGER NOT NULL,
    due_at     INTEGER,                       -- when the clock task must look at it; NULL while leased or ended
    owner      INTEGER NOT NULL DEFAULT 0,    -- the process that holds its lease; 0: nobody
    ended_at   INTEGER,
    -- No alert may vanish: it has its one end, or somebody holds it, or it will be looked at.
    CHECK (ended_at IS NOT NULL OR owner <> 0 OR due_at IS NOT NULL)
) STRICT;

-- Only open alerts are in these, so they stay small however long the ledger grows.
CREATE INDEX alerts_open ON alerts (owner, channel, due_at) WHERE ended_at IS NULL;
CREATE INDEX alerts_awaiting ON alerts (msgid) WHERE state = 'awaiting';

CREATE TABLE attempts (
    alert   INTEGER NOT NULL,
    n       INTEGER NOT NULL,                 -- 1 is the first on any channel
    owner   INTEGER NOT NULL,
    channel TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    took    INTEGER NOT NULL,                 -- ms from the wire to the answer
    outcome TEXT    NOT NULL,                 -- class of the answer: accepted, unknown, throttle …
    code    TEXT,                             -- the provider's code, or the network's
    msgid   TEXT,
    PRIMARY KEY (alert, n, owner)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipts (
    channel  TEXT    NOT NULL,
    msgid    TEXT    NOT NULL,
    status   TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    times    INTEGER NOT NULL DEFAULT 1,      -- a provider may say it more than once
    PRIMARY KEY (channel, msgid, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    key        TEXT    PRIMARY KEY,
    value      INTEGER NOT NULL,
    keep_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE processes (
    id          INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL,
    started_at  INTEGER NOT NULL,
    alive_until INTEGER NOT NULL
) STRICT;
