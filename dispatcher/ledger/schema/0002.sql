-- Fewer pages for each event, because a page costs more than the work on it: see docs/decisions/0007-second-layout.md.

-- The event's id is found by a short number made from it. Two ids may share one, so the id itself is always compared.
CREATE TABLE events_2 (
    seq         INTEGER PRIMARY KEY,          -- order of admission
    id          TEXT    NOT NULL,             -- the core's id: the deduplication key
    digest      INTEGER NOT NULL,             -- CRC-32 of the id
    account     TEXT    NOT NULL,
    swiped_at   INTEGER NOT NULL,             -- the swipe's own time (or its restamp)
    accepted_at INTEGER NOT NULL,
    payload     TEXT    NOT NULL              -- as received, card numbers masked
) STRICT;
INSERT INTO events_2 SELECT seq, id, crc32(id), account, swiped_at, accepted_at, payload FROM events ORDER BY seq;
DROP TABLE events;
ALTER TABLE events_2 RENAME TO events;
CREATE INDEX events_digest ON events (digest);

-- A recipient is read whole and as it is, so it is kept that way.
CREATE TABLE recipients_2 (
    id      INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    role    TEXT NOT NULL,
    card    TEXT NOT NULL,                    -- JSON array of the fields of dispatcher.model.recipient.Recipient
    UNIQUE (account, role)
) STRICT;
INSERT INTO recipients_2 SELECT id, account, role, json_array(id, account, role, openid, phone, email, locale, timezone,
    json(channels), json(min_amount), json(opt_out), json(refused)) FROM recipients;
DROP TABLE recipients;
ALTER TABLE recipients_2 RENAME TO recipients;

-- What the counters of a kind have in common stands once: 'day|Asia/Shanghai|2026-11-24|CNY|', then one row an account.
CREATE TABLE counter_kinds (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    keep_until INTEGER NOT NULL
) STRICT;
CREATE TABLE counters_2 (
    kind  INTEGER NOT NULL,
    who   TEXT    NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (kind, who)
) STRICT, WITHOUT ROWID;
CREATE TEMP TABLE split AS
    SELECT rtrim(key, replace(key, '|', '')) AS head, key, value, keep_until FROM counters;
INSERT INTO counter_kinds (name, keep_until)
    SELECT head, max(keep_until) FROM split GROUP BY head;
INSERT INTO counters_2
    SELECT k.id, substr(s.key, length(s.head) + 1), s.value FROM split s
    JOIN counter_kinds k ON k.name = s.head;
DROP TABLE split;
DROP TABLE counters;
ALTER TABLE counters_2 RENAME TO counters;

-- The attempt that a provider accepted stands in its alert (its number is `attempts`, its id `msgid`), all others in the
-- table of attempts: most alerts have no other. It moves to that table when the alert goes on to another channel.
ALTER TABLE alerts ADD COLUMN answered_at INTEGER;
ALTER TABLE alerts ADD COLUMN answered_to INTEGER;  -- the process that made it
ALTER TABLE alerts ADD COLUMN took INTEGER;
ALTER TABLE alerts ADD COLUMN code TEXT;
