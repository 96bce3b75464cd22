-- From version 4 to version 5 of the embedded ledger; schema.sql says what for. Until now `caller` was whose call
-- sent a payout last; who created an older one is not known any more.

ALTER TABLE payout ADD COLUMN sender TEXT;

-- Until now each text was kept, and a thousand orphans of all projects together. What is there stays.
CREATE INDEX notice_by_payout ON notice (payout) WHERE payout IS NOT NULL;
DROP INDEX notice_orphan;
CREATE INDEX notice_orphan ON notice (pid, time) WHERE payout IS NULL;
