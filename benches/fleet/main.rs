//! Replicas over one PostgreSQL, and ledgers that are already large: `cargo bench --bench fleet`.
//!
//! The real `payoutd serve`, a PostgreSQL server that the benchmark starts itself with the settings it comes
//! with, a Cregis and this driver are separate processes on loopback, and share the machine's cores: read
//! who used how much of them, and the ratios. `cargo bench --bench fleet -- throughput 20` runs one part,
//! for twenty seconds a round instead of eight. The tables are Markdown.

#![expect(clippy::float_arithmetic, reason = "measures time, never money")]

mod cregis;
mod drive;
mod full;
#[path = "../overload/load.rs"]
#[allow(dead_code, reason = "its closed loops measure something else")]
mod load;
mod open;
#[path = "../payouts/process.rs"]
mod process;
mod rows;
mod server;
mod throughput;
#[path = "../payouts/unique.rs"]
mod unique;

use std::time::Duration;

use server::Server;

/// What can be asked for alone.
const PARTS: [&str; 3] = ["throughput", "open", "final"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let asked = |part: &str| {
        !arguments.iter().any(|a| PARTS.contains(&a.as_str()))
            || arguments.iter().any(|a| a == part)
    };
    let seconds = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(8);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut server = Server::start().await;
        println!("{}", server.machine().await);
        if asked("throughput") {
            throughput::throughput(&mut server, Duration::from_secs(seconds)).await;
        }
        if asked("open") {
            open::open(&mut server).await;
        }
        if asked("final") {
            full::full(&mut server).await;
        }
    });
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
