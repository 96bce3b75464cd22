//! kill -9 at 200 random moments, judged by the checker. That it reads the ledger right is tested with
//! planted errors.

use std::collections::{BTreeMap, BTreeSet};

use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::PID;
use payoutd::sandbox::order::Order;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::checker::{Evidence, Row, Step, Told, posts};
use crate::support::{ADDRESS, Binary, Client, Upstream, get, ledger, order, steady_ports, within};

const KILLS: u64 = 200;
/// New ids in each round; those without an answer come back in the next.
const IDS: usize = 12;

/// What can be known from outside, with the ledger's file.
fn evidence(upstream: &Upstream, ledger: &Connection, told: &BTreeSet<Told>) -> Evidence {
    // First what Cregis knows: the ledger is never behind it.
    let (orders, posts) = (upstream.book.orders(), posts(upstream));
    Evidence { orders, posts, rows: rows(ledger), told: told.clone(), accounts: vec![] }
}

fn rows(ledger: &Connection) -> BTreeMap<String, Row> {
    // One snapshot for both tables: the service may be at work on them.
    let snapshot = ledger.unchecked_transaction().expect("a snapshot");
    let mut histories: BTreeMap<i64, Vec<Step>> = BTreeMap::new();
    let select = "SELECT revision, state, reason, cid, payout FROM event ORDER BY payout, revision";
    let mut select = snapshot.prepare(select).expect("a ledger");
    let steps = select.query_map([], |row| {
        let (revision, state) = (row.get(0)?, row.get(1)?);
        Ok((row.get(4)?, Step { revision, state, reason: row.get(2)?, cid: row.get(3)? }))
    });
    for step in steps.expect("rows") {
        let (payout, step) = step.expect("a row");
        histories.entry(payout).or_default().push(step);
    }
    let select =
        "SELECT third_party_id, state, reason, cid, currency, address, amount, id FROM payout";
    let mut select = snapshot.prepare(select).expect("a ledger");
    let rows = select.query_map([], |row| {
        let history = histories.get(&row.get(7)?).cloned().unwrap_or_default();
        let order = (row.get(4)?, row.get(5)?, row.get(6)?);
        let (state, reason) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, Row { state, reason, cid: row.get(3)?, order, history }))
    });
    rows.expect("rows").collect::<Result<_, _>>().expect("payouts")
}

/// A number from 0 to below `limit`, the next of a reproducible walk.
fn draw(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % limit
}

/// One caller: asks for its payout until it is told of it, or the service is gone.
async fn ask(mut client: Client, request: pb::CreatePayoutRequest) -> (String, Option<Told>) {
    let id = request.third_party_id.clone();
    let answer = client.create_payout(request).await;
    let payout = answer.ok().and_then(|answer| answer.into_inner().payout);
    (id, payout.as_ref().and_then(Told::of))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_200_random_moments_nothing_is_lost_and_nothing_is_paid_twice() {
    let mut seed = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    println!("seed {seed}");
    let upstream = Upstream::start().await;
    // A Cregis that stores whatever comes: a second send would be a second order.
    upstream.book.allow_duplicates(true);
    upstream.fault(r#"{"then": "drop", "every": 7, "times": 0}"#);
    upstream.fault(r#"{"delay_answer": "30ms", "every": 3, "times": 0}"#);
    let folder = tempfile::tempdir().expect("a folder");
    let port = steady_ports(1)[0];
    let url = format!("http://127.0.0.1:{port}/callbacks/{PID}");
    upstream.book.verify_at(Some(format!("{url}/verification")));
    let request =
        |id: &str| pb::CreatePayoutRequest { callback_url: format!("{url}/payout"), ..order(id) };
    let (mut told, mut open, mut cut) = (BTreeSet::new(), BTreeSet::new(), 0);
    for round in 0..KILLS {
        let binary = start(&upstream, &folder, port).await;
        let seen = *upstream.book.count().borrow();
        open.extend((0..IDS).map(|number| format!("id-{round}-{number}")));
        let mut calls = JoinSet::new();
        let clients = [binary.client().await, binary.client().await];
        for (number, id) in open.iter().enumerate() {
            calls.spawn(ask(clients[number % 2].clone(), request(id)));
        }
        // Some payouts end while others begin.
        for order in upstream.book.orders().iter().rev().take(5).filter(|o| o.status == 0) {
            upstream.book.set_status(order.cid, 6, true);
        }
        // By the count of requests and not by the clock, so that a slow machine hits as much.
        let target = seen + 1 + draw(&mut seed, 4 * IDS as u64) as usize;
        let mut count = upstream.book.count();
        let mut answers = Vec::new();
        let all = async {
            while let Some(answer) = calls.join_next().await {
                answers.push(answer.expect("no panic"));
            }
        };
        tokio::select! {
            () = all => {}
            _ = count.wait_for(|count| *count >= target) => cut += 1,
        }
        for _ in 0..draw(&mut seed, 400) {
            tokio::task::yield_now().await;
        }
        binary.kill().await;
        answers.extend(calls.join_all().await);
        for (id, answer) in answers {
            if answer.as_ref().is_some_and(|told| told.cid > 0) {
                open.remove(&id);
            }
            told.extend(answer);
        }
    }
    assert!(cut >= 50, "only {cut} kills hit calls under way");

    let binary = start(&upstream, &folder, port).await;
    let ledger = Connection::open(ledger(&folder)).expect("the ledger's file");
    let known = evidence(&upstream, &ledger, &told);
    assert_eq!(known.violations(), [""; 0], "{} orders", known.orders.len());

    let client = binary.client().await;
    for order in upstream.book.orders() {
        upstream.book.set_status(order.cid, 6, false);
        upstream.book.push_notice(order.cid, payoutd::sandbox::message::Push::default());
    }
    for order in upstream.book.orders() {
        let ended = async {
            loop {
                let payout = get(&client, &order.third_party_id).await.expect("known");
                if payout.state() == PayoutState::Succeeded {
                    return payout.cid;
                }
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(within(ended).await, order.cid, "{}", order.third_party_id);
    }
    let recovered: i64 = ledger
        .query_row("SELECT count(*) FROM event WHERE cause = 'RECOVERY'", [], |row| row.get(0))
        .expect("a number");
    assert!(recovered >= 50, "only {recovered} sends were killed under way");
    let known = evidence(&upstream, &ledger, &told);
    assert_eq!(known.violations(), [""; 0], "{} orders", known.orders.len());
    let told = told.iter().filter(|told| told.cid > 0).count();
    let orders = known.orders.len();
    println!("{cut} kills under way, {recovered} sends recovered, {orders} orders, {told} told");
    assert!(orders > 300 && told > 200, "too little happened: {orders} orders, {told} told");
}

async fn start(upstream: &Upstream, folder: &TempDir, port: u16) -> Binary {
    let listen = format!("127.0.0.1:{port}");
    let settings = [
        ("PAYOUTD_CALLBACK__LISTEN", listen.as_str()),
        ("PAYOUTD_PROJECT__VERIFICATION", "true"),
        ("PAYOUTD_PROJECT__POLL_FIRST", "100ms"),
        ("PAYOUTD_LOG__LEVEL", "info"),
    ];
    Binary::start_with(upstream.address, folder, &settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_finds_every_planted_error() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let binary = Binary::start(upstream.address, &folder).await;
    let mut told = BTreeSet::new();
    for id in ["a", "b", "c"] {
        let (_, answer) = ask(binary.client().await, order(id)).await;
        told.insert(answer.filter(|told| told.cid > 0).expect("a cid"));
    }
    upstream.fault(r#"{"code": "E0008"}"#);
    ask(binary.client().await, order("refused")).await;
    binary.kill().await;
    let path = ledger(&folder);
    let plant = |name: &str, sql: &str| {
        let copy = folder.path().join(name);
        Connection::open(&path)
            .and_then(|db| db.execute("VACUUM INTO ?1", [copy.to_str()]))
            .expect("copied");
        let db = Connection::open(copy).expect("opened");
        db.execute_batch(sql).expect("planted");
        evidence(&upstream, &db, &told)
    };
    assert_eq!(plant("good", "").violations(), [""; 0]);

    let mut twice = plant("twice", "");
    twice.orders.push(Order { cid: 1, ..twice.orders[0].clone() });
    let mut unknown = plant("unknown", "");
    unknown.orders.push(Order { third_party_id: "z".to_owned(), ..unknown.orders[0].clone() });
    let mut refused = plant("refused", "");
    refused.orders.push(Order {
        third_party_id: "refused".to_owned(),
        cid: 1,
        ..twice.orders[0].clone()
    });
    let mut lie = plant("lie", "");
    lie.told = lie.told.into_iter().map(|told| Told { cid: 1, ..told }).collect();
    let swap = "UPDATE payout SET cid = NULL WHERE third_party_id = 'a'; \
                UPDATE payout SET cid = 7 WHERE third_party_id = 'b';";
    let event = |revision: i64, state: &str| {
        format!(
            "INSERT INTO event SELECT id, {revision}, 1, 'REPLY', NULL, '{state}', 1, '', '', cid, NULL,
                 '', 0, NULL, '' FROM payout WHERE third_party_id = 'c';
             UPDATE payout SET state = '{state}' WHERE third_party_id = 'c';"
        )
    };
    let other = format!("UPDATE payout SET address = '{ADDRESS}x' WHERE third_party_id = 'a'");
    for (evidence, expected) in [
        (twice, "ordered twice"),
        (unknown, "unknown to the ledger"),
        (refused, "REJECTED in the ledger"),
        (lie, "and that cid is gone"),
        (plant("swap", swap), "its cid is not its order's"),
        (plant("other", &other), "its cid is not its order's"),
        (plant("gap", &event(4, "ACCEPTED")), "a revision is missing"),
        (plant("again", &event(3, "SENDING")), "an illegal history"),
    ] {
        let found = evidence.violations();
        assert!(found.iter().any(|found| found.contains(expected)), "{expected}: {found:?}");
    }
}
