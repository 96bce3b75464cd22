//! What a payout costs in a ledger that holds a million, against an empty one, with both engines.

use std::time::Instant;

use crate::drive::{Fleet, Until};
use crate::median;
use crate::process::{Child, Folder};
use crate::rows::Rows;
use crate::server::Server;

/// Payouts that have ended.
const FINAL: i64 = 1_000_000;
/// Counted rounds of each kind; one more warms up.
const ROUNDS: usize = 11;
/// Callers at a time, and the payouts that they make in a round.
const LEVELS: [(usize, usize); 2] = [(1, 300), (64, 3_200)];

/// What one round came to: for a payout, and of the service and its database together.
struct Round {
    cpu_ms: f64,
    p50_ms: f64,
    per_second: f64,
    /// What PostgreSQL wrote into its log.
    log_kib: f64,
}

/// Empty and full take turns.
pub(crate) async fn full(server: &mut Server) {
    let upstream = Child::sandbox();
    let upstreams = [upstream.address().to_owned()];
    let begun = Instant::now();
    let (empty, filled) = (Folder::new(), Folder::new());
    let rows = |id: &str| Rows {
        count: FINAL,
        state: "SUCCEEDED",
        id: id.to_owned(),
        due: "NULL".to_owned(),
    };
    rows("lower(hex(randomblob(16)))").fill_file(&filled);
    let (bare, loaded) = (server.database().await, server.database().await);
    rows("md5(random()::text)").fill_database(&loaded).await;
    eprintln!("filled after {:.0} s", begun.elapsed().as_secs_f64());
    let file = |folder: &Folder| format!("sqlite:{}", folder.ledger().display());
    let engines = [
        ("SQLite", [file(&empty), file(&filled)]),
        ("PostgreSQL", [bare.url.clone(), loaded.url.clone()]),
    ];
    println!(
        "\nA payout in a ledger with {FINAL} final rows against an empty one; medians of {ROUNDS} rounds each, in \
         turns.\n\n\
         | ledger | callers | CPU ms a payout, empty | full | ratio | p50 ms, empty | full | ratio \
         | payouts/s, empty | full | PostgreSQL's log KiB a payout, empty | full |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for (engine, urls) in engines {
        let fleets = [
            Fleet::start(&urls[0], &upstreams, &[]).await,
            Fleet::start(&urls[1], &upstreams, &[]).await,
        ];
        for (callers, payouts) in LEVELS {
            let mut rounds: [Vec<Round>; 2] = Default::default();
            for number in 0..=ROUNDS {
                for turn in [number % 2, 1 - number % 2] {
                    let round = round(&fleets[turn], server, callers, payouts).await;
                    // The first ones warm up.
                    if number > 0 {
                        rounds[turn].push(round);
                    }
                }
            }
            row(engine, callers, &rounds);
        }
    }
    for database in [bare, loaded] {
        server.forget(database).await;
    }
}

async fn round(fleet: &Fleet, server: &Server, callers: usize, payouts: usize) -> Round {
    let used = || fleet.cpu_us() + server.cpu_us();
    let (before, log) = (used(), server.log().await);
    let load = fleet.drive(callers, Until::Calls(payouts)).await;
    let calls = load.calls as f64;
    Round {
        cpu_ms: (used() - before) / 1000.0 / calls,
        p50_ms: load.p50_ms,
        per_second: calls / load.seconds,
        log_kib: (server.log().await - log) as f64 / 1024.0 / calls,
    }
}

fn row(engine: &str, callers: usize, rounds: &[Vec<Round>; 2]) {
    let middle =
        |at: usize, of: fn(&Round) -> f64| median(rounds[at].iter().map(of).collect::<Vec<_>>());
    let both = |of: fn(&Round) -> f64| {
        let (empty, full) = (middle(0, of), middle(1, of));
        format!("{empty:.2} | {full:.2} | **{:.2}**", full / empty)
    };
    println!(
        "| {engine} | {callers} | {} | {} | {:.0} | {:.0} | {:.1} | {:.1} |",
        both(|round| round.cpu_ms),
        both(|round| round.p50_ms),
        middle(0, |round| round.per_second),
        middle(1, |round| round.per_second),
        middle(0, |round| round.log_kib),
        middle(1, |round| round.log_kib)
    );
}
