//! From one box to a fleet: a file that has seen everything, copied by the real command.

use std::process::Output;
use std::time::{Duration, Instant};

use payoutd::caller::Role;
use payoutd::config::Config;
use payoutd::ledger::OpenError;
use payoutd::metrics::Metrics;
use payoutd::pb::resolve_payout_request::Resolution::{Cid, Void};
use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::{API_KEY, PID};
use rusqlite::Connection;
use tempfile::TempDir;

use super::grant::role;
use crate::callback::letter::{notice, success, tell, told, until};
use crate::support::{
    Database, Service, Upstream, Whole, by, caller, config, ledger, limit, order, payoutd, within,
};

/// One payout in each state that a stopped service leaves.
const IDS: [&str; 10] = [
    "accepted", "paid", "failed", "denied", "rejected", "doubt", "voided", "not-sent", "shop-1",
    "shop-2",
];

/// Runs `payoutd ledger` on the ledger at `url`.
pub(super) async fn run(url: &str, arguments: &[&str]) -> Output {
    let mut command = payoutd();
    command.arg("ledger").args(arguments).envs([
        ("PAYOUTD_LEDGER__URL", url),
        ("PAYOUTD_PROJECT__PID", &PID.to_string()),
        ("PAYOUTD_PROJECT__BASE_URL", "http://127.0.0.1:9"),
        ("PAYOUTD_PROJECT__API_KEY", API_KEY),
    ]);
    let limit = Duration::from_secs(300);
    tokio::time::timeout(limit, command.output()).await.expect("in time").expect("ran")
}

/// Exit code and everything that was printed.
pub(super) fn said(output: &Output) -> (Option<i32>, String) {
    let (out, err) = (&output.stdout, &output.stderr);
    let text = [out.as_slice(), err].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

/// A service on a file, whatever the other tests stand on.
async fn on_file(upstream: Upstream, folder: TempDir, change: impl FnOnce(&mut Config)) -> Whole {
    let mut config = config(upstream.address, ledger(&folder));
    // Nothing is asked about while the test looks on.
    config.projects[0].poll_first = Duration::from_secs(3600);
    change(&mut config);
    let service = Service::start(config).await;
    let client = service.client().await;
    Whole { upstream, service, client, folder }
}

/// A service whose ledger has a bit of everything.
async fn lived() -> Whole {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let whole = on_file(upstream, folder, |config| {
        let limits = vec![limit(None, Some("1000"))];
        config.callers =
            vec![payoutd::config::Caller { limits, ..caller("shop", &[Role::Create]) }];
    })
    .await;
    for (id, amount) in [("shop-1", "0.10"), ("shop-2", "100.000001")] {
        let request = pb::CreatePayoutRequest { amount: amount.to_owned(), ..order(id) };
        within(whole.client.clone().create_payout(by("shop", request))).await.expect("OK");
    }
    let Whole { upstream, service, folder, .. } = whole;
    service.stop().await;
    let whole = on_file(upstream, folder, |_| {}).await;

    let remark = "back\\slash, \\N, \u{201e}quoted\u{201c}".to_owned();
    whole.create(pb::CreatePayoutRequest { remark, ..order("accepted") }).await.expect("OK");
    for (id, status, state) in [
        ("paid", 6, PayoutState::Succeeded),
        ("failed", 7, PayoutState::Failed),
        ("denied", 3, PayoutState::Denied),
    ] {
        let payout = whole.create(order(id)).await.expect("OK");
        assert!(whole.upstream.book.set_status(payout.cid, status, false));
        assert_eq!(tell(&whole, notice(id, payout.cid, 6)).await, success());
        until(&whole, id, state).await;
    }
    assert_eq!(tell(&whole, notice("nobody", 5, 6)).await, success());
    whole.set_intake(0, true).await.expect("OK");
    whole.set_intake(0, false).await.expect("OK");
    whole.upstream.fault(r#"{"code": "E0008"}"#);
    whole.create(order("rejected")).await.expect_err("refused");
    whole.doubt("doubt").await;
    whole.lost("voided").await;
    whole.aged("voided", 25);
    whole.resolve("voided", Void(true)).await.expect("OK");
    // The last one: it opens the breaker.
    whole.upstream.fault(r#"{"code": "E0001"}"#);
    whole.create(order("not-sent")).await.expect_err("refused");
    whole
}

/// Copies the ledger of a service that has stopped.
async fn copied(config: &Config, database: &Database) -> Output {
    let file = format!("sqlite:{}", config.ledger.path().expect("a file").display());
    run(&file, &["copy", "--to", &database.url(None)]).await
}

/// How many rows of `table` were said to be equal.
fn rows(words: &str, table: &str) -> u64 {
    let line = words.lines().find(|line| line.starts_with(table)).expect(table);
    let line: Vec<_> = line.split_whitespace().collect();
    assert_eq!((line[0], line[2]), (table, "equal"));
    line[1].parse().expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_fleet_on_a_copied_ledger_knows_every_payout_as_it_was_and_sends_none_again() {
    let whole = lived().await;
    let mut before = Vec::new();
    for id in IDS {
        before.push(whole.get(id).await.expect("known"));
    }
    let Whole { upstream, service, folder, .. } = whole;
    let mut config = service.stop().await;
    let database = Database::new().await;
    let (code, words) = said(&copied(&config, &database).await);
    assert_eq!(code, Some(0), "{words}");
    // One day's, or two days'.
    assert!((1..=2).contains(&rows(&words, "spend")), "{words}");
    for (table, count) in [("payout", 10), ("event", 24), ("notice", 4), ("intake", 2)] {
        assert_eq!(rows(&words, table), count, "{words}");
    }

    config.ledger = database.ledger();
    let service = Service::start(config).await;
    let client = service.client().await;
    let whole = Whole { upstream, service, client, folder };
    let posts = whole.upstream.book.posts().len();
    for payout in &before {
        let id = payout.third_party_id.as_str();
        assert_eq!(&whole.get(id).await.expect("known"), payout);
        let request = pb::CreatePayoutRequest {
            amount: payout.amount.clone(),
            remark: payout.remark.clone(),
            callback_url: payout.callback_url.clone(),
            ..order(id)
        };
        // A repeat of this one is sent, as ever.
        if payout.state() != PayoutState::NotSent {
            let again = whole.create(request).await;
            let refused = payout.state() == PayoutState::Rejected;
            assert_eq!(again.ok().as_ref(), (!refused).then_some(payout), "{id}");
        }
    }
    assert_eq!(whole.upstream.book.posts().len(), posts, "a copy has sent");

    // Life goes on: new rows come after the copied ones.
    let payout = whole.create(told(&whole, "new")).await.expect("OK");
    assert!(whole.upstream.book.set_status(payout.cid, 6, true));
    until(&whole, "new", PayoutState::Succeeded).await;
    whole.set_intake(0, true).await.expect("OK");
    whole.set_intake(0, false).await.expect("OK");
    let bound = whole.resolve("doubt", Cid(whole.cid("doubt"))).await.expect("OK");
    assert_eq!(bound.state(), PayoutState::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_difference_between_file_and_database_is_found_and_named_wherever_it_is() {
    let whole = lived().await;
    let config = whole.service.stop().await;
    let database = Database::new().await;
    let (code, words) = said(&copied(&config, &database).await);
    assert_eq!(code, Some(0), "{words}");
    let (url, file) = (database.url(None), format!("sqlite:{}", config.ledger.name()));
    // Either way round.
    for (one, other) in [(&file, &url), (&url, &file)] {
        let (code, words) = said(&run(one, &["compare", "--to", other]).await);
        assert_eq!(code, Some(0), "{words}");
        assert_eq!(words.matches("equal").count(), 5, "{words}");
    }
    let (shell, _driver) = database.shell().await;
    for (plant, undo, found) in [
        (
            "UPDATE payout SET amount = '7' WHERE id = 3",
            "UPDATE payout SET amount = '1.1' WHERE id = 3",
            "payout with id 3: amount differs",
        ),
        (
            "UPDATE payout SET cid = 0 WHERE third_party_id = 'rejected'",
            "UPDATE payout SET cid = NULL WHERE third_party_id = 'rejected'",
            ": cid differs",
        ),
        (
            "ALTER TABLE event DISABLE TRIGGER ALL; UPDATE event SET evidence = '' WHERE payout = 1",
            "UPDATE event SET evidence = NULL WHERE payout = 1",
            "event with payout 1, revision 1: evidence differs",
        ),
        (
            "UPDATE notice SET id = 1000 WHERE id = 2",
            "UPDATE notice SET id = 2 WHERE id = 1000",
            "notice with id 2: is only in the file",
        ),
        (
            "INSERT INTO intake (pid, paused, note, time) VALUES (1, true, '', 1)",
            "DELETE FROM intake WHERE pid = 1",
            "is only in the database",
        ),
        (
            "UPDATE intake SET paused = NOT paused",
            "UPDATE intake SET paused = NOT paused",
            "intake with id 1: paused differs",
        ),
        (
            "UPDATE spend SET total = total + 1e-18 WHERE currency = '195@195'",
            "UPDATE spend SET total = total - 1e-18 WHERE currency = '195@195'",
            ": total differs",
        ),
    ] {
        shell.batch_execute(plant).await.expect(plant);
        let (code, words) = said(&run(&file, &["compare", "--to", &url]).await);
        assert_eq!(code, Some(1), "{plant}: {words}");
        assert!(words.contains(found), "{plant}: {words}");
        shell.batch_execute(undo).await.expect(undo);
    }
    let (code, words) = said(&run(&file, &["compare", "--to", &url]).await);
    assert_eq!(code, Some(0), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_copied_file_is_never_opened_again_and_copied_to_no_other_place() {
    let whole = lived().await;
    let config = whole.service.stop().await;
    let (database, elsewhere) = (Database::new().await, Database::new().await);
    let (code, words) = said(&copied(&config, &database).await);
    assert_eq!(code, Some(0), "{words}");
    let path = config.ledger.path().expect("a file");
    let refused = payoutd::ledger::Ledger::open(path, &Metrics::new([])).err();
    let words = refused.expect("retired").to_string();
    assert!(words.contains(&format!("was copied to {}", database.url(None))), "{words}");
    let (code, words) = said(&copied(&config, &elsewhere).await);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("must not be used any more"), "{words}");

    // The same command once more is no harm, and finishes what had no answer: here, a commit that was lost.
    let (code, words) = said(&copied(&config, &database).await);
    assert_eq!(code, Some(0), "{words}");
    let (shell, _driver) = database.shell().await;
    let lose = "ALTER TABLE payout DISABLE TRIGGER ALL; ALTER TABLE event DISABLE TRIGGER ALL;
         TRUNCATE payout, event, notice, intake, spend;
         ALTER TABLE payout ENABLE TRIGGER ALL; ALTER TABLE event ENABLE TRIGGER ALL";
    shell.batch_execute(lose).await.expect("lost");
    let (code, words) = said(&copied(&config, &database).await);
    assert_eq!(code, Some(0), "{words}");
    let count = shell.query_one("SELECT count(*) FROM payout", &[]).await.expect("a count");
    assert_eq!(count.get::<_, i64>(0), 10);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_cannot_be_copied_safely_is_refused_and_stays_in_use() {
    let whole = lived().await;
    let database = Database::new().await;
    let (code, words) = said(&copied(&whole.service.config, &database).await);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("another process has this ledger open"), "{words}");

    let before = whole.get("paid").await.expect("known");
    let Whole { upstream, service, folder, .. } = whole;
    let config = service.stop().await;
    let file = Connection::open(config.ledger.path().expect("a file")).expect("opened");
    let send = "UPDATE payout SET state = ?1 WHERE third_party_id = 'doubt'";
    file.execute(send, ["SENDING"]).expect("written");
    let (code, words) = said(&copied(&config, &database).await);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("1 sends are still recorded as under way"), "{words}");
    file.execute(send, ["IN_DOUBT"]).expect("written");

    // The role that serves does not own the tables.
    let (shell, _driver) = database.shell().await;
    let file_url = format!("sqlite:{}", config.ledger.name());
    let serves = role(&database).await;
    let (code, words) = said(&run(&database.url(None), &["migrate", "--grant", &serves]).await);
    assert_eq!(code, Some(0), "{words}");
    let as_it = database.url(Some(&serves));
    let (code, words) = said(&run(&file_url, &["copy", "--to", &as_it]).await);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("copy as their owner"), "{words}");

    // A fleet has begun with it: nothing of the file gets in between.
    let insert = "INSERT INTO intake (pid, paused, note, time) VALUES (1, true, '', 1)";
    shell.batch_execute(insert).await.expect("written");
    let (code, words) = said(&copied(&config, &database).await);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("the database is not empty: there are rows in intake"), "{words}");
    let count = shell.query_one("SELECT count(*) FROM payout", &[]).await.expect("a count");
    assert_eq!(count.get::<_, i64>(0), 0);

    let missing = folder.path().join("missing.db");
    let url = format!("sqlite:{}", missing.display());
    let (code, words) = said(&run(&url, &["copy", "--to", &database.url(None)]).await);
    assert_eq!((code, missing.exists()), (Some(1), false), "{words}");
    let nowhere = ["copy", "--to", "postgres://nobody:secret@127.0.0.1/none"];
    let (code, words) = said(&run(&url, &nowhere).await);
    assert_eq!(code, Some(64), "{words}");
    assert!(words.contains("--password-file") && !words.contains("secret"), "{words}");

    // None of this has touched the file.
    let whole = on_file(upstream, folder, |_| {}).await;
    assert_eq!(whole.get("paid").await.expect("known"), before);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_file_from_before_what_was_acknowledged_is_not_copied_nor_served_beside_its_copy() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let whole = on_file(upstream, folder, |_| {}).await;
    whole.create(order("kept")).await.expect("OK");
    let Whole { upstream, service, folder, .. } = whole;
    let config = service.stop().await;
    let file = config.ledger.path().expect("a file").to_owned();
    let old = file.with_extension("old");
    std::fs::copy(&file, &old).expect("a backup");
    let whole = on_file(upstream, folder, |_| {}).await;
    whole.create(order("lost")).await.expect("OK");
    let Whole { upstream, service, folder, .. } = whole;
    let config = service.stop().await;

    // A backup that is behind is refused, as where a service starts on it.
    let newest = std::fs::read(&file).expect("read");
    std::fs::copy(&old, &file).expect("put back");
    let database = Database::new().await;
    let (code, words) = said(&copied(&config, &database).await);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("has lost what was acknowledged"), "{words}");

    // So is one that was the newest before the copy.
    std::fs::write(&file, &newest).expect("put back");
    let (code, words) = said(&copied(&config, &database).await);
    assert_eq!(code, Some(0), "{words}");
    std::fs::write(&file, &newest).expect("put back");
    let opened = payoutd::ledger::Ledger::of(&config.ledger, &Metrics::new([])).await;
    assert!(matches!(opened, Err(OpenError::RolledBack { .. })), "{opened:?}");
    drop((upstream, folder));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_hundred_thousand_payouts_are_copied_and_proven_in_minutes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = ledger(&folder);
    drop(payoutd::ledger::Ledger::open(&path, &Metrics::new([])).expect("new"));
    let file = Connection::open(&path).expect("opened");
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO payout SELECT i, 7, 'invoice-2026-' || i, '195@195',
             'TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS', '19.5', '', '', '', i, 3, i + 2, 'SUCCEEDED', '', '',
             i, 6, hex(randomblob(32)), 1000 + i, i, '', NULL, NULL, i, i + 2, NULL, 1, 'shop', 'b' FROM n;
         INSERT INTO event SELECT id, r.revision, create_time, 'POLL', NULL, state, state_time, '', '', cid,
             6, txid, block_height, block_time, ''
         FROM payout, (SELECT 1 AS revision UNION ALL SELECT 2 UNION ALL SELECT 3) r ORDER BY 1, 2;
         INSERT INTO spend VALUES ('shop', '195@195', 1, '1950000')";
    file.execute_batch(fill).expect("filled");
    drop(file);
    let database = Database::new().await;
    let start = Instant::now();
    let url = format!("sqlite:{}", path.display());
    let (code, words) = said(&run(&url, &["copy", "--to", &database.url(None)]).await);
    println!("100,000 payouts, 300,000 events: {:?}\n{words}", start.elapsed());
    assert_eq!(code, Some(0), "{words}");
    assert!(start.elapsed() < Duration::from_secs(240));
}
