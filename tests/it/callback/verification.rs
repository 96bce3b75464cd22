//! External verification: exactly one cid of each payout may be paid, and that is written down first.

use std::time::{Duration, Instant};

use payoutd::pb::{self, PayoutState};
use serde_json::json;

use super::letter::{
    Answer, Fields, accepted, ask, causes, count, genuine, lost, notice, path, question, send,
    snapshot, success, tell, until, with,
};
use crate::support::{Whole, order, within};

async fn start() -> Whole {
    Whole::with(|config| config.projects[0].verification = true).await
}

fn ok() -> Answer {
    (200, "ok".to_owned())
}

fn deny() -> Answer {
    (200, "deny".to_owned())
}

fn neither() -> Answer {
    (503, String::new())
}

/// What is written of the payout at this moment.
fn approved(whole: &Whole, id: &str) -> (Option<i64>, Option<i64>, String) {
    let select =
        format!("SELECT cid, approved_cid, state FROM payout WHERE third_party_id = '{id}'");
    let row = whole.shell().rows(&select).remove(0);
    let cid = |at: usize| row[at].as_ref().map(|cid| cid.parse().expect("a cid"));
    (cid(0), cid(1), row[2].clone().expect("a state"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cid_is_approved_again_and_again_and_no_other_ever() {
    let whole = start().await;
    let cid = accepted(&whole, "a").await;
    for _ in 0..3 {
        assert_eq!(ask(&whole, question("a", cid)).await, ok());
        assert_eq!(approved(&whole, "a"), (Some(cid), Some(cid), "ACCEPTED".to_owned()));
        assert_eq!(ask(&whole, question("a", cid + 1)).await, deny());
    }
    let paged = whole.get("a").await.expect("known");
    assert_eq!((paged.state(), paged.cid), (PayoutState::Accepted, cid));
    assert_eq!(paged.attention, ["CID_MISMATCH"]);
    assert_eq!(ask(&whole, question("a", cid)).await, ok(), "still");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cid_of_a_lost_answer_is_bound_and_approved_on_disk_before_ok_is_said() {
    let whole = start().await;
    let cid = lost(&whole, order("a")).await;
    assert_eq!(ask(&whole, question("a", cid)).await, ok());
    assert_eq!(approved(&whole, "a"), (Some(cid), Some(cid), "ACCEPTED".to_owned()));
    assert_eq!(causes(&whole.shell(), "a"), ["RECORDED", "REPLY", "VERIFICATION"]);
    assert_eq!(ask(&whole, question("a", cid + 1)).await, deny());
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_comes_before_the_reply_is_answered_and_the_reply_fits() {
    let whole = start().await;
    let url = format!("http://{}{}", whole.service.addresses.callback, path("verification"));
    whole.upstream.book.verify_at(Some(url));
    whole.upstream.fault(r#"{"on": "verification", "before_answer": true}"#);
    let payout = whole.create(order("a")).await.expect("OK");
    let orders = whole.upstream.book.orders();
    assert_eq!((payout.state(), payout.cid), (PayoutState::Accepted, orders[0].cid));
    assert_eq!(whole.upstream.book.deliveries()[0].body, "ok");
    assert!(payout.attention.is_empty() && orders.len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_or_is_unknown_is_denied() {
    let whole = start().await;
    let usdt = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t";
    for bound in [true, false] {
        for (number, changes) in [
            json!({"amount": "1.11"}),
            json!({"to_address": usdt}),
            json!({"chain_id": "60"}),
            json!({"token_id": usdt}),
            json!({"memo": "7"}),
        ]
        .into_iter()
        .enumerate()
        {
            let id = format!("{bound}-{number}");
            let cid =
                if bound { accepted(&whole, &id).await } else { lost(&whole, order(&id)).await };
            let before = whole.get(&id).await.expect("known");
            let asked = whole.upstream.book.received().len();
            let answer = ask(&whole, with(question(&id, cid), changes.clone())).await;
            assert_eq!(answer, deny(), "{changes}");
            let after = whole.get(&id).await.expect("known");
            assert_eq!((after.state(), after.cid), (before.state(), before.cid));
            assert_eq!(after.attention, ["FIELD_MISMATCH"], "{changes}");
            assert_eq!(approved(&whole, &id).1, None);
            assert_eq!(whole.upstream.book.received().len(), asked, "no question needed");
        }
    }
    let before = snapshot(&whole.shell());
    assert_eq!(ask(&whole, question("nobody", 9)).await, deny());
    assert_eq!(snapshot(&whole.shell()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_is_not_bound_to_what_cregis_does_not_have_or_has_for_another() {
    let whole = start().await;
    let other = accepted(&whole, "other").await;
    lost(&whole, order("a")).await;
    // It may be too new to be found: neither word.
    assert_eq!(ask(&whole, question("a", 1)).await, (503, String::new()), "no such order");
    assert_eq!(ask(&whole, question("a", other)).await, deny(), "another's");
    let doubt = whole.get("a").await.expect("known");
    assert_eq!((doubt.state(), doubt.cid), (PayoutState::InDoubt, 0));
    assert_eq!(doubt.attention, ["FIELD_MISMATCH"]);
    assert_eq!(approved(&whole, "a").1, None);
    assert_eq!(ask(&whole, question("other", other)).await, ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_denied() {
    let whole = start().await;
    for status in [6, 7, 2] {
        let id = format!("ended-{status}");
        let cid = accepted(&whole, &id).await;
        assert!(whole.upstream.book.set_status(cid, status, false));
        assert_eq!(tell(&whole, notice(&id, cid, status)).await, success());
        let state = match status {
            6 => PayoutState::Succeeded,
            7 => PayoutState::Failed,
            _ => PayoutState::Denied,
        };
        let ended = until(&whole, &id, state).await;
        assert_eq!(ask(&whole, question(&id, cid)).await, deny(), "{status}");
        assert_eq!(whole.get(&id).await.expect("known"), ended);
    }
    // Lost, and over by the time that we are asked.
    let cid = lost(&whole, order("over")).await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    assert_eq!(ask(&whole, question("over", cid)).await, deny());
    assert_eq!(whole.get("over").await.expect("known").state(), PayoutState::Succeeded);
}

/// A caller was told that it does not exist, and may have paid under another id by now.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_closed_reopens_pages_and_stays_denied() {
    let whole = Whole::with(|config| {
        config.projects[0].verification = true;
        config.void_min_age = Duration::ZERO;
    })
    .await;
    whole.upstream.fault(r#"{"code": "E0008", "msg": "no", "store": true}"#);
    whole.create(order("rejected")).await.expect_err("refused");
    let rejected = whole.upstream.book.orders()[0].cid;
    let voided = lost(&whole, order("voided")).await;
    void(&whole, "voided").await;
    for (id, cid) in [("rejected", rejected), ("voided", voided)] {
        for _ in 0..3 {
            assert_eq!(ask(&whole, question(id, cid)).await, deny(), "{id}");
            let open = whole.get(id).await.expect("known");
            assert_eq!((open.state(), open.cid), (PayoutState::Accepted, cid), "{id}");
            assert_eq!(open.attention, ["EXISTS_AFTER_CLOSE"], "{id}");
            assert_eq!(approved(&whole, id).1, None, "{id}");
        }
    }
}

async fn void(whole: &Whole, id: &str) {
    let address = format!("http://{}", whole.service.addresses.grpc);
    let mut operator = pb::operator_service_client::OperatorServiceClient::connect(address)
        .await
        .expect("connected");
    let request = pb::ResolvePayoutRequest {
        pid: 0,
        third_party_id: id.to_owned(),
        resolution: Some(pb::resolve_payout_request::Resolution::Void(true)),
        evidence: "looked".to_owned(),
    };
    let answer = within(operator.resolve_payout(request)).await.expect("OK").into_inner();
    assert_eq!(answer.payout.expect("a payout").state(), PayoutState::Voided);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_question_leaves_the_decision_open() {
    let whole = start().await;
    let cid = lost(&whole, order("a")).await;
    let before = snapshot(&whole.shell());
    for fault in [
        r#"{"on": "query", "then": "drop"}"#,
        r#"{"on": "query", "status": 503}"#,
        r#"{"on": "query", "code": "O0015"}"#,
        r#"{"on": "query", "body": "{}"}"#,
        r#"{"on": "query", "fields": {"amount": null}}"#,
        r#"{"on": "query", "then": "hang"}"#,
    ] {
        whole.upstream.fault(fault);
        let begun = Instant::now();
        assert_eq!(ask(&whole, question("a", cid)).await, neither(), "{fault}");
        assert!(begun.elapsed() < Duration::from_millis(4900), "{fault}: Cregis has gone by then");
        assert_eq!(snapshot(&whole.shell()), before, "{fault}");
    }
    whole.upstream.fault(r#"{"on": "query", "fields": {"amount": "2"}}"#);
    assert_eq!(ask(&whole, question("a", cid)).await, deny(), "it disagrees");
    assert_eq!(ask(&whole, question("a", cid)).await, ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_ledger_leaves_the_decision_open() {
    let whole = start().await;
    let cid = accepted(&whole, "a").await;
    let doubted = lost(&whole, order("b")).await;
    let hold = whole.hold();
    let mismatching: Fields = with(question("a", cid), json!({"amount": "2"}));
    assert_eq!(ask(&whole, question("a", cid)).await, neither());
    assert_eq!(ask(&whole, question("b", doubted)).await, neither());
    assert_eq!(ask(&whole, mismatching).await, neither());
    drop(hold);
    assert_eq!(count(&whole.shell(), "payout WHERE approved_cid IS NOT NULL"), 0);
    for (id, cid) in [("a", cid), ("b", doubted)] {
        within(async { while ask(&whole, question(id, cid)).await != ok() {} }).await;
        assert_eq!(approved(&whole, id).1, Some(cid));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_without_verification_has_no_such_page() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    let before = snapshot(&whole.shell());
    assert_eq!(ask(&whole, question("a", cid)).await, (404, String::new()));
    let line = "POST /callbacks/7/verification";
    let unknown = send(whole.service.addresses.callback, line, &genuine(question("a", cid))).await;
    assert_eq!(unknown, (404, String::new()));
    assert_eq!(snapshot(&whole.shell()), before);
}

/// Cregis has taken one id for two orders, both as asked: one is paid.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_orders_for_one_payout_exactly_one_is_approved() {
    let whole = start().await;
    whole.upstream.book.allow_duplicates(true);
    for number in 0..5 {
        let id = format!("twice-{number}");
        whole.upstream.fault(r#"{"deliver_twice": "first", "then": "drop"}"#);
        let doubt = whole.create(order(&id)).await.expect("OK");
        assert_eq!(doubt.state(), PayoutState::InDoubt);
        let orders = whole.upstream.book.orders();
        let cids: Vec<_> =
            orders.iter().filter(|order| order.third_party_id == id).map(|o| o.cid).collect();
        assert_eq!(cids.len(), 2);
        let address = whole.service.addresses.callback;
        let calls = (0..12).map(|call| {
            let (cid, line) = (cids[call % 2], format!("POST {}", path("verification")));
            let body = genuine(question(&id, cid));
            async move { (cid, send(address, &line, &body).await) }
        });
        let answers = tokio::task::JoinSet::from_iter(calls).join_all().await;
        let approved = approved(&whole, &id).1.expect("one of them");
        for (cid, answer) in answers {
            assert_eq!(answer, if cid == approved { ok() } else { deny() });
        }
        let paged = whole.get(&id).await.expect("known");
        assert_eq!((paged.cid, paged.state()), (approved, PayoutState::Accepted));
        assert_eq!(paged.attention, ["CID_MISMATCH"]);
    }
}
