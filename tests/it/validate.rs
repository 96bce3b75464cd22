//! `validate_only`: what Cregis has against an order, told before it is made; and the coins' decimals.

use std::time::{Duration, Instant};

use payoutd::pb::{self, PayoutState};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::support::{
    ADDRESS, Client, Service, Upstream, Whole, bad_fields, config, order, reason, within,
};

/// A service whose Cregis misbehaves from the very first question.
async fn with_faults(faults: &[&str]) -> Whole {
    let upstream = Upstream::start().await;
    faults.iter().for_each(|fault| upstream.fault(fault));
    let folder = tempfile::tempdir().expect("a folder");
    started(upstream, folder).await
}

async fn started(upstream: Upstream, folder: TempDir) -> Whole {
    let service = Service::start(config(upstream.address, folder.path().join("l.db"))).await;
    let client = service.client().await;
    Whole { upstream, service, client, folder }
}

async fn validate(client: &Client, request: pb::CreatePayoutRequest) -> Result<(), Status> {
    let mut request = Request::new(pb::CreatePayoutRequest { validate_only: true, ..request });
    request.set_timeout(Duration::from_secs(5));
    let answer = within(client.clone().create_payout(request)).await?.into_inner();
    assert_eq!((answer.cid, answer.payout), (0, None));
    Ok(())
}

fn amount(amount: &str) -> pb::CreatePayoutRequest {
    pb::CreatePayoutRequest { amount: amount.to_owned(), ..order("a") }
}

/// A fault by which the list holds one coin, with `decimals` as written.
fn only_trx(decimals: &str) -> String {
    let coin = format!(r#"{{"coin_name":"TRX","chain_id":"195","token_id":"195"{decimals}}}"#);
    format!(r#"{{"on": "coins", "times": 0, "fields": {{"payout_coins": [{coin}]}}}}"#)
}

/// The paths of the reads that Cregis has answered.
fn checks(whole: &Whole) -> Vec<String> {
    let mut paths: Vec<_> =
        whole.upstream.book.checks().into_iter().map(|read| read.path).collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_order_is_shown_to_cregis_and_neither_recorded_nor_sent() {
    let whole = Whole::start().await;
    validate(&whole.client, order("a")).await.expect("OK");
    validate(&whole.client, order("b")).await.expect("OK");
    let paths = ["/api/v1/address/legal", "/api/v1/address/legal", "/api/v1/coins"];
    assert_eq!(checks(&whole), paths, "the list is asked for once");
    let codes: Vec<_> = whole.upstream.book.checks().into_iter().map(|read| read.code).collect();
    assert!(codes.iter().all(|code| code.as_deref() == Some("00000")), "{codes:?}");
    assert!(whole.upstream.book.received().is_empty());
    assert_eq!(reason(&whole.get("a").await.expect_err("unknown")).1, "PAYOUT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_cregis_has_against_an_order_is_told_together() {
    let illegal = format!(
        r#"{{"on": "address", "times": 0, "address": "{ADDRESS}", "fields": {{"result": false}}}}"#
    );
    let whole = with_faults(&[&only_trx(r#","decimals":"2""#), &illegal]).await;
    let usdt = pb::CreatePayoutRequest {
        currency: "195@TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t".to_owned(),
        ..order("a")
    };
    for (request, fields) in [
        (order("a"), vec!["address"]),
        (amount("1.123"), vec!["amount", "address"]),
        (usdt, vec!["currency", "address"]),
    ] {
        let status = validate(&whole.client, request).await.expect_err("refused");
        let expected = (Code::InvalidArgument, "INVALID_REQUEST".to_owned(), "fix".to_owned());
        assert_eq!(reason(&status), expected);
        assert_eq!(bad_fields(&status), fields);
    }
    // Another address of the chain is not struck.
    let other = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t".to_owned();
    let other = pb::CreatePayoutRequest { address: other, ..amount("1.12") };
    validate(&whole.client, other).await.expect("OK");
    assert!(whole.upstream.book.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cregis_leaves_open_is_unavailable_and_a_refusal_of_us_is_said() {
    let (silent, refused) = ("UPSTREAM_UNAVAILABLE", "CREGIS_REFUSED_GATEWAY");
    let skewed = r#""code": "A0001", "headers": {"date": "Sun, 06 Nov 1994 08:49:37 GMT"}"#;
    for (on, fault, expected) in [
        ("coins", r#""then": "drop""#, silent),
        ("coins", r#""then": "truncate""#, silent),
        ("coins", r#""status": 503"#, silent),
        ("coins", r#""body": "<html>""#, silent),
        ("coins", r#""code": "E0005""#, silent),
        ("coins", r#""fields": {"payout_coins": {}}"#, silent),
        ("coins", r#""fields": {"payout_coins": [{"chain_id": "195"}]}"#, silent),
        ("coins", r#""fields": {"payout_coins": null}"#, silent),
        ("coins", r#""code": "E0001""#, refused),
        ("coins", skewed, refused),
        ("address", r#""then": "drop""#, silent),
        ("address", r#""status": 302"#, silent),
        ("address", r#""fields": {"result": "true"}"#, silent),
        ("address", r#""fields": {"result": null}"#, silent),
        ("address", r#""code": "A0001""#, silent),
        ("address", r#""code": "Z9999""#, silent),
        ("address", r#""code": "B0001""#, refused),
    ] {
        let whole = with_faults(&[&format!(r#"{{"on": "{on}", "times": 0, {fault}}}"#)]).await;
        let status = validate(&whole.client, order("a")).await.expect_err(fault);
        let words = (Code::Unavailable, expected.to_owned(), "same_id".to_owned());
        assert_eq!(reason(&status), words, "{on} {fault}");
        assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
        // Reads never open the breaker, and payouts do not need them.
        whole.create(order("a")).await.expect("paid all the same");
    }
    let whole = with_faults(&[r#"{"on": "address", "code": "E0008"}"#]).await;
    let status = validate(&whole.client, order("a")).await.expect_err("illegal");
    assert_eq!(bad_fields(&status), ["address"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_cregis_is_unavailable_before_the_callers_deadline() {
    let whole = with_faults(&[r#"{"on": "address", "then": "hang"}"#]).await;
    let mut request = Request::new(pb::CreatePayoutRequest { validate_only: true, ..order("a") });
    request.set_timeout(Duration::from_millis(500));
    let status = within(whole.client.clone().create_payout(request)).await.expect_err("silent");
    assert_eq!(reason(&status).1, "UPSTREAM_UNAVAILABLE");
    validate(&whole.client, order("a")).await.expect("its place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_breaker_is_open_cregis_is_not_asked() {
    let whole = Whole::start().await;
    validate(&whole.client, order("a")).await.expect("OK");
    whole.upstream.fault(r#"{"code": "B0001"}"#);
    whole.create(order("b")).await.expect_err("refused");
    let before = checks(&whole);
    let status = validate(&whole.client, order("a")).await.expect_err("open");
    assert_eq!(reason(&status).1, "UPSTREAM_UNAVAILABLE");
    assert_eq!(checks(&whole), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_no_validation_and_a_recorded_id_is_answered_as_a_repeat_would_be() {
    let whole = Whole::start().await;
    whole.create(order("accepted")).await.expect("OK");
    whole.upstream.fault(r#"{"code": "E0008"}"#);
    whole.create(order("rejected")).await.expect_err("refused");
    whole.upstream.fault(r#"{"code": "E0034"}"#);
    whole.create(order("unsent")).await.expect_err("not sent");
    let channel = whole.service.client().await;
    within(async { while validate(&channel, order("a")).await.is_err() {} }).await;
    whole.set_intake(0, true).await.expect("paused");

    let asked = checks(&whole).len();
    validate(&channel, order("accepted")).await.expect("it is this payout");
    let status = validate(&channel, order("rejected")).await.expect_err("used up");
    assert_eq!(reason(&status).1, "REJECTED_BY_CREGIS");
    let other = pb::CreatePayoutRequest { third_party_id: "unsent".to_owned(), ..amount("2") };
    let status = validate(&channel, other).await.expect_err("another payout");
    assert_eq!(reason(&status).1, "THIRD_PARTY_ID_REUSED");
    assert_eq!(checks(&whole).len(), asked, "the ledger has answered");
    validate(&channel, order("unsent")).await.expect("a repeat would send it");
    validate(&channel, order("new")).await.expect("validated while paused");
    assert_eq!(checks(&whole).len(), asked + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn validations_have_places_of_their_own_and_hold_up_no_payout() {
    let whole = Whole::with(|config| {
        config.projects[0].max_in_flight = 1;
        config.projects[0].poll_first = Duration::from_millis(50);
    })
    .await;
    validate(&whole.client, order("a")).await.expect("OK");
    whole.upstream.fault(r#"{"on": "address", "then": "hang", "times": 0}"#);
    let mut calls = JoinSet::new();
    for number in 0..40 {
        let client = whole.client.clone();
        calls.spawn(async move {
            let begun = Instant::now();
            let status = validate(&client, order(&format!("v{number}"))).await.expect_err("silent");
            (reason(&status).1, begun.elapsed() >= Duration::from_millis(900))
        });
    }
    // Of 40 calls 8 are asking and 16 wait a second for that: the others are turned away at once.
    for waited in [false, true] {
        for _ in 0..16 {
            let turned_away = within(calls.join_next()).await.expect("a call").expect("no panic");
            assert_eq!(turned_away, ("OVERLOADED".to_owned(), waited));
        }
    }
    let paid = whole.create(order("paid")).await.expect("sends go on");
    assert_eq!(paid.state(), PayoutState::Accepted);
    whole.upstream.book.set_status(paid.cid, 6, false);
    within(async {
        while whole.get("paid").await.expect("known").state() != PayoutState::Succeeded {}
    })
    .await;
    for (silent, _) in within(calls.join_all()).await {
        assert_eq!(silent, "UPSTREAM_UNAVAILABLE");
    }
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

// === coins ===

#[tokio::test(flavor = "multi_thread")]
async fn new_payouts_keep_to_the_decimals_that_cregis_tells_for_the_project() {
    let whole = with_faults(&[&only_trx(r#","decimals":"2""#)]).await;
    // After this the list is there.
    validate(&whole.client, order("list")).await.expect("OK");
    let status = whole.create(amount("1.123")).await.expect_err("too fine");
    let expected = (Code::InvalidArgument, "INVALID_REQUEST".to_owned(), "fix".to_owned());
    assert_eq!((reason(&status), bad_fields(&status)), (expected, vec!["amount".to_owned()]));
    assert_eq!(reason(&whole.get("a").await.expect_err("unknown")).1, "PAYOUT_NOT_FOUND");
    let all = pb::CreatePayoutRequest { memo: "1".to_owned(), ..amount("1.123") };
    let status = whole.create(all).await.expect_err("two rules");
    assert_eq!(bad_fields(&status), ["amount", "memo"]);
    whole.create(amount("1.120")).await.expect("the id is free");

    // Finer than published: it is Cregis that decides, and the sandbox holds to the published ones.
    let whole = with_faults(&[&only_trx(r#","decimals":"8""#)]).await;
    validate(&whole.client, order("list")).await.expect("OK");
    let status = whole.create(amount("1.12345678")).await.expect_err("Cregis refuses");
    assert_eq!(reason(&status).1, "REJECTED_BY_CREGIS");

    // Without decimals in the list the published ones hold.
    let whole = with_faults(&[&only_trx("")]).await;
    validate(&whole.client, order("list")).await.expect("OK");
    for ask in [true, false] {
        let request = pb::CreatePayoutRequest { validate_only: ask, ..amount("1.1234567") };
        let status = within(whole.client.clone().create_payout(request)).await;
        assert_eq!(bad_fields(&status.expect_err("too fine")), ["amount"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_payout_is_answered_whatever_has_become_of_its_coin() {
    let whole = Whole::start().await;
    let fine = amount("1.123");
    let recorded = whole.create(fine.clone()).await.expect("OK");
    whole.upstream.fault(r#"{"code": "E0034"}"#);
    let unsent = pb::CreatePayoutRequest { third_party_id: "unsent".to_owned(), ..fine.clone() };
    whole.create(unsent.clone()).await.expect_err("not sent");

    whole.upstream.fault(&only_trx(r#","decimals":"2""#));
    let whole = whole.restart().await;
    within(async { while validate(&whole.client, order("list")).await.is_err() {} }).await;
    let status =
        whole.create(pb::CreatePayoutRequest { third_party_id: "b".to_owned(), ..fine.clone() });
    assert_eq!(bad_fields(&status.await.expect_err("too fine now")), ["amount"]);
    assert_eq!(whole.create(fine).await.expect("known").cid, recorded.cid);
    let status = whole.create(amount("1.124")).await.expect_err("another amount");
    assert_eq!(reason(&status).1, "THIRD_PARTY_ID_REUSED");
    let sent = whole.create(unsent).await.expect("what is recorded may be sent");
    assert_eq!(sent.state(), PayoutState::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_payout_waits_for_the_list_or_is_refused_for_the_lack_of_its_coin() {
    let whole = with_faults(&[r#"{"on": "coins", "then": "hang", "times": 0}"#]).await;
    whole.create(order("a")).await.expect("without a list");
    let status = whole.create(amount("1.1234567")).await.expect_err("published decimals");
    assert_eq!(reason(&status).1, "THIRD_PARTY_ID_REUSED", "a recorded id comes first");

    let nothing = r#"{"on": "coins", "times": 0,
        "body": "{\"code\":\"00000\",\"msg\":\"\",\"data\":{\"payout_coins\":null}}"}"#;
    let whole = with_faults(&[nothing]).await;
    let status = validate(&whole.client, order("a")).await.expect_err("no coins at all");
    assert_eq!(bad_fields(&status), ["currency"]);
    whole.create(order("a")).await.expect("Cregis decides");
}
