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
