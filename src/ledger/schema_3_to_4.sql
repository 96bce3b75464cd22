-- From version 3 to version 4 of the embedded ledger; schema.sql says what for.

CREATE TABLE ledger (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT    NOT NULL,
    commits  INTEGER NOT NULL,
    time     INTEGER NOT NULL
) STRICT;
INSERT INTO ledger VALUES (1, lower(hex(randomblob(16))), 0, 0);
