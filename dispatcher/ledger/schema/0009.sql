-- How many events made up a day's total, so that a storm rule need not count the first ones of an account's day by
-- themselves. 0 for counters of other kinds, and for totals from before.
ALTER TABLE counters ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
