//! `WatchPayout`: every revision once, in order, to the end, whatever happens in between.

mod crowd;
mod idle;

use std::time::Duration;

use payoutd::pb::watch_payout_request::Id;
use payoutd::pb::{self, PayoutState};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    Watch, Whole, bad_fields, beside, ended, order, reason, seen, told, watch, watch_from, within,
};

/// A service that asks Cregis every few moments.
async fn quick() -> Whole {
    Whole::with(|config| config.projects[0].poll_first = Duration::from_millis(50)).await
}

fn named(id: &str) -> Id {
    Id::ThirdPartyId(id.to_owned())
}

/// Everything to the end, which must be OK.
async fn rest(watch: &mut Watch) -> Vec<pb::Payout> {
    let mut all = Vec::new();
    while let Some(payout) = told(watch).await.expect("ends OK") {
        all.push(payout);
    }
    all
}

fn numbers(payouts: &[pb::Payout]) -> Vec<i64> {
    payouts.iter().map(|payout| payout.revision).collect()
}

/// A payout with the confirmed statuses 0, 5, 1 and then `end`; in all 2 revisions more than those.
async fn lived(whole: &Whole, id: &str, end: Option<i32>) -> pb::Payout {
    let cid = whole.create(order(id)).await.expect("OK").cid;
    let mut last = whole.until(id, |payout| payout.cregis_status == Some(0)).await;
    for status in [5, 1].into_iter().chain(end) {
        whole.upstream.book.set_status(cid, status, false);
        last = whole.until(id, |payout| payout.cregis_status == Some(status)).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_stands_then_each_change_once_and_ends_after_a_final_state() {
    let whole = quick().await;
    let created = whole.create(order("a")).await.expect("OK");
    let mut watch = watch(&whole.client, "a").await.expect("OK");
    let mut all = vec![told(&mut watch).await.expect("OK").expect("what stands")];
    assert!(all[0].revision >= created.revision);
    for status in [5, 1, 6] {
        whole.upstream.book.set_status(created.cid, status, false);
        loop {
            let news = told(&mut watch).await.expect("OK").expect("a change");
            all.push(news);
            if all.last().and_then(|last| last.cregis_status) == Some(status) {
                break;
            }
        }
    }
    assert_eq!(told(&mut watch).await.expect("ends OK"), None);
    let events = whole.events("a");
    let first = usize::try_from(all[0].revision).expect("small") - 1;
    assert_eq!(all.iter().map(seen).collect::<Vec<_>>(), events[first..]);
    let last = all.last().expect("some");
    assert_eq!((last, last.state()), (&whole.get("a").await.expect("OK"), PayoutState::Succeeded));
    assert!(!last.txid.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_payout_tells_what_was_missed_its_last_revision_at_least_and_ends() {
    let whole = quick().await;
    for (id, status, state) in [
        ("paid", 6, PayoutState::Succeeded),
        ("failed", 7, PayoutState::Failed),
        ("denied", 3, PayoutState::Denied),
    ] {
        let last = lived(&whole, id, Some(status)).await;
        assert_eq!((last.state(), last.revision), (state, 6));
        for after in 0..=9 {
            let mut watch = watch_from(&whole.client, named(id), after).await.expect("OK");
            let expected = match after {
                1..=5 => (after + 1..=6).collect(),
                _ => vec![6],
            };
            let all = rest(&mut watch).await;
            assert_eq!(numbers(&all), expected, "after {after}");
            assert_eq!(all.last(), Some(&last));
        }
        let mut far = watch_from(&whole.client, named(id), i64::MAX).await.expect("OK");
        assert_eq!(rest(&mut far).await, [last]);
    }
    whole.upstream.fault(r#"{"code": "E0008", "msg": "address is invalid"}"#);
    whole.create(order("refused")).await.expect_err("refused");
    let mut refused = watch(&whole.client, "refused").await.expect("OK");
    let all = rest(&mut refused).await;
    assert_eq!((numbers(&all), all[0].state()), (vec![2], PayoutState::Rejected));
    assert_eq!(all[0].reason, "E0008");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_revision_resumes_an_open_payout_without_a_gap_or_a_repeat() {
    let whole = quick().await;
    let open = lived(&whole, "a", None).await;
    assert_eq!(open.revision, 5);
    let mut watches = Vec::new();
    for after in 1..=7 {
        watches.push(watch_from(&whole.client, named("a"), after).await.expect("OK"));
    }
    whole.upstream.book.set_status(open.cid, 6, false);
    for (after, watch) in (1..).zip(&mut watches) {
        let all = rest(watch).await;
        assert_eq!(numbers(&all), (after.min(5) + 1..=6).collect::<Vec<i64>>(), "after {after}");
        let events = whole.events("a");
        let skipped = usize::try_from(all[0].revision).expect("small") - 1;
        assert_eq!(all.iter().map(seen).collect::<Vec<_>>(), events[skipped..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_longer_than_one_read_is_told_whole() {
    let whole = Whole::start().await;
    let cid = whole.create(order("a")).await.expect("OK").cid;
    whole.shell().execute(
        "WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO event (payout, revision, time, cause, state, state_time, reason, refusal_msg, cid,
             cregis_status, txid, block_height, attention)
         SELECT id, i, 1, 'POLL', 'ACCEPTED', 1, '', '', cid, i % 6, '', 0, '' FROM n, payout;
         UPDATE payout SET revision = 1000, cregis_status = 4;",
    );
    let mut watch = watch_from(&whole.client, named("a"), 1).await.expect("OK");
    for revision in 2..=1000 {
        let payout = told(&mut watch).await.expect("OK").expect("a revision");
        assert_eq!(payout.revision, revision);
    }
    whole.upstream.book.set_status(cid, 6, false);
    whole.shell().execute("UPDATE payout SET due = 1");
    assert_eq!(numbers(&rest(&mut watch).await), [1001]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_is_watched_by_its_cid_and_unknown_or_wrong_ones_are_refused() {
    let whole = quick().await;
    let created = whole.create(order("a")).await.expect("OK");
    let mut watch = watch_from(&whole.client, Id::Cid(created.cid), 2).await.expect("OK");
    whole.upstream.book.set_status(created.cid, 7, false);
    let all = rest(&mut watch).await;
    assert_eq!(
        (all[0].revision, all.last().map(pb::Payout::state)),
        (3, Some(PayoutState::Failed))
    );

    for unknown in [named("b"), Id::Cid(1)] {
        let status = watch_from(&whole.client, unknown, 0).await.expect_err("unknown");
        let expected = (Code::NotFound, "PAYOUT_NOT_FOUND".to_owned(), "fix".to_owned());
        assert_eq!(reason(&status), expected);
    }
    let elsewhere = pb::WatchPayoutRequest {
        pid: 8,
        id: Some(named("a")),
        ..pb::WatchPayoutRequest::default()
    };
    let status = within(whole.client.clone().watch_payout(elsewhere)).await.expect_err("unknown");
    assert_eq!((status.code(), reason(&status).1.as_str()), (Code::NotFound, "UNKNOWN_PROJECT"));
    for (id, after, fields) in [
        (Some(named("")), 0, vec!["third_party_id"]),
        (Some(named("a b")), -1, vec!["after_revision", "third_party_id"]),
        (Some(Id::Cid(0)), 0, vec!["cid"]),
        (None, i64::MIN, vec!["after_revision", "id"]),
    ] {
        let bad = pb::WatchPayoutRequest { pid: 0, id, after_revision: after };
        let status = within(whole.client.clone().watch_payout(bad)).await.expect_err("bad");
        assert_eq!(bad_fields(&status), fields);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_every_stream_with_draining_and_takes_no_new_one() {
    let whole = Whole::start().await;
    whole.create(order("a")).await.expect("OK");
    let mut watches = Vec::new();
    for _ in 0..20 {
        let mut watch = watch(&whole.client, "a").await.expect("OK");
        told(&mut watch).await.expect("OK").expect("what stands");
        watches.push(watch);
    }
    // A send under way keeps the drain waiting.
    whole.upstream.fault(r#"{"delay": "1s"}"#);
    let mut slow = whole.client.clone();
    let slow = beside(async move { slow.create_payout(order("slow")).await });
    whole.upstream.received(2).await;
    whole.service.begin_stop();
    let draining = (Code::Unavailable, "DRAINING".to_owned(), "same_id".to_owned());
    for mut watch in watches {
        let status = told(&mut watch).await.expect_err("ended by the drain");
        assert_eq!(reason(&status), draining);
        assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
    }
    let status = watch(&whole.client, "a").await.expect_err("too late");
    assert_eq!(reason(&status), draining);
    ended(slow).await.expect("the send in flight ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_the_limit_is_refused_and_a_dropped_one_frees_its_place() {
    let whole = Whole::with(|config| config.grpc.max_watches = 2).await;
    whole.create(order("a")).await.expect("OK");
    for _ in 0..5 {
        // One that is refused takes no place.
        watch(&whole.client, "b").await.expect_err("unknown");
    }
    let first = watch(&whole.client, "a").await.expect("OK");
    let second = watch(&whole.client, "a").await.expect("OK");
    let status = watch(&whole.client, "a").await.expect_err("full");
    let full = (Code::ResourceExhausted, "OVERLOADED".to_owned(), "same_id".to_owned());
    assert_eq!(reason(&status), full);
    assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
    whole.get("a").await.expect("reads go on");
    drop(first);
    let mut third = within(async {
        loop {
            match watch(&whole.client, "a").await {
                Ok(watch) => return watch,
                Err(status) => assert_eq!(reason(&status), full),
            }
        }
    })
    .await;
    assert!(told(&mut third).await.expect("OK").is_some());
    drop(second);
}
