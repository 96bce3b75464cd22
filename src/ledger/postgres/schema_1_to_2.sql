-- From version 1 to version 2 of the shared ledger; schema.sql says what for.

ALTER TABLE payout ADD COLUMN sender text;

ALTER TABLE ledger ADD COLUMN copy_of text, ADD COLUMN copy_commits bigint, ADD COLUMN copy_command text;

CREATE TABLE mark (
    seq  bigint PRIMARY KEY DEFAULT nextval('event_seq_seq'),
    time bigint NOT NULL
);
ALTER TABLE intake ADD COLUMN seq bigint;

DROP INDEX notice_by_lead, notice_orphan;
CREATE INDEX notice_by_payout ON notice (payout, time) WHERE payout IS NOT NULL;
CREATE INDEX notice_orphan ON notice (pid, time) WHERE payout IS NULL;

-- Whoever serves may go on doing so.
DO $$
DECLARE
    serves text;
BEGIN
    FOR serves IN
        SELECT quote_ident(rolname) FROM pg_class, aclexplode(relacl) AS acl JOIN pg_roles ON pg_roles.oid = grantee
        WHERE pg_class.oid = 'event'::regclass AND privilege_type = 'INSERT' AND grantee <> relowner
    LOOP
        EXECUTE 'GRANT SELECT, INSERT ON mark TO ' || serves;
        EXECUTE 'GRANT USAGE ON SEQUENCE event_seq_seq TO ' || serves;
    END LOOP;
END $$;
