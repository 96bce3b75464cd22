-- From version 1 to version 2 of the shared ledger; schema.sql says what for.

ALTER TABLE payout ADD COLUMN sender text;
