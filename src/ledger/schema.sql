-- Version 1 of the embedded ledger. Times are microseconds since 1970, amounts canonical decimal text.

-- One row per (pid, third_party_id), for ever: an id is never freed.
CREATE TABLE payout (
    id             INTEGER PRIMARY KEY,
    pid            INTEGER NOT NULL,
    third_party_id TEXT    NOT NULL,
    cid            INTEGER,
    state          TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    refusal_msg    TEXT    NOT NULL,
    earlier_doubt  TEXT,
    currency       TEXT    NOT NULL,
    address        TEXT    NOT NULL,
    amount         TEXT    NOT NULL,
    remark         TEXT    NOT NULL,
    memo           TEXT    NOT NULL,
    callback_url   TEXT    NOT NULL,
    send_time      INTEGER NOT NULL,
    create_time    INTEGER NOT NULL,
    update_time    INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    attention      TEXT    NOT NULL,
    UNIQUE (pid, third_party_id)
) STRICT;

-- One cid belongs to one payout.
CREATE UNIQUE INDEX payout_by_cid ON payout (pid, cid) WHERE cid IS NOT NULL;

-- What recovery looks for; holds only the sends that are under way.
CREATE INDEX payout_sending ON payout (id) WHERE state = 'SENDING';

-- Every revision of every payout. `cause` says what moved it. Without a row id, one tree instead of two.
CREATE TABLE event (
    payout      INTEGER NOT NULL REFERENCES payout (id),
    revision    INTEGER NOT NULL,
    time        INTEGER NOT NULL,
    cause       TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    refusal_msg TEXT    NOT NULL,
    cid         INTEGER,
    attention   TEXT    NOT NULL,
    PRIMARY KEY (payout, revision)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER event_is_never_changed BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER event_is_never_deleted BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER payout_is_never_deleted BEFORE DELETE ON payout
BEGIN SELECT RAISE(ABORT, 'payouts are never deleted'); END;

-- Proves, after a failure, that the file can be written again.
CREATE TABLE probe (one INTEGER PRIMARY KEY CHECK (one = 1), written INTEGER NOT NULL) STRICT;
