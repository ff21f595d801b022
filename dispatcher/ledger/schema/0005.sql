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
