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
