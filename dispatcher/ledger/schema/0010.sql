-- Whose recipients were changed lately, the last 1,024 times (as many as one commit of an import has lines): what was
-- planned for an account before the transaction is planned anew when it stands here. A table that takes the place of
-- `recipients` one day needs these triggers too. See docs/decisions/0016-admission-in-two-halves.md.
CREATE TABLE recipient_changes (
    id      INTEGER PRIMARY KEY,
    account TEXT NOT NULL
) STRICT;
CREATE TRIGGER recipients_added AFTER INSERT ON recipients BEGIN
    INSERT INTO recipient_changes (account) VALUES (new.account);
END;
CREATE TRIGGER recipients_changed AFTER UPDATE ON recipients BEGIN
    INSERT INTO recipient_changes (account) SELECT old.account UNION SELECT new.account;
END;
CREATE TRIGGER recipients_removed AFTER DELETE ON recipients BEGIN
    INSERT INTO recipient_changes (account) VALUES (old.account);
END;
CREATE TRIGGER recipient_changes_bounded AFTER INSERT ON recipient_changes BEGIN
    DELETE FROM recipient_changes WHERE id <= new.id - 1024;
END;
