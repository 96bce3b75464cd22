//! How many payouts one, two and three replicas make, and where the time goes.

use std::time::Duration;

use crate::drive::{Fleet, Load, Until};
use crate::median;
use crate::process::{Child, Folder, own_cpu_us};
use crate::server::Server;

/// Rounds of each kind; they take turns, so that a busy machine hurts all alike.
const ROUNDS: usize = 3;
/// Callers, each of which waits for its answer.
const CALLERS: usize = 64;
/// Not measured, at the start of each round.
const WARM_UP: Duration = Duration::from_secs(2);

/// What a round came to.
struct Round {
    load: Load,
    /// Of payoutd, PostgreSQL, Cregis and the callers, in milliseconds for a payout.
    cpu: [f64; 4],
    /// For a payout.
    transactions: f64,
    syncs: f64,
    log_kib: f64,
}

/// One round each with the embedded ledger and with one, two and three replicas, again and again.
pub(crate) async fn throughput(server: &mut Server, time: Duration) {
    // By the number of replicas; none stands for the embedded ledger.
    let mut rounds: [Vec<Round>; 4] = Default::default();
    for _ in 0..ROUNDS {
        for (replicas, rounds) in rounds.iter_mut().enumerate() {
            rounds.push(match replicas {
                0 => embedded(server, time).await,
                _ => shared(server, replicas, time).await,
            });
        }
    }
    println!(
        "\nPayouts with {CALLERS} callers, {ROUNDS} rounds of {} s in turns, medians.\n\n\
         | ledger | replicas | payouts/s | p50 ms | p99 ms | CPU ms a payout: payoutd | PostgreSQL | Cregis \
         | callers | cores busy | transactions a payout | syncs a payout | PostgreSQL's log KiB a payout |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        time.as_secs()
    );
    for (replicas, rounds) in rounds.iter().enumerate() {
        let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        let rate = |round: &Round| round.load.calls as f64 / round.load.seconds;
        let cores = |round: &Round| round.cpu.iter().sum::<f64>() * rate(round) / 1000.0;
        println!(
            "| {} | {} | {:.0} | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
            if replicas == 0 { "SQLite" } else { "PostgreSQL" },
            replicas.max(1),
            middle(&rate),
            middle(&|round| round.load.p50_ms),
            middle(&|round| round.load.p99_ms),
            middle(&|round| round.cpu[0]),
            middle(&|round| round.cpu[1]),
            middle(&|round| round.cpu[2]),
            middle(&|round| round.cpu[3]),
            middle(&cores),
            middle(&|round| round.transactions),
            middle(&|round| round.syncs),
            if replicas == 0 { "-".to_owned() } else { format!("{:.1}", middle(&|r| r.log_kib)) },
        );
    }
}

async fn embedded(server: &Server, time: Duration) -> Round {
    let (upstream, folder) = (Child::sandbox(), Folder::new());
    let url = format!("sqlite:{}", folder.ledger().display());
    let mut fleet = Fleet::start(&url, &[upstream.address().to_owned()], &[]).await;
    let warm = fleet.drive(CALLERS, Until::Time(WARM_UP)).await;
    let (load, cpu) = measured(&fleet, server, &upstream, time).await;
    let payouts = (warm.calls + load.calls) as f64;
    let commits = fleet.replicas.pop().expect("one").stop_and_count_commits() as f64 / payouts;
    Round { load, cpu, transactions: commits, syncs: commits, log_kib: 0.0 }
}

async fn shared(server: &mut Server, replicas: usize, time: Duration) -> Round {
    let (upstream, database) = (Child::sandbox(), server.database().await);
    let upstreams = vec![upstream.address().to_owned(); replicas];
    let (syncs, log) = (server.syncs().await, server.log().await);
    let fleet = Fleet::start(&database.url, &upstreams, &[]).await;
    let warm = fleet.drive(CALLERS, Until::Time(WARM_UP)).await;
    let (load, cpu) = measured(&fleet, server, &upstream, time).await;
    let payouts = (warm.calls + load.calls) as f64;
    drop(fleet);
    let transactions = server.transactions(&database).await as f64 / payouts;
    let syncs = (server.syncs().await - syncs) as f64 / payouts;
    let log_kib = (server.log().await - log) as f64 / 1024.0 / payouts;
    server.forget(database).await;
    Round { load, cpu, transactions, syncs, log_kib }
}

async fn measured(
    fleet: &Fleet,
    server: &Server,
    upstream: &Child,
    time: Duration,
) -> (Load, [f64; 4]) {
    let used = || [fleet.cpu_us(), server.cpu_us(), upstream.cpu_us(), own_cpu_us()];
    let before = used();
    let load = fleet.drive(CALLERS, Until::Time(time)).await;
    let after = used();
    let each = |at: usize| (after[at] - before[at]) / 1000.0 / load.calls as f64;
    let cpu = [0, 1, 2, 3].map(each);
    (load, cpu)
}
