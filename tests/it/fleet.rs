//! Several replicas over one PostgreSQL database: nothing about the promise changes.
//!
//! They need a server, so only `tests/postgres/run` runs them.

mod archive;
mod connections;
mod copy;
mod grant;
mod halfway;
mod lease;
mod opening;
mod outage;
mod plans;
mod pooler;
mod refused;
mod silence;
mod standby;
mod storm;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use payoutd::caller::Role;
use payoutd::config::Caller;
use payoutd::pb::{self, PayoutState};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::fleet::Fleet;
use crate::support::{by, caller, limit, order, reason, settled, told, watch, within};

/// So many ids, each asked for by two replicas at the same moment.
const PAIRS: usize = 1_000;
/// So many pairs are under way at once.
const LANES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn of_replicas_that_are_asked_for_one_id_at_the_same_moment_one_sends_and_all_hear_its_cid() {
    let fleet = Arc::new(Fleet::start(3).await);
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let fleet = Arc::clone(&fleet);
        lanes.spawn(async move {
            for pair in (lane..PAIRS).step_by(LANES) {
                let id = format!("pair-{pair}");
                let start = Arc::new(Barrier::new(2));
                let ask = |replica: usize| {
                    let (fleet, start, id) = (Arc::clone(&fleet), Arc::clone(&start), id.clone());
                    async move {
                        start.wait().await;
                        fleet.create(replica % 3, order(&id)).await.expect("OK")
                    }
                };
                let (one, other) = tokio::join!(ask(pair), ask(pair + 1));
                assert!(one.cid > 0, "{id}: {one:?}");
                assert_eq!(one.cid, other.cid, "{id}");
                let third = fleet.create((pair + 2) % 3, order(&id)).await.expect("OK");
                assert_eq!(third.cid, one.cid, "{id}");
            }
        });
    }
    lanes.join_all().await;
    let mut posts = fleet.upstream.book.posts();
    posts.sort_by(|a, b| a.third_party_id.cmp(&b.third_party_id));
    posts.dedup_by(|a, b| a.third_party_id == b.third_party_id);
    assert_eq!(posts.len(), PAIRS);
    assert_eq!(fleet.upstream.book.posts().len(), PAIRS, "an id was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn of_different_amounts_under_one_id_one_is_recorded_and_the_others_already_exist() {
    let fleet = Arc::new(Fleet::start(3).await);
    for round in 0..50 {
        let (id, start) = (format!("round-{round}"), Arc::new(Barrier::new(3)));
        let mut asked = JoinSet::new();
        for replica in 0..3 {
            let (fleet, start, id) = (Arc::clone(&fleet), Arc::clone(&start), id.clone());
            asked.spawn(async move {
                let amount = format!("1.{}", replica + 1);
                let request = pb::CreatePayoutRequest { amount, ..order(&id) };
                start.wait().await;
                fleet.create(replica, request).await
            });
        }
        let (paid, refused): (Vec<_>, Vec<_>) =
            asked.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((paid.len(), refused.len()), (1, 2), "{id}");
        for status in refused.into_iter().filter_map(Result::err) {
            assert_eq!(reason(&status).1, "THIRD_PARTY_ID_REUSED");
            assert_eq!(status.code(), Code::AlreadyExists);
        }
        assert_eq!(fleet.posts(&id), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn whoever_asks_another_replica_while_a_send_is_under_way_waits_for_its_end() {
    let fleet = Fleet::start(2).await;
    fleet.upstream.fault(r#"{"third_party_id": "a", "delay_answer": "1s"}"#);
    let (first, second) = tokio::join!(fleet.create(0, order("a")), async {
        fleet.upstream.received(1).await;
        fleet.create(1, order("a")).await
    });
    let (first, second) = (first.expect("OK"), second.expect("OK"));
    assert!(first.cid > 0);
    assert_eq!(first, second);
    // And who has no time to wait hears how it stands.
    fleet.upstream.fault(r#"{"third_party_id": "b", "delay_answer": "2s"}"#);
    let (sent, seen) = tokio::join!(fleet.create(0, order("b")), async {
        fleet.upstream.received(2).await;
        let mut request = tonic::Request::new(order("b"));
        request.set_timeout(Duration::from_millis(600));
        let answer = within(fleet.clients[1].clone().create_payout(request)).await.expect("OK");
        answer.into_inner().payout.expect("a payout")
    });
    assert_eq!((seen.state(), seen.cid), (PayoutState::Sending, 0));
    assert!(sent.expect("OK").cid > 0);
    assert_eq!(fleet.upstream.book.posts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_watcher_hears_every_revision_that_another_replica_makes() {
    let soon = Duration::from_millis(100);
    let fleet = Fleet::with(2, |config| config.projects[0].poll_first = soon).await;
    fleet.upstream.fault(r#"{"third_party_id": "a", "delay_answer": "300ms"}"#);
    let created = fleet.create(0, order("a"));
    let watched = async {
        fleet.upstream.received(1).await;
        let mut watching = watch(&fleet.clients[1], "a").await.expect("OK");
        let mut seen = Vec::new();
        while let Some(payout) = told(&mut watching).await.expect("OK") {
            if payout.state() == PayoutState::Accepted && payout.cregis_status.is_none() {
                fleet.upstream.book.set_status(payout.cid, 6, false);
            }
            seen.push((payout.revision, payout.state()));
        }
        seen
    };
    let (_, seen) = tokio::join!(created, watched);
    let revisions: Vec<_> = seen.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions, (1..=seen.len() as i64).collect::<Vec<_>>(), "{seen:?}");
    assert_eq!(seen.last().map(|(_, state)| *state), Some(PayoutState::Succeeded), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_pause_that_one_replica_takes_holds_in_all_at_once_and_so_does_its_end() {
    let fleet = Fleet::start(3).await;
    let known = fleet.create(0, order("known")).await.expect("OK");
    for round in 0..6 {
        fleet.set_intake(round % 3, true).await;
        for replica in 0..3 {
            // At once, though nobody has told it: the record itself looks.
            let refused = fleet.create(replica, order("new")).await.expect_err("paused");
            assert_eq!(reason(&refused).1, "PAUSED");
            assert_eq!(fleet.create(replica, order("known")).await.expect("known"), known);
        }
        fleet.set_intake((round + 1) % 3, false).await;
        // The others look once a second.
        for replica in 0..3 {
            let id = format!("new-{round}-{replica}");
            let taken = async {
                loop {
                    match fleet.create(replica, order(&id)).await {
                        Ok(payout) => return payout,
                        Err(status) => assert_eq!(reason(&status).1, "PAUSED"),
                    }
                }
            };
            assert!(within(taken).await.cid > 0);
        }
    }
    assert_eq!(fleet.posts("new"), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn nothing_is_sent_by_any_replica_once_a_pause_was_answered() {
    let fleet = Arc::new(Fleet::start(2).await);
    let (shell, _driver) = fleet.database.shell().await;
    // Commits that take their time, as behind a synchronous standby.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON payout DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION slow()";
    shell.batch_execute(slow).await.expect("slow");
    let mut asked = JoinSet::new();
    for number in 0..8 {
        let fleet = Arc::clone(&fleet);
        asked.spawn(async move { fleet.create(1, order(&format!("late-{number}"))).await });
    }
    within(async {
        let committing = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        while shell.query_one(committing, &[]).await.expect("read").get::<_, i64>(0) == 0 {}
    })
    .await;
    fleet.set_intake(0, true).await;
    let sent = fleet.upstream.book.posts().len();
    let answers = within(asked.join_all()).await;
    assert!(answers.iter().any(Result::is_ok) || sent == 0, "{answers:?}");
    assert_eq!(fleet.upstream.book.posts().len(), sent, "sent after the answer");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_days_limit_holds_over_all_replicas_whatever_they_are_asked_at_once() {
    let fleet = Arc::new(
        Fleet::with(3, |config| {
            let limits = vec![limit(None, Some("11"))];
            config.callers = vec![Caller { limits, ..caller("shop", &[Role::Create]) }];
        })
        .await,
    );
    let mut asked = JoinSet::new();
    // Ten of 1.1 fit.
    for number in 0..30 {
        let fleet = Arc::clone(&fleet);
        asked.spawn(async move {
            let request = by("shop", order(&format!("many-{number}")));
            within(fleet.clients[number % 3].clone().create_payout(request)).await
        });
    }
    let answers = asked.join_all().await;
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    let denied = refused.inspect(|status| assert_eq!(reason(status).1, "POLICY_DENIED")).count();
    assert_eq!(denied, 20);
    assert_eq!(fleet.upstream.book.posts().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_payout_that_is_due_is_asked_about_by_one_replica_and_none_is_left_out() {
    let soon = Duration::from_millis(500);
    let fleet = Fleet::with(3, |config| config.projects[0].poll_first = soon).await;
    // Each is asked about when it is due, and with an end that is the last time.
    for number in 0..60 {
        let payout = fleet.create(number % 3, order(&format!("due-{number}"))).await.expect("OK");
        fleet.upstream.book.set_status(payout.cid, 6, false);
    }
    for number in 0..60 {
        let ended = async {
            loop {
                let payout = settled(&fleet.clients[0], &format!("due-{number}")).await;
                if payout.state() == PayoutState::Succeeded {
                    return;
                }
            }
        };
        within(ended).await;
    }
    let received = fleet.upstream.book.received();
    let queries = received.iter().filter(|asked| asked.path == "/api/v1/payout/query").count();
    assert_eq!(queries, 60, "three replicas, and each payout is asked about once");
}
