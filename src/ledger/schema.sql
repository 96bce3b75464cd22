-- Version 5 of the embedded ledger. Times are microseconds since 1970, amounts canonical decimal text.

-- One row per (pid, third_party_id), for ever: an id is never freed.
CREATE TABLE payout (
    id             INTEGER PRIMARY KEY,
    pid            INTEGER NOT NULL,
    third_party_id TEXT    NOT NULL,
    currency       TEXT    NOT NULL,
    address        TEXT    NOT NULL,
    amount         TEXT    NOT NULL,
    remark         TEXT    NOT NULL,
    memo           TEXT    NOT NULL,
    callback_url   TEXT    NOT NULL,
    create_time    INTEGER NOT NULL,
    -- What changes: the latest revision.
    revision       INTEGER NOT NULL,
    update_time    INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    refusal_msg    TEXT    NOT NULL,
    cid            INTEGER,
    cregis_status  INTEGER,
    txid           TEXT    NOT NULL,
    block_height   INTEGER NOT NULL,
    block_time     INTEGER,
    attention      TEXT    NOT NULL,
    -- What callers do not see.
    earlier_doubt  TEXT,
    approved_cid   INTEGER,
    send_time      INTEGER NOT NULL,
    state_time     INTEGER NOT NULL,
    due            INTEGER,
    polls          INTEGER NOT NULL,
    -- Who created it; empty where callers have no names.
    caller         TEXT    NOT NULL DEFAULT '',
    -- Whose call sent it last, where that was not `caller`.
    sender         TEXT,
    UNIQUE (pid, third_party_id)
) STRICT;

-- One cid belongs to one payout.
CREATE UNIQUE INDEX payout_by_cid ON payout (pid, cid) WHERE cid IS NOT NULL;

-- What recovery and the follower look for; holds only what is not final.
CREATE INDEX payout_by_due ON payout (due) WHERE due IS NOT NULL;

-- What a person should look at.
CREATE INDEX payout_with_attention ON payout (id) WHERE attention <> '';

-- What a caller may list that sees only its own.
CREATE INDEX payout_by_caller ON payout (caller) WHERE caller <> '';

-- Every revision of every payout. `cause` says what moved it, `evidence` what an operator saw.
-- Without a row id it is one tree instead of two.
CREATE TABLE event (
    payout        INTEGER NOT NULL REFERENCES payout (id),
    revision      INTEGER NOT NULL,
    time          INTEGER NOT NULL,
    cause         TEXT    NOT NULL,
    evidence      TEXT,
    state         TEXT    NOT NULL,
    state_time    INTEGER NOT NULL,
    reason        TEXT    NOT NULL,
    refusal_msg   TEXT    NOT NULL,
    cid           INTEGER,
    cregis_status INTEGER,
    txid          TEXT    NOT NULL,
    block_height  INTEGER NOT NULL,
    block_time    INTEGER,
    attention     TEXT    NOT NULL,
    PRIMARY KEY (payout, revision)
) STRICT, WITHOUT ROWID;

-- What validly signed notices say, once for each payout, cid and status, which `digest` stands for; of each payout a
-- bounded number. One without a payout is an orphan; of each project's the newest are kept.
CREATE TABLE notice (
    id             INTEGER PRIMARY KEY,
    digest         BLOB    NOT NULL UNIQUE,
    pid            INTEGER NOT NULL,
    third_party_id TEXT    NOT NULL,
    cid            INTEGER NOT NULL,
    body           TEXT    NOT NULL,
    time           INTEGER NOT NULL,
    payout         INTEGER REFERENCES payout (id),
    due            INTEGER,
    tries          INTEGER NOT NULL
) STRICT;

-- Notices whose payout Cregis is still to be asked about.
CREATE INDEX notice_by_due ON notice (due) WHERE due IS NOT NULL;
CREATE INDEX notice_by_payout ON notice (payout) WHERE payout IS NOT NULL;
CREATE INDEX notice_orphan ON notice (pid, time) WHERE payout IS NULL;

CREATE TRIGGER event_is_never_changed BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER event_is_never_deleted BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER payout_is_never_deleted BEFORE DELETE ON payout
BEGIN SELECT RAISE(ABORT, 'payouts are never deleted'); END;

-- Every time an operator paused or resumed a project; the latest counts.
CREATE TABLE intake (
    id     INTEGER PRIMARY KEY,
    pid    INTEGER NOT NULL,
    paused INTEGER NOT NULL,
    note   TEXT    NOT NULL,
    time   INTEGER NOT NULL
) STRICT;

-- What each caller has spent of a currency on each UTC day, counted from 1970: the amounts of its payouts
-- that may move money, on the day of their last send. Canonical decimal text.
CREATE TABLE spend (
    caller   TEXT    NOT NULL,
    currency TEXT    NOT NULL,
    day      INTEGER NOT NULL,
    total    TEXT    NOT NULL,
    PRIMARY KEY (caller, currency, day)
) STRICT, WITHOUT ROWID;

-- Proves, after a failure, that the file can be written again.
CREATE TABLE probe (one INTEGER PRIMARY KEY CHECK (one = 1), written INTEGER NOT NULL) STRICT;

-- Which ledger this is, and how far it has come: commits, and the time of the last one. A witness outside
-- remembers it, and notices an old copy.
CREATE TABLE ledger (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT    NOT NULL,
    commits  INTEGER NOT NULL,
    time     INTEGER NOT NULL
) STRICT;
INSERT INTO ledger VALUES (1, lower(hex(randomblob(16))), 0, 0);
