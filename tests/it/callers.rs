//! "What the caller sees": every row of the contract's table that this version can produce.

use std::time::Duration;

use payoutd::pb::{self, PayoutState};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::support::{Whole, metadata, order, project, reason, within};

fn words(code: Code, reason: &str, retry: &str) -> (Code, String, String) {
    (code, reason.to_owned(), retry.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn row_ok_fresh_repeated_in_flight_and_in_doubt() {
    let whole = Whole::start().await;
    let fresh = whole.create(order("a")).await.expect("OK");
    let repeated = whole.create(order("a")).await.expect("OK");
    assert_eq!((fresh.state(), &fresh), (PayoutState::Accepted, &repeated));

    whole.upstream.fault(r#"{"delay": "1s"}"#);
    let mut short = Request::new(order("slow"));
    short.set_timeout(Duration::from_millis(300));
    let answer = within(whole.client.clone().create_payout(short)).await.expect("OK").into_inner();
    let flying = answer.payout.expect("a payout");
    assert_eq!((flying.state(), flying.cid, flying.revision), (PayoutState::Sending, 0, 1));
    assert_eq!(whole.settled("slow").await.state(), PayoutState::Accepted);

    whole.upstream.fault(r#"{"then": "drop"}"#);
    let doubt = whole.create(order("lost")).await.expect("OK");
    assert_eq!((doubt.state(), doubt.cid), (PayoutState::InDoubt, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_invalid_request_lists_every_bad_field_and_records_nothing() {
    let whole = Whole::start().await;
    let bad = pb::CreatePayoutRequest {
        currency: "TRX".to_owned(),
        address: String::new(),
        amount: "1e3".to_owned(),
        remark: "\u{0}".to_owned(),
        memo: "1".to_owned(),
        callback_url: "nowhere".to_owned(),
        ..order("bad")
    };
    let status = whole.create(bad).await.expect_err("invalid");
    assert_eq!(reason(&status), words(Code::InvalidArgument, "INVALID_REQUEST", "fix"));
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("BadRequest").field_violations;
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["currency", "address", "amount", "callback_url", "remark", "memo"]);
    let unknown = whole.get("bad").await.expect_err("not recorded");
    assert_eq!(reason(&unknown), words(Code::NotFound, "PAYOUT_NOT_FOUND", "fix"));
    assert!(whole.upstream.book.received().is_empty());
    whole.create(order("bad")).await.expect("the id is still free");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_already_exists_names_what_differs_and_never_values() {
    let whole = Whole::start().await;
    let usdt = "195@TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t".to_owned();
    whole.create(order("a")).await.expect("OK");
    let rows: [(&str, pb::CreatePayoutRequest); 5] = [
        ("currency", pb::CreatePayoutRequest { currency: usdt, ..order("a") }),
        (
            "address",
            pb::CreatePayoutRequest {
                address: "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t".to_owned(),
                ..order("a")
            },
        ),
        ("amount", pb::CreatePayoutRequest { amount: "1.11".to_owned(), ..order("a") }),
        ("remark", pb::CreatePayoutRequest { remark: "x".to_owned(), ..order("a") }),
        (
            "callback_url",
            pb::CreatePayoutRequest { callback_url: "https://a.example/".to_owned(), ..order("a") },
        ),
    ];
    for (field, request) in rows {
        let status = whole.create(request).await.expect_err(field);
        let expected = words(Code::AlreadyExists, "THIRD_PARTY_ID_REUSED", "never");
        assert_eq!(reason(&status), expected);
        assert_eq!(metadata(&status, "fields"), field);
    }
    let both =
        pb::CreatePayoutRequest { amount: "2".to_owned(), remark: "x".to_owned(), ..order("a") };
    let status = whole.create(both).await.expect_err("two differ");
    assert_eq!(metadata(&status, "fields"), "amount,remark");
    assert!(!format!("{status:?}").contains("1.1"), "a value is shown");
    let same = pb::CreatePayoutRequest { amount: "1.100".to_owned(), ..order("a") };
    whole.create(same).await.expect("the same by value");
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_not_sent_can_be_sent_again_under_the_same_id() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"code": "E0001"}"#);
    let status = whole.create(order("a")).await.expect_err("refused");
    assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
    // The breaker closes after a signed read, five seconds later.
    let accepted = within(async {
        loop {
            match whole.create(order("a")).await {
                Ok(payout) => return payout,
                Err(status) => {
                    let expected = words(Code::Unavailable, "UPSTREAM_UNAVAILABLE", "same_id");
                    assert_eq!(reason(&status), expected);
                    assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
                }
            }
        }
    })
    .await;
    assert_eq!((accepted.state(), accepted.revision), (PayoutState::Accepted, 4));
    let paths: Vec<_> = whole.upstream.book.received().into_iter().map(|r| r.path).collect();
    let (post, read) = ("/api/v1/payout", "/api/v1/payout/query");
    assert_eq!(paths, [post, read, post], "a read, never a payout, found out");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_draining_refuses_new_payouts_and_answers_known_ones() {
    let whole = Whole::start().await;
    whole.create(order("known")).await.expect("OK");
    whole.upstream.fault(r#"{"delay": "1500ms"}"#);
    let mut slow = whole.client.clone();
    let slow = async move { slow.create_payout(order("slow")).await };
    let meanwhile = async {
        whole.upstream.received(2).await;
        whole.service.begin_stop();
        let refused = within(async {
            let mut number = 0;
            loop {
                number += 1;
                match whole.create(order(&format!("new-{number}"))).await {
                    Ok(_) => {}
                    Err(status) => return status,
                }
            }
        })
        .await;
        assert_eq!(reason(&refused), words(Code::Unavailable, "DRAINING", "same_id"));
        assert!(refused.get_error_details().retry_info().is_some(), "RetryInfo");
        let known = whole.create(order("known")).await.expect("known while draining");
        assert_eq!(known.state(), PayoutState::Accepted);
        assert_eq!(whole.get("known").await.expect("reads go on"), known);
    };
    let (slow, ()) = tokio::join!(slow, meanwhile);
    let payout = slow.expect("finished").into_inner().payout.expect("a payout");
    assert_eq!(payout.state(), PayoutState::Accepted, "sends in flight finish");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_ledger_unavailable_sends_nothing_and_recovers() {
    let whole = Whole::start().await;
    whole.create(order("known")).await.expect("OK");
    // A person's shell that holds the ledger: our writer gives up after two seconds.
    let hold = whole.hold();
    let status = whole.create(order("a")).await.expect_err("no ledger");
    assert_eq!(reason(&status), words(Code::Unavailable, "LEDGER_UNAVAILABLE", "same_id"));
    assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
    let at_once = whole.create(order("b")).await.expect_err("no ledger");
    assert_eq!(reason(&at_once).1, "LEDGER_UNAVAILABLE");
    assert_eq!(whole.get("known").await.expect("reads go on").state(), PayoutState::Accepted);
    assert_eq!(whole.upstream.book.posts().len(), 1, "nothing was sent");
    drop(hold);
    let accepted = within(async {
        loop {
            if let Ok(payout) = whole.create(order("a")).await {
                return payout;
            }
        }
    })
    .await;
    assert_eq!(accepted.state(), PayoutState::Accepted);
}

/// The outcome is known but cannot be written: nobody is told a cid that a crash could take back.
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_written_is_a_doubt_until_it_can() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"delay": "300ms"}"#);
    let mut request = Request::new(order("a"));
    request.set_timeout(Duration::from_secs(4));
    let mut client = whole.client.clone();
    let (answer, hold) = tokio::join!(client.create_payout(request), async {
        whole.upstream.received(1).await;
        whole.hold()
    });
    let payout = answer.expect("OK").into_inner().payout.expect("a payout");
    assert_eq!((payout.state(), payout.cid), (PayoutState::InDoubt, 0));
    assert_eq!(payout.reason, "LEDGER_WRITE_FAILED");
    drop(hold);
    let written = whole.settled("a").await;
    assert_eq!((written.state(), written.revision), (PayoutState::Accepted, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_overloaded_after_a_bounded_wait_while_known_ids_are_answered() {
    let whole = Whole::with(|config| config.projects[0].max_in_flight = 1).await;
    let known = whole.create(order("known")).await.expect("OK");
    whole.upstream.fault(r#"{"then": "hang"}"#);
    let mut hanging = whole.client.clone();
    let hanging = tokio::task::JoinSet::from_iter([async move {
        let _ = hanging.create_payout(order("hangs")).await;
    }]);
    whole.upstream.received(2).await;
    let begun = std::time::Instant::now();
    let status = whole.create(order("a")).await.expect_err("full");
    assert_eq!(reason(&status), words(Code::ResourceExhausted, "OVERLOADED", "same_id"));
    assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
    assert!(begun.elapsed() < Duration::from_millis(1500), "bounded");
    assert_eq!(whole.create(order("known")).await.expect("no turn needed"), known);
    let unknown = whole.get("a").await.expect_err("not recorded");
    assert_eq!(reason(&unknown).1, "PAYOUT_NOT_FOUND");
    drop(hanging);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_overloaded_at_once_when_too_many_calls_wait() {
    let whole = Whole::with(|config| config.grpc.max_calls = 1).await;
    whole.upstream.fault(r#"{"delay": "500ms"}"#);
    let mut first = whole.client.clone();
    let (first, ()) = tokio::join!(first.create_payout(order("a")), async {
        whole.upstream.received(1).await;
        let status = whole.create(order("a")).await.expect_err("full");
        assert_eq!(reason(&status).1, "OVERLOADED");
        assert_eq!(whole.get("a").await.expect("reads go on").state(), PayoutState::Sending);
    });
    first.expect("OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_deadline_too_short_records_nothing() {
    let whole = Whole::start().await;
    let mut request = Request::new(order("a"));
    request.metadata_mut().insert("grpc-timeout", "49m".parse().expect("ascii"));
    let status = within(whole.client.clone().create_payout(request)).await.expect_err("too short");
    assert_eq!(reason(&status), words(Code::DeadlineExceeded, "DEADLINE_TOO_SHORT", "same_id"));
    assert_eq!(reason(&whole.get("a").await.expect_err("unknown")).1, "PAYOUT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_unknown_project_and_an_ambiguous_pid() {
    let whole = Whole::with(|config| {
        let other = payoutd::config::Project { pid: 7, ..project(config.grpc.listen) };
        config.projects.push(other);
    })
    .await;
    let unknown = pb::CreatePayoutRequest { pid: 8, ..order("a") };
    let status = whole.create(unknown).await.expect_err("unknown");
    assert_eq!(reason(&status), words(Code::NotFound, "UNKNOWN_PROJECT", "fix"));
    let status = whole.create(order("a")).await.expect_err("ambiguous");
    assert_eq!(reason(&status), words(Code::InvalidArgument, "INVALID_REQUEST", "fix"));
    let details = status.get_error_details();
    assert_eq!(details.bad_request().expect("BadRequest").field_violations[0].field, "pid");
    let named = pb::CreatePayoutRequest { pid: payoutd::sandbox::PID, ..order("a") };
    assert_eq!(whole.create(named).await.expect("OK").state(), PayoutState::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_payout_not_found_and_get_by_cid() {
    let whole = Whole::start().await;
    let payout = whole.create(order("a")).await.expect("OK");
    let mut client = whole.client.clone();
    let mut get = async |id| {
        let request = pb::GetPayoutRequest { pid: 0, id };
        client.get_payout(request).await.map(|answer| answer.into_inner().payout)
    };
    use pb::get_payout_request::Id;
    assert_eq!(get(Some(Id::Cid(payout.cid))).await.expect("known"), Some(payout));
    let unknown = get(Some(Id::Cid(1))).await.expect_err("unknown");
    assert_eq!(reason(&unknown), words(Code::NotFound, "PAYOUT_NOT_FOUND", "fix"));
    for bad in [None, Some(Id::Cid(0)), Some(Id::ThirdPartyId("a b".to_owned()))] {
        let status = get(bad).await.expect_err("invalid");
        assert_eq!(reason(&status), words(Code::InvalidArgument, "INVALID_REQUEST", "fix"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_only_checks_and_does_nothing() {
    let whole = Whole::start().await;
    let ask = |request: pb::CreatePayoutRequest| {
        let mut client = whole.client.clone();
        let request = pb::CreatePayoutRequest { validate_only: true, ..request };
        async move { within(client.create_payout(request)).await }
    };
    let answer = ask(order("a")).await.expect("OK").into_inner();
    assert_eq!((answer.cid, answer.payout), (0, None));
    assert!(whole.upstream.book.received().is_empty());
    assert_eq!(reason(&whole.get("a").await.expect_err("unknown")).1, "PAYOUT_NOT_FOUND");
    let bad = pb::CreatePayoutRequest { amount: "0".to_owned(), ..order("a") };
    assert_eq!(reason(&ask(bad).await.expect_err("invalid")).1, "INVALID_REQUEST");
    whole.create(order("a")).await.expect("OK");
    let other = pb::CreatePayoutRequest { amount: "2".to_owned(), ..order("a") };
    let status = ask(other).await.expect_err("the id is taken");
    assert_eq!(reason(&status).1, "THIRD_PARTY_ID_REUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_text_is_a_choice_of_the_project() {
    let refund = pb::CreatePayoutRequest { remark: "refund amount".to_owned(), ..order("a") };
    let lenient = Whole::start().await;
    lenient.create(refund.clone()).await.expect("allowed by default");
    let strict = Whole::with(|config| config.projects[0].strict_text = true).await;
    assert_eq!(reason(&strict.create(refund).await.expect_err("strict")).1, "INVALID_REQUEST");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_callback_url_goes_along_where_the_caller_names_none() {
    let whole = Whole::with(|config| {
        config.callback.public_url = "https://pay.example/hooks".to_owned();
    })
    .await;
    let ours = whole.create(order("ours")).await.expect("OK");
    assert_eq!(ours.callback_url, "", "as the caller gave it");
    let own = "http://192.168.2.29:9099/callback".to_owned();
    whole
        .create(pb::CreatePayoutRequest { callback_url: own.clone(), ..order("own") })
        .await
        .expect("OK");
    let urls: Vec<_> =
        whole.upstream.book.orders().into_iter().map(|order| order.callback_url).collect();
    let pid = payoutd::sandbox::PID;
    assert_eq!(urls, [format!("https://pay.example/hooks/callbacks/{pid}/payout"), own]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_comes_back_given_or_made() {
    let whole = Whole::start().await;
    let mut request = Request::new(order("a"));
    request.metadata_mut().insert("x-request-id", "mine-7".parse().expect("ascii"));
    let answer = whole.client.clone().create_payout(request).await.expect("OK");
    assert_eq!(answer.metadata().get("x-request-id").expect("an id"), "mine-7");
    let answer = whole.client.clone().create_payout(order("a")).await.expect("OK");
    assert!(!answer.metadata().get("x-request-id").expect("an id").is_empty());
}
