//! What happens when more is asked for than can be done: `cargo bench --bench overload`.
//!
//! The real `payoutd serve`, the real `payoutd sandbox` and this driver are separate processes on
//! loopback, and share the machine's cores: what the driver and the sandbox use, the service lacks.
//! `cargo bench --bench overload -- flood 10` runs one part, for ten seconds instead of sixty.

#![expect(clippy::float_arithmetic, reason = "measures time, never money")]

mod beside;
mod flood;
mod load;
#[path = "../payouts/process.rs"]
mod process;
#[path = "../payouts/unique.rs"]
mod unique;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use beside::{Seen, control};
use flood::{Flood, Lines};
use load::{Client, End, percentile};
use process::{Child, Folder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What can be asked for alone.
const PARTS: [&str; 4] = ["price", "flood", "silence", "crowd"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let asked = |part: &str| {
        !arguments.iter().any(|a| PARTS.contains(&a.as_str()))
            || arguments.iter().any(|a| a == part)
    };
    let seconds = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(60);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        if asked("price") {
            price().await;
        }
        if asked("flood") {
            for (what, in_flight, delay) in [
                ("upstream-bound: 64 in flight, Cregis takes 100 ms", 64, Some("100ms")),
                ("CPU-bound: 256 in flight, Cregis answers at once", 256, None),
            ] {
                flood(what, in_flight, delay, Duration::from_secs(seconds)).await;
            }
        }
        if asked("silence") {
            silence().await;
        }
        if asked("crowd") {
            crowd().await;
        }
    });
}

/// What it costs the service to take a call, and to turn one away.
async fn price() {
    let (upstream, folder) = (Child::sandbox(), Folder::new());
    let payoutd = Child::payoutd(&upstream, &folder, 64);
    let clients = load::connect(payoutd.address(), 4).await;
    let time = Duration::from_secs(5);
    load::closed(&clients, 64, Duration::from_secs(1)).await;
    let before = payoutd.cpu_us();
    let (_, taken) = load::closed(&clients, 64, time).await;
    // The warm-up is not counted among the calls.
    let taking =
        (payoutd.cpu_us() - before) * time.as_secs_f64() / (time + load::WARM_UP).as_secs_f64();

    control(&upstream, "faults", Some(r#"{"then":"hang","times":0}"#)).await;
    let mut waiting = JoinSet::new();
    (0..64).for_each(|_| drop(waiting.spawn(load::call(clients[0].clone()))));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // At any moment 128 of these wait in the queue, and 64 are turned away at once.
    let (before, begun) = (payoutd.cpu_us(), Instant::now());
    let mut loops = JoinSet::new();
    for number in 0..192 {
        let client = clients[number % clients.len()].clone();
        loops.spawn(async move {
            let mut shed = 0;
            while begun.elapsed() < time {
                shed += usize::from(load::call(client.clone()).await.0 == End::Shed);
            }
            shed
        });
    }
    let shed: usize = loops.join_all().await.into_iter().sum();
    let shedding = payoutd.cpu_us() - before;
    waiting.shutdown().await;
    println!("\nCPU of the service for one call");
    println!("  taken                {:>9.1} us of {}", taking / taken.len() as f64, taken.len());
    println!("  shed                 {:>9.1} us of {shed}", shedding / shed as f64);
}

/// Three times the peak, for a while; who is served meanwhile, and what comes after.
async fn flood(what: &str, in_flight: usize, delay: Option<&str>, time: Duration) {
    let (upstream, folder) = (Child::sandbox(), Folder::new());
    let payoutd = Child::payoutd(&upstream, &folder, in_flight);
    let clients = load::connect(payoutd.address(), 16).await;
    let doubts = beside::doubts(&clients[0], &upstream, 20).await;
    if let Some(delay) = delay {
        let fault = format!(r#"{{"delay":"{delay}","times":0}}"#);
        control(&upstream, "faults", Some(&fault)).await;
    }
    let (_, mut calm) = load::closed(&clients, 16, Duration::from_secs(3)).await;
    let normal = percentile(&mut calm, 50);
    let (peak, _) = load::closed(&clients, in_flight, Duration::from_secs(5)).await;

    let stop = CancellationToken::new();
    let others = beside::beside(payoutd.address().to_owned(), doubts, time / 20, stop.clone());
    let mut others = JoinSet::from_iter([others]);
    let lines = Lines::connect(payoutd.address(), 16).await;
    let used = || [payoutd.cpu_us(), upstream.cpu_us(), process::own_cpu_us()];
    let before = used();
    let flooded = lines.flood(3.0 * peak, time).await;
    let after = used();
    stop.cancel();
    let back = load::recovery(&clients, 16, normal).await;
    let seen = others.join_next().await.expect("one").expect("no panic");
    println!("\n{what}; {} s", time.as_secs());
    report(peak, &flooded, seen);
    let cores = |at: usize| (after[at] - before[at]) / 1e6 / flooded.seconds;
    println!(
        "  cores used           {:>9.2} by the service, {:.2} by the sandbox, {:.2} by this driver",
        cores(0),
        cores(1),
        cores(2)
    );
    println!("  normal again after   {back:>9.2} s (median of 16 at a time: {normal:.1} ms)");
    println!("  RSS                  {:>9.1} MB", payoutd.rss_mb());
}

fn report(peak: f64, flooded: &Flood, mut seen: Seen) {
    let (mut taken, mut shed) = (flooded.times(End::Taken), flooded.times(End::Shed));
    let (rate, offered) = (taken.len() as f64 / flooded.seconds, flooded.offered);
    let p = percentile;
    println!("  peak                 {peak:>9.0} payouts/s, closed loop");
    println!(
        "  offered              {:>9.0} /s; {} not begun",
        offered as f64 / flooded.seconds,
        flooded.not_begun
    );
    println!("  goodput              {rate:>9.0} /s = {:.0} % of the peak", 100.0 * rate / peak);
    println!("  taken, p50/p99       {:>9.1} / {:.1} ms", p(&mut taken, 50), p(&mut taken, 99));
    println!(
        "  shed, p50/p99/max    {:>9.1} / {:.1} / {:.1} ms of {}",
        p(&mut shed, 50),
        p(&mut shed, 99),
        shed.last().copied().unwrap_or_default(),
        shed.len()
    );
    println!("  neither              {:>9}", flooded.times(End::Other).len());
    for (who, times) in [
        ("Get", &mut seen.gets),
        ("health check", &mut seen.checks),
        ("watch news", &mut seen.news),
    ] {
        println!(
            "  {who:<12} p50/p99 {:>9.1} / {:.1} ms of {}",
            p(times, 50),
            p(times, 99),
            times.len()
        );
    }
}

/// Ten thousand calls at once and their times, over 20 connections.
async fn ten_thousand(clients: &[Client], enough: usize) -> (Vec<load::Call>, JoinSet<load::Call>) {
    let mut calls = JoinSet::new();
    for number in 0..10_000 {
        calls.spawn(load::call(clients[number % clients.len()].clone()));
    }
    let mut ended = Vec::new();
    while ended.len() < enough {
        ended.push(calls.join_next().await.expect("a call").expect("no panic"));
    }
    (ended, calls)
}

/// Ten thousand calls at once while Cregis says nothing.
async fn silence() {
    let (upstream, folder) = (Child::sandbox(), Folder::new());
    let payoutd = Child::payoutd(&upstream, &folder, 256);
    let clients = load::connect(payoutd.address(), 20).await;
    control(&upstream, "faults", Some(r#"{"then":"hang","times":0}"#)).await;
    let (ended, mut waiting) = ten_thousand(&clients, 10_000 - 256).await;
    let mut shed: Vec<f64> = ended.iter().map(|(_, time)| *time).collect();
    let all_shed = ended.iter().all(|(end, _)| *end == End::Shed);
    println!("\n10,000 calls at once, Cregis is silent, 256 in flight");
    println!("  all others shed      {all_shed:>9}");
    println!(
        "  shed, p50/p99/max    {:>9.1} / {:.1} / {:.1} ms",
        percentile(&mut shed, 50),
        percentile(&mut shed, 99),
        shed.last().copied().unwrap_or_default()
    );
    println!("  recorded             {:>9}", folder.rows());
    println!("  RSS                  {:>9.1} MB", payoutd.rss_mb());
    waiting.shutdown().await;
}

/// Ten thousand calls at once to a Cregis that takes its time.
async fn crowd() {
    let (upstream, folder) = (Child::sandbox(), Folder::new());
    let payoutd = Child::payoutd(&upstream, &folder, 256);
    let clients = load::connect(payoutd.address(), 20).await;
    control(&upstream, "faults", Some(r#"{"delay":"200ms","times":0}"#)).await;
    let begun = Instant::now();
    let (ended, _) = ten_thousand(&clients, 10_000).await;
    let seconds = begun.elapsed().as_secs_f64();
    let count = |wanted| ended.iter().filter(|(end, _)| *end == wanted).count();
    let mut posts: HashMap<String, usize> = HashMap::new();
    let requests = control(&upstream, "requests", None).await;
    for request in requests.as_array().expect("a list") {
        *posts.entry(request["third_party_id"].to_string()).or_default() += 1;
    }
    println!("\n10,000 calls at once, Cregis takes 200 ms, 256 in flight");
    println!(
        "  taken / shed / other {:>9} / {} / {} within {seconds:.2} s",
        count(End::Taken),
        count(End::Shed),
        count(End::Other)
    );
    println!("  recorded             {:>9}", folder.rows());
    println!(
        "  posts                {:>9}, at most {} for one id",
        posts.values().sum::<usize>(),
        posts.values().max().copied().unwrap_or_default()
    );
    println!("  RSS                  {:>9.1} MB", payoutd.rss_mb());
}
