//! What the database does for each verb: it goes to the rows by an index, however many there are.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use payoutd::attention::Attention;
use payoutd::config;
use payoutd::ledger::{Begun, Cause, Due, Filter, Id, Ledger, Notice, Resend};
use payoutd::metrics::Metrics;
use payoutd::order::{Draft, Key, Order};
use payoutd::outcome::Outcome;
use payoutd::payout::Payout;
use payoutd::policy::Terms;
use payoutd::state::State;
use serde_json::Value;

use crate::support::database::{Database, setting};
use crate::support::{ADDRESS, within};

/// Most have ended; the newest are open in one way or another.
const ROWS: i64 = 100_000;
/// PostgreSQL takes another plan for a statement that it has seen often.
const TIMES: i64 = 8;

/// Has the server log the plan of everything that is done over a connection.
const EXPLAINED: &str = "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0 \
    -c auto_explain.log_format=json -c auto_explain.log_verbose=on";

const FILL: &str = "
    SET session_replication_role = replica;
    INSERT INTO payout (pid, third_party_id, currency, address, amount, remark, memo, callback_url, create_time,
        revision, update_time, state, reason, refusal_msg, cid, txid, block_height, attention, send_time,
        state_time, due, polls, caller, owner, attempt, lease_until)
    SELECT 1, 'id-' || i, '195@195', 'TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS', '1.1', '', '', '', i, 2, i,
        CASE WHEN i <= 98000 THEN 'SUCCEEDED' WHEN i % 40 = 0 THEN 'SENDING' WHEN i % 40 = 1 THEN 'IN_DOUBT'
            ELSE 'ACCEPTED' END,
        '', '', CASE WHEN i <= 98000 OR i % 40 > 1 THEN i END, '', 0,
        CASE WHEN i % 5000 = 0 THEN 'AGE' ELSE '' END, i, i, CASE WHEN i > 98000 THEN i END, 0,
        CASE WHEN i % 1000 = 0 THEN 'shop' ELSE '' END, '', '', 0
    FROM generate_series(1, 100000) AS row (i);
    INSERT INTO event (payout, revision, time, cause, state, state_time, reason, refusal_msg, txid,
        block_height, attention)
    SELECT payout.id, revision.number, 1, 'REPLY', payout.state, 1, '', '', '', 0, ''
    FROM payout, generate_series(1, 2) AS revision (number);
    INSERT INTO notice (digest, pid, third_party_id, cid, body, time, payout, due, tries)
    SELECT sha256(i::text::bytea), 1, 'id-' || i, i, '', i, CASE WHEN i % 1000 > 0 THEN i END,
        CASE WHEN i % 200 = 1 THEN i END, 0
    FROM generate_series(1, 100000) AS row (i);
    INSERT INTO mark (time) SELECT i FROM generate_series(1, 10000) AS row (i);
    ANALYZE payout, event, mark, notice;";

/// The server's log, read as it grows.
struct Log {
    path: PathBuf,
    /// Tells our plans from those of other tests.
    schema: String,
    read: usize,
}

impl Log {
    /// Checks that what was done since the last time went by `indexes`, all of them and no other, and never
    /// through a whole table.
    fn shows(&mut self, verb: &str, indexes: &[&str]) {
        let text = std::fs::read_to_string(&self.path).expect("the server's log");
        let new = &text[self.read..];
        self.read = text.len();
        let (mut used, mut plans) = (BTreeSet::new(), 0);
        for entry in new.split("  plan:\n").skip(1) {
            let plan: String = entry.lines().take_while(|line| line.starts_with('\t')).collect();
            if !plan.contains(&format!("\"Schema\": \"{}\"", self.schema)) {
                continue;
            }
            let plan: Value = serde_json::from_str(&plan).expect("a plan");
            walk(&plan["Plan"], &mut used);
            plans += 1;
        }
        assert!(plans >= TIMES, "{verb}: only {plans} plans");
        let meant = indexes.iter().map(|index| (*index).to_owned()).collect();
        assert_eq!(used, meant, "{verb}: {new}");
    }
}

/// Notes the indexes that a plan goes by, and the tables that it reads from end to end.
fn walk(node: &Value, used: &mut BTreeSet<String>) {
    let text = |name: &str| node[name].as_str().unwrap_or_default().to_owned();
    if text("Node Type") == "Seq Scan" {
        used.insert(format!("all of {}", text("Relation Name")));
    }
    let arbiters = node["Conflict Arbiter Indexes"].as_array().cloned().unwrap_or_default();
    used.extend(arbiters.iter().filter_map(Value::as_str).map(str::to_owned));
    used.extend(node["Index Name"].as_str().map(str::to_owned));
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, used);
    }
}

/// A ledger with many rows, and the log of what is done to it.
async fn filled() -> (Ledger, Log) {
    let database = Database::new().await;
    let mut settings = database.shared();
    let options = settings.database.get_options().expect("a schema").to_owned();
    let schema = options.rsplit('=').next().expect("a name").to_owned();
    settings.database.options(format!("{options} {EXPLAINED}"));
    let settings = config::Ledger::Shared(Box::new(settings));
    let ledger = Ledger::of(&settings, &Metrics::new([1])).await.expect("a ledger");
    let (shell, _driver) = database.shell().await;
    shell.batch_execute(FILL).await.expect("filled");
    let path = PathBuf::from(setting("_LOG").expect("tests/postgres/server says it"));
    let read = std::fs::read_to_string(&path).expect("the server's log").len();
    (ledger, Log { path, schema, read })
}

fn order(id: String) -> Arc<Order> {
    let draft = Draft {
        pid: 1,
        currency: "195@195".into(),
        address: ADDRESS.into(),
        amount: "1.1".into(),
        third_party_id: id,
        ..Draft::default()
    };
    Arc::new(Order::check(draft, false).expect("good"))
}

async fn find(ledger: &Ledger, row: i64) -> Payout {
    let id = Id::ThirdParty(format!("id-{row}"));
    ledger.find(1, id).await.expect("read").expect("known")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_payout_is_recorded_and_changed_by_index_among_100_000() {
    let (ledger, mut log) = filled().await;
    let (terms, mut sent) = (Arc::<Terms>::default(), Vec::new());
    for number in 0..TIMES {
        let order = order(format!("new-{number}"));
        let begun = ledger.begin(order, Arc::clone(&terms), Resend::Never).await.expect("begun");
        let Begun::Send(payout) = begun else { panic!("{begun:?}") };
        sent.push(payout);
    }
    // With a look for what was acknowledged last.
    let begin = ["event_seq_key", "intake_latest", "mark_pkey", "payout_by_id", "spend_pkey"];
    log.shows("begin", &begin);
    for (payout, cid) in sent.into_iter().zip(1_000_000..) {
        let settled = ledger.settle(payout, Outcome::Accepted(cid), Duration::ZERO).await;
        assert_eq!(settled.expect("settled").state, State::Accepted);
    }
    log.shows("settle", &["payout_pkey", "spend_pkey"]);
    for row in 1..=TIMES {
        let known = ledger.begin(order(format!("id-{row}")), Arc::clone(&terms), Resend::Never);
        assert!(matches!(known.await, Ok(Begun::Known(_))));
    }
    log.shows("begin of what is known", &begin);
    for row in ROWS - TIMES..ROWS {
        let key = Key { pid: 1, third_party_id: format!("id-{row}") };
        assert!(ledger.approve(key, row).await.expect("asked"));
    }
    log.shows("approve", &["payout_by_cid", "payout_pkey"]);
    for row in 1..=TIMES {
        let payout = find(&ledger, row).await;
        ledger.note(payout, Attention::Contradiction, Cause::Notice).await.expect("noted");
    }
    log.shows("find and note", &["payout_by_id", "payout_pkey", "spend_pkey"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn payouts_are_looked_up_by_index_among_100_000() {
    let (ledger, mut log) = filled().await;
    for row in 1..=TIMES {
        ledger.find(1, Id::Cid(row)).await.expect("read").expect("known");
    }
    log.shows("find by cid", &["payout_by_cid"]);
    let payout = find(&ledger, 1).await;
    log.read = std::fs::read_to_string(&log.path).expect("the server's log").len();
    for _ in 0..TIMES {
        assert_eq!(ledger.history(payout.clone(), 0).await.expect("read").len(), 2);
    }
    log.shows("history", &["event_pkey"]);
    let open = [State::InDoubt, State::Accepted];
    for (states, attention_only, caller, index) in [
        (&[][..], false, None, "payout_pkey"),
        (&open[..1], false, None, "payout_by_state"),
        (&open[..], false, None, "payout_by_state"),
        (&[], false, Some("shop"), "payout_by_caller"),
        (&open[..], false, Some("shop"), "payout_by_caller"),
        (&[], true, None, "payout_with_attention"),
        (&open[..], true, Some("shop"), "payout_with_attention"),
    ] {
        for _ in 0..TIMES {
            let filter = Filter {
                pid: 1,
                caller: caller.map(str::to_owned),
                states: states.to_vec(),
                attention_only,
                not_after: Some(SystemTime::now()),
                after_row: 0,
                limit: 101,
            };
            let page = ledger.list(filter).await.expect("read");
            assert!(page.is_sorted_by_key(|payout| payout.row));
            let fits = |payout: &Payout| states.is_empty() || states.contains(&payout.state);
            assert!(page.iter().all(fits));
            assert!(page.len() == 101 || attention_only || caller.is_some() || states.len() == 1);
        }
        log.shows(&format!("list {states:?} {attention_only} {caller:?}"), &[index]);
    }
    for _ in 0..TIMES {
        let stock = ledger.stock().await.expect("read");
        assert_eq!(stock.open.iter().map(|open| open.count).sum::<i64>(), 2_000);
    }
    log.shows("stock", &["payout_by_due", "payout_with_attention"]);
    for _ in 0..TIMES {
        assert!(!ledger.is_paused(1).await.expect("read"));
    }
    log.shows("is_paused", &["intake_latest"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_is_due_is_found_by_index_among_100_000() {
    let (ledger, mut log) = filled().await;
    let due = Due { pid: 1, now: ledger.now(), limit: 16 };
    let mut taken = Vec::new();
    for _ in 0..TIMES {
        let payouts = ledger.due(due).await.expect("read");
        assert_eq!(payouts.len(), 16);
        taken.extend(payouts);
    }
    log.shows("due", &["payout_by_due", "payout_pkey"]);
    for payout in taken {
        ledger.postpone(payout, SystemTime::now()).await.expect("postponed");
    }
    log.shows("postpone", &["payout_pkey"]);
    let mut leads = Vec::new();
    for _ in 0..TIMES {
        leads.extend(ledger.leads(due).await.expect("read"));
    }
    log.shows("leads", &["notice_by_due", "notice_pkey"]);
    for lead in leads {
        ledger.close(lead.notice, None).await.expect("closed");
    }
    log.shows("close", &["notice_pkey"]);
    for (payout, indexes) in [
        (Some(201), &["notice_by_payout", "notice_digest_key", "notice_pkey"][..]),
        (None, &["notice_by_payout", "notice_digest_key", "notice_orphan", "notice_pkey"][..]),
    ] {
        for number in 0..TIMES {
            let status = i32::try_from(number).expect("small");
            let third_party_id = "id-201".to_owned();
            let (cid, body) = (201, String::new());
            let notice = Notice { pid: 1, third_party_id, cid, status, body, payout };
            assert!(ledger.keep(notice, payout.is_some()).await.expect("kept"));
        }
        log.shows("keep", indexes);
    }
    // Fifty at most: all that are sending, each ended by one change.
    let ended = within(ledger.recover()).await.expect("recovered");
    assert_eq!(ended.len(), 50);
    log.shows("recover", &["payout_by_state", "payout_pkey", "spend_pkey"]);
}
