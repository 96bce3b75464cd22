//! Limits, quotas and places, through the whole service.

use std::num::NonZeroU32;
use std::time::Duration;

use payoutd::caller::ROLES;
use payoutd::config::{self, Config};
use payoutd::pb::{self, PayoutState};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    Whole, beside, by, caller, connect, ended, limit, metadata, order, plain, reason, within,
};

/// One caller, `a`, whose payouts are bounded.
fn bounded(change: impl FnOnce(&mut config::Caller)) -> impl FnOnce(&mut Config) {
    let mut a = caller("a", &ROLES);
    change(&mut a);
    |config| config.callers = vec![a, caller("b", &ROLES)]
}

async fn create(
    whole: &Whole,
    who: &str,
    request: pb::CreatePayoutRequest,
) -> Result<pb::CreatePayoutResponse, Status> {
    within(whole.client.clone().create_payout(by(who, request)))
        .await
        .map(tonic::Response::into_inner)
}

fn of(id: &str, amount: &str) -> pb::CreatePayoutRequest {
    pb::CreatePayoutRequest { amount: amount.to_owned(), ..order(id) }
}

/// The rule that refused.
fn rule(status: &Status) -> String {
    let expected = (Code::PermissionDenied, "POLICY_DENIED".to_owned(), "fix".to_owned());
    assert_eq!(reason(status), expected);
    metadata(status, "rule")
}

/// The only row of what has been spent.
fn spent(whole: &Whole) -> String {
    let mut rows = whole.shell().rows("SELECT total FROM spend");
    assert_eq!(rows.len(), 1);
    plain(&rows.remove(0).remove(0).expect("a total"))
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_callers_at_once_cannot_exceed_the_days_limit_by_one_unit() {
    // Ten fit exactly; an eleventh of the smallest unit would not.
    let whole = Whole::with(bounded(|a| a.limits = vec![limit(None, Some("11"))])).await;
    let mut calls = JoinSet::new();
    for connection in 0..50 {
        let client = connect(whole.service.addresses.grpc).await;
        for call in 0..4 {
            let mut client = client.clone();
            calls.spawn(async move {
                let id = format!("p-{connection}-{call}");
                within(client.create_payout(by("a", order(&id)))).await.map(|answer| (id, answer))
            });
        }
    }
    let (mut paid, mut denied) = (Vec::new(), 0);
    for answer in within(calls.join_all()).await {
        match answer {
            Ok((id, answer)) => {
                let payout = answer.into_inner().payout.expect("a payout");
                assert_eq!(payout.state(), PayoutState::Accepted);
                paid.push(id);
            }
            Err(status) => {
                assert_eq!(rule(&status), "PER_DAY_LIMIT");
                denied += 1;
            }
        }
    }
    assert_eq!((paid.len(), denied), (10, 190));
    assert_eq!((whole.upstream.book.orders().len(), whole.upstream.book.posts().len()), (10, 10));
    let rows = whole.shell().rows("SELECT third_party_id FROM payout");
    let mut recorded: Vec<_> = rows.into_iter().flatten().flatten().collect();
    recorded.sort();
    paid.sort();
    assert_eq!(recorded, paid, "what was denied left no row");
    assert_eq!(spent(&whole), "11");
    let unit = create(&whole, "a", of("unit", "0.000001")).await.expect_err("full");
    assert_eq!(rule(&unit), "PER_DAY_LIMIT");
    create(&whole, "b", of("theirs", "1000")).await.expect("not b's limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_is_named_and_leaves_the_id_free() {
    let usdt = "195@TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t";
    let whole = Whole::with(bounded(|a| {
        a.limits = vec![limit(Some("5"), Some("8"))];
        a.allow_addresses = vec![crate::support::ADDRESS.to_owned()];
    }))
    .await;
    let other = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t".to_owned();
    create(&whole, "a", of("first", "5")).await.expect("the most for one payout");
    for (request, expected) in [
        (of("x", "5.000001"), "PER_PAYOUT_LIMIT"),
        (of("x", "3.000001"), "PER_DAY_LIMIT"),
        (pb::CreatePayoutRequest { address: other, ..of("x", "1") }, "ADDRESS_NOT_ALLOWED"),
        (pb::CreatePayoutRequest { currency: usdt.into(), ..of("x", "1") }, "CURRENCY_NOT_ALLOWED"),
    ] {
        let check = pb::CreatePayoutRequest { validate_only: true, ..request.clone() };
        assert_eq!(rule(&create(&whole, "a", check).await.expect_err("checked")), expected);
        let status = create(&whole, "a", request).await.expect_err("denied");
        assert_eq!(rule(&status), expected);
        assert!(!format!("{status:?}").contains("TR7NHq"), "a value is shown");
    }
    let id = Some(pb::get_payout_request::Id::ThirdPartyId("x".to_owned()));
    let asked = by("a", pb::GetPayoutRequest { pid: 0, id });
    let unknown = within(whole.client.clone().get_payout(asked)).await.expect_err("no row");
    assert_eq!(reason(&unknown).1, "PAYOUT_NOT_FOUND");
    let check = pb::CreatePayoutRequest { validate_only: true, ..of("x", "3") };
    assert_eq!(create(&whole, "a", check).await.expect("would do").payout, None);
    create(&whole, "a", of("x", "3")).await.expect("the rest of the day");
    assert_eq!(whole.upstream.book.posts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_payout_is_answered_whatever_the_limits_have_become() {
    let whole = Whole::with(bounded(|a| a.limits = vec![limit(None, Some("11"))])).await;
    let before = create(&whole, "a", order("x")).await.expect("OK");
    let Whole { upstream, service, folder, .. } = whole;
    let mut config = service.stop().await;
    config.callers[0].limits = vec![limit(Some("0.1"), Some("2.2"))];
    let service = crate::support::Service::start(config).await;
    let client = service.client().await;
    let whole = Whole { upstream, service, client, folder };
    assert_eq!(create(&whole, "a", order("x")).await.expect("known"), before);
    let check = pb::CreatePayoutRequest { validate_only: true, ..order("x") };
    create(&whole, "a", check).await.expect("nothing would be sent");
    let differs = create(&whole, "a", of("x", "0.1")).await.expect_err("reused");
    assert_eq!(metadata(&differs, "fields"), "amount", "first what it is, then what it may");
    assert_eq!(
        rule(&create(&whole, "a", order("y")).await.expect_err("lower")),
        "PER_PAYOUT_LIMIT"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_days_total_and_the_next_day_is_new() {
    let whole = Whole::with(bounded(|a| a.limits = vec![limit(None, Some("2.2"))])).await;
    create(&whole, "a", order("1")).await.expect("OK");
    create(&whole, "a", order("2")).await.expect("OK");
    let whole = whole.restart().await;
    assert_eq!(rule(&create(&whole, "a", order("3")).await.expect_err("full")), "PER_DAY_LIMIT");
    assert_eq!(spent(&whole), "2.2");
    let yesterday = "UPDATE spend SET day = day - 1;
                     UPDATE payout SET send_time = send_time - 86400000000;";
    whole.shell().execute(yesterday);
    create(&whole, "a", order("3")).await.expect("a new day");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cregis_refuses_gives_its_budget_back() {
    let whole = Whole::with(bounded(|a| a.limits = vec![limit(None, Some("1.1"))])).await;
    whole.upstream.fault(r#"{"code": "E0008"}"#);
    let refused = create(&whole, "a", order("1")).await.expect_err("refused");
    assert_eq!((reason(&refused).1.as_str(), spent(&whole).as_str()), ("REJECTED_BY_CREGIS", "0"));
    whole.upstream.fault(r#"{"then": "drop"}"#);
    let doubt = create(&whole, "a", order("2")).await.expect("recorded").payout.expect("a payout");
    assert_eq!((doubt.state(), spent(&whole).as_str()), (PayoutState::InDoubt, "1.1"));
    assert_eq!(rule(&create(&whole, "a", order("3")).await.expect_err("full")), "PER_DAY_LIMIT");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_beforehand_about_a_doubt_is_never_a_denial_even_where_it_may_be_sent_again() {
    let limited = bounded(|a| a.limits = vec![limit(None, Some("1.1"))]);
    let whole = Whole::with(|config| {
        limited(config);
        config.projects[0].resend_in_doubt = true;
    })
    .await;
    whole.upstream.fault(r#"{"then": "drop"}"#);
    let doubt = create(&whole, "a", order("1")).await.expect("recorded").payout.expect("a payout");
    assert_eq!(doubt.state(), PayoutState::InDoubt);
    let aged = "UPDATE payout SET send_time = send_time - 60000000";
    assert_eq!(whole.shell().execute(aged), 1);
    let check = pb::CreatePayoutRequest { validate_only: true, ..order("1") };
    create(&whole, "a", check).await.expect("it stands as it does");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_lets_through_what_a_limit_would_refuse() {
    let whole = Whole::with(bounded(|a| {
        a.limits = vec![limit(Some("1"), Some("1"))];
        a.allow_addresses = vec!["elsewhere".to_owned()];
        a.report_only = true;
    }))
    .await;
    let check = pb::CreatePayoutRequest { validate_only: true, ..order("1") };
    create(&whole, "a", check).await.expect("let through");
    create(&whole, "a", order("1")).await.expect("let through");
    create(&whole, "a", order("2")).await.expect("let through");
    // It is counted all the same: the day that it becomes a limit begins with the truth.
    assert_eq!(spent(&whole), "2.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_too_often_waits_and_nobody_else_does() {
    let rate = NonZeroU32::new(3);
    let whole = Whole::with(bounded(|a| a.creates_per_minute = rate)).await;
    for id in ["1", "2", "1"] {
        create(&whole, "a", order(id)).await.expect("within its quota");
    }
    for request in
        [order("3"), order("1"), pb::CreatePayoutRequest { validate_only: true, ..order("4") }]
    {
        let status = create(&whole, "a", request).await.expect_err("over its quota");
        let expected = (Code::ResourceExhausted, "OVERLOADED".to_owned(), "same_id".to_owned());
        assert_eq!(reason(&status), expected);
        let details = status.get_error_details();
        let wait = details.retry_info().expect("RetryInfo").retry_delay.expect("a wait");
        // One in twenty seconds.
        assert!(!wait.is_zero() && wait <= Duration::from_secs(20), "{wait:?}");
    }
    for id in 0..20 {
        create(&whole, "b", order(&format!("b-{id}"))).await.expect("no quota of b's");
    }
    let id = Some(pb::get_payout_request::Id::ThirdPartyId("3".to_owned()));
    let asked = by("a", pb::GetPayoutRequest { pid: 0, id });
    let status = within(whole.client.clone().get_payout(asked)).await.expect_err("not recorded");
    assert_eq!(reason(&status).1, "PAYOUT_NOT_FOUND", "and reads are not counted");
    assert_eq!(whole.upstream.book.posts().len(), 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_places_are_its_own_and_it_takes_none_from_others() {
    let whole = Whole::with(|config| {
        bounded(|a| a.max_calls = Some(2))(config);
        config.grpc.max_calls = 3;
    })
    .await;
    whole.upstream.fault(r#"{"delay": "4s"}"#);
    whole.upstream.fault(r#"{"delay": "4s"}"#);
    let wait = |who: &'static str, id: &'static str| {
        let mut client = whole.client.clone();
        beside(async move { client.create_payout(by(who, order(id))).await })
    };
    let waiting = [wait("a", "1"), wait("a", "2")];
    whole.upstream.received(2).await;
    for _ in 0..20 {
        let status = create(&whole, "a", order("3")).await.expect_err("no place");
        assert_eq!(
            (status.code(), reason(&status).1.as_str()),
            (Code::ResourceExhausted, "OVERLOADED")
        );
        assert!(status.get_error_details().retry_info().is_some());
    }
    create(&whole, "b", order("b")).await.expect("the third place is b's to have");
    assert_eq!(whole.upstream.book.posts().len(), 3, "the refused one was sent");
    for waiting in waiting {
        ended(waiting).await.expect("served");
    }
    create(&whole, "a", order("3")).await.expect("a place again");
}
