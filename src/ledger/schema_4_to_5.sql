-- From version 4 to version 5 of the embedded ledger; schema.sql says what for. Until now `caller` was whose call
-- sent a payout last; who created an older one is not known any more.

ALTER TABLE payout ADD COLUMN sender TEXT;
