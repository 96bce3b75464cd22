//! A file of an older version gets books.

use std::path::Path;
use std::sync::Arc;

use payoutd::ledger::{Begun, Id, Ledger, OpenError, Resend};
use payoutd::metrics::Metrics;
use payoutd::policy::Rule;
use payoutd::state::State;
use rusqlite::Connection;

use super::{order, terms};

/// From version 2 to 3, and so on.
const STEPS: [&str; 2] = [
    include_str!("../../../src/ledger/schema_2_to_3.sql"),
    include_str!("../../../src/ledger/schema_3_to_4.sql"),
];

fn version_2(path: &Path) -> Connection {
    let db = Connection::open(path).expect("opened");
    db.execute_batch(include_str!("../ledger/schema_2.sql")).expect("the old schema");
    db.pragma_update(None, "application_id", 0x7061_796f).expect("written");
    db.pragma_update(None, "user_version", 2).expect("written");
    db.execute_batch(
        "INSERT INTO payout SELECT 1, 1, 'old', '195@195', 'TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS',
             '1.1', '', '', '', 1, 2, 1, 'ACCEPTED', '', '', 9, NULL, '', 0, NULL, '', NULL, NULL, 1, 1,
             5, 0;
         INSERT INTO event SELECT id, 1, 1, 'RECORDED', NULL, 'SENDING', 1, '', '', NULL, NULL, '', 0,
             NULL, '' FROM payout;
         INSERT INTO event SELECT id, 2, 1, 'REPLY', NULL, 'ACCEPTED', 1, '', '', 9, NULL, '', 0, NULL,
             '' FROM payout;",
    )
    .expect("a payout");
    db
}

/// Every table, column and index, in no particular order.
fn shape(path: &Path) -> Vec<String> {
    let db = Connection::open(path).expect("opened");
    let lines = |sql: &str| -> Vec<String> {
        let mut select = db.prepare(sql).expect("SQL");
        let rows = select.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    };
    let mut shape = lines(
        "SELECT printf('%s.%d %s %s %d %s %d', t.name, c.cid, c.name, c.type, c.\"notnull\", c.dflt_value, c.pk)
         FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'",
    );
    shape.extend(lines("SELECT sql FROM sqlite_schema WHERE type <> 'table' AND sql IS NOT NULL"));
    shape.push(lines("SELECT printf('%d', user_version) FROM pragma_user_version").concat());
    shape.sort();
    shape
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_an_older_version_becomes_what_a_new_one_is_and_keeps_its_payouts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (folder.path().join("old.db"), folder.path().join("new.db"));
    let mut newer = Vec::new();
    for (steps, version) in [(1, 3), (2, 4)] {
        let path = folder.path().join(format!("{version}.db"));
        let db = version_2(&path);
        for step in STEPS.iter().take(steps) {
            db.execute_batch(step).expect("a step");
        }
        db.pragma_update(None, "user_version", version).expect("written");
        drop(db);
        drop(Ledger::open(&path, &Metrics::new([])).expect("brought up to date"));
        newer.push(path);
    }
    drop(version_2(&old));
    drop(Ledger::open(&new, &Metrics::new([])).expect("created"));
    let ledger = Ledger::open(&old, &Metrics::new([])).expect("brought up to date");
    let found = ledger.find(1, Id::ThirdParty("old".into())).await.expect("read").expect("kept");
    assert_eq!((found.state, found.cid, found.caller.as_str()), (State::Accepted, Some(9), ""));
    let history = ledger.history(found, 0).await.expect("read");
    assert_eq!(history.len(), 2);
    let a = terms("a", "1");
    let begun = ledger.begin(order("fresh", "1"), Arc::clone(&a), Resend::Never).await;
    assert!(matches!(begun.expect("begun"), Begun::Send(_)));
    drop(ledger);
    assert_eq!(shape(&old), shape(&new));
    for path in newer {
        assert_eq!(shape(&path), shape(&new));
    }

    // A second start finds nothing to do, and the books as they were.
    let ledger = Ledger::open(&old, &Metrics::new([])).expect("opened");
    let begun = ledger.begin(order("more", "0.1"), a, Resend::Never).await.expect("begun");
    assert!(matches!(begun, Begun::Denied(Rule::PerDayLimit)), "{begun:?}");
}

#[tokio::test]
async fn a_step_to_a_new_version_that_fails_leaves_the_old_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("old.db");
    let db = version_2(&path);
    // Stands in the way of the last step.
    db.execute_batch("CREATE TABLE spend (x)").expect("written");
    drop(db);
    let before = shape(&path);
    assert!(matches!(Ledger::open(&path, &Metrics::new([])), Err(OpenError::Sqlite(_))));
    assert_eq!(shape(&path), before, "half of the step was kept");
}
