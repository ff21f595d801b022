-- A receipt for a channel that an alert has left finds its attempt. Few attempts carry a message id: the one that was
-- accepted stands in its alert until the alert goes on to the next channel.
CREATE INDEX attempts_message ON attempts (msgid) WHERE msgid IS NOT NULL;

-- Reversals that came before the event they belong to, so that it is not told when it comes.
CREATE TABLE early_reversals (
    id       TEXT    PRIMARY KEY,             -- of the event that is still to come
    reversal TEXT    NOT NULL,                -- of the reversal
    account  TEXT    NOT NULL,
    amount   INTEGER NOT NULL,
    currency TEXT    NOT NULL,
    at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX early_reversals_at ON early_reversals (at);

-- Where a recipient is found by its openid, for what providers tell about people and not about messages. Not an index:
-- openids come in no order, and every import would write most of its pages (three times the time, measured). Rows come
-- in sorted, many at a time; recipients above `up_to` are not in it yet. A row may be out of date: the card has the word.
CREATE TABLE openids (
    digest    INTEGER NOT NULL,               -- CRC-32 of the openid
    recipient INTEGER NOT NULL,
    PRIMARY KEY (digest, recipient)
) STRICT, WITHOUT ROWID;
CREATE TABLE openids_known (
    up_to INTEGER NOT NULL
) STRICT;
INSERT INTO openids SELECT crc32(card->>3), id FROM recipients WHERE card->>3 IS NOT NULL ORDER BY 1, 2;
INSERT INTO openids_known SELECT coalesce(max(id), 0) FROM recipients;

-- What each process may use of a provider's rate: see ratelimit/shares.py. One small row a process and rate.
-- Its times are milliseconds of the machine's steady clock, which begins anew when the machine does.
CREATE TABLE rate_claims (
    rate         TEXT    NOT NULL,             -- wechat, or wechat/swipe for one template's
    owner        INTEGER NOT NULL,
    want         INTEGER NOT NULL,             -- permits a second
    share        INTEGER NOT NULL,
    until        INTEGER NOT NULL,
    was          INTEGER NOT NULL,             -- a larger share before, occupied until was_until
    was_until    INTEGER NOT NULL,
    PRIMARY KEY (rate, owner)
) STRICT, WITHOUT ROWID;

-- What a fleet shares about its access to a provider: the access token, the day's quota, and why an alert took a detour.

-- One row a credential. The token is sealed with a key made from the app secret, which is not in this file.
CREATE TABLE tokens (
    account TEXT PRIMARY KEY,                 -- channel and appid
    state   TEXT NOT NULL                     -- JSON: dispatcher.ledger.tokens.TokenRow
) STRICT, WITHOUT ROWID;

-- One row a provider's account: what was used of the day's quota, and what the processes hold of it.
CREATE TABLE quotas (
    account TEXT PRIMARY KEY,
    state   TEXT NOT NULL                     -- JSON: dispatcher.ledger.quotas.QuotaRow
) STRICT, WITHOUT ROWID;

-- Why an alert left a channel, or waits for it, without an attempt: no word of a provider, so not in attempts.
CREATE TABLE detours (
    alert   INTEGER NOT NULL,
    channel TEXT    NOT NULL,
    why     TEXT    NOT NULL,
    at      INTEGER NOT NULL,                 -- the first time
    PRIMARY KEY (alert, channel, why)
) STRICT, WITHOUT ROWID;
