//! The ledger's file: locked, private, durable, versioned, append-only; and its verbs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use std::sync::Arc;
use std::time::Duration;

use payoutd::ledger::{Begun, Cause, Id, Ledger, OpenError, Resend};
use payoutd::metrics::Metrics;
use payoutd::order::{Draft, Order};
use payoutd::outcome::Outcome;
use payoutd::payout::Progress;
use payoutd::pb::PayoutState;
use payoutd::policy::Terms;
use payoutd::state::State;
use tokio::task::JoinSet;

use crate::support::{Binary, Upstream, Whole, ledger, order, payoutd, within};

#[tokio::test(flavor = "multi_thread")]
async fn the_file_and_its_companions_are_readable_by_their_owner_only() {
    let whole = Whole::start().await;
    whole.create(order("a")).await.expect("OK");
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let path = format!("{}{suffix}", whole.service.config.ledger.display());
        let mode = std::fs::metadata(&path).expect(suffix).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_refuses_and_says_why() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Binary::start(upstream.address, &folder).await;
    let mut second = payoutd();
    second.arg("serve").envs([
        ("PAYOUTD_GRPC__LISTEN", "127.0.0.1:0"),
        ("PAYOUTD_ADMIN__LISTEN", "127.0.0.1:0"),
        ("PAYOUTD_CALLBACK__LISTEN", "127.0.0.1:0"),
        ("PAYOUTD_LEDGER__URL", &format!("sqlite:{}", ledger(&folder).display())),
        ("PAYOUTD_PROJECT__PID", "1"),
        ("PAYOUTD_PROJECT__BASE_URL", "http://127.0.0.1:9"),
        ("PAYOUTD_PROJECT__API_KEY", "k"),
    ]);
    let second = within(second.output()).await.expect("ran");
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("another process has this ledger open"), "{words}");
}

fn refusal(path: &Path) -> OpenError {
    Ledger::open(path, &Metrics::new([])).expect_err("must not open")
}

#[tokio::test]
async fn a_newer_or_a_foreign_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let newer = folder.path().join("newer.db");
    drop(Ledger::open(&newer, &Metrics::new([])).expect("new"));
    let db = rusqlite::Connection::open(&newer).expect("opened");
    db.pragma_update(None, "user_version", 4).expect("written");
    drop(db);
    let before = std::fs::read(&newer).expect("read");
    assert!(matches!(refusal(&newer), OpenError::Newer { found: 4, known: 3 }));
    assert_eq!(std::fs::read(&newer).expect("read"), before, "a byte was changed");

    let foreign = folder.path().join("foreign.db");
    let db = rusqlite::Connection::open(&foreign).expect("opened");
    db.execute_batch("CREATE TABLE other (x)").expect("written");
    drop(db);
    assert!(matches!(refusal(&foreign), OpenError::Foreign));
    std::fs::write(folder.path().join("text.db"), "not a database, but long enough".repeat(100))
        .expect("written");
    assert!(matches!(refusal(&folder.path().join("text.db")), OpenError::Sqlite(_)));
    assert!(matches!(refusal(&folder.path().join("no/such/folder.db")), OpenError::Io(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_revision_is_kept_and_nothing_can_be_changed_or_deleted_by_hand() {
    let whole = Whole::start().await;
    whole.create(order("a")).await.expect("OK");
    let shell = whole.shell();
    let mut select = shell
        .prepare("SELECT revision, cause, state, cid FROM event ORDER BY revision")
        .expect("a table");
    let events: Vec<(i64, String, String, Option<i64>)> = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .expect("rows")
        .collect::<Result<_, _>>()
        .expect("events");
    let cid = whole.upstream.book.orders()[0].cid;
    assert_eq!(
        events,
        [
            (1, "RECORDED".to_owned(), "SENDING".to_owned(), None),
            (2, "REPLY".to_owned(), "ACCEPTED".to_owned(), Some(cid)),
        ]
    );
    for forbidden in ["DELETE FROM event", "UPDATE event SET state = ''", "DELETE FROM payout"] {
        shell.execute(forbidden, []).expect_err(forbidden);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_in_wal_mode_and_a_restart_keeps_everything() {
    let whole = Whole::start().await;
    let payout = whole.create(order("a")).await.expect("OK");
    let journal: String =
        whole.shell().query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("a mode");
    assert_eq!(journal, "wal");
    let whole = whole.restart().await;
    assert_eq!(whole.get("a").await.expect("known"), payout);
    assert_eq!(whole.create(order("a")).await.expect("known"), payout);
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

/// Recovery of a clean ledger changes nothing; of an unclean one, only SENDING.
#[tokio::test(flavor = "multi_thread")]
async fn recovery_touches_nothing_but_sends_under_way() {
    let whole = Whole::start().await;
    whole.create(order("accepted")).await.expect("OK");
    whole.upstream.fault(r#"{"code": "E0008"}"#);
    whole.create(order("rejected")).await.expect_err("refused");
    let (rejected, accepted) =
        (whole.get("rejected").await.expect("known"), whole.get("accepted").await.expect("known"));
    // As a process leaves it that dies between record and send.
    whole.create(order("orphan")).await.expect("OK");
    let config = whole.service.stop().await;
    let db = rusqlite::Connection::open(&config.ledger).expect("opened");
    db.execute_batch(
        "UPDATE payout SET state = 'SENDING', cid = NULL WHERE third_party_id = 'orphan'",
    )
    .expect("written");
    drop(db);
    let service = crate::support::Service::start(config).await;
    let client = service.client().await;
    let orphan = crate::support::get(&client, "orphan").await.expect("known");
    assert_eq!((orphan.state(), orphan.reason.as_str()), (PayoutState::InDoubt, "CRASH"));
    assert_eq!(crate::support::get(&client, "accepted").await.expect("known"), accepted);
    assert_eq!(crate::support::get(&client, "rejected").await.expect("known"), rejected);
    assert_eq!(whole.upstream.book.posts().len(), 3, "recovery has sent");
}

fn an_order(id: &str) -> Arc<Order> {
    let draft = Draft {
        pid: 1,
        currency: "7777@7777".into(),
        address: "a".into(),
        amount: "1".into(),
        third_party_id: id.into(),
        ..Draft::default()
    };
    Arc::new(Order::check(draft, false).expect("good"))
}

/// Readers share snapshots; none may be older than the question.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_after_a_record_sees_it_however_many_ask_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(&folder.path().join("l.db"), &Metrics::new([])).expect("opened");
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            for number in 0..50 {
                let id = format!("{task}-{number}");
                let found =
                    async || ledger.find(1, Id::ThirdParty(id.clone())).await.expect("read");
                assert_eq!(found().await, None);
                ledger.begin(an_order(&id), Terms::open(), Resend::Never).await.expect("recorded");
                assert_eq!(found().await.map(|payout| payout.revision), Some(1), "{id}");
            }
        });
    }
    within(tasks.join_all()).await;
}

/// Two questions about one payout may be under way at once, and the older answer come last.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_overtaken_pages_nobody_and_a_real_contradiction_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(&folder.path().join("l.db"), &Metrics::new([])).expect("opened");
    let order = an_order("id");
    let Ok(Begun::Send(sent)) = ledger.begin(order, Terms::open(), Resend::Never).await else {
        panic!("not recorded")
    };
    let soon = Duration::from_secs(30);
    let asked = ledger.settle(sent, Outcome::Accepted(9), soon).await.expect("settled");
    let told = async |asked, status| {
        let progress = Progress { cid: 9, status, ..Progress::default() };
        ledger.confirm(asked, progress, soon, Cause::Poll).await.expect("recorded")
    };
    let paid = told(asked.clone(), 6).await;
    assert_eq!((paid.state, paid.due), (State::Succeeded, None));
    assert_eq!(told(asked.clone(), 1).await, paid, "asked before the end was known");
    let contradicted = told(paid, 1).await;
    assert_eq!(contradicted.attention, ["CONTRADICTION"], "asked after it");
    assert_eq!(told(asked, 7).await.state, State::Succeeded, "an end never moves");
}
