//! `ResolvePayout`: a doubt is settled by a query that agrees, or by age, and by nothing less.

use std::time::Duration;

use payoutd::config::Config;
use payoutd::pb::resolve_payout_request::Resolution::{Cid, Void};
use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::PID;
use serde_json::Value;
use tonic::{Code, Status};

use crate::support::{
    Whole, any_port, bad_fields, beside, ended, order, project, reason, run, within,
};

fn refused(status: &Status) {
    let expected = (Code::FailedPrecondition, "RESOLUTION_REFUSED".to_owned(), "fix".to_owned());
    assert_eq!(reason(status), expected);
}

/// Has Cregis send its notices here.
fn with_callbacks(config: &mut Config) {
    let free = std::net::TcpListener::bind(any_port()).expect("a port");
    config.callback.listen = free.local_addr().expect("an address");
    config.callback.public_url = format!("http://{}", config.callback.listen);
}

// === cid ===

#[tokio::test(flavor = "multi_thread")]
async fn a_cid_that_a_query_confirms_settles_the_doubt_and_keeps_the_evidence() {
    let whole = Whole::start().await;
    let cid = whole.doubt("a").await;
    let payout = whole.resolve("a", Cid(cid)).await.expect("OK");
    assert_eq!((payout.state(), payout.cid, payout.revision), (PayoutState::Accepted, cid, 3));
    assert_eq!((payout.reason.as_str(), payout.cregis_status), ("", Some(0)));
    let operator = ("OPERATOR".to_owned(), Some("seen at Cregis: a".to_owned()));
    assert_eq!(whole.cause("a"), operator);
    assert_eq!(whole.get("a").await.expect("OK"), payout);
    assert_eq!(whole.create(order("a")).await.expect("OK"), payout, "its caller hears the cid");
    assert_eq!(whole.resolve("a", Cid(cid)).await.expect("again"), payout);
    refused(&whole.resolve("a", Cid(cid + 1)).await.expect_err("another one is bound"));
    assert_eq!(whole.get("a").await.expect("OK"), payout);

    let ended = whole.doubt("b").await;
    whole.upstream.book.set_status(ended, 6, false);
    let payout = whole.resolve("b", Cid(ended)).await.expect("OK");
    assert_eq!((payout.state(), payout.revision), (PayoutState::Succeeded, 3));
    assert_eq!(whole.upstream.book.posts().len(), 2, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cid_that_is_not_the_payouts_is_refused_and_leaves_no_trace() {
    let whole = Whole::start().await;
    let other = whole.create(order("other")).await.expect("OK");
    let elsewhere = whole.doubt("elsewhere").await;
    let twin = whole.doubt("a").await;
    let before = whole.get("a").await.expect("OK");
    for wrong in [other.cid, elsewhere, twin + 1_000_000, 1, i64::MAX] {
        refused(&whole.resolve("a", Cid(wrong)).await.expect_err("not its own"));
    }
    // Cregis holds another amount under the very cid.
    whole.upstream.fault(r#"{"on": "query", "fields": {"amount": "9"}}"#);
    refused(&whole.resolve("a", Cid(twin)).await.expect_err("other fields"));
    assert_eq!(whole.get("a").await.expect("OK"), before);
    assert_eq!(whole.events("a").len(), 2);
    assert_eq!(whole.get("other").await.expect("OK"), other);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_of_cregis_nothing_is_settled_and_the_operator_is_told() {
    let whole = Whole::start().await;
    let cid = whole.doubt("a").await;
    let before = whole.get("a").await.expect("OK");
    for fault in [
        r#"{"on": "query", "then": "drop"}"#,
        r#"{"on": "query", "status": 503, "body": "{}"}"#,
        r#"{"on": "query", "code": "E0001"}"#,
        r#"{"on": "query", "then": "truncate"}"#,
    ] {
        whole.upstream.fault(fault);
        let status = whole.resolve("a", Cid(cid)).await.expect_err(fault);
        let down = (Code::Unavailable, "UPSTREAM_UNAVAILABLE".to_owned(), "same_id".to_owned());
        assert_eq!(reason(&status), down, "{fault}");
    }
    assert_eq!(whole.get("a").await.expect("OK"), before);
    whole.resolve("a", Cid(cid)).await.expect("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_under_way_is_not_settled_by_hand() {
    let whole = Whole::with(|config| config.void_min_age = Duration::from_nanos(1)).await;
    whole.upstream.fault(r#"{"delay_answer": "700ms"}"#);
    let mut client = whole.client.clone();
    let create = beside(async move { client.create_payout(order("a")).await });
    let sending = whole.until("a", |_| true).await;
    assert_eq!(sending.state(), PayoutState::Sending);
    whole.upstream.received(1).await;
    refused(&whole.resolve("a", Cid(1)).await.expect_err("under way"));
    refused(&whole.resolve("a", Void(true)).await.expect_err("under way"));
    let landed = ended(create).await.expect("OK").into_inner();
    assert_eq!(landed.payout.expect("a payout").revision, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_at_once_settle_it_once_and_a_cid_beats_a_void() {
    let whole = Whole::with(|config| config.void_min_age = Duration::from_nanos(1)).await;
    for round in 0..4 {
        // Few enough that the breaker stays closed.
        let id = format!("a{round}");
        let cid = whole.doubt(&id).await;
        let (one, two) = tokio::join!(whole.resolve(&id, Cid(cid)), whole.resolve(&id, Cid(cid)));
        assert_eq!(one.expect("OK"), two.expect("OK"));
        assert_eq!(whole.get(&id).await.expect("OK").revision, 3);

        let id = format!("b{round}");
        let cid = whole.doubt(&id).await;
        let (bound, voided) =
            tokio::join!(whole.resolve(&id, Cid(cid)), whole.resolve(&id, Void(true)));
        bound.expect("it exists");
        let payout = whole.get(&id).await.expect("OK");
        assert_eq!((payout.state(), payout.cid), (PayoutState::Accepted, cid));
        assert_eq!(payout.attention.contains(&"EXISTS_AFTER_CLOSE".to_owned()), voided.is_ok());
    }
}

// === void ===

#[tokio::test(flavor = "multi_thread")]
async fn only_a_doubt_that_is_old_enough_is_voided_and_its_id_stays_used_up() {
    let whole = Whole::start().await;
    whole.lost("a").await;
    let before = whole.get("a").await.expect("OK");
    refused(&whole.resolve("a", Void(true)).await.expect_err("too young"));
    assert_eq!(whole.get("a").await.expect("OK"), before);
    whole.aged("a", 23);
    refused(&whole.resolve("a", Void(true)).await.expect_err("an hour too young"));
    whole.aged("a", 2);
    let voided = whole.resolve("a", Void(true)).await.expect("OK");
    assert_eq!((voided.state(), voided.cid), (PayoutState::Voided, 0));
    assert_eq!(whole.cause("a").1.as_deref(), Some("seen at Cregis: a"));

    let posts = whole.upstream.book.posts().len();
    assert_eq!(whole.create(order("a")).await.expect("OK"), voided);
    let other = pb::CreatePayoutRequest { amount: "2".to_owned(), ..order("a") };
    assert_eq!(reason(&whole.create(other).await.expect_err("reused")).1, "THIRD_PARTY_ID_REUSED");
    assert_eq!(whole.upstream.book.posts().len(), posts, "nothing was sent");
    refused(&whole.resolve("a", Void(true)).await.expect_err("final"));
    let whole = whole.restart().await;
    assert_eq!(whole.create(order("a")).await.expect("OK"), voided);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_doubt_is_not_voided_however_old() {
    let whole = Whole::with(|config| config.void_min_age = Duration::from_nanos(1)).await;
    let accepted = whole.create(order("accepted")).await.expect("OK");
    let cid = whole.doubt("paid").await;
    whole.upstream.book.set_status(cid, 6, false);
    whole.resolve("paid", Cid(cid)).await.expect("OK");
    whole.upstream.fault(r#"{"code": "E0008"}"#);
    whole.create(order("refused")).await.expect_err("refused");
    whole.upstream.fault(r#"{"code": "E0001"}"#);
    whole.create(order("unsent")).await.expect_err("not sent");
    for id in ["accepted", "paid", "refused", "unsent"] {
        let before = whole.get(id).await.expect("OK");
        refused(&whole.resolve(id, Void(true)).await.expect_err(id));
        assert_eq!(whole.get(id).await.expect("OK"), before);
    }
    assert_eq!(whole.get("accepted").await.expect("OK"), accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voided_payout_that_exists_after_all_reopens_and_pages() {
    let whole = Whole::with(|config| {
        with_callbacks(config);
        config.void_min_age = Duration::from_nanos(1);
        config.projects[0].poll_first = Duration::from_millis(50);
    })
    .await;
    for id in ["ends", "goes-on"] {
        whole.doubt(id).await;
        assert_eq!(whole.resolve(id, Void(true)).await.expect("OK").state(), PayoutState::Voided);
    }
    whole.upstream.book.set_status(whole.cid("ends"), 6, true);
    let ended = whole.until("ends", |payout| payout.state() != PayoutState::Voided).await;
    assert_eq!((ended.state(), ended.cid), (PayoutState::Succeeded, whole.cid("ends")));
    assert_eq!(ended.attention, ["EXISTS_AFTER_CLOSE"]);
    assert_eq!(whole.cause("ends").0, "NOTICE");

    // The query that the notice earns tells less than the notice did.
    whole.upstream.fault(r#"{"on": "query", "fields": {"status": 1}}"#);
    whole.upstream.book.set_status(whole.cid("goes-on"), 7, true);
    let failed = whole.until("goes-on", |payout| payout.state() == PayoutState::Failed).await;
    assert_eq!(failed.attention, ["EXISTS_AFTER_CLOSE"]);
    let states: Vec<_> = whole.events("goes-on").into_iter().map(|event| event.1).collect();
    assert_eq!(states, ["SENDING", "IN_DOUBT", "VOIDED", "ACCEPTED", "FAILED"]);
}

// === requests ===

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_names_every_field_and_an_unknown_payout_is_not_found() {
    let whole = Whole::start().await;
    let ask = async |request: pb::ResolvePayoutRequest| {
        within(whole.operator().await.resolve_payout(request)).await.expect_err("bad")
    };
    let bare = pb::ResolvePayoutRequest::default();
    let all = ["third_party_id", "resolution", "evidence"];
    assert_eq!(bad_fields(&ask(bare.clone()).await), all);
    let void_of_nothing =
        pb::ResolvePayoutRequest { resolution: Some(Void(false)), ..bare.clone() };
    assert_eq!(bad_fields(&ask(void_of_nothing).await), all);
    let evidence = "\u{e9}".repeat(1025);
    let cid = pb::ResolvePayoutRequest { resolution: Some(Cid(-1)), evidence, ..bare.clone() };
    assert_eq!(bad_fields(&ask(cid).await), ["third_party_id", "cid", "evidence"]);
    let blank = pb::ResolvePayoutRequest {
        third_party_id: "a".to_owned(),
        resolution: Some(Void(true)),
        evidence: " \n".to_owned(),
        ..bare
    };
    assert_eq!(bad_fields(&ask(blank.clone()).await), ["evidence"]);

    let good = pb::ResolvePayoutRequest { evidence: "\u{e9}".repeat(1024), ..blank };
    assert_eq!(reason(&ask(good.clone()).await).1, "PAYOUT_NOT_FOUND");
    let elsewhere = pb::ResolvePayoutRequest { pid: 8, ..good };
    assert_eq!(reason(&ask(elsewhere).await).1, "UNKNOWN_PROJECT");
}

#[tokio::test(flavor = "multi_thread")]
async fn among_several_projects_pid_0_is_refused_and_another_projects_payout_is_unknown() {
    let whole = Whole::with(|config| {
        let other = project(config.grpc.listen);
        config.projects.push(payoutd::config::Project { pid: 7, ..other });
    })
    .await;
    whole.create(pb::CreatePayoutRequest { pid: PID, ..order("a") }).await.expect("OK");
    let request = |pid| pb::ResolvePayoutRequest {
        pid,
        third_party_id: "a".to_owned(),
        resolution: Some(Void(true)),
        evidence: "x".to_owned(),
    };
    let mut operator = whole.operator().await;
    let status = within(operator.resolve_payout(request(0))).await.expect_err("ambiguous");
    assert_eq!(bad_fields(&status), ["pid"]);
    let status = within(operator.resolve_payout(request(7))).await.expect_err("not there");
    assert_eq!(reason(&status).1, "PAYOUT_NOT_FOUND");
}

// === the command line ===

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_settles_doubts_of_the_real_service() {
    let whole = Whole::start().await;
    let address = whole.service.addresses.grpc;
    let json = |output: &std::process::Output| -> Value {
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    };
    let cid = whole.doubt("a").await.to_string();
    whole.lost("b").await;
    let listed = run(address, &["payouts", "list", "--state", "in_doubt", "--output", "json"]);
    let listed = json(&listed.await);
    let ids: Vec<_> =
        listed.as_array().expect("a list").iter().map(|p| &p["third_party_id"]).collect();
    assert_eq!(ids, ["a", "b"]);
    let report = json(&run(address, &["reconcile", "--output", "json"]).await);
    assert_eq!(
        (&report["sections"][0]["name"], &report["sections"][0]["count"]),
        (&"in_doubt".into(), &2.into())
    );
    let found = run(address, &["reconcile", "--fail-on-findings"]).await;
    assert_eq!(found.status.code(), Some(1));

    let resolve =
        ["payouts", "resolve", "a", "--cid", &cid, "--evidence", "by hand", "--output", "json"];
    let settled = json(&run(address, &resolve).await);
    assert_eq!((&settled["state"], &settled["cid"]), (&"ACCEPTED".into(), &cid.clone().into()));
    assert_eq!(whole.cause("a"), ("OPERATOR".to_owned(), Some("by hand".to_owned())));
    let void = ["payouts", "resolve", "b", "--void", "--evidence", "not there", "--output", "json"];
    let young = run(address, &void).await;
    assert_eq!(young.status.code(), Some(1));
    let words = String::from_utf8_lossy(&young.stderr).into_owned();
    assert!(words.contains("RESOLUTION_REFUSED") && words.contains("retry fix"), "{words}");
    whole.aged("b", 25);
    assert_eq!(json(&run(address, &void).await)["state"], "VOIDED");
    let shown = json(&run(address, &["payouts", "show", "b", "--output", "json"]).await);
    assert_eq!((&shown["state"], &shown["revision"]), (&"VOIDED".into(), &3.into()));
    let by_cid = json(&run(address, &["payouts", "show", "--cid", &cid, "--output", "json"]).await);
    assert_eq!(by_cid["third_party_id"], "a");
    let clean = run(address, &["reconcile", "--fail-on-findings"]).await;
    assert_eq!(clean.status.code(), Some(0), "{}", String::from_utf8_lossy(&clean.stdout));
}
