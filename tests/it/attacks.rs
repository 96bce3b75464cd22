//! Attacks on the callers' port of the real process: its memory and its time stay bounded, and
//! another caller is served meanwhile and afterwards.

mod descriptors;
mod frames;
mod lines;
mod messages;
mod windows;
mod wire;

use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{Binary, Client, Upstream, get, order, payoutd, within};

/// How much a process may grow under attack, in KB.
const GROWTH_MAX: i64 = 64 * 1024;

/// A service under attack, and what it had used before.
struct Besieged {
    binary: Binary,
    bystander: Client,
    rss: i64,
    cpu: Duration,
    upstream: Upstream,
    _folder: TempDir,
}

impl Besieged {
    async fn start() -> Self {
        Self::start_as(payoutd().arg("serve"), &[]).await
    }

    async fn start_as(command: &mut Command, settings: &[(&str, &str)]) -> Self {
        let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
        // Its own log would be what costs most.
        let usual = [("PAYOUTD_LOG__LEVEL", "info"), ("PAYOUTD_PROJECT__POLL_FIRST", "1s")];
        let settings = [&usual, settings].concat();
        let binary = Binary::start_as(command, upstream.address, &folder, &settings).await;
        let bystander = binary.client().await;
        let mut whole =
            Self { binary, bystander, rss: 0, cpu: Duration::ZERO, upstream, _folder: folder };
        whole.serves("before").await;
        (whole.rss, whole.cpu) = (whole.binary.rss_kb(), whole.cpu());
        whole
    }

    /// CPU time so far, from a clock that ticks 100 times a second.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(self.binary.proc().join("stat")).expect("stat");
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Has Cregis pay the order `cid`.
    fn pays(&self, cid: i64) -> bool {
        self.upstream.book.set_status(cid, 6, false)
    }

    /// Sends a payout over the connection that was there before the attack.
    async fn serves(&self, id: &str) {
        let answer = within(self.bystander.clone().create_payout(order(id))).await;
        assert!(answer.expect("served").into_inner().cid > 0);
    }

    /// Runs `attack` while another caller asks, 50 times a second.
    async fn under<T>(&self, attack: impl Future<Output = T>) -> T {
        let asking = async {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            loop {
                get(&self.bystander, "before").await.expect("served during the attack");
                pace.tick().await;
            }
        };
        let attack = tokio::time::timeout(Duration::from_secs(60), attack);
        tokio::select! {
            never = asking => never,
            done = attack => done.expect("the attack ends"),
        }
    }

    /// After the attack: old and new connections are served, and it has cost no more than `cpu`.
    async fn stands(&self, cpu: Duration) {
        self.serves("after").await;
        let mut newcomer = self.binary.client().await;
        within(newcomer.create_payout(order("newcomer"))).await.expect("served");
        let (grown, spent) = (self.binary.rss_kb() - self.rss, self.cpu() - self.cpu);
        println!("grown by {grown} KB, {spent:?} of CPU");
        assert!(grown < GROWTH_MAX, "grown by {grown} KB");
        assert!(spent < cpu, "spent {spent:?}");
    }
}
