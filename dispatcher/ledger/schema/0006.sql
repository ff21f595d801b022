-- Which send rules are in force, and who put them there. A row is an act: it is marked when it is decided and when
-- other rules take its place, and never taken away or written anew.
CREATE TABLE rule_changes (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    version      TEXT    NOT NULL,            -- of rulesets, as decisions record it
    content      TEXT    NOT NULL,            -- the rule file as it was written
    state        TEXT    NOT NULL CHECK (state IN ('proposed', 'active', 'rejected', 'replaced')),
    from_version TEXT,                        -- in force when it was proposed; once it was active: what it replaced
    proposed_by  TEXT    NOT NULL,
    proposed_as  TEXT,                        -- the account of the operating system that said so
    proposed_at  INTEGER NOT NULL,
    note         TEXT    NOT NULL DEFAULT '',
    predicted    TEXT,                        -- JSON: the effect as it was predicted; NULL: not predicted
    decided_by   TEXT,                        -- who approved or rejected it; NULL: nobody was asked
    decided_as   TEXT,
    decided_at   INTEGER,
    decision     TEXT    NOT NULL DEFAULT '', -- what was noted about the decision
    CHECK ((state = 'proposed') = (decided_at IS NULL))
) STRICT;
CREATE INDEX rule_changes_version ON rule_changes (version);
CREATE UNIQUE INDEX rule_changes_active ON rule_changes (state) WHERE state = 'active';
