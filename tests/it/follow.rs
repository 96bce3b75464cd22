//! The follower: what Cregis has is asked about to its end, and nothing is ever sent by it.

use std::time::{Duration, Instant};

use payoutd::config::Config;
use payoutd::pb::resolve_payout_request::Resolution::Cid;
use payoutd::pb::{self, PayoutState};

use crate::support::{Whole, order, told, watch, within};

async fn polled(every: u64) -> Whole {
    Whole::with(|config: &mut Config| {
        config.projects[0].poll_first = Duration::from_millis(every);
    })
    .await
}

fn queries(whole: &Whole) -> usize {
    whole.upstream.book.received().len() - whole.upstream.book.posts().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_approval_that_nobody_tells_of_is_denied_within_one_period() {
    let whole = polled(1000).await;
    let url = "http://127.0.0.1:9/callbacks".to_owned();
    let request = pb::CreatePayoutRequest { callback_url: url, ..order("a") };
    let cid = whole.create(request).await.expect("OK").cid;
    let begun = Instant::now();
    whole.upstream.book.set_status(cid, 3, true);
    // Told, not asked for without a pause: that would keep the machine from everything else.
    let mut watching = watch(&whole.client, "a").await.expect("OK");
    let denied = loop {
        let payout = told(&mut watching).await.expect("OK").expect("an end");
        if payout.state() == PayoutState::Denied {
            break payout;
        }
    };
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    assert_eq!((denied.cregis_status, denied.revision), (Some(3), 3));
    assert!(whole.upstream.book.deliveries().is_empty(), "no notice for that status");
    assert_eq!(whole.cause("a"), ("POLL".to_owned(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_payout_comes_to_its_end_by_polling_alone_and_across_a_restart() {
    let ends = [
        (6, PayoutState::Succeeded),
        (7, PayoutState::Failed),
        (2, PayoutState::Denied),
        (3, PayoutState::Denied),
        (4, PayoutState::Denied),
    ];
    let whole = polled(100).await;
    let mut cids = Vec::new();
    for number in 0..60 {
        cids.push(whole.create(order(&format!("p{number}"))).await.expect("OK").cid);
    }
    let (before, after) = cids.split_at(30);
    for (number, cid) in before.iter().enumerate() {
        whole.upstream.book.set_status(*cid, ends[number % 5].0, false);
    }
    let whole = whole.restart().await;
    for (number, cid) in after.iter().enumerate() {
        whole.upstream.book.set_status(*cid, ends[number % 5].0, false);
    }
    for number in 0..60 {
        let (status, state) = ends[number % 5];
        let id = format!("p{number}");
        let ended = whole.until(&id, |payout| payout.state() != PayoutState::Accepted).await;
        assert_eq!((ended.state(), ended.cregis_status), (state, Some(status)), "{id}");
        assert!(ended.attention.is_empty());
        assert_eq!(ended.txid.is_empty(), status != 6);
    }
    assert_eq!(whole.upstream.book.posts().len(), 60, "nothing was sent");
    let due = "SELECT count(*) FROM payout WHERE due IS NOT NULL";
    assert_eq!(whole.shell().number(due), 0, "what has ended is asked about no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_disagrees_pages_once_and_moves_nothing() {
    let whole = polled(50).await;
    for (number, fields) in [
        r#"{"amount": "9", "status": 6}"#,
        r#"{"address": "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "status": 6}"#,
        r#"{"third_party_id": "other", "status": 7}"#,
        r#"{"chain_id": "60", "status": 2}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("p{number}");
        let fault = format!(r#"{{"on": "query", "times": 0, "fields": {fields}}}"#);
        whole.upstream.fault(&fault);
        let accepted = whole.create(order(&id)).await.expect("OK");
        let paged = whole.until(&id, |payout| !payout.attention.is_empty()).await;
        assert_eq!(paged.attention, ["FIELD_MISMATCH"], "{fields}");
        let posts = whole.upstream.book.posts().len();
        whole.upstream.received(posts + queries(&whole) + 2).await;
        let still = whole.get(&id).await.expect("OK");
        assert_eq!((&still, still.state()), (&paged, PayoutState::Accepted), "{fields}");
        assert_eq!((still.cid, still.cregis_status, still.revision), (accepted.cid, None, 3));

        whole.upstream.book.clear_faults();
        whole.upstream.book.set_status(accepted.cid, 6, false);
        let ended = whole.until(&id, |payout| payout.state() == PayoutState::Succeeded).await;
        assert_eq!(ended.attention, ["FIELD_MISMATCH"], "it stays for a person");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn age_pages_once_for_what_is_accepted_or_in_doubt_and_leaves_with_the_state() {
    let whole = polled(50).await;
    let accepted = whole.create(order("accepted")).await.expect("OK");
    let cid = whole.doubt("doubt").await;
    whole.create(order("young")).await.expect("OK");
    whole.until("accepted", |payout| payout.cregis_status == Some(0)).await;
    whole.aged("accepted", 23);
    whole.aged("doubt", 23);
    whole.until("young", |payout| payout.cregis_status == Some(0)).await;
    for id in ["accepted", "doubt"] {
        assert!(whole.get(id).await.expect("OK").attention.is_empty(), "a day is not over: {id}");
        whole.aged(id, 2);
        let old = whole.until(id, |payout| !payout.attention.is_empty()).await;
        assert_eq!(
            (&old.attention[..], old.revision),
            (&["AGE".to_owned()][..], 3 + i64::from(id == "accepted"))
        );
        assert_eq!(whole.cause(id), ("AGE".to_owned(), None));
        // It is told once, however often it is looked at.
        whole.aged(id, 1);
    }
    let whole = whole.restart().await;
    whole.aged("accepted", 1);
    whole.aged("doubt", 1);
    whole.upstream.book.set_status(accepted.cid, 6, false);
    let ended = whole.until("accepted", |payout| payout.state() == PayoutState::Succeeded).await;
    assert_eq!((ended.attention.len(), ended.revision), (0, 5));
    assert_eq!(whole.get("doubt").await.expect("OK").revision, 3);
    assert!(whole.get("young").await.expect("OK").attention.is_empty());
    let bound = whole.resolve("doubt", Cid(cid)).await.expect("OK");
    assert_eq!((bound.attention.len(), bound.revision), (0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cregis_that_does_not_answer_moves_nothing_and_is_asked_again() {
    let whole = polled(50).await;
    whole.upstream.fault(r#"{"on": "query", "then": "drop"}"#);
    whole.upstream.fault(r#"{"on": "query", "code": "E0014"}"#);
    let cid = whole.create(order("a")).await.expect("OK").cid;
    whole.upstream.received(2).await;
    whole.upstream.book.set_status(cid, 7, false);
    let ended = whole.until("a", |payout| payout.state() != PayoutState::Accepted).await;
    assert_eq!((ended.state(), ended.revision), (PayoutState::Failed, 3));
    assert!(ended.attention.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_to_polls_do_not_slow_sends() {
    let whole = Whole::with(|config| config.projects[0].max_in_flight = 4).await;
    for number in 0..300 {
        whole.create(order(&format!("p{number}"))).await.expect("OK");
    }
    whole.upstream.fault(r#"{"on": "query", "times": 0, "delay": "2s"}"#);
    whole.shell().execute("UPDATE payout SET due = 1");
    whole.upstream.received(308).await;
    let begun = Instant::now();
    for number in 0..40 {
        let created = whole.create(order(&format!("new{number}"))).await.expect("OK");
        assert_eq!(created.state(), PayoutState::Accepted);
    }
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(2), "40 payouts took {taken:?}");
    assert!(queries(&whole) <= 16, "no more than eight questions at a time");
    within(whole.service.stop()).await;
}
