-- Which versions of templates there were, what they say, and which of them tells an alert (docs/templates-versions.md).
-- Alerts name theirs as id@version. A version's content never changes; what becomes of it does.
CREATE TABLE template_versions (
    id          TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    digest      TEXT    NOT NULL,             -- of what it says, so that two contents of one version are noticed
    content     TEXT    NOT NULL,             -- template.toml as it was written
    layouts     TEXT    NOT NULL,             -- JSON: the layouts that its mails use, by name
    -- proposed: waits for approval; approved: is told to percent of the accounts, the others stay on the active one;
    -- active: is told; retired: another took its place; rejected: was not approved; withdrawn: was rolled back.
    state       TEXT    NOT NULL CHECK (state IN ('proposed', 'approved', 'active', 'retired', 'rejected', 'withdrawn')),
    percent     INTEGER NOT NULL CHECK (percent BETWEEN 0 AND 100),
    before      INTEGER,                      -- the version whose place it took or is to take; NULL: there was none
    proposed_by TEXT    NOT NULL,             -- whose file it was
    proposed_as TEXT,                         -- the account of the operating system
    proposed_at INTEGER NOT NULL,
    approved_by TEXT,                         -- NULL: nobody was asked
    approved_as TEXT,
    approved_at INTEGER,
    note        TEXT    NOT NULL DEFAULT '',  -- of the last act about it
    PRIMARY KEY (id, version),
    CHECK ((state = 'active') = (percent = 100)),
    CHECK ((state IN ('active', 'approved')) = (percent > 0))
) STRICT;
CREATE UNIQUE INDEX template_versions_active ON template_versions (id) WHERE state = 'active';
CREATE UNIQUE INDEX template_versions_approved ON template_versions (id) WHERE state = 'approved';

-- What was done about them, and what was told from then on. Never changed and never taken away.
CREATE TABLE template_acts (
    n         INTEGER PRIMARY KEY AUTOINCREMENT,
    id        TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    act       TEXT    NOT NULL CHECK (act IN ('load', 'propose', 'approve', 'rollout', 'rollback', 'reject')),
    who       TEXT    NOT NULL,
    who_as    TEXT,
    at        INTEGER NOT NULL,
    note      TEXT    NOT NULL DEFAULT '',
    active    INTEGER,                        -- the version of the others; NULL: there is none
    rolling   INTEGER,                        -- the version of percent of the accounts
    percent   INTEGER NOT NULL
) STRICT;
CREATE INDEX template_acts_of ON template_acts (id, n);
