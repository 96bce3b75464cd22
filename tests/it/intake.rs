//! `SetIntake`: new payouts are stopped and taken again; everything else goes on.

use std::time::Duration;

use payoutd::config;
use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::PID;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    Whole, bad_fields, beside, ended, order, project, reason, run, told, watch, within,
};

fn paused(status: &Status) {
    let expected = (Code::Unavailable, "PAUSED".to_owned(), "same_id".to_owned());
    assert_eq!(reason(status), expected);
    assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_refuses_what_would_send_and_nothing_else_and_survives_a_restart() {
    let whole =
        Whole::with(|config| config.projects[0].poll_first = Duration::from_millis(50)).await;
    let accepted = whole.create(order("accepted")).await.expect("OK");
    whole.upstream.fault(r#"{"then": "drop"}"#);
    let doubt = whole.create(order("doubt")).await.expect("OK");
    whole.upstream.fault(r#"{"code": "E0008"}"#);
    whole.create(order("refused")).await.expect_err("refused");
    whole.upstream.fault(r#"{"code": "E0001"}"#);
    whole.create(order("unsent")).await.expect_err("not sent");
    let posts = whole.upstream.book.posts().len();
    let mut watching = watch(&whole.client, "accepted").await.expect("OK");

    assert!(whole.set_intake(0, true).await.expect("OK"));
    assert!(whole.set_intake(PID, true).await.expect("again"));
    let mut whole = whole;
    for _ in 0..2 {
        paused(&whole.create(order("new")).await.expect_err("paused"));
        paused(&whole.create(order("unsent")).await.expect_err("would send"));
        assert_eq!(
            reason(&whole.get("new").await.expect_err("not recorded")).1,
            "PAYOUT_NOT_FOUND"
        );
        assert_eq!(whole.create(order("accepted")).await.expect("known").cid, accepted.cid);
        assert_eq!(whole.create(order("doubt")).await.expect("known"), doubt);
        let known = whole.create(order("refused")).await.expect_err("known");
        assert_eq!(reason(&known).1, "REJECTED_BY_CREGIS");
        let other = pb::CreatePayoutRequest { amount: "2".to_owned(), ..order("unsent") };
        assert_eq!(
            reason(&whole.create(other).await.expect_err("reused")).1,
            "THIRD_PARTY_ID_REUSED"
        );
        let mut client = whole.client.clone();
        let listed = client.list_payouts(pb::ListPayoutsRequest::default());
        assert_eq!(within(listed).await.expect("OK").into_inner().payouts.len(), 4);
        whole = whole.restart().await;
    }
    assert_eq!(whole.upstream.book.posts().len(), posts, "nothing was sent");

    // Watches and polls go on.
    let cut = loop {
        match told(&mut watching).await {
            Ok(news) => assert!(news.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&cut).1, "DRAINING");
    let mut watching = watch(&whole.client, "accepted").await.expect("OK");
    whole.upstream.book.set_status(accepted.cid, 6, false);
    let mut last = None;
    while let Some(payout) = told(&mut watching).await.expect("OK") {
        last = Some(payout.state());
    }
    assert_eq!(last, Some(PayoutState::Succeeded));

    assert!(!whole.set_intake(0, false).await.expect("OK"));
    whole.create(order("new")).await.expect("taken again");
    assert_eq!(
        whole.create(order("unsent")).await.expect("sent again").state(),
        PayoutState::Accepted
    );
    let whole = whole.restart().await;
    whole.create(order("newer")).await.expect("still taken");
    let notes = whole.shell().number("SELECT count(*) FROM intake WHERE note = 'why'");
    assert_eq!(notes, 3, "who paused, and why, is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_at_the_pause_finishes_and_what_waits_for_its_turn_does_not_begin() {
    let whole = Whole::with(|config| config.projects[0].max_in_flight = 1).await;
    whole.upstream.fault(r#"{"delay": "500ms"}"#);
    let create = |id: &str| {
        let (mut client, request) = (whole.client.clone(), order(id));
        beside(async move { client.create_payout(request).await })
    };
    let flying = create("flying");
    whole.upstream.received(1).await;
    let (queued, joined) = (create("queued"), create("flying"));
    whole.set_intake(0, true).await.expect("OK");
    for flying in [flying, joined] {
        let answer = ended(flying).await.expect("OK").into_inner();
        assert_eq!(answer.payout.expect("a payout").state(), PayoutState::Accepted);
    }
    paused(&ended(queued).await.expect_err("paused"));
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pid_0_sets_all_projects_one_pid_sets_one_and_an_unknown_one_is_not_found() {
    let whole = Whole::with(|config| {
        let other = config::Project { pid: 7, ..project(config.grpc.listen) };
        config.projects.push(other);
    })
    .await;
    let create = async |pid, id: &str| {
        let request = pb::CreatePayoutRequest { pid, ..order(id) };
        whole.create(request).await.map_err(|status| reason(&status).1)
    };
    assert!(whole.set_intake(0, true).await.expect("OK"));
    assert_eq!(create(PID, "a").await, Err("PAUSED".to_owned()));
    assert_eq!(create(7, "a").await, Err("PAUSED".to_owned()));
    assert!(!whole.set_intake(PID, false).await.expect("OK"));
    create(PID, "a").await.expect("taken");
    assert_eq!(create(7, "a").await, Err("PAUSED".to_owned()));
    assert!(!whole.set_intake(0, false).await.expect("OK"));
    // Nobody listens there: it was tried.
    assert_eq!(create(7, "a").await, Err("NOT_SENT".to_owned()));

    for pid in [8, -1] {
        let status = whole.set_intake(pid, true).await.expect_err("unknown");
        assert_eq!(
            (status.code(), reason(&status).1.as_str()),
            (Code::NotFound, "UNKNOWN_PROJECT")
        );
    }
    create(PID, "b").await.expect("taken");
    let long = pb::SetIntakeRequest { pid: 0, paused: true, note: "x".repeat(1025) };
    let status = within(whole.operator().await.set_intake(long)).await.expect_err("too long");
    assert_eq!(bad_fields(&status), ["note"]);
    create(PID, "c").await.expect("taken");
}

/// Whether the ledger says that the project is paused.
fn kept(whole: &Whole) -> bool {
    let latest = "SELECT count(*) FROM intake WHERE paused AND id = (SELECT max(id) FROM intake)";
    whole.shell().number(latest) == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_many_at_once_in_the_ledger_is_the_one_that_holds() {
    let whole = Whole::start().await;
    let operator = whole.operator().await;
    for round in 0..20 {
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..16 {
            let mut operator = operator.clone();
            let paused = number % 2 == 0;
            let request = pb::SetIntakeRequest { pid: 0, paused, note: String::new() };
            calls.spawn(async move { operator.set_intake(request).await.expect("OK") });
        }
        within(calls.join_all()).await;
        let created = whole.create(order(&format!("p{round}"))).await;
        assert_eq!(created.is_err(), kept(&whole));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_hangs_up_leaves_service_and_ledger_of_one_mind() {
    let whole = Whole::start().await;
    let operator = whole.operator().await;
    for round in 0..40u64 {
        whole.set_intake(0, true).await.expect("OK");
        let mut hasty = operator.clone();
        let request = pb::SetIntakeRequest { pid: 0, paused: false, note: String::new() };
        let patience = Duration::from_micros(100 * round);
        let _ = tokio::time::timeout(patience, hasty.set_intake(request)).await;
        // The writer takes one thing after the other: what was asked for is kept, or never will be.
        whole.create(order("barrier")).await.ok();
        if !kept(&whole) {
            let id = format!("p{round}");
            within(async { while whole.create(order(&id)).await.is_err() {} }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_pauses_and_resumes_the_real_service() {
    let whole = Whole::start().await;
    let address = whole.service.addresses.grpc;
    let out = async |arguments: &[&str]| {
        let output = run(address, arguments).await;
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let said = out(&["payouts", "pause", "--note", "quota"]).await;
    assert_eq!(said, "all projects: paused; no new payouts are taken\n");
    paused(&whole.create(order("a")).await.expect_err("paused"));
    let pid = PID.to_string();
    let said = out(&["payouts", "resume", "--pid", &pid, "--output", "json"]).await;
    assert_eq!(said, "{\"paused\":false}\n");
    whole.create(order("a")).await.expect("taken again");
    let unknown = run(address, &["payouts", "pause", "--pid", "8"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("UNKNOWN_PROJECT"));
}
