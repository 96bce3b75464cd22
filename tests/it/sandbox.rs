//! The fake Cregis after creation: moves, notices, verification, and how all that goes wrong.

mod wire;

use std::collections::BTreeSet;
use std::task::Poll;
use std::time::Duration;

use payoutd::sandbox::message::{Kind, Push};
use payoutd::sandbox::{self, Sandbox};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{ADDRESS, Upstream, within};
use wire::{Receiver, control, create, delivered, is_genuine, query, read, try_create};

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_signed_and_has_the_documented_fields_and_no_other() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start(&["success"]).await);
    let cid = create(upstream.address, "a", &receiver.url).await;
    assert!(upstream.book.set_status(cid, 6, true));
    let messages = receiver.messages(1).await;
    assert!(is_genuine(&messages[0]));
    let notice = read(&messages[0]);
    let names: BTreeSet<_> = notice.keys().map(String::as_str).collect();
    let documented = [
        "pid",
        "cid",
        "chain_id",
        "token_id",
        "currency",
        "address",
        "amount",
        "third_party_id",
        "remark",
        "status",
        "txid",
        "block_height",
        "block_time",
        "nonce",
        "timestamp",
        "sign",
    ];
    assert_eq!(names, BTreeSet::from(documented), "memo is empty and left out");
    assert_eq!((&notice["cid"], &notice["status"]), (&cid.into(), &6.into()));
    assert!(notice["block_height"].is_string() && notice["block_time"].is_i64());

    let asked = query(upstream.address, cid).await;
    for name in ["txid", "block_height", "block_time", "status", "amount", "address"] {
        assert_eq!(asked[name], notice[name], "{name}");
    }
    delivered(&upstream.book, 1).await;
    let delivery = upstream.book.deliveries().remove(0);
    assert_eq!((delivery.kind, delivery.http_status), (Kind::Notice, Some(200)));
    assert!(delivery.ok && delivery.body == "success" && delivery.sent == messages[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_settled_by_200_and_the_bare_word_only() {
    let upstream = Upstream::start().await;
    let receiver = Receiver::start(&["success\n", r#"{"status":"success"}"#, "success"]).await;
    let cid = create(upstream.address, "a", &receiver.url).await;
    assert!(upstream.book.set_status(cid, 7, true));
    assert!(upstream.book.push_notice(cid, Push { times: Some(2), stale: false }));
    let nowhere = create(upstream.address, "b", "http://127.0.0.1:9/").await;
    delivered(&upstream.book, 3).await;
    assert!(upstream.book.set_status(nowhere, 7, true));
    delivered(&upstream.book, 4).await;
    let deliveries = upstream.book.deliveries();
    let settled: Vec<_> = deliveries.iter().map(|delivery| delivery.ok).collect();
    assert_eq!(settled, [false, false, true, false]);
    assert_eq!(deliveries[3].http_status, None, "nobody was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_approval_a_silent_move_and_an_open_status_send_nothing() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start(&["success"]).await);
    let cid = create(upstream.address, "a", &receiver.url).await;
    for (status, notice) in [(5, true), (1, true), (3, true), (6, false), (7, true)] {
        assert!(upstream.book.set_status(cid, status, notice));
        assert_eq!(query(upstream.address, cid).await["status"], status);
    }
    delivered(&upstream.book, 1).await;
    let first = &receiver.messages(1).await[0];
    assert_eq!(read(first)["status"], 7, "the first that was told");
    assert!(!upstream.book.set_status(1, 6, true), "no such order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_by_hand_is_new_unless_it_is_stale_and_repeats_are_byte_identical() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start(&["success"]).await);
    let cid = create(upstream.address, "a", &receiver.url).await;
    assert!(upstream.book.set_status(cid, 6, true));
    assert!(upstream.book.push_notice(cid, Push { times: Some(100), stale: false }));
    assert!(upstream.book.push_notice(cid, Push { times: None, stale: true }));
    let messages = receiver.messages(102).await;
    assert_ne!(messages[0], messages[1], "a fresh nonce and time stamp");
    assert!(messages[2..101].iter().all(|message| *message == messages[1]));
    assert_eq!(messages[101], messages[0]);
    assert!(messages.iter().all(|message| is_genuine(message)));
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_tampered_notices_do_not_verify_and_mismatching_ones_do() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start(&["success"]).await);
    upstream.fault(r#"{"on": "notice", "forge": true}"#);
    upstream.fault(r#"{"on": "notice", "tamper": {"amount": "9", "status": null}}"#);
    upstream.fault(
        r#"{"on": "notice", "repeat": 2, "fields": {"amount": "9", "remark": null, "new": 1}}"#,
    );
    let cid = create(upstream.address, "a", &receiver.url).await;
    for status in [6, 7, 6, 7] {
        assert!(upstream.book.set_status(cid, status, true));
    }
    let messages = receiver.messages(5).await;
    let genuine: Vec<_> = messages.iter().map(|message| is_genuine(message)).collect();
    assert_eq!(genuine, [false, false, true, true, true]);
    let [forged, tampered, mismatching] = [0, 1, 2].map(|at| read(&messages[at]));
    assert_eq!((&forged["amount"], &forged["status"]), (&"1.1".into(), &6.into()));
    assert!(tampered["amount"] == "9" && !tampered.contains_key("status"));
    assert!(mismatching["amount"] == "9" && mismatching["new"] == 1);
    assert!(!mismatching.contains_key("remark"));
    assert_eq!(messages[2], messages[3], "sent twice");
    assert_eq!(query(upstream.address, cid).await["amount"], "1.1", "the order is untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_notice_never_comes_and_a_late_one_is_overtaken() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start(&["success"]).await);
    upstream.fault(r#"{"on": "notice", "third_party_id": "a", "then": "drop"}"#);
    upstream.fault(r#"{"on": "notice", "third_party_id": "a", "delay": "300ms"}"#);
    let cid = create(upstream.address, "a", &receiver.url).await;
    for status in [4, 7, 6] {
        assert!(upstream.book.set_status(cid, status, true));
    }
    let messages = receiver.messages(2).await;
    let statuses: Vec<_> = messages.iter().map(|message| read(message)["status"].clone()).collect();
    assert_eq!(statuses, [6, 7]);
    assert!(upstream.book.push_notice(cid, Push { times: None, stale: true }));
    let lost = &receiver.messages(3).await[2];
    assert_eq!(read(lost)["status"], 4, "the first push, although it was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_is_signed_and_ok_approves() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start(&["ok"]).await);
    upstream.book.verify_at(Some(receiver.url.clone()));
    let cid = create(upstream.address, "a", "").await;
    let question = receiver.messages(1).await.remove(0);
    assert!(is_genuine(&question));
    let question = read(&question);
    let names: BTreeSet<_> = question.keys().map(String::as_str).collect();
    let documented = [
        "pid",
        "cid",
        "third_party_id",
        "chain_id",
        "token_id",
        "from_address",
        "to_address",
        "amount",
        "remark",
        "nonce",
        "timestamp",
        "sign",
    ];
    assert_eq!(names, BTreeSet::from(documented));
    assert_eq!((&question["cid"], &question["to_address"]), (&cid.into(), &ADDRESS.into()));
    approved(&upstream, Some(true)).await;
    assert_eq!(upstream.book.orders()[0].status, 0);
}

/// Waits until the first order's verification has come to `expected`.
async fn approved(upstream: &Upstream, expected: Option<bool>) {
    within(async {
        while upstream.book.orders()[0].approved != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_ends_an_order_with_a_notice_and_other_words_have_it_asked_again() {
    let upstream = Upstream::start().await;
    let verifier = Receiver::start(&["DENY", "deny"]).await;
    let receiver = Receiver::start(&["success"]).await;
    upstream.book.verify_at(Some(verifier.url.clone()));
    verifier.close();
    verifier.gate.add_permits(1);
    create(upstream.address, "a", &receiver.url).await;
    verifier.messages(2).await;
    assert_eq!(upstream.book.orders()[0].approved, None, "undecided");
    verifier.gate.add_permits(1);
    let notice = receiver.messages(1).await.remove(0);
    assert_eq!(read(&notice)["status"], 4);
    assert_eq!(upstream.book.orders()[0].approved, Some(false));
    let questions = verifier.messages(2).await;
    assert_ne!(read(&questions[0])["nonce"], read(&questions[1])["nonce"], "signed anew");
    delivered(&upstream.book, 3).await;
    let deliveries = upstream.book.deliveries();
    let settled: Vec<_> = deliveries.iter().map(|sent| (sent.kind, sent.ok)).collect();
    let (asked, told) = (Kind::Verification, Kind::Notice);
    assert_eq!(settled, [(asked, false), (asked, true), (told, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_create_call_waits_for_the_verification_only_where_told_to() {
    let (upstream, verifier) = (Upstream::start().await, Receiver::start(&["ok"]).await);
    upstream.book.verify_at(Some(verifier.url.clone()));
    verifier.close();
    create(upstream.address, "a", "").await;

    upstream.fault(r#"{"on": "verification", "before_answer": true}"#);
    let mut waiting = Box::pin(create(upstream.address, "b", ""));
    tokio::select! {
        _ = &mut waiting => panic!("answered before the verification"),
        _ = verifier.messages(2) => {}
    }
    let open = std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context)));
    assert!(open.await.is_pending());
    verifier.gate.add_permits(10);
    let cid = waiting.await;
    assert!(upstream.book.orders().iter().any(|order| order.cid == cid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_may_be_answered_before_the_create_call_is() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start(&["success"]).await);
    upstream.fault(r#"{"on": "notice", "third_party_id": "a", "before_answer": true}"#);
    let cid = create(upstream.address, "a", &receiver.url).await;
    let delivery = upstream.book.deliveries().remove(0);
    assert_eq!((delivery.cid, delivery.status, delivery.ok), (cid, 6, true));
    assert_eq!(query(upstream.address, cid).await["status"], 6);
    let other = create(upstream.address, "b", &receiver.url).await;
    assert_eq!(query(upstream.address, other).await["status"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_duplicate_check_a_repeated_id_is_another_order() {
    let upstream = Upstream::start().await;
    let first = create(upstream.address, "a", "").await;
    assert_eq!(try_create(upstream.address, "a", "").await["code"], "E0009");
    let put = control(&upstream, "PUT", "/duplicates", r#"{"allowed": true}"#).await;
    assert_eq!(put.0, 204);
    let second = create(upstream.address, "a", "").await;
    assert_ne!(first, second);
    assert!(upstream.book.set_status(second, 6, false));
    assert_eq!(query(upstream.address, first).await["status"], 0);
    assert_eq!(query(upstream.address, second).await["status"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_delivered_twice_is_taken_in_twice_and_answered_as_told() {
    for (which, duplicates, code, stored) in [
        ("first", false, "00000", 1),
        ("second", false, "E0009", 1),
        ("first", true, "00000", 2),
        ("second", true, "00000", 2),
    ] {
        let upstream = Upstream::start().await;
        upstream.book.allow_duplicates(duplicates);
        upstream.fault(&format!(r#"{{"deliver_twice": "{which}"}}"#));
        let answer = try_create(upstream.address, "a", "").await;
        assert_eq!(answer["code"], code, "{which}, {duplicates}");
        let cids: Vec<_> = upstream.book.orders().iter().map(|order| order.cid).collect();
        assert_eq!(cids.len(), stored);
        if code == "00000" {
            let expected = if which == "first" { cids[0] } else { cids[stored - 1] };
            assert_eq!(answer["data"]["cid"], expected);
        }
        assert_eq!(upstream.book.posts()[0].code.as_deref(), Some(code));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_be_made_to_disagree() {
    let upstream = Upstream::start().await;
    let cid = create(upstream.address, "a", "").await;
    upstream.fault(r#"{"on": "query", "fields": {"status": 7, "amount": "2", "memo": null}}"#);
    let wrong = query(upstream.address, cid).await;
    assert!(wrong["status"] == 7 && wrong["amount"] == "2" && !wrong.contains_key("memo"));
    let right = query(upstream.address, cid).await;
    assert!(right["status"] == 0 && right["amount"] == "1.1" && right["txid"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_goes_to_its_outcome_by_itself_once_it_is_approved() {
    let verifier = Receiver::start(&["ok"]).await;
    let receiver = Receiver::start(&["success"]).await;
    verifier.close();
    let settings = sandbox::Settings {
        outcome: Some(6),
        outcome_after: Duration::ZERO,
        verification_url: Some(verifier.url.clone()),
        ..sandbox::Settings::default()
    };
    let sandbox = Sandbox::bind(settings).await.expect("bound");
    let (address, book) = (sandbox.address().expect("an address"), sandbox.book());
    let mut task = JoinSet::new();
    let stop = CancellationToken::new();
    task.spawn(sandbox.run(stop.clone()));

    let cid = create(address, "a", &receiver.url).await;
    verifier.messages(1).await;
    assert_eq!(book.orders()[0].status, 0, "waits for approval");
    verifier.gate.add_permits(10);
    let notice = receiver.messages(1).await.remove(0);
    assert_eq!(read(&notice)["status"], 6);
    delivered(&book, 2).await;
    let asked = query(address, cid).await;
    assert!(asked["status"] == 6 && asked["txid"].as_str().is_some_and(|txid| txid.len() == 64));
    let kinds: Vec<_> = book.deliveries().iter().map(|delivery| delivery.kind).collect();
    assert_eq!(kinds, [Kind::Verification, Kind::Notice], "nothing is told on the way");
    stop.cancel();
    within(task.join_next()).await.expect("one task").expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_port_moves_orders_and_lists_what_was_sent() {
    let (upstream, receiver) = (Upstream::start().await, Receiver::start(&["success"]).await);
    let first = create(upstream.address, "a", &receiver.url).await;
    let second = create(upstream.address, "b", &receiver.url).await;
    let moved = r#"{"status": 7, "txid": "ff", "block_height": "12", "block_time": 34}"#;
    let path = format!("/orders/{first}/status");
    assert_eq!(control(&upstream, "POST", &path, moved).await.0, 204);
    let asked = query(upstream.address, first).await;
    assert!(asked["txid"] == "ff" && asked["block_height"] == "12" && asked["block_time"] == 34);
    let none = r#"{"status": 6, "third_party_id": "a"}"#;
    let answer = control(&upstream, "POST", "/orders/status", none).await;
    assert_eq!(answer, (200, r#"{"moved":0}"#.to_owned()), "a is final");
    let answer = control(&upstream, "POST", "/orders/status", r#"{"status": 6}"#).await;
    assert_eq!(answer, (200, r#"{"moved":1}"#.to_owned()));
    delivered(&upstream.book, 2).await;
    let path = format!("/orders/{second}/notice");
    assert_eq!(control(&upstream, "POST", &path, "").await.0, 204);
    delivered(&upstream.book, 3).await;
    let (status, listed) = control(&upstream, "GET", "/notices", "").await;
    let listed: Vec<Value> = serde_json::from_str(&listed).expect("a list");
    assert_eq!((status, listed.len()), (200, 3));
    let last = (&listed[2]["cid"], &listed[2]["status"], &listed[2]["kind"]);
    assert_eq!(last, (&second.into(), &6.into(), &"notice".into()));
    assert!(listed[2]["http_status"] == 200 && listed[2]["ok"] == true);

    for (method, path, body, status) in [
        ("POST", "/orders/1/status", r#"{"status": 6}"#, 404),
        ("POST", "/orders/1/notice", "", 404),
        ("POST", "/orders/status", r#"{"status": 6, "notise": false}"#, 422),
        ("PUT", "/verification", r#"{"url": "http://127.0.0.1:9/"}"#, 204),
        ("PUT", "/verification", r#"{"url": null}"#, 204),
    ] {
        assert_eq!(control(&upstream, method, path, body).await.0, status, "{path} {body}");
    }
}
