//! kill -9 of the real binary at each durable step, and a start after it: never a second POST, and
//! no order at Cregis that the ledger does not know.

use payoutd::pb::PayoutState;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{Binary, Client, Upstream, any_port, get, ledger, order, reason, within};

/// A binary over a sandbox, and a shell in its ledger.
async fn start() -> (Upstream, TempDir, Binary, Connection) {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let binary = Binary::start(upstream.address, &folder).await;
    let shell = Connection::open(ledger(&folder)).expect("the ledger's file");
    (upstream, folder, binary, shell)
}

/// Makes a call whose caller will see the connection die.
fn call(mut client: Client) -> JoinSet<()> {
    JoinSet::from_iter([async move {
        client.create_payout(order("a")).await.expect_err("killed under the call");
    }])
}

fn states(shell: &Connection) -> Vec<String> {
    let mut select = shell.prepare("SELECT state FROM payout").expect("a ledger");
    let rows = select.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("texts")
}

async fn until_state(shell: &Connection, state: &str) {
    within(async {
        while states(shell) != [state] {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// After a start: what the id stands for, and that asking for it again sends nothing.
async fn repeated(upstream: &Upstream, folder: &TempDir) -> (PayoutState, String, i64) {
    let posts = upstream.book.posts().len();
    let binary = Binary::start(upstream.address, folder).await;
    let client = binary.client().await;
    let before = get(&client, "a").await.expect("known to the ledger");
    let answer = within(client.clone().create_payout(order("a"))).await.expect("OK");
    assert_eq!(answer.into_inner().payout.expect("a payout"), before);
    assert_eq!(upstream.book.posts().len(), posts, "a start or a repeat has sent");
    assert!(upstream.book.orders().len() <= 1);
    (before.state(), before.reason, before.cid)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_record_nothing_was_sent_and_the_id_is_free() {
    let (upstream, folder, binary, shell) = start().await;
    // Our writer waits for this lock, so the record cannot be made.
    shell.execute_batch("BEGIN IMMEDIATE").expect("held");
    let mut calls = call(binary.client().await);
    let held = tokio::time::Duration::from_millis(300);
    let sent = tokio::time::timeout(held, upstream.received(1)).await;
    sent.expect_err("sent before it was recorded");
    binary.kill().await;
    within(calls.join_next()).await.expect("one").expect("no panic");
    shell.execute_batch("ROLLBACK").expect("let go");
    assert!(states(&shell).is_empty() && upstream.book.received().is_empty());

    let binary = Binary::start(upstream.address, &folder).await;
    let client = binary.client().await;
    let unknown = get(&client, "a").await.expect_err("no record");
    assert_eq!(reason(&unknown).1, "PAYOUT_NOT_FOUND");
    let answer = within(client.clone().create_payout(order("a"))).await.expect("OK");
    assert!(answer.into_inner().cid > 0);
    assert_eq!(upstream.book.orders().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_record_the_payout_is_in_doubt_and_not_sent_again() {
    // Accepts connections and never reads: the request cannot get through.
    let deaf = TcpListener::bind(any_port()).await.expect("a port");
    let folder = tempfile::tempdir().expect("a folder");
    let binary = Binary::start(deaf.local_addr().expect("an address"), &folder).await;
    let shell = Connection::open(ledger(&folder)).expect("the ledger's file");
    let mut calls = call(binary.client().await);
    until_state(&shell, "SENDING").await;
    binary.kill().await;
    within(calls.join_next()).await.expect("one").expect("no panic");

    let upstream = Upstream::start().await;
    let crash = (PayoutState::InDoubt, "CRASH".to_owned(), 0);
    assert_eq!(repeated(&upstream, &folder).await, crash);
    assert!(upstream.book.received().is_empty(), "recovery has sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_post_was_read_the_order_is_known_as_a_doubt() {
    let (upstream, folder, binary, _shell) = start().await;
    upstream.fault(r#"{"then": "hang"}"#);
    let mut calls = call(binary.client().await);
    upstream.received(1).await;
    binary.kill().await;
    within(calls.join_next()).await.expect("one").expect("no panic");
    let crash = (PayoutState::InDoubt, "CRASH".to_owned(), 0);
    assert_eq!(repeated(&upstream, &folder).await, crash);
    assert_eq!(upstream.book.orders().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_reply_the_order_is_known_as_a_doubt() {
    let (upstream, folder, binary, shell) = start().await;
    upstream.fault(r#"{"delay_answer": "300ms"}"#);
    let mut calls = call(binary.client().await);
    upstream.received(1).await;
    // The reply comes, and cannot be written down.
    shell.execute_batch("BEGIN IMMEDIATE").expect("held");
    let log = binary.log.clone();
    within(async {
        let failed = || std::fs::read_to_string(&log).expect("a log").contains("not written down");
        while !failed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    binary.kill().await;
    within(calls.join_next()).await.expect("one").expect("no panic");
    shell.execute_batch("ROLLBACK").expect("let go");
    assert_eq!(states(&shell), ["SENDING"]);
    let crash = (PayoutState::InDoubt, "CRASH".to_owned(), 0);
    assert_eq!(repeated(&upstream, &folder).await, crash);
    assert_eq!(upstream.book.orders().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_second_record_the_cid_is_there_after_the_start() {
    let (upstream, folder, binary, shell) = start().await;
    let mut client = binary.client().await;
    let mut calls = JoinSet::new();
    // Whether this caller still gets its answer is chance.
    calls.spawn(async move { drop(client.create_payout(order("a")).await) });
    until_state(&shell, "ACCEPTED").await;
    binary.kill().await;
    within(calls.join_next()).await.expect("one").expect("no panic");
    let cid = upstream.book.orders()[0].cid;
    let expected = (PayoutState::Accepted, String::new(), cid);
    assert_eq!(repeated(&upstream, &folder).await, expected);
}

/// Callers that repeat their ids until each has an answer, while the service is killed under them.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_under_load_no_id_is_ordered_twice_and_no_cid_is_lost() {
    const ROUNDS: usize = 12;
    const IDS: usize = 40;
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut told: Vec<(String, i64)> = Vec::new();
    for round in 0..ROUNDS {
        let binary = Binary::start(upstream.address, &folder).await;
        let mut calls = JoinSet::new();
        for number in 0..IDS {
            let mut client = binary.client().await;
            let id = format!("load-{}", round / 2 * IDS + number);
            calls.spawn(async move {
                let answer = client.create_payout(order(&id)).await;
                (id, answer.map_or(0, |answer| answer.into_inner().cid))
            });
        }
        // A different moment each time: after so many more requests have reached Cregis, or when
        // every caller has its answer.
        let mut seen = upstream.book.count();
        let target = upstream.book.posts().len() + round * 7 % IDS;
        loop {
            tokio::select! {
                _ = seen.wait_for(|seen| *seen > target) => break,
                answer = calls.join_next() => match answer {
                    Some(answer) => told.push(answer.expect("no panic")),
                    None => break,
                },
            }
        }
        binary.kill().await;
        told.extend(calls.join_all().await);
    }
    told.retain(|(_, cid)| *cid > 0);
    let binary = Binary::start(upstream.address, &folder).await;
    let client = binary.client().await;
    let orders = upstream.book.orders();
    let mut ids: Vec<_> = orders.iter().map(|order| order.third_party_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), orders.len(), "an id was ordered twice");
    for order in &orders {
        let payout = get(&client, &order.third_party_id).await.expect("known to the ledger");
        if payout.state() == PayoutState::Accepted {
            assert_eq!(payout.cid, order.cid);
        } else {
            assert_eq!((payout.state(), payout.cid), (PayoutState::InDoubt, 0));
            assert_eq!(payout.reason, "CRASH", "{}", order.third_party_id);
        }
    }
    assert!(!told.is_empty(), "no caller was ever told a cid: the kills came too early");
    for (id, cid) in told {
        let payout = get(&client, &id).await.expect("known");
        assert_eq!(payout.cid, cid, "an answered cid was lost: {id}");
    }
}
