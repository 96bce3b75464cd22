//! Rows in bulk: as many payouts as would take hours to make one by one.

use std::time::{SystemTime, UNIX_EPOCH};

use payoutd::config;
use payoutd::ledger::Ledger;
use payoutd::metrics::Metrics;
use payoutd::sandbox::PID;

use crate::process::Folder;
use crate::server::{Database, Shell};

/// What all rows ask for.
pub(crate) const ADDRESS: &str = "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS";

/// Rows that differ from each other by the number `i`, from 1 on, which is their cid, too.
pub(crate) struct Rows {
    pub(crate) count: i64,
    pub(crate) state: &'static str,
    /// SQL: the caller's id.
    pub(crate) id: String,
    /// SQL: when it is due, in microseconds since 1970.
    pub(crate) due: String,
}

impl Rows {
    /// The statements that make them. `more` columns and their values are what only one engine has.
    fn insert(&self, (more, values): (&str, &str)) -> String {
        let Self { count, state, id, due } = self;
        let (now, status) = (now(), if state == &"SUCCEEDED" { "6" } else { "NULL" });
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
             INSERT INTO payout (pid, third_party_id, currency, address, amount, remark, memo, callback_url,
                 create_time, revision, update_time, state, reason, refusal_msg, cid, cregis_status, txid,
                 block_height, attention, send_time, state_time, due, polls, caller{more})
             SELECT {PID}, {id}, '195@195', '{ADDRESS}', '1.1', '', '', '', {now}, 2, {now}, '{state}', '',
                 '', i, {status}, '', 0, '', {now}, {now}, {due}, 0, ''{values} FROM n;
             INSERT INTO event (payout, revision, time, cause, state, state_time, reason, refusal_msg, txid,
                 block_height, attention)
             SELECT id, 1, {now}, 'RECORDED', 'SENDING', {now}, '', '', '', 0, '' FROM payout;
             INSERT INTO event (payout, revision, time, cause, state, state_time, reason, refusal_msg, cid,
                 cregis_status, txid, block_height, attention)
             SELECT id, 2, {now}, 'REPLY', '{state}', {now}, '', '', cid, cregis_status, '', 0, ''
             FROM payout;"
        )
    }

    /// Puts them into an empty embedded ledger.
    pub(crate) fn fill_file(&self, folder: &Folder) {
        let path = folder.ledger();
        drop(Ledger::open(&path, &Metrics::new([])).expect("a ledger"));
        let db = rusqlite::Connection::open(&path).expect("the ledger's file");
        let insert = self.insert(("", ""));
        db.execute_batch(&format!("BEGIN; {insert} COMMIT; PRAGMA wal_checkpoint(TRUNCATE);"))
            .expect("filled");
    }

    /// Puts them into an empty shared ledger, and has the server do what it does by itself in time.
    pub(crate) async fn fill_database(&self, database: &Database) {
        let settings = config::Shared {
            database: database.url.parse().expect("a URL"),
            password_file: None,
            max_connections: 1,
            tls_ca_file: None,
            lease: std::time::Duration::from_secs(60),
            witness: None,
        };
        let settings = config::Ledger::Shared(Box::new(settings));
        drop(Ledger::of(&settings, &Metrics::new([])).await.expect("a ledger"));
        let shell = Shell::connect(&database.url).await;
        let insert = self.insert((", owner, attempt, lease_until", ", '', '', 0"));
        // Without a look at every foreign key.
        let insert = format!("SET session_replication_role = replica; {insert}");
        for statement in [insert.as_str(), "VACUUM ANALYZE", "CHECKPOINT"] {
            shell.client.batch_execute(statement).await.expect("filled");
        }
    }
}

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("in range")
}
