//! Who waits for a connection, and what one that cannot be made costs.

use std::sync::Arc;

use payoutd::caller::Role;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

use super::opening::said;
use super::standby::over;
use crate::meters::Page;
use crate::support::authority::{Authority, private};
use crate::support::fleet::Fleet;
use crate::support::server::Server;
use crate::support::{Binary, Service, Upstream, by, caller, order, within};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn connections_that_cannot_be_made_are_no_outage_while_others_work() {
    let upstream = Upstream::start().await;
    let server = Server::start(&Authority::new("databases")).await;
    let (shell, _driver) = server.shell().await;
    // One to listen, and three of the eight that are wanted.
    let role = "CREATE ROLE few LOGIN CONNECTION LIMIT 4; CREATE SCHEMA few AUTHORIZATION few";
    shell.batch_execute(role).await.expect("a role");
    let url = server.url("few", "");
    let settings = [("LEDGER__URL", url.as_str()), ("LEDGER__MAX_CONNECTIONS", "8")];
    let (code, text) = said("check", &upstream, &settings).await;
    assert_eq!(code, Some(0), "{text}");
    let warning = "this process may want 10 connections (ledger.max_connections and two), and PostgreSQL has 4";
    assert!(text.contains(&format!("WARN  {:<28} {warning}", "ledger")), "{text}");
    let service = Service::start(over(&upstream, &url, 8, 60)).await;
    let client = service.client().await;
    for round in 0..6 {
        let mut asked = JoinSet::new();
        for number in 0..40 {
            let mut client = client.clone();
            let id = format!("p-{round}-{number}");
            asked.spawn(async move { client.create_payout(order(&id)).await });
        }
        for answer in within(asked.join_all()).await {
            answer.expect("one that works is free soon");
        }
        assert_eq!(Page::of(&service).await.value("ledger_writable"), 1.0);
    }
    assert_eq!(upstream.book.posts().len(), 240);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_callers_burst_slows_another_caller_at_most_twofold() {
    let fleet = Arc::new(
        Fleet::with(1, |config| {
            if let payoutd::config::Ledger::Shared(shared) = &mut config.ledger {
                shared.max_connections = 16;
            }
            config.callers = vec![caller("a", &[Role::Create]), caller("b", &[Role::Create])];
        })
        .await,
    );
    let (shell, _driver) = fleet.database.shell().await;
    // Commits that take 25 ms, in which the totals of their callers are locked.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(0.025); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION slow()";
    shell.batch_execute(slow).await.expect("slow");
    let create = |name: &'static str, id: String| {
        let client = fleet.clients[0].clone();
        async move { client.clone().create_payout(by(name, order(&id))).await }
    };
    let median = async |round: &str| {
        let mut took = Vec::new();
        for number in 0..15 {
            let start = Instant::now();
            within(create("b", format!("b-{round}-{number}"))).await.expect("OK");
            took.push(start.elapsed());
        }
        took.sort();
        took[7]
    };
    let before = median("before").await;
    let mut burst = JoinSet::new();
    for lane in 0..60 {
        let fleet = Arc::clone(&fleet);
        burst.spawn(async move {
            for number in 0.. {
                let request = by("a", order(&format!("a-{lane}-{number}")));
                // Some wait for too long in their own totals.
                let _ = fleet.clients[0].clone().create_payout(request).await;
            }
        });
    }
    let (shown, _second) = fleet.database.shell().await;
    let waits = "SELECT count(*) > 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    within(async { while !shown.query_one(waits, &[]).await.expect("read").get::<_, bool>(0) {} })
        .await;
    let during = median("during").await;
    eprintln!("caller b: {before:?} alone, {during:?} beside a burst");
    assert!(during <= before * 2 + Duration::from_millis(10), "{before:?} {during:?}");
    burst.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_password_is_read_again_for_each_new_connection_and_a_wrong_one_is_named_in_the_log() {
    let (upstream, server) =
        (Upstream::start().await, Server::start(&Authority::new("databases")).await);
    let folder = tempfile::TempDir::new().expect("a folder");
    let (shell, _driver) = server.shell().await;
    let role =
        "CREATE ROLE guarded LOGIN PASSWORD 'old'; CREATE SCHEMA guarded AUTHORIZATION guarded";
    shell.batch_execute(role).await.expect("a role");
    let file = folder.path().join("password");
    private(&file, "old\n");
    let (url, path) = (server.url("guarded", ""), file.to_str().expect("utf-8"));
    let settings = [("PAYOUTD_LEDGER__URL", url.as_str()), ("PAYOUTD_LEDGER__PASSWORD_FILE", path)];
    let binary = Binary::start_with(upstream.address, &folder, &settings).await;
    let client = binary.client().await;
    shell.batch_execute("ALTER ROLE guarded PASSWORD 'new'").await.expect("changed");
    // Until none is left: some may just be made.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'";
    within(async {
        let words = "password authentication failed for user";
        loop {
            let log = std::fs::read_to_string(&binary.log).expect("a log");
            if log.lines().any(|line| line.contains("\"ERROR\"") && line.contains(words)) {
                let warned =
                    |line: &str| line.contains("a connection to the ledger cannot be made");
                assert!(log.lines().any(|line| warned(line) && line.contains(words)), "{log}");
                return;
            }
            shell.batch_execute(end).await.expect("ended");
        }
    })
    .await;
    private(&file, "new\n");
    within(async { while client.clone().create_payout(order("a")).await.is_err() {} }).await;
    // The whole outage is a line at its beginning, one for each cause, and one at its end.
    let log = std::fs::read_to_string(&binary.log).expect("a log");
    let count = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert!((1..=3).contains(&count("\"ERROR\"")), "{log}");
    assert_eq!(count("ledger can be written again"), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn an_outage_is_a_line_when_it_begins_and_one_when_it_ends_with_its_cause_and_count() {
    let (upstream, server) =
        (Upstream::start().await, Server::start(&Authority::new("databases")).await);
    let folder = tempfile::TempDir::new().expect("a folder");
    let url = server.url("postgres", "");
    let settings = [("PAYOUTD_LEDGER__URL", url.as_str())];
    let binary = Binary::start_with(upstream.address, &folder, &settings).await;
    let client = binary.client().await;
    within(client.clone().create_payout(order("before"))).await.expect("OK");
    server.control("stop");
    for number in 0..300 {
        let id = format!("p-{number}");
        within(client.clone().create_payout(order(&id))).await.expect_err("away");
    }
    server.control("start");
    within(async { while client.clone().create_payout(order("after")).await.is_err() {} }).await;
    let log = std::fs::read_to_string(&binary.log).expect("a log");
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("\"ERROR\"") || line.contains("\"WARN\""))
        .filter(|line| !line.contains("ledger.witness is not set"))
        .collect();
    let of = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
    assert_eq!(of("ledger failed"), 1, "{lines:#?}");
    assert_eq!(of("ledger can be written again"), 1, "{lines:#?}");
    assert_eq!(of("cannot hear the other replicas"), 1, "{lines:#?}");
    assert!(lines.len() <= 10, "{lines:#?}");
}
