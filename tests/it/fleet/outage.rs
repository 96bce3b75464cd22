//! A database that is stopped while callers are at it, in good order and as by a power cut, and comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use payoutd::pb::PayoutState;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic_types::StatusExt;

use crate::support::authority::Authority;
use crate::support::database::setting;
use crate::support::server::Server;
use crate::support::{Binary, Client, Upstream, order, reason};

/// So many new payouts in a second, and for so many seconds; `PAYOUTD_TEST_POSTGRES_OUTAGE="200 20"` says otherwise.
const LOAD: (usize, usize) = (50, 4);
/// From one repeat of a caller to the next, where the answer says nothing.
const AGAIN: Duration = Duration::from_secs(1);
/// Nobody repeats more often than this.
const TRIES: usize = 20;

/// What a caller heard first, and at last.
struct Heard {
    first: String,
    last: (PayoutState, String, i64),
    /// When its first call was answered with a payout.
    known: Option<Instant>,
}

fn load() -> (usize, usize) {
    let Some(given) = setting("_OUTAGE") else { return LOAD };
    let (rate, seconds) = given.split_once(' ').expect("two numbers");
    (rate.parse().expect("a number"), seconds.parse().expect("a number"))
}

fn pace(period: Duration) -> Interval {
    let mut beat = interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// Asks for one payout, and again as each answer says, until it is known.
async fn insist(mut client: Client, id: String) -> Heard {
    let mut first = None;
    for number in 0..TRIES {
        let wait = match client.create_payout(order(&id)).await {
            Ok(answer) => {
                let payout = answer.into_inner().payout.expect("a payout");
                let state = payout.state();
                let heard = first.get_or_insert_with(|| format!("OK {}", state.as_str_name()));
                if state != PayoutState::Sending {
                    let known = (number == 0).then(Instant::now);
                    let last = (state, payout.reason, payout.cid);
                    return Heard { first: heard.clone(), last, known };
                }
                None
            }
            Err(status) => {
                let (code, reason, _) = reason(&status);
                first.get_or_insert_with(|| format!("{code:?} {reason}"));
                status.get_details_retry_info().and_then(|info| info.retry_delay)
            }
        };
        let mut beat = pace(wait.unwrap_or(AGAIN));
        beat.tick().await;
        beat.tick().await;
    }
    panic!("{id} was never answered: {first:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL of its own"]
async fn a_database_that_is_stopped_while_payouts_are_made_loses_nothing_and_pays_nothing_twice() {
    let (rate, seconds) = load();
    let (every, orders) = (Duration::from_secs(1) / rate as u32, rate * seconds);
    for immediate in [false, true] {
        let (upstream, folder) = (Upstream::start().await, TempDir::new().expect("a folder"));
        let server = Arc::new(Server::start(&Authority::new("databases")).await);
        let url = server.url("postgres", "");
        let settings = [
            ("PAYOUTD_LEDGER__URL", url.as_str()),
            ("PAYOUTD_LEDGER__LEASE", "4s"),
            ("PAYOUTD_PROJECT__TIMEOUT", "1s"),
            ("PAYOUTD_LOG__LEVEL", "info"),
        ];
        let binary = Binary::start_with(upstream.address, &folder, &settings).await;
        let client = binary.client().await;
        let (mut callers, mut beat) = (JoinSet::new(), pace(every));
        let (mut operator, mut back) = (JoinSet::new(), None);
        for number in 0..orders {
            beat.tick().await;
            callers.spawn(insist(client.clone(), format!("order-{number}")));
            if number == orders / 4 {
                let server = Arc::clone(&server);
                operator.spawn_blocking(move || {
                    if immediate { server.crash() } else { server.control("stop") }
                });
            } else if number == orders / 2 {
                operator.join_next().await.expect("one").expect("stopped");
                let server = Arc::clone(&server);
                operator.spawn_blocking(move || server.control("start"));
                operator.join_next().await.expect("one").expect("started");
                back = Some(Instant::now());
            }
        }
        let back = back.expect("it came back");
        let (mut firsts, mut lasts) = (BTreeMap::new(), BTreeMap::new());
        let (mut cids, mut recovered) = (Vec::new(), None::<Instant>);
        for Heard { first, last: (state, reason, cid), known } in callers.join_all().await {
            *firsts.entry(first).or_insert(0) += 1;
            *lasts.entry(format!("{} {reason}", state.as_str_name())).or_insert(0) += 1;
            cids.extend((cid > 0).then_some(cid));
            let after = known.filter(|known| *known > back);
            recovered = recovered.into_iter().chain(after).min();
        }
        let mut posts = BTreeMap::new();
        for post in upstream.book.posts() {
            *posts.entry(post.third_party_id.expect("an id")).or_insert(0) += 1;
        }
        let recovered = recovered.expect("served again") - back;
        println!(
            "{}: {orders} ids, {} POSTs, at most {} for one id; first answers {firsts:?}; last answers {lasts:?}; \
             served again after {recovered:?}",
            if immediate { "immediate" } else { "fast" },
            posts.values().sum::<i32>(),
            posts.values().max().expect("some"),
        );
        assert!(posts.values().all(|count| *count == 1), "{posts:?}");
        let (shell, _driver) = server.shell().await;
        let select = "SELECT count(*) FROM payout WHERE cid = ANY($1)";
        let found: i64 = shell.query_one(select, &[&cids]).await.expect("read").get(0);
        assert_eq!(found, cids.len() as i64, "an acknowledged cid is not in the ledger");
        assert!(recovered < Duration::from_secs(5), "{recovered:?}");
        let known = [
            "OK PAYOUT_STATE_ACCEPTED",
            "OK PAYOUT_STATE_SENDING",
            "Unavailable",
            "OK PAYOUT_STATE_IN_DOUBT",
        ];
        let odd = firsts.keys().find(|first| !known.iter().any(|known| first.starts_with(known)));
        assert_eq!(odd, None);
    }
}
