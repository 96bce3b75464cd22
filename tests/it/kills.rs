//! kill -9 at 200 random moments, and a checker that compares what Cregis stored, what the ledger
//! holds and what callers were told. The checker itself is tested with planted errors.

use std::collections::{BTreeMap, BTreeSet};

use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::PID;
use payoutd::sandbox::order::Order;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::{ADDRESS, Binary, Client, Upstream, get, ledger, order, within};

const KILLS: u64 = 200;
/// New ids in each round; those without an answer come back in the next.
const IDS: usize = 12;

/// Everything that is known from outside.
struct Evidence {
    /// What Cregis stored.
    orders: Vec<Order>,
    /// The ledger's file.
    ledger: Connection,
    /// Every cid that a caller was told.
    told: BTreeSet<(String, i64)>,
}

/// A payout's row and its history.
struct Row {
    state: String,
    cid: Option<i64>,
    order: (String, String, String),
    history: Vec<(i64, String)>,
}

impl Evidence {
    fn rows(&self) -> BTreeMap<String, Row> {
        // One snapshot for both tables: the service may be at work on them.
        let snapshot = self.ledger.unchecked_transaction().expect("a snapshot");
        let mut events: BTreeMap<i64, Vec<(i64, String)>> = BTreeMap::new();
        let select = "SELECT payout, revision, state FROM event ORDER BY payout, revision";
        let mut select = snapshot.prepare(select).expect("a ledger");
        let mut rows = select.query([]).expect("rows");
        while let Some(row) = rows.next().expect("a row") {
            let event = (row.get(1).expect("a number"), row.get(2).expect("a text"));
            events.entry(row.get(0).expect("a number")).or_default().push(event);
        }
        let select = "SELECT third_party_id, state, cid, currency, address, amount, id FROM payout";
        let mut select = snapshot.prepare(select).expect("a ledger");
        let rows = select.query_map([], |row| {
            let history = events.get(&row.get(6)?).cloned().unwrap_or_default();
            let order = (row.get(3)?, row.get(4)?, row.get(5)?);
            Ok((row.get(0)?, Row { state: row.get(1)?, cid: row.get(2)?, order, history }))
        });
        rows.expect("rows").collect::<Result<_, _>>().expect("payouts")
    }

    /// Everything that breaks an invariant; empty where all of them hold.
    fn violations(&self) -> Vec<String> {
        let rows = self.rows();
        let mut found = Vec::new();
        let mut ids = BTreeSet::new();
        for order in &self.orders {
            let id = &order.third_party_id;
            if !ids.insert(id) {
                found.push(format!("{id}: ordered twice"));
            }
            match rows.get(id) {
                None => found.push(format!("{id}: at Cregis, and unknown to the ledger")),
                Some(row) if ["NOT_SENT", "REJECTED", "VOIDED"].contains(&&*row.state) => {
                    found.push(format!("{id}: at Cregis, and {} in the ledger", row.state));
                }
                Some(_) => {}
            }
        }
        let mut cids = BTreeSet::new();
        for (id, row) in &rows {
            let order = self.orders.iter().find(|order| Some(order.cid) == row.cid);
            let same = order.is_some_and(|order| {
                order.third_party_id == *id
                    && (&order.currency, &order.address, &order.amount)
                        == (&row.order.0, &row.order.1, &row.order.2)
            });
            if row.cid.is_some() && !same {
                found.push(format!("{id}: its cid is not its order's"));
            }
            if row.cid.is_some_and(|cid| !cids.insert(cid)) {
                found.push(format!("{id}: its cid is another payout's, too"));
            }
            if !row.history.iter().map(|(revision, _)| *revision).eq(1..=row.history.len() as i64) {
                found.push(format!("{id}: a revision is missing"));
            }
            let last = row.history.last().map(|(_, state)| state);
            if last != Some(&row.state) || !row.history.windows(2).all(legal) {
                found.push(format!("{id}: an illegal history {:?}", row.history));
            }
        }
        for (id, cid) in &self.told {
            if rows.get(id).and_then(|row| row.cid) != Some(*cid) {
                found.push(format!("{id}: a caller was told a cid that is gone"));
            }
        }
        found
    }
}

fn legal(step: &[(i64, String)]) -> bool {
    let (from, to) = (step[0].1.as_str(), step[1].1.as_str());
    match from {
        "SENDING" => ["ACCEPTED", "REJECTED", "NOT_SENT", "IN_DOUBT", "SUCCEEDED"].contains(&to),
        "NOT_SENT" => to == "SENDING",
        "IN_DOUBT" => ["ACCEPTED", "SUCCEEDED"].contains(&to),
        "ACCEPTED" => ["ACCEPTED", "SUCCEEDED"].contains(&to),
        _ => false,
    }
}

/// A number from 0 to below `limit`, the next of a reproducible walk.
fn draw(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % limit
}

/// A port below those that the system gives out, so that it is still free after a kill.
fn steady_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let first = 20_000 + (std::process::id() % 8_000) as u16;
    (first..30_000).find(free).expect("a port")
}

/// One caller: asks for its payout until it knows a cid, or the service is gone.
async fn ask(mut client: Client, request: pb::CreatePayoutRequest) -> (String, Option<i64>) {
    let id = request.third_party_id.clone();
    let answer = client.create_payout(request).await;
    let cid = answer.ok().map(|answer| answer.into_inner().cid).filter(|cid| *cid > 0);
    (id, cid)
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
    let port = steady_port();
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
        for (id, cid) in answers {
            if let Some(cid) = cid {
                open.remove(&id);
                told.insert((id, cid));
            }
        }
    }
    assert!(cut >= 50, "only {cut} kills hit calls under way");

    let binary = start(&upstream, &folder, port).await;
    let ledger = Connection::open(ledger(&folder)).expect("the ledger's file");
    let evidence = Evidence { orders: upstream.book.orders(), ledger, told };
    assert_eq!(evidence.violations(), [""; 0], "{} orders", evidence.orders.len());

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
    let recovered: i64 = evidence
        .ledger
        .query_row("SELECT count(*) FROM event WHERE cause = 'RECOVERY'", [], |row| row.get(0))
        .expect("a number");
    assert!(recovered >= 50, "only {recovered} sends were killed under way");
    let evidence = Evidence { orders: upstream.book.orders(), ..evidence };
    assert_eq!(evidence.violations(), [""; 0], "{} orders", evidence.orders.len());
    let (orders, told) = (evidence.orders.len(), evidence.told.len());
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

/// A checker that finds nothing proves nothing, unless it finds what is there.
#[tokio::test(flavor = "multi_thread")]
async fn the_checker_finds_every_planted_error() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let binary = Binary::start(upstream.address, &folder).await;
    let mut told = BTreeSet::new();
    for id in ["a", "b", "c"] {
        let (id, cid) = ask(binary.client().await, order(id)).await;
        told.insert((id, cid.expect("a cid")));
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
        Evidence { orders: upstream.book.orders(), ledger: db, told: told.clone() }
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
    lie.told.insert(("a".to_owned(), 1));
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
        (lie, "told a cid that is gone"),
        (plant("swap", swap), "its cid is not its order's"),
        (plant("other", &other), "its cid is not its order's"),
        (plant("gap", &event(4, "ACCEPTED")), "a revision is missing"),
        (plant("again", &event(3, "SENDING")), "an illegal history"),
    ] {
        let found = evidence.violations();
        assert!(found.iter().any(|found| found.contains(expected)), "{expected}: {found:?}");
    }
}
