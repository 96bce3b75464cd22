//! Every payout reaches a known end, whatever of Cregis's answers is lost.

use std::collections::HashMap;

use payoutd::pb::{self, Payout, PayoutState};
use payoutd::sandbox::PID;
use payoutd::sandbox::order::Order;
use tokio::task::JoinSet;

use crate::support::{Client, Whole, order, reason, within};

/// How many payouts each night has.
const PAYOUTS: usize = 1_000;
/// Answers that are lost after the order was stored.
const EVERY_THIRD_IS_LOST: &str = r#"{"then": "drop", "every": 3, "times": 0}"#;

/// A service that asks soon, over a Cregis that loses every third answer.
async fn lossy(verification: bool) -> Whole {
    let whole = Whole::with(|config| {
        config.projects[0].poll_first = std::time::Duration::from_millis(200);
        config.projects[0].verification = verification;
    })
    .await;
    whole.upstream.fault(EVERY_THIRD_IS_LOST);
    whole
}

fn callback(whole: &Whole, kind: &str) -> String {
    format!("http://{}/callbacks/{PID}/{kind}", whole.service.addresses.callback)
}

/// Asks for payouts `id-0` and so on, 16 at a time, and counts those whose answer was lost.
async fn ask_for(whole: &Whole, request: impl Fn(&str) -> pb::CreatePayoutRequest) -> usize {
    let mut lost = 0;
    let mut calls = JoinSet::new();
    for number in 0..PAYOUTS {
        if calls.len() >= 16 {
            lost += usize::from(within(calls.join_next()).await.expect("one").expect("no panic"));
        }
        let (mut client, request) = (whole.client.clone(), request(&format!("id-{number}")));
        calls.spawn(async move {
            // Lost answers may come in a row and open the breaker: then the same id, again.
            loop {
                match client.create_payout(request.clone()).await {
                    Ok(answer) => return answer.into_inner().cid == 0,
                    Err(status) => assert_eq!(reason(&status).1, "UPSTREAM_UNAVAILABLE"),
                }
            }
        });
    }
    lost + within(calls.join_all()).await.into_iter().filter(|lost| *lost).count()
}

/// Cregis decides: a third each is paid, fails, and is cancelled, which no notice tells of.
fn decide(whole: &Whole) -> HashMap<String, (i64, PayoutState)> {
    let ends = [(6, PayoutState::Succeeded), (7, PayoutState::Failed), (3, PayoutState::Denied)];
    let mut expected = HashMap::new();
    for (at, order) in whole.upstream.book.orders().into_iter().enumerate() {
        let (status, state) = ends[at % 3];
        whole.upstream.book.set_status(order.cid, status, true);
        let before = expected.insert(order.third_party_id, (order.cid, state));
        assert!(before.is_none(), "an id was ordered twice");
    }
    assert_eq!(expected.len(), PAYOUTS, "one order each");
    expected
}

async fn list(client: &Client, states: &[PayoutState]) -> Vec<Payout> {
    let states: Vec<i32> = states.iter().map(|state| *state as i32).collect();
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let (states, page_size) = (states.clone(), 1000);
        let request =
            pb::ListPayoutsRequest { states, page_size, page_token, ..Default::default() };
        let page = within(client.clone().list_payouts(request)).await.expect("OK").into_inner();
        all.extend(page.payouts);
        if page.next_page_token.is_empty() {
            return all;
        }
        page_token = page.next_page_token;
    }
}

/// Waits until nothing is open any more, and compares every end with what Cregis decided.
async fn all_ended(whole: &Whole, expected: &HashMap<String, (i64, PayoutState)>) {
    let open = [PayoutState::Sending, PayoutState::InDoubt, PayoutState::Accepted];
    let night = std::time::Duration::from_secs(120);
    let ended = async { while !list(&whole.client, &open).await.is_empty() {} };
    tokio::time::timeout(night, ended).await.expect("all of them end");
    let payouts = list(&whole.client, &[]).await;
    assert_eq!(payouts.len(), PAYOUTS);
    for payout in payouts {
        let found = (payout.cid, payout.state());
        assert_eq!(found, expected[&payout.third_party_id], "{}", payout.third_party_id);
        assert!(payout.attention.is_empty(), "{payout:?}");
    }
    assert_eq!(whole.upstream.book.posts().len(), PAYOUTS, "each was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_verification_1000_payouts_end_known_though_every_third_answer_is_lost() {
    let whole = lossy(true).await;
    whole.upstream.book.verify_at(Some(callback(&whole, "verification")));
    let lost = ask_for(&whole, order).await;
    assert!(lost >= PAYOUTS / 4, "{lost} answers were lost");
    let undecided = |order: &Order| order.approved.is_none();
    within(async {
        while whole.upstream.book.orders().iter().any(undecided) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let orders = whole.upstream.book.orders();
    assert!(orders.iter().all(|order| order.approved == Some(true)), "one was denied");
    all_ended(&whole, &decide(&whole)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_notices_1000_payouts_end_known_though_every_third_answer_is_lost() {
    let whole = lossy(false).await;
    let url = callback(&whole, "payout");
    let lost =
        ask_for(&whole, |id| pb::CreatePayoutRequest { callback_url: url.clone(), ..order(id) })
            .await;
    assert!(lost >= PAYOUTS / 4, "{lost} answers were lost");
    // Status 3 has no notice: those whose answer was lost too would stay in doubt, and rightly so.
    // Each is told once, with five seconds for its answer: no more at a time than any machine takes.
    let mut told = whole.upstream.book.deliveries_count();
    for (at, order) in whole.upstream.book.orders().into_iter().enumerate() {
        within(told.wait_for(|told| *told + 100 > at)).await.expect("the sandbox lives");
        whole.upstream.book.set_status(order.cid, 2, true);
    }
    within(told.wait_for(|told| *told >= PAYOUTS)).await.expect("the sandbox lives");
    assert!(whole.upstream.book.deliveries().iter().all(|notice| notice.ok), "one was not kept");
    let decided = |order: Order| (order.third_party_id, (order.cid, PayoutState::Denied));
    let expected: HashMap<_, _> = whole.upstream.book.orders().into_iter().map(decided).collect();
    assert_eq!(expected.len(), PAYOUTS, "one order each");
    all_ended(&whole, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_neither_every_lost_one_is_listed_and_an_operator_settles_it() {
    let whole = lossy(false).await;
    let lost = ask_for(&whole, order).await;
    let doubts = list(&whole.client, &[PayoutState::InDoubt]).await;
    assert_eq!(doubts.len(), lost, "every lost one is listed");
    assert!(lost >= PAYOUTS / 4, "{lost} answers were lost");
    let cids: HashMap<_, _> = whole
        .upstream
        .book
        .orders()
        .into_iter()
        .map(|order| (order.third_party_id, order.cid))
        .collect();
    let operator = whole.operator().await;
    let wrong = cids[&doubts[1].third_party_id];
    for (at, doubt) in doubts.iter().enumerate() {
        assert_eq!((doubt.reason.as_str(), doubt.cid), ("CONNECTION_LOST", 0));
        assert!(doubt.update_time.is_some(), "its age can be told");
        let resolve = |cid| {
            let resolution = Some(pb::resolve_payout_request::Resolution::Cid(cid));
            let request = pb::ResolvePayoutRequest {
                pid: 0,
                third_party_id: doubt.third_party_id.clone(),
                resolution,
                evidence: "seen in the withdrawal history".to_owned(),
            };
            let mut operator = operator.clone();
            async move { within(operator.resolve_payout(request)).await }
        };
        if at == 0 {
            let refused = resolve(wrong).await.expect_err("another payout's cid");
            assert_eq!(reason(&refused).1, "RESOLUTION_REFUSED");
            assert_eq!(whole.get(&doubt.third_party_id).await.expect("known"), *doubt, "unmoved");
        }
        let resolved = resolve(cids[&doubt.third_party_id]).await.expect("OK").into_inner();
        let resolved = resolved.payout.expect("a payout");
        assert_eq!(resolved.state(), PayoutState::Accepted);
        assert_eq!(resolved.cid, cids[&doubt.third_party_id]);
    }
    all_ended(&whole, &decide(&whole)).await;
}

/// The second line of defence: even a Cregis that stores the same id twice pays it once.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_orders_for_one_id_exactly_one_is_approved() {
    let whole = Whole::with(|config| config.projects[0].verification = true).await;
    whole.upstream.book.allow_duplicates(true);
    whole.upstream.book.verify_at(Some(callback(&whole, "verification")));
    for (number, answered) in ["first", "second"].into_iter().enumerate() {
        for lost in [false, true] {
            let id = format!("twice-{number}-{lost}");
            let then = if lost { "drop" } else { "answer" };
            whole.upstream.fault(&format!(
                r#"{{"third_party_id": "{id}", "deliver_twice": "{answered}", "then": "{then}"}}"#
            ));
            whole.create(order(&id)).await.expect("OK");
            let decided = within(async {
                loop {
                    let orders = whole.upstream.book.orders();
                    let mine: Vec<_> =
                        orders.into_iter().filter(|order| order.third_party_id == id).collect();
                    if mine.iter().all(|order| order.approved.is_some()) {
                        return mine;
                    }
                    tokio::task::yield_now().await;
                }
            })
            .await;
            assert_eq!(decided.len(), 2, "the wire doubled the request");
            let approved: Vec<_> =
                decided.iter().filter(|order| order.approved == Some(true)).collect();
            assert_eq!(approved.len(), 1, "{answered} {lost}: {decided:?}");
            let payout = whole.get(&id).await.expect("known");
            assert_eq!(payout.cid, approved[0].cid);
            assert!(payout.attention.iter().any(|a| a == "CID_MISMATCH"), "it pages: {payout:?}");
        }
    }
}
