-- From version 2 to version 3 of the embedded ledger; schema.sql says what for.

ALTER TABLE payout ADD COLUMN caller TEXT NOT NULL DEFAULT '';

CREATE INDEX payout_by_caller ON payout (caller) WHERE caller <> '';

CREATE TABLE spend (
    caller   TEXT    NOT NULL,
    currency TEXT    NOT NULL,
    day      INTEGER NOT NULL,
    total    TEXT    NOT NULL,
    PRIMARY KEY (caller, currency, day)
) STRICT, WITHOUT ROWID;
