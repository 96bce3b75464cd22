//! What one caller learns of another's payouts: nothing, where the settings say so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use payoutd::caller::{ROLES, Role};
use payoutd::config;
use payoutd::disk::Disk;
use payoutd::engine::{Engine, Project, Refused};
use payoutd::ledger::Ledger;
use payoutd::metrics::Metrics;
use payoutd::order::{Draft, Order, Violation};
use payoutd::pb::{self, PayoutState};
use payoutd::policy::{Rule, Terms};
use payoutd::sandbox::PID;
use payoutd::state::State;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    Upstream, Whole, bad_fields, by, caller, kept_in, limit, metadata, order, project, reason,
    within,
};

/// Three callers: two that see only their own payouts, and one that sees all.
async fn three() -> Whole {
    Whole::with(|config| {
        let alone = |name| config::Caller { own_payouts_only: true, ..caller(name, &ROLES) };
        config.callers = vec![alone("a"), alone("b"), caller("all", &ROLES)];
    })
    .await
}

async fn create(whole: &Whole, who: &str, id: &str) -> Result<pb::Payout, Status> {
    let answer = within(whole.client.clone().create_payout(by(who, order(id)))).await?;
    Ok(answer.into_inner().payout.expect("a payout"))
}

async fn get(
    whole: &Whole,
    who: &str,
    id: pb::get_payout_request::Id,
) -> Result<pb::Payout, Status> {
    let request = pb::GetPayoutRequest { pid: 0, id: Some(id) };
    let answer = within(whole.client.clone().get_payout(by(who, request))).await?;
    Ok(answer.into_inner().payout.expect("a payout"))
}

/// All pages of two.
async fn list(whole: &Whole, who: &str, states: &[PayoutState]) -> Vec<String> {
    let mut request = pb::ListPayoutsRequest {
        page_size: 2,
        states: states.iter().map(|state| (*state).into()).collect(),
        ..pb::ListPayoutsRequest::default()
    };
    let mut found = Vec::new();
    loop {
        let asked = by(who, request.clone());
        let page = within(whole.client.clone().list_payouts(asked)).await.expect("OK").into_inner();
        assert!(page.payouts.len() == 2 || page.next_page_token.is_empty(), "a short page");
        found.extend(page.payouts.into_iter().map(|payout| payout.third_party_id));
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

/// The status is, but for the call's id, the one for a payout that was never there.
fn same_as_unknown(status: &Status, unknown: &Status) {
    assert_eq!(reason(status), (Code::NotFound, "PAYOUT_NOT_FOUND".into(), "fix".into()));
    assert_eq!((status.message(), status.details()), (unknown.message(), unknown.details()));
}

/// `fields` names only the id: the payout is somebody else's.
fn is_anothers(status: &Status) {
    let (code, reason, retry) = reason(status);
    assert_eq!((code, reason.as_str()), (Code::AlreadyExists, "THIRD_PARTY_ID_REUSED"));
    assert_eq!((retry.as_str(), metadata(status, "fields").as_str()), ("never", "third_party_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_never_sees_anothers_payouts_by_any_rpc() {
    use pb::get_payout_request::Id as Got;
    use pb::watch_payout_request::Id as Watched;
    let whole = three().await;
    let payout = create(&whole, "a", "a-1").await.expect("OK");
    let named = |id: &str| Got::ThirdPartyId(id.to_owned());

    let unknown = get(&whole, "b", named("never")).await.expect_err("unknown");
    for id in [named("a-1"), Got::Cid(payout.cid)] {
        assert_eq!(get(&whole, "a", id.clone()).await.expect("its own"), payout);
        assert_eq!(get(&whole, "all", id.clone()).await.expect("sees all"), payout);
        same_as_unknown(&get(&whole, "b", id).await.expect_err("another's"), &unknown);
    }
    for id in [Watched::ThirdPartyId("a-1".to_owned()), Watched::Cid(payout.cid)] {
        let request = pb::WatchPayoutRequest { pid: 0, id: Some(id), after_revision: 0 };
        let watch =
            async |who| within(whole.client.clone().watch_payout(by(who, request.clone()))).await;
        watch("a").await.expect("its own");
        watch("all").await.expect("sees all");
        same_as_unknown(&watch("b").await.expect_err("another's"), &unknown);
    }
    let mut operator = whole.operator().await;
    let mut resolve = async |who, resolution| {
        let request = pb::ResolvePayoutRequest {
            pid: 0,
            third_party_id: "a-1".to_owned(),
            resolution: Some(resolution),
            evidence: "seen".to_owned(),
        };
        within(operator.resolve_payout(by(who, request))).await
    };
    use pb::resolve_payout_request::Resolution;
    for resolution in [Resolution::Cid(payout.cid), Resolution::Cid(7), Resolution::Void(true)] {
        let refused = resolve("b", resolution).await.expect_err("another's");
        same_as_unknown(&refused, &unknown);
    }
    resolve("all", Resolution::Cid(payout.cid)).await.expect("sees all");

    // The same order, another one, and one that is only to be checked.
    let other = pb::CreatePayoutRequest { amount: "2".to_owned(), ..order("a-1") };
    let check = pb::CreatePayoutRequest { validate_only: true, ..order("a-1") };
    let mut words = Vec::new();
    for request in [order("a-1"), other, check] {
        let status = within(whole.client.clone().create_payout(by("b", request))).await;
        let status = status.expect_err("another's");
        is_anothers(&status);
        let info = status.get_error_details().error_info().expect("ErrorInfo").metadata.clone();
        words.push((status.message().to_owned(), info));
    }
    words.dedup();
    assert_eq!(words.len(), 1, "the answer tells whether the fields agree");
    assert_eq!(create(&whole, "a", "a-1").await.expect("its own"), payout);
    assert_eq!(create(&whole, "all", "a-1").await.expect("sees all"), payout);
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_leaves_others_payouts_out_and_its_pages_whole() {
    let whole = three().await;
    for number in 0..7 {
        create(&whole, "a", &format!("a-{number}")).await.expect("OK");
        create(&whole, "b", &format!("b-{number}")).await.expect("OK");
    }
    let ids = |prefix: &str| (0..7).map(|n| format!("{prefix}-{n}")).collect::<Vec<_>>();
    for states in [&[][..], &[PayoutState::Accepted], &[PayoutState::Accepted, PayoutState::Voided]]
    {
        assert_eq!(list(&whole, "a", states).await, ids("a"), "{states:?}");
        assert_eq!(list(&whole, "b", states).await, ids("b"), "{states:?}");
        assert_eq!(list(&whole, "all", states).await.len(), 14, "{states:?}");
    }
    assert!(list(&whole, "a", &[PayoutState::InDoubt]).await.is_empty());
    // What nobody's name stands on is nobody's.
    whole.shell().execute("UPDATE payout SET caller = '' WHERE third_party_id < 'b'");
    assert!(list(&whole, "a", &[]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_created_a_payout_keeps_seeing_it_whoever_sends_it_again() {
    use pb::get_payout_request::Id as Got;
    use pb::watch_payout_request::Id as Watched;
    let whole = three().await;
    create(&whole, "a", "x").await.expect("OK");
    // As a connection that could not be had leaves it.
    let unsent =
        "UPDATE payout SET state = 'NOT_SENT', reason = 'CONNECT_FAILED', cid = NULL, due = NULL";
    whole.shell().execute(unsent);
    is_anothers(&create(&whole, "b", "x").await.expect_err("a's, sent or not"));
    assert_eq!(whole.upstream.book.posts().len(), 1, "b has had a's payout sent");
    let sent = create(&whole, "all", "x").await.expect("sent again");
    assert_eq!(whole.upstream.book.posts().len(), 2);

    assert_eq!(get(&whole, "a", Got::ThirdPartyId("x".to_owned())).await.expect("a's"), sent);
    assert_eq!(create(&whole, "a", "x").await.expect("a's repeat"), sent);
    assert_eq!(list(&whole, "a", &[]).await, ["x"]);
    let watched = Some(Watched::ThirdPartyId("x".to_owned()));
    let request = pb::WatchPayoutRequest { pid: 0, id: watched, after_revision: 0 };
    within(whole.client.clone().watch_payout(by("a", request))).await.expect("a's");
    assert!(list(&whole, "b", &[]).await.is_empty());
    assert_eq!(whole.upstream.book.posts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_out_of_scope_is_refused_whether_there_is_one_or_not() {
    let whole = Whole::with(|config| {
        let other = config::Project { pid: 7, strict_text: true, ..project(config.grpc.listen) };
        config.projects.push(other);
        let bound = config::Caller { projects: vec![PID], ..caller("bound", &ROLES) };
        config.callers = vec![bound, caller("free", &ROLES)];
    })
    .await;
    let mut words = Vec::new();
    for pid in [7, 8, -1] {
        let mut operator = whole.operator().await;
        let mut client = whole.client.clone();
        let id = || "x".to_owned();
        // Wrong in more ways than one: nothing about the project may show in what is said of it.
        let request =
            pb::CreatePayoutRequest { pid, remark: "refund amount".to_owned(), ..order("x") };
        let created = within(client.create_payout(by("bound", request.clone()))).await.map(drop);
        let checked = pb::CreatePayoutRequest { validate_only: true, ..request };
        let checked = within(client.create_payout(by("bound", checked))).await.map(drop);
        let got = Some(pb::get_payout_request::Id::ThirdPartyId(id()));
        let got = pb::GetPayoutRequest { pid, id: got };
        let got = within(client.get_payout(by("bound", got))).await.map(drop);
        let listed = pb::ListPayoutsRequest { pid, page_size: -1, ..Default::default() };
        let listed = within(client.list_payouts(by("bound", listed))).await.map(drop);
        let watched = Some(pb::watch_payout_request::Id::Cid(1));
        let watched = pb::WatchPayoutRequest { pid, id: watched, after_revision: -1 };
        let watched = within(client.watch_payout(by("bound", watched))).await.map(drop);
        let resolved = pb::ResolvePayoutRequest { pid, ..Default::default() };
        let resolved = within(operator.resolve_payout(by("bound", resolved))).await.map(drop);
        let set = pb::SetIntakeRequest { pid, paused: true, note: String::new() };
        let set = within(operator.set_intake(by("bound", set))).await.map(drop);
        for (number, answer) in
            [created, checked, got, listed, watched, resolved, set].into_iter().enumerate()
        {
            let status = answer.expect_err("out of scope");
            let expected = (Code::PermissionDenied, "PERMISSION_DENIED".into(), "fix".into());
            assert_eq!(reason(&status), expected, "{pid}: {number}");
            words.push((status.message().to_owned(), status.details().to_owned()));
        }
    }
    words.dedup();
    assert_eq!(words.len(), 1, "the answers tell projects apart");
    // Whoever is not bound is told what is there.
    let request = pb::ListPayoutsRequest { pid: 8, ..Default::default() };
    let status = within(whole.client.clone().list_payouts(by("free", request))).await;
    assert_eq!(reason(&status.expect_err("unknown")).1, "UNKNOWN_PROJECT");
    assert!(whole.upstream.book.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_projects_are_those_that_the_operator_may_use() {
    let whole = Whole::with(|config| {
        let other = config::Project { pid: 7, ..config.projects[0].clone() };
        config.projects.push(other);
        let bound = config::Caller { projects: vec![PID], ..caller("bound", &ROLES) };
        config.callers = vec![bound, caller("free", &[Role::Create])];
    })
    .await;
    let set = pb::SetIntakeRequest { pid: 0, paused: true, note: String::new() };
    let paused = within(whole.operator().await.set_intake(by("bound", set))).await.expect("OK");
    assert!(paused.into_inner().paused);
    let create = async |pid| {
        let request = pb::CreatePayoutRequest { pid, ..order("x") };
        within(whole.client.clone().create_payout(by("free", request))).await
    };
    assert_eq!(reason(&create(PID).await.expect_err("paused")).1, "PAUSED");
    // The sandbox does not know the project: it was asked.
    let refused = create(7).await.expect_err("unknown at Cregis");
    assert_eq!(reason(&refused).1, "CREGIS_REFUSED_GATEWAY", "not the operator's to pause");
}

// === calls that join a flight ===

/// An engine of its own: on one thread, calls that are polled together join the same flight.
async fn engine(upstream: &Upstream, folder: &tempfile::TempDir) -> Arc<Engine> {
    let ledger = Ledger::of(&kept_in(folder).await, &Metrics::new([])).await.expect("opened");
    let disk = Disk::new(folder.path(), 0);
    let project = Project::new(&project(upstream.address), String::new()).expect("built");
    Engine::new((ledger, disk), HashMap::from([(PID, project)]), Duration::from_secs(60), 1)
}

fn checked(amount: &str) -> Order {
    let draft = Draft {
        pid: PID,
        currency: "195@195".into(),
        address: crate::support::ADDRESS.into(),
        amount: amount.into(),
        third_party_id: "x".into(),
        ..Draft::default()
    };
    Order::check(draft, false).expect("good")
}

fn terms(name: &str, change: impl FnOnce(&mut Terms)) -> Arc<Terms> {
    let mut terms = Terms { caller: name.to_owned(), ..Terms::default() };
    change(&mut terms);
    Arc::new(terms)
}

#[tokio::test]
async fn who_joins_anothers_flight_is_told_no_more_than_by_the_ledger() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let engine = engine(&upstream, &folder).await;
    let until = Instant::now() + Duration::from_secs(20);
    let alone = |name| terms(name, |terms| terms.own_payouts_only = true);
    let (a, b, all) = (alone("a"), alone("b"), terms("all", |_| {}));
    let (by_a, by_b, by_all) = tokio::join!(
        engine.create((checked("1.1"), None), &a, "1", until),
        engine.create((checked("1.1"), None), &b, "2", until),
        engine.create((checked("1.1"), None), &all, "3", until),
    );
    let payout = by_a.expect("its own");
    assert_eq!((payout.state, payout.caller.as_str()), (State::Accepted, "a"));
    assert_eq!(by_b, Err(Refused::Reused(vec!["third_party_id"])));
    assert_eq!(by_all, Ok(payout));
    assert_eq!(upstream.book.posts().len(), 1);
}

#[tokio::test]
async fn one_callers_limits_do_not_refuse_another_who_joined_its_flight() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let engine = engine(&upstream, &folder).await;
    let until = Instant::now() + Duration::from_secs(20);
    let poor = terms("poor", |terms| terms.limits = vec![limit(Some("1"), None)]);
    let rich = terms("rich", |_| {});
    let (first, second, same) = tokio::join!(
        engine.create((checked("1.1"), None), &poor, "1", until),
        engine.create((checked("1.1"), None), &rich, "2", until),
        engine.create((checked("1.1"), None), &poor, "3", until),
    );
    assert_eq!(first, Err(Refused::Denied(Rule::PerPayoutLimit)));
    assert_eq!(same, Err(Refused::Denied(Rule::PerPayoutLimit)), "the same call, the same answer");
    let payout = second.expect("within its own limits");
    assert_eq!((payout.state, payout.caller.as_str()), (State::Accepted, "rich"));
    assert_eq!(upstream.book.posts().len(), 1);
    let late = engine.create((checked("1.1"), None), &poor, "4", until).await;
    assert_eq!(late, Ok(payout), "a known payout is answered, whatever the limits");
}

#[tokio::test]
async fn an_amount_too_fine_is_not_let_through_by_another_call_under_its_id() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let engine = engine(&upstream, &folder).await;
    let until = Instant::now() + Duration::from_secs(20);
    let poor = terms("poor", |terms| terms.limits = vec![limit(Some("1"), None)]);
    let rule = Violation::new("amount", "must have at most 1 decimals in this coin");
    let too_fine = || Some(rule.clone());
    // The first one's flight records nothing, and the second one has joined it.
    let (denied, fine) = tokio::join!(
        engine.create((checked("1000"), None), &poor, "1", until),
        engine.create((checked("0.12"), too_fine()), &poor, "2", until),
    );
    assert_eq!(denied, Err(Refused::Denied(Rule::PerPayoutLimit)));
    assert_eq!(fine, Err(Refused::Invalid(vec![rule.clone()])));
    assert!(upstream.book.posts().is_empty());
    // Recorded when the coin had more of them: answered.
    let created = engine.create((checked("0.12"), None), &poor, "3", until).await.expect("OK");
    let again = engine.create((checked("0.12"), too_fine()), &poor, "4", until).await;
    assert_eq!(again, Ok(created));
    assert_eq!(upstream.book.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_of_ones_own_view_serves_nobody_else() {
    let whole = three().await;
    for (who, id) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2")] {
        create(&whole, who, id).await.expect("OK");
    }
    let page = async |who, page_token: &str| {
        let request = pb::ListPayoutsRequest {
            page_size: 1,
            page_token: page_token.to_owned(),
            ..pb::ListPayoutsRequest::default()
        };
        within(whole.client.clone().list_payouts(by(who, request))).await
    };
    for own in ["a", "b", "all"] {
        let token = page(own, "").await.expect("OK").into_inner().next_page_token;
        for who in ["a", "b", "all"] {
            let next = page(who, &token).await;
            match next {
                Ok(_) => assert_eq!(own, who),
                Err(status) => {
                    assert!(own != who, "{own}");
                    assert_eq!(bad_fields(&status), ["page_token"]);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_calls_do_not_count_them() {
    let whole = three().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let request = by("a", pb::ListPayoutsRequest::default());
        let answer = within(whole.client.clone().list_payouts(request)).await.expect("OK");
        let id = answer.metadata().get("x-request-id").expect("an id").to_str().expect("ASCII");
        ids.push(id.to_owned());
    }
    for (one, other) in ids.iter().zip(&ids[1..]) {
        let common = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        assert!(common < 8 && one.len() == other.len(), "{ids:?}");
    }
}
