//! A synchronous standby that is gone: commits are made and not confirmed, and no read sees them.

use std::time::{Duration, Instant};

use payoutd::config::{Config, Ledger};
use payoutd::pb::PayoutState;
use tokio::task::JoinSet;

use super::opening::{said, settings};
use crate::support::authority::Authority;
use crate::support::server::Server;
use crate::support::{Service, Upstream, config, get, order, reason, settled, within};

const GONE: &str = "synchronous_standby_names = 'nobody'";

/// A service over a server of its own, with `connections` and `lease`.
async fn alone(connections: usize, lease: u64) -> (Upstream, Server, Service) {
    let upstream = Upstream::start().await;
    let server = Server::start(&Authority::new("databases")).await;
    let config = over(&upstream, &server.url("postgres", ""), connections, lease);
    let service = Service::start(config).await;
    (upstream, server, service)
}

/// Settings for a service over the database at `url`.
pub(super) fn over(upstream: &Upstream, url: &str, connections: usize, lease: u64) -> Config {
    let mut config = config(upstream.address, "none".into());
    config.ledger = settings(&[("LEDGER__URL", url)]);
    if let Ledger::Shared(shared) = &mut config.ledger {
        shared.max_connections = connections;
        shared.lease = Duration::from_secs(lease);
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_was_never_sent_while_the_standby_was_gone_ends_as_not_sent_and_is_paid_then() {
    // Away for less than a lease, and for more.
    for lease in [12, 4] {
        never_sent(lease).await;
    }
}

async fn never_sent(lease: u64) {
    let (upstream, server, service) = alone(16, lease).await;
    let client = service.client().await;
    within(client.clone().create_payout(order("before"))).await.expect("OK");
    server.set(GONE);
    server.reload("synchronous_standby_names", "nobody").await;
    let mut asked = JoinSet::new();
    for number in 0..10 {
        let mut client = client.clone();
        asked.spawn(async move { client.create_payout(order(&format!("p-{number}"))).await });
    }
    // When these end, whoever has recorded them has looked for the records, and found none.
    for answer in within(asked.join_all()).await {
        assert_eq!(reason(&answer.expect_err("not confirmed")).1, "LEDGER_UNAVAILABLE");
    }
    server.set("");
    server.reload("synchronous_standby_names", "").await;
    for number in 0..10 {
        let id = format!("p-{number}");
        let payout = within(async {
            loop {
                match get(&client, &id).await {
                    Ok(payout) if payout.state() == PayoutState::NotSent => return payout,
                    Ok(_) | Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        assert_eq!(payout.await.reason, "LEDGER_UNAVAILABLE", "{number}");
    }
    assert_eq!(upstream.book.posts().len(), 1, "nothing was sent");
    for number in 0..10 {
        let id = format!("p-{number}");
        within(async { while client.clone().create_payout(order(&id)).await.is_err() {} }).await;
        assert_eq!(settled(&client, &id).await.state(), PayoutState::Accepted);
    }
    assert_eq!(upstream.book.posts().len(), 11, "each once");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn connections_that_are_not_answered_go_on_counting_and_one_write_is_tried_at_a_time() {
    let (upstream, server, service) = alone(4, 60).await;
    let client = service.client().await;
    within(client.clone().create_payout(order("before"))).await.expect("OK");
    server.set(GONE);
    server.reload("synchronous_standby_names", "nobody").await;
    let (shell, _driver) = server.shell().await;
    let counts = "SELECT count(*), count(*) FILTER (WHERE query LIKE '%pg_logical_emit_message%')
         FROM pg_stat_activity WHERE application_name = 'payoutd'";
    let (mut asked, mut most, mut writes, mut number) = (JoinSet::new(), 0, 0, 0);
    // Twice as long as anybody waits for an answer, and as the pause between two looks.
    let end = Instant::now() + Duration::from_secs(15);
    while Instant::now() < end {
        if asked.len() < 8 {
            number += 1;
            let mut client = client.clone();
            asked.spawn(async move { client.create_payout(order(&format!("p-{number}"))).await });
        }
        while asked.try_join_next().is_some() {}
        let row = shell.query_one(counts, &[]).await.expect("counted");
        most = most.max(row.get::<_, i64>(0));
        writes = writes.max(row.get::<_, i64>(1));
    }
    assert!(most <= 4 + 2, "{most} connections at the server");
    assert!(writes <= 1, "{writes} probes under way");
    server.set("");
    server.reload("synchronous_standby_names", "").await;
    within(async { while client.clone().create_payout(order("after")).await.is_err() {} }).await;
    asked.shutdown().await;
    assert_eq!(settled(&client, "after").await.state(), PayoutState::Accepted);
    let posts = upstream.book.posts();
    let mut ids: Vec<_> = posts.iter().map(|post| post.third_party_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), posts.len(), "an id was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_check_tries_an_insert_and_a_commit_and_says_which_does_not_come_back() {
    let (upstream, server, service) = alone(4, 60).await;
    let url = [("LEDGER__URL", server.url("postgres", ""))];
    let url = url.each_ref().map(|(name, url)| (*name, url.as_str()));
    let (code, text) = said("check", &upstream, &url).await;
    assert_eq!(code, Some(0), "{text}");
    server.set(GONE);
    server.reload("synchronous_standby_names", "nobody").await;
    let (code, text) = said("check", &upstream, &url).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("a commit did not come back within 6 s"), "{text}");
    server.set("");
    server.reload("synchronous_standby_names", "").await;
    let (shell, _driver) = server.shell().await;
    shell.batch_execute(FULL).await.expect("full");
    let (code, text) = said("check", &upstream, &url).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("an insert failed: ") && text.contains("no room"), "{text}");
    service.stop().await;
}

/// Answers as a database whose disk is full: what is there can be changed, and nothing added.
const FULL: &str = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$;
     CREATE TRIGGER full_disk BEFORE INSERT ON payout FOR EACH ROW EXECUTE FUNCTION full_disk()";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_takes_no_rows_cannot_be_written_steadily_until_it_takes_one() {
    let (upstream, server, service) = alone(8, 60).await;
    let client = service.client().await;
    within(client.clone().create_payout(order("before"))).await.expect("OK");
    let (shell, _driver) = server.shell().await;
    shell.batch_execute(FULL).await.expect("full");
    within(client.clone().create_payout(order("first"))).await.expect_err("no room");
    let end = Instant::now() + Duration::from_secs(4);
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        let id = format!("p-{number}");
        within(client.clone().create_payout(order(&id))).await.expect_err("no room");
        let writable = crate::meters::Page::of(&service).await.value("ledger_writable");
        assert_eq!(writable, 0.0, "after {number}");
    }
    shell.batch_execute("DROP TRIGGER full_disk ON payout").await.expect("room");
    within(async { while client.clone().create_payout(order("after")).await.is_err() {} }).await;
    assert_eq!(settled(&client, "after").await.state(), PayoutState::Accepted);
    let (rows, posts) = ("SELECT count(*) FROM payout", upstream.book.posts().len());
    let rows: i64 = shell.query_one(rows, &[]).await.expect("counted").get(0);
    assert_eq!((rows, posts), (2, 2), "a probe leaves nothing");
}
