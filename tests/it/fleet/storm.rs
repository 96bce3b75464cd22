//! Everything at once, for two minutes: replicas killed, connections cut in the middle of a commit, the
//! database itself killed, answers of Cregis's lost and late, and callers who come back with the same ids at
//! other replicas. Then the checker says whether anything was paid twice, lost, or taken back.
//!
//! It crashes the server, so `tests/postgres/run` runs it alone.

mod callers;
mod evidence;
mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use payoutd::sandbox::message::Push;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::support::checker::{Evidence, posts};
use crate::support::database::setting;
use crate::support::proxy::Wire;
use crate::support::{Database, Upstream, steady_ports, within};
use callers::{AGAIN, Doors, Heard, id, pace};
use replica::Replica;

const REPLICAS: usize = 3;
const CALLERS: u64 = 16;
/// So long after the database is back all replicas serve.
const RECOVERY: Duration = Duration::from_secs(10);
/// What the statements that record, settle and commit say.
const COMMITS: &[&str] = &["SENDING", "ACCEPTED", "IN_DOUBT", "NOT_SENT", "SUCCEEDED", "COMMIT"];
/// What Cregis does beside good work. A refusal of the gateway is the one end after which a payout is sent
/// again; whoever meets one asks no more before Cregis is seen to work.
const FAULTS: [&str; 7] = [
    r#"{"then": "drop", "every": 23, "times": 0}"#,
    r#"{"delay_answer": "300ms", "every": 5, "times": 0}"#,
    r#"{"delay_answer": "1500ms", "every": 41, "times": 0}"#,
    r#"{"code": "E0008", "every": 29, "times": 0}"#,
    r#"{"code": "E0034", "every": 61, "times": 0}"#,
    r#"{"status": 503, "every": 53, "times": 0}"#,
    r#"{"on": "notice", "then": "drop", "every": 5, "times": 0}"#,
];

/// A number from 0 to below `limit`, the next of a reproducible walk.
fn draw(seed: &mut u64, limit: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % limit
}

struct Storm {
    upstream: Upstream,
    database: Database,
    replicas: Vec<Replica>,
    seed: u64,
    /// Whether the database is.
    is_down: bool,
    kills: usize,
    crashes: usize,
    cuts: usize,
    _folder: TempDir,
}

impl Storm {
    async fn begin(seed: u64) -> Self {
        let (upstream, database) = (Upstream::start().await, Database::new().await);
        // A Cregis that stores whatever comes: a second send would be a second order.
        upstream.book.allow_duplicates(true);
        let folder = TempDir::new().expect("a folder");
        let mut replicas = Vec::new();
        for ports in steady_ports(2 * REPLICAS).chunks(2) {
            replicas.push(Replica::start(&upstream, &database, &folder, ports).await);
        }
        Self {
            upstream,
            database,
            replicas,
            seed,
            is_down: false,
            kills: 0,
            crashes: 0,
            cuts: 0,
            _folder: folder,
        }
    }

    fn doors(&self) -> Doors {
        Doors {
            clients: self.replicas.iter().map(Replica::client).collect(),
            callback_urls: self.replicas.iter().map(|r| r.callback_url.clone()).collect(),
            drawn: Arc::new(AtomicU64::new(0)),
        }
    }

    fn draw(&mut self, limit: usize) -> usize {
        draw(&mut self.seed, limit as u64) as usize
    }

    async fn rage(&mut self, seconds: u64) {
        let mut beat = interval(Duration::from_secs(1));
        for second in 1..=seconds {
            beat.tick().await;
            // The database is down for two seconds of every twenty.
            match second % 20 {
                8 => self.crash().await,
                10 => self.start_server().await,
                _ => {}
            }
            let victim = self.draw(REPLICAS);
            self.replicas[victim].kill().await;
            self.kills += 1;
            let torn = self.draw(REPLICAS);
            for (number, replica) in self.replicas.iter_mut().enumerate() {
                replica.keep();
                let wire = if number == torn { Wire::Loses(COMMITS, 7) } else { Wire::Open };
                replica.proxy.set(wire);
            }
            if second % 3 == 0 {
                let cut = self.draw(REPLICAS);
                self.replicas[cut].proxy.cut().await;
                self.cuts += 1;
            }
            // Some payouts end while others begin.
            let orders = self.upstream.book.orders();
            for order in orders.iter().rev().filter(|order| order.status == 0).take(10) {
                self.upstream.book.set_status(order.cid, 6, true);
            }
        }
    }

    async fn crash(&mut self) {
        server("crash").await;
        self.is_down = true;
        self.crashes += 1;
    }

    async fn start_server(&mut self) {
        if std::mem::take(&mut self.is_down) {
            server("start").await;
        }
    }

    /// No more faults; all replicas are there, and serve.
    async fn calm(&mut self) {
        self.upstream.book.clear_faults();
        self.start_server().await;
        for replica in &mut self.replicas {
            replica.proxy.set(Wire::Open);
        }
        within(async {
            while !self.all_serve().await {
                for replica in &mut self.replicas {
                    replica.keep();
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn all_serve(&self) -> bool {
        for replica in &self.replicas {
            if !replica.serves().await {
                return false;
            }
        }
        true
    }

    /// The database goes and comes back, and the same processes serve again.
    async fn outlive_a_crash(&mut self) -> Duration {
        let before: Vec<_> = self.replicas.iter().map(Replica::id).collect();
        self.crash().await;
        within(async { while self.all_serve().await {} }).await;
        self.start_server().await;
        let back = Instant::now();
        let served = tokio::time::timeout(RECOVERY, async {
            while !self.all_serve().await {
                tokio::task::yield_now().await;
            }
        });
        served.await.expect("all replicas serve again");
        assert_eq!(self.replicas.iter().map(Replica::id).collect::<Vec<_>>(), before);
        back.elapsed()
    }

    /// What the checker goes by. First what Cregis knows: the ledger is never behind it.
    async fn evidence(&self, heard: &Heard) -> Evidence {
        let (orders, posts) = (self.upstream.book.orders(), posts(&self.upstream));
        let (mut shell, _driver) = self.database.shell().await;
        let (rows, accounts) = evidence::read(&mut shell).await;
        Evidence { orders, posts, rows, told: heard.told.clone(), accounts }
    }

    /// Has every order end at Cregis, which tells of it again and again, and waits until the ledger knows all
    /// these ends, be they of payouts that were in doubt.
    async fn end_all(&self, evidence: &Evidence) {
        for order in &evidence.orders {
            self.upstream.book.set_status(order.cid, 6, false);
        }
        let (shell, _driver) = self.database.shell().await;
        let (begin, mut beat) = (Instant::now(), pace(Duration::from_millis(500)));
        loop {
            beat.tick().await;
            let select = "SELECT cid FROM payout WHERE state = 'SUCCEEDED'";
            let ended = shell.query(select, &[]).await.expect("read");
            let ended: BTreeSet<i64> = ended.iter().map(|row| row.get(0)).collect();
            let open: Vec<_> = evidence.orders.iter().filter(|o| !ended.contains(&o.cid)).collect();
            if open.is_empty() {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(180), "not ended: {open:?}");
            // A few at a time: a replica takes no more at once.
            for order in open.iter().take(32) {
                self.upstream.book.push_notice(order.cid, Push::default());
            }
        }
    }
}

/// What is done to the server.
async fn server(what: &str) {
    let ctl = setting("_CTL").expect("tests/postgres/run says how");
    let done = tokio::process::Command::new(ctl).arg(what).status().await.expect("ran");
    assert!(done.success(), "{what}: {done}");
}

/// Asks for every payout until it is known what became of it.
async fn ask_for_all(doors: &Doors) -> Heard {
    let last = doors.drawn.load(Ordering::Relaxed).div_ceil(2);
    let mut lanes = JoinSet::new();
    for lane in 0..CALLERS {
        let doors = doors.clone();
        lanes.spawn(async move {
            let mut heard = Heard::default();
            for number in (lane..last).step_by(CALLERS as usize) {
                let known = async {
                    let (mut replica, mut beat) = (number as usize, pace(AGAIN));
                    while !doors.ask(number, replica, &mut heard).await {
                        replica += 1;
                        beat.tick().await;
                    }
                };
                let known = tokio::time::timeout(Duration::from_secs(60), known).await;
                known.unwrap_or_else(|_| panic!("{} is still not known", id(number)));
            }
            heard
        });
    }
    let mut heard = Heard::default();
    lanes.join_all().await.into_iter().for_each(|other| heard.add(other));
    heard
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL of its own"]
async fn replicas_killed_cut_off_and_without_database_pay_nothing_twice_and_lose_nothing() {
    let seconds = setting("_STORM_SECONDS").map_or(120, |text| text.parse().expect("seconds"));
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    println!("seed {seed}");
    let mut storm = Storm::begin(seed).await;
    storm.calm().await;
    FAULTS.iter().for_each(|fault| storm.upstream.fault(fault));
    let (doors, stop, mut calls) = (storm.doors(), CancellationToken::new(), JoinSet::new());
    for number in 0..CALLERS {
        calls.spawn(doors.clone().call(seed ^ number << 40, stop.clone()));
    }
    storm.rage(seconds).await;
    stop.cancel();
    let mut heard = Heard::default();
    calls.join_all().await.into_iter().for_each(|other| heard.add(other));
    let under_way = heard.told.iter().filter(|told| told.cid > 0).count();

    storm.calm().await;
    let back = storm.outlive_a_crash().await;
    heard.add(ask_for_all(&doors).await);
    let known = storm.evidence(&heard).await;
    assert_eq!(known.violations(), [""; 0], "{} orders", known.orders.len());
    println!("the checker has found nothing; {} orders come to their end", known.orders.len());
    storm.end_all(&known).await;
    heard.add(ask_for_all(&doors).await);
    let known = storm.evidence(&heard).await;
    assert_eq!(known.violations(), [""; 0], "{} orders", known.orders.len());
    for replica in &storm.replicas {
        let log = std::fs::read_to_string(&replica.log).expect("a log");
        assert!(!log.contains("panicked"), "{log}");
    }

    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let steps = known.rows.values().flat_map(|row| &row.history);
    for step in steps.filter(|step| step.state == "IN_DOUBT") {
        *reasons.entry(&step.reason).or_default() += 1;
    }
    let (payouts, orders, told) = (known.rows.len(), known.orders.len(), known.told.len());
    let (kills, crashes) = (storm.kills, storm.crashes);
    let lost: usize = storm.replicas.iter().map(|replica| replica.proxy.lost()).sum();
    let cuts = storm.cuts + lost;
    let leases = reasons.get("LEASE_EXPIRED").copied().unwrap_or_default();
    let doubts: usize = reasons.values().sum();
    let unsent = known.rows.iter().filter(|(id, _)| !known.posts.contains(id)).count();
    println!(
        "{seconds} s, {payouts} payouts, {kills} kills, {crashes} crashes of the database, {cuts} cuts \
         ({lost} in a commit), {leases} leases expired, {doubts} doubts {reasons:?}, {orders} orders, \
         {unsent} never sent, {told} answers kept ({under_way} with a cid in the storm), served again \
         after {back:?}; failed calls {:?}",
        heard.failed
    );
    let seconds = seconds as usize;
    assert!(kills == seconds && crashes > seconds / 20 && lost > seconds / 2, "too calm");
    assert!(orders > 3 * seconds && under_way > 3 * seconds && leases > 0, "too little happened");
}
