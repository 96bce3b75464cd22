//! What a durable payout costs, against the least that it could cost: `cargo bench`.
//!
//! Everything runs as separate processes on loopback: the real `payoutd serve` with its default
//! settings and a real ledger file, the real `payoutd sandbox` as its Cregis, and the *floor*, a
//! server that answers the same call after one bare signed HTTP POST and keeps nothing. CPU is what
//! the kernel charged to the server's process. Rounds take turns, so that a busy machine hurts both
//! alike: read the ratios, not the absolute numbers.

#![expect(clippy::float_arithmetic, reason = "measures time, never money")]

mod driver;
mod floor;
mod process;
mod unique;

use std::time::Duration;

use driver::{Load, Target};
use process::{Child, Folder};

/// What can be asked for alone.
const PARTS: [&str; 3] = ["cost", "memory", "growth"];
/// Counted rounds; one more warms up.
const ROUNDS: usize = 5;
/// How long each target is driven in each round.
const ROUND: Duration = Duration::from_millis(1500);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some([role, upstream]) = arguments.get(1..3)
        && role == "floor"
    {
        return floor::run(upstream);
    }
    // `cargo bench -- cost 256` runs a part.
    let asked = |part: &str| {
        !arguments.iter().any(|a| PARTS.contains(&a.as_str()))
            || arguments.iter().any(|a| a == part)
    };
    let mut levels: Vec<usize> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    if levels.is_empty() {
        levels.extend([1, 16, 256]);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        if asked("cost") {
            cost(&levels).await;
        }
        if asked("memory") {
            memory().await;
        }
        if asked("growth") {
            growth().await;
        }
    });
}

/// CPU, rate, latency and commits per payout at three levels of concurrency.
async fn cost(levels: &[usize]) {
    println!("server CPU per durable payout / floor, {ROUNDS} interleaved rounds, medians");
    println!(
        "{:>5} {:>10} {:>12} {:>8} {:>11} {:>22} {:>22} {:>15}",
        "conc",
        "floor us",
        "payoutd us",
        "ratio",
        "payouts/s",
        "p50/p99 payoutd ms",
        "added to direct ms",
        "commits/payout"
    );
    for &concurrency in levels {
        let upstream = Child::sandbox();
        let folder = Folder::new();
        let floor = Child::floor(&upstream);
        let payoutd = Child::payoutd(&upstream, &folder, 256);
        let targets = [
            Target::grpc(floor.address(), concurrency).await,
            Target::grpc(payoutd.address(), concurrency).await,
            Target::direct(upstream.address()),
        ];
        let mut rounds: Vec<[Load; 3]> = Vec::new();
        let mut payouts = 0;
        for _ in 0..=ROUNDS {
            let mut round = Vec::new();
            for (target, server) in targets.iter().zip([Some(&floor), Some(&payoutd), None]) {
                round.push(driver::drive(target, concurrency, ROUND, server).await);
            }
            payouts += round[1].calls;
            rounds.push(round.try_into().expect("three targets"));
        }
        rounds.remove(0);
        let middle = |of: &dyn Fn(&[Load; 3]) -> f64| median(rounds.iter().map(of).collect());
        let added = |at: fn(&Load) -> f64| middle(&|round| at(&round[1]) - at(&round[2]));
        println!(
            "{concurrency:>5} {:>10.1} {:>12.1} {:>8.2} {:>11.0} {:>22} {:>22} {:>15.3}",
            middle(&|round| round[0].cpu_us),
            middle(&|round| round[1].cpu_us),
            middle(&|round| round[1].cpu_us / round[0].cpu_us),
            middle(&|round| round[1].rate),
            format!("{:.2}/{:.2}", middle(&|r| r[1].p50_ms), middle(&|r| r[1].p99_ms)),
            format!("{:+.2}/{:+.2}", added(|load| load.p50_ms), added(|load| load.p99_ms)),
            payoutd.stop_and_count_commits() as f64 / payouts as f64,
        );
    }
}

/// Resident memory at rest, and with 5,000 calls that all wait for Cregis.
async fn memory() {
    const CALLS: usize = 5_000;
    let upstream = Child::sandbox();
    let folder = Folder::new();
    let payoutd = Child::payoutd(&upstream, &folder, CALLS);
    let target = Target::grpc(payoutd.address(), 512).await;
    let idle = payoutd.rss_mb();
    driver::hang(&upstream).await;
    let waiting = driver::park(&target, CALLS, &upstream, || payoutd.rss_mb()).await;
    println!("\nRSS: {idle:.1} MB idle, {waiting:.1} MB with {CALLS} calls in flight");
}

/// What a payout costs on a ledger that already holds a million.
async fn growth() {
    println!("\nserver CPU per payout by rows already in the ledger, medians of {ROUNDS}");
    let upstream = Child::sandbox();
    let folders = [Folder::filled(1_000), Folder::filled(1_000_000)];
    let servers = [0, 1].map(|at| Child::payoutd(&upstream, &folders[at], 256));
    for concurrency in [16, 256] {
        let mut rounds: Vec<[f64; 2]> = Vec::new();
        let targets = [
            Target::grpc(servers[0].address(), concurrency).await,
            Target::grpc(servers[1].address(), concurrency).await,
        ];
        for _ in 0..=ROUNDS {
            let mut round = [0.0; 2];
            for at in [0, 1] {
                let load = driver::drive(&targets[at], concurrency, ROUND, Some(&servers[at]));
                round[at] = load.await.cpu_us;
            }
            rounds.push(round);
        }
        rounds.remove(0);
        let of = |at: usize| median(rounds.iter().map(|round| round[at]).collect());
        let ratio = median(rounds.iter().map(|round| round[1] / round[0]).collect());
        println!(
            "{concurrency:>5} {:>10.1} us at 1,000 {:>10.1} us at 1,000,000 {ratio:>8.2}",
            of(0),
            of(1)
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
