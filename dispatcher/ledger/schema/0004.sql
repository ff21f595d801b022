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
