//! The callback listener: what Cregis says earns a question, and only the answer moves money.

mod crash;
mod forged;
pub(crate) mod letter;
mod limits;
mod meaning;
mod misfit;
mod split;
mod verification;

use std::time::Duration;

use payoutd::pb::PayoutState;
use payoutd::sandbox::message::Push;
use tokio::task::JoinSet;

use crate::support::{Whole, order, within};
use letter::{
    accepted, causes, count, genuine, lost, notice, success, tell, tell_bytes, told, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_fitting_notice_is_kept_acknowledged_and_moves_as_far_as_the_query_agrees() {
    let whole = Whole::start().await;
    let payout = whole.create(told(&whole, "a")).await.expect("OK");
    assert_eq!((payout.state(), payout.revision), (PayoutState::Accepted, 2));
    assert!(whole.upstream.book.set_status(payout.cid, 6, true));
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    let delivery = whole.upstream.book.deliveries().remove(0);
    assert_eq!((delivery.http_status, delivery.body.as_str()), (Some(200), "success"));

    let cregis = whole.upstream.book.orders().remove(0);
    assert_eq!((paid.cid, paid.cregis_status, paid.revision), (cregis.cid, Some(6), 3));
    assert_eq!(Some(&paid.txid), cregis.txid.as_ref());
    assert_eq!(Some(paid.block_height.to_string()), cregis.block_height);
    let time = paid.block_time.expect("a block");
    let millis = time.seconds * 1000 + i64::from(time.nanos / 1_000_000);
    assert_eq!(Some(millis), cregis.block_time);
    assert!(paid.attention.is_empty());
    let shell = whole.shell();
    assert_eq!(causes(&shell, "a"), ["RECORDED", "REPLY", "NOTICE"]);
    assert_eq!(count(&shell, "notice WHERE third_party_id = 'a' AND payout = 1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_says_more_than_the_query_moves_nothing_until_the_query_says_so() {
    let whole = Whole::with(|config| {
        config.projects[0].poll_first = Duration::from_millis(100);
    })
    .await;
    let cid = accepted(&whole, "a").await;
    assert!(whole.upstream.book.set_status(cid, 1, false));
    assert_eq!(tell(&whole, notice("a", cid, 7)).await, success());
    // Asked about it at once, and again after that.
    let mut posts = whole.upstream.book.count();
    within(posts.wait_for(|posts| *posts >= 4)).await.expect("the sandbox lives");
    let open = whole.get("a").await.expect("known");
    assert_eq!((open.state(), open.cregis_status), (PayoutState::Accepted, Some(1)));
    assert!(whole.upstream.book.set_status(cid, 6, false));
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!((paid.cid, paid.cregis_status), (cid, Some(6)));
    assert!(paid.attention.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_about_a_paid_payout_that_contradicts_it_changes_nothing() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    assert_eq!(tell(&whole, notice("a", cid, 6)).await, success());
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!(tell(&whole, notice("a", cid, 7)).await, success());
    letter::barrier(&whole, "after").await;
    assert_eq!(whole.get("a").await.expect("known"), paid, "the query still says 6");
    assert!(whole.upstream.book.set_status(cid, 7, false));
    assert_eq!(tell(&whole, notice("a", cid, 7)).await, success());
    letter::barrier(&whole, "soon").await;
    assert_eq!(
        whole.get("a").await.expect("known"),
        paid,
        "the same is asked about once in an hour"
    );
    let hour = "UPDATE notice SET time = time - 3600000000 WHERE third_party_id = 'a'";
    assert_eq!(whole.shell().execute(hour), 2);
    assert_eq!(tell(&whole, notice("a", cid, 7)).await, success());
    letter::barrier(&whole, "later").await;
    let paged = whole.get("a").await.expect("known");
    assert_eq!((paged.state(), &paged.txid), (PayoutState::Succeeded, &paid.txid));
    assert_eq!(paged.attention, ["CONTRADICTION"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_binds_the_cid_of_a_lost_answer() {
    let whole = Whole::start().await;
    let cid = lost(&whole, order("open")).await;
    assert!(whole.upstream.book.set_status(cid, 1, false));
    assert_eq!(tell(&whole, notice("open", cid, 6)).await, success());
    let bound = until(&whole, "open", PayoutState::Accepted).await;
    assert_eq!((bound.cid, bound.reason.as_str(), bound.revision), (cid, "", 3));

    let cid = lost(&whole, told(&whole, "paid")).await;
    assert!(whole.upstream.book.set_status(cid, 6, true));
    let paid = until(&whole, "paid", PayoutState::Succeeded).await;
    assert_eq!((paid.cid, paid.reason.as_str(), paid.revision), (cid, "", 3));
    for (id, payout) in [("open", bound), ("paid", paid)] {
        assert!(payout.attention.is_empty());
        assert_eq!(causes(&whole.shell(), id), ["RECORDED", "REPLY", "NOTICE"]);
    }
    assert_eq!(whole.upstream.book.posts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_comes_before_the_reply_is_one_order_and_one_end() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"on": "notice", "before_answer": true}"#);
    // Long enough for the query to overtake the reply as well.
    whole.upstream.fault(r#"{"delay_answer": "300ms"}"#);
    let answer = whole.create(told(&whole, "a")).await.expect("OK");
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    let orders = whole.upstream.book.orders();
    assert_eq!((orders.len(), paid.cid, answer.cid), (1, orders[0].cid, orders[0].cid));
    assert!(paid.attention.is_empty(), "{:?}", paid.attention);
    assert!(whole.upstream.book.deliveries()[0].ok);
    let causes = causes(&whole.shell(), "a");
    let notices = causes.iter().filter(|cause| *cause == "NOTICE").count();
    assert_eq!((notices, paid.revision), (1, causes.len() as i64));
    assert_eq!(whole.create(told(&whole, "a")).await.expect("OK"), paid);
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

/// Repeated, signed anew, in any order, and with polls in between.
#[tokio::test(flavor = "multi_thread")]
async fn notices_that_come_a_hundred_times_are_one_end_each_and_all_acknowledged() {
    let whole = Whole::with(|config| {
        config.projects[0].poll_first = Duration::from_millis(100);
    })
    .await;
    let cids = [accepted(&whole, "a").await, accepted(&whole, "b").await];
    for cid in cids {
        assert!(whole.upstream.book.set_status(cid, 6, false));
    }
    let mut letters: Vec<Vec<u8>> = Vec::new();
    for (id, cid) in [("a", cids[0]), ("b", cids[1])] {
        letters.extend(vec![genuine(notice(id, cid, 6)); 100]);
        letters.extend((0..100).map(|_| genuine(notice(id, cid, 6))));
    }
    let address = whole.service.addresses.callback;
    let mut calls = JoinSet::new();
    // A stride that is prime to their number: all of them, out of order.
    for number in 0..letters.len() {
        let letter = letters[number * 149 % 400].clone();
        calls.spawn(async move { tell_bytes(address, &letter).await });
        if number % 20 == 19 {
            while let Some(answer) = calls.join_next().await {
                assert_eq!(answer.expect("no panic"), success());
            }
        }
    }
    for id in ["a", "b"] {
        let paid = until(&whole, id, PayoutState::Succeeded).await;
        letter::barrier(&whole, &format!("{id}-after")).await;
        assert_eq!(whole.get(id).await.expect("known"), paid);
        assert!(paid.revision == 3 && paid.attention.is_empty());
        let kept = count(&whole.shell(), &format!("notice WHERE third_party_id = '{id}'"));
        assert_eq!(kept, 1, "one for all that say the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_by_hand_an_hour_later_is_acknowledged_and_changes_nothing() {
    let whole = Whole::start().await;
    let payout = whole.create(told(&whole, "a")).await.expect("OK");
    assert!(whole.upstream.book.set_status(payout.cid, 6, true));
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    let push = Push { times: Some(100), stale: true };
    assert!(whole.upstream.book.push_notice(payout.cid, push));
    let mut sent = whole.upstream.book.deliveries_count();
    within(sent.wait_for(|sent| *sent >= 101)).await.expect("the sandbox lives");
    assert!(whole.upstream.book.deliveries().iter().all(|delivery| delivery.ok));
    assert_eq!(whole.get("a").await.expect("known"), paid);
    assert_eq!(count(&whole.shell(), "notice"), 1);
}

/// The key's holder can write one message in endless ways: blanks, order, empty fields.
#[tokio::test(flavor = "multi_thread")]
async fn one_message_written_in_many_ways_is_one_notice_and_one_question() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    let text = String::from_utf8(genuine(notice("a", cid, 6))).expect("text");
    let asked = whole.upstream.book.received().len();
    for (number, written) in [
        text.clone(),
        text.replace("\":", "\" :"),
        format!(" {text}\n"),
        text.replacen('{', r#"{"memo": null, "#, 1),
        text.replacen('{', r#"{"remark": "", "#, 1),
        text.replace("\"195\"", "195"),
        text.replacen("pid", "\\u0070id", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let address = whole.service.addresses.callback;
        assert_eq!(tell_bytes(address, written.as_bytes()).await, success(), "{number}");
    }
    letter::barrier(&whole, "after").await;
    assert_eq!(count(&whole.shell(), "notice WHERE third_party_id = 'a'"), 1);
    let received = whole.upstream.book.received();
    assert_eq!(received.len(), asked + 1 + 2, "the question, and the barrier's two calls");
}

/// One message signed anew a hundred times asks no hundred times.
#[tokio::test(flavor = "multi_thread")]
async fn notices_that_come_while_a_question_is_open_share_it_and_another_status_asks_again() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    whole.upstream.fault(r#"{"on": "query", "delay_answer": "3s"}"#);
    assert!(whole.upstream.book.set_status(cid, 1, false));
    assert_eq!(tell(&whole, notice("a", cid, 1)).await, success());
    whole.upstream.received(2).await;
    for number in 0..50 {
        assert_eq!(
            tell(&whole, notice("a", cid, if number % 2 == 0 { 1 } else { 6 })).await,
            success()
        );
    }
    assert_eq!(count(&whole.shell(), "notice"), 2);
    assert_eq!(count(&whole.shell(), "notice WHERE due IS NOT NULL"), 1);
    assert!(whole.upstream.book.set_status(cid, 6, false));
    // The first question saw 1; that of the second status sees 6.
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!((paid.revision, whole.upstream.book.received().len()), (4, 3));
}
