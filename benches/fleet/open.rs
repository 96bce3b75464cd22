//! How soon a replica serves with many payouts open, and whether each of them gets its turn.

use std::collections::HashSet;
use std::time::Duration;

use crate::cregis::{Cregis, Question};
use crate::drive::Fleet;
use crate::process::Folder;
use crate::rows::{self, Rows};
use crate::server::Server;

/// Payouts that are accepted and followed; half of them are overdue.
const OPEN: i64 = 100_000;
const OVERDUE: i64 = OPEN / 2;
/// Scatters the order in which they are due over the order in which they were recorded.
const STRIDE: i64 = 7_919;
/// What has been asked about once is due again while the others are still waiting for their turn.
const POLL_FIRST: &str = "5s";

/// The place of a payout in the order in which they are due; those before [`OVERDUE`] are overdue.
fn rank(cid: i64) -> i64 {
    cid * STRIDE % OPEN
}

/// With one replica over a file, and with three over a database.
pub(crate) async fn open(server: &mut Server) {
    println!(
        "\n{OPEN} open payouts, {OVERDUE} of them overdue by up to an hour, the others due within ten minutes; \
         poll_first = {POLL_FIRST}.\n\n\
         | ledger | replicas | start to SERVING s | polls/s | all overdue asked about within s \
         | asked twice before the last was asked once | farthest out of the order of due times \
         | polls of the least and the most busy replica | longest silence of a replica s |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    let start = rows::now();
    let rank = format!("CAST(i AS bigint) * {STRIDE} % {OPEN}");
    // 72 ms apart up to now, and then 12 ms.
    let due = format!(
        "{start} + ({rank} - {OVERDUE}) * CASE WHEN {rank} < {OVERDUE} THEN 72000 ELSE 12000 END"
    );
    let rows = Rows { count: OPEN, state: "ACCEPTED", id: "'open-' || i".to_owned(), due };
    let folder = Folder::new();
    rows.fill_file(&folder);
    followed("SQLite", &format!("sqlite:{}", folder.ledger().display()), 1).await;
    let database = server.database().await;
    rows.fill_database(&database).await;
    followed("PostgreSQL", &database.url, 3).await;
    server.forget(database).await;
}

async fn followed(ledger: &str, url: &str, replicas: usize) {
    let cregis = Cregis::start(replicas).await;
    let settings = [("PAYOUTD_PROJECT__POLL_FIRST", POLL_FIRST.to_owned())];
    let fleet = Fleet::start(url, &cregis.addresses, &settings).await;
    let start = fleet.starts.iter().max().expect("one").as_secs_f64();
    let mut left: HashSet<i64> = (1..=OPEN).filter(|cid| rank(*cid) < OVERDUE).collect();
    let all = cregis.until(|question| {
        left.remove(&question.cid);
        left.is_empty()
    });
    let asked = tokio::time::timeout(Duration::from_secs(300), all).await;
    let asked = asked.expect("some are never asked about");
    drop(fleet);
    report(ledger, replicas, start, &asked);
}

fn report(ledger: &str, replicas: usize, start: f64, asked: &[Question]) {
    let mut once = HashSet::new();
    let (mut overdue, mut again, mut twice, mut farthest, mut last) = (0i64, 0, 0, 0, 0);
    for (number, question) in asked.iter().enumerate() {
        if !once.insert(question.cid) {
            again += 1;
        } else if rank(question.cid) < OVERDUE {
            farthest = farthest.max((rank(question.cid) - overdue).abs());
            overdue += 1;
            (last, twice) = (number, again);
        }
    }
    let pass = &asked[..=last];
    let seconds = (asked[last].at - asked[0].at).as_secs_f64();
    let (mut fewest, mut most, mut silence) = (usize::MAX, 0, Duration::ZERO);
    for replica in 0..replicas {
        let own = pass.iter().filter(|question| question.replica == replica);
        let times: Vec<_> = own.map(|question| question.at).collect();
        (fewest, most) = (fewest.min(times.len()), most.max(times.len()));
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        silence = silence.max(pauses.max().unwrap_or(Duration::MAX));
    }
    println!(
        "| {ledger} | {replicas} | {start:.2} | {:.0} | {seconds:.1} | {twice} | {farthest} | {fewest} / {most} \
         | {:.2} |",
        pass.len() as f64 / seconds,
        silence.as_secs_f64()
    );
}
