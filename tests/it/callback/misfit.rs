//! Validly signed, and not about what we have: kept, acknowledged, shown to a person, moves nothing.

use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::PID;
use serde_json::json;

use super::letter::{
    accepted, barrier, count, fields, genuine, lost, notice, success, tell, tell_bytes, until, with,
};
use crate::support::{Whole, order, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_differs_in_any_field_pages_and_earns_no_question() {
    let whole = Whole::start().await;
    for (number, (changes, attention)) in [
        (json!({"address": "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"}), "FIELD_MISMATCH"),
        (json!({"amount": "1.11"}), "FIELD_MISMATCH"),
        (json!({"amount": "11"}), "FIELD_MISMATCH"),
        (json!({"chain_id": "60"}), "FIELD_MISMATCH"),
        (json!({"token_id": "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"}), "FIELD_MISMATCH"),
        (json!({"memo": "7"}), "FIELD_MISMATCH"),
        (json!({"cid": 1}), "CID_MISMATCH"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("payout-{number}");
        let cid = accepted(&whole, &id).await;
        // A question would be answered with the end.
        assert!(whole.upstream.book.set_status(cid, 6, false));
        let letter = genuine(with(notice(&id, cid, 6), changes.clone()));
        let address = whole.service.addresses.callback;
        for _ in 0..3 {
            assert_eq!(tell_bytes(address, &letter).await, success(), "{changes}");
        }
        let paged = whole.get(&id).await.expect("known");
        assert_eq!((paged.state(), paged.cid, paged.revision), (PayoutState::Accepted, cid, 3));
        assert_eq!(paged.attention, [attention], "{changes}");
        let kept = format!("notice WHERE third_party_id = '{id}'");
        assert_eq!(count(&whole.shell(), &kept), 1);
        assert_eq!(count(&whole.shell(), &format!("{kept} AND due IS NOT NULL")), 0);
    }
    let asked = whole.upstream.book.received().len();
    barrier(&whole, "after").await;
    assert_eq!(whole.upstream.book.received().len(), asked + 2, "the barrier's own");
    let both = whole.get("payout-1").await.expect("known").cid;
    let letter = with(notice("payout-1", both + 1, 6), json!({"amount": "2"}));
    assert_eq!(tell(&whole, letter).await, success());
    let paged = whole.get("payout-1").await.expect("known");
    assert_eq!(paged.attention, ["FIELD_MISMATCH", "CID_MISMATCH"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fitting_notice_about_a_doubt_whose_query_disagrees_pages_and_binds_nothing() {
    let whole = Whole::start().await;
    let other = accepted(&whole, "other").await;
    lost(&whole, order("a")).await;
    assert!(whole.upstream.book.set_status(other, 6, false));
    assert_eq!(tell(&whole, notice("a", other, 6)).await, success());
    barrier(&whole, "after").await;
    let doubt = whole.get("a").await.expect("known");
    assert_eq!((doubt.state(), doubt.cid), (PayoutState::InDoubt, 0));
    assert_eq!(doubt.attention, ["FIELD_MISMATCH"]);
    assert_eq!(whole.get("other").await.expect("known").state(), PayoutState::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_about_what_was_refused_reopens_it_where_the_query_agrees() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"code": "E0008", "msg": "no", "store": true}"#);
    whole.create(order("a")).await.expect_err("refused");

    let cid = whole.upstream.book.orders()[0].cid;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    assert_eq!(tell(&whole, notice("a", cid, 6)).await, success());
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!((paid.cid, paid.attention), (cid, vec!["EXISTS_AFTER_CLOSE".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_cregis_adds_is_signed_too_and_does_no_harm() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    let letter = with(notice("a", cid, 6), json!({"fee": "0.1", "zeta": 1, "final": true}));
    assert_eq!(tell(&whole, letter).await, success());
    until(&whole, "a", PayoutState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_of_unknown_ids_are_kept_as_orphans_and_the_oldest_of_the_project_are_forgotten() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    let shell = whole.shell();
    let fill = |pid: i64, rows: i64| {
        format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO notice (digest, pid, third_party_id, cid, body, time, payout, due, tries)
             SELECT randomblob(32), {pid}, 'old-' || i, i, '{{}}', i, NULL, NULL, 0 FROM n"
        )
    };
    assert_eq!(tell(&whole, notice("a", cid, 6)).await, success());
    barrier(&whole, "before").await;
    let known = count(&shell, "notice WHERE payout IS NOT NULL");
    shell.execute(&fill(PID, 1000));
    shell.execute(&fill(7, 700));
    for number in 0..3 {
        let letter = genuine(notice(&format!("nobody-{number}"), 5, 6));
        for _ in 0..2 {
            let answer = tell_bytes(whole.service.addresses.callback, &letter).await;
            assert_eq!(answer, success());
        }
    }
    assert_eq!(count(&shell, &format!("notice WHERE payout IS NULL AND pid = {PID}")), 1000);
    assert_eq!(count(&shell, "notice WHERE payout IS NULL AND pid = 7"), 700, "another project's");
    assert_eq!(count(&shell, "notice WHERE payout IS NULL AND third_party_id LIKE 'nobody-%'"), 3);
    let oldest = format!("notice WHERE pid = {PID} AND third_party_id LIKE 'old-%' AND time < 4");
    assert_eq!(count(&shell, &oldest), 0);
    assert_eq!(count(&shell, "notice WHERE third_party_id = 'old-1000'"), 1, "the newest stay");
    assert_eq!(count(&shell, "notice WHERE payout IS NOT NULL"), known, "only orphans go");
    assert_eq!(count(&shell, "notice WHERE payout IS NULL AND due IS NOT NULL"), 0);
    assert_eq!(
        whole.get("nobody-1").await.expect_err("no new payout").code(),
        tonic::Code::NotFound
    );
    // The id stays free for whoever it belongs to.
    let payout = whole.create(order("nobody-1")).await.expect("OK");
    assert_eq!((payout.state(), payout.attention.len()), (PayoutState::Accepted, 0));
}

/// The notice is kept only once the attention is: a failure in between costs neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_mismatch_that_the_ledger_could_not_take_at_first_still_pages() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    let shell = whole.shell();
    shell.execute("ALTER TABLE event RENAME COLUMN attention TO broken");
    let letter = genuine(with(notice("a", cid, 6), json!({"amount": "2"})));
    let address = whole.service.addresses.callback;
    assert_eq!(tell_bytes(address, &letter).await, (503, String::new()));
    shell.execute("ALTER TABLE event RENAME COLUMN broken TO attention");
    within(async { while tell_bytes(address, &letter).await != success() {} }).await;
    let paged = whole.get("a").await.expect("known");
    assert_eq!(
        (paged.state(), paged.attention),
        (PayoutState::Accepted, vec!["FIELD_MISMATCH".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_ledger_acknowledges_nothing_and_the_same_notice_is_taken_later() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    let letter = genuine(notice("a", cid, 6));
    let address = whole.service.addresses.callback;
    let hold = whole.hold();
    assert_eq!(tell_bytes(address, &letter).await, (503, String::new()));
    assert_eq!(tell_bytes(address, &letter).await, (503, String::new()), "at once, too");
    drop(hold);
    let shell = whole.shell();
    assert_eq!(count(&shell, "notice"), 0);
    within(async { while tell_bytes(address, &letter).await != success() {} }).await;
    until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!(count(&shell, "notice"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn memos_are_compared_where_a_chain_has_them() {
    let whole = Whole::start().await;
    let xrp = pb::CreatePayoutRequest {
        currency: "144@144".to_owned(),
        address: "rn5Jyu5J6PG64543KdGvS25rQBYFQo7GLc".to_owned(),
        memo: "123".to_owned(),
        ..order("a")
    };
    let payout = whole.create(xrp).await.expect("OK");
    assert!(whole.upstream.book.set_status(payout.cid, 6, false));
    let letter = |memo: serde_json::Value| {
        let changes = json!({"chain_id": "144", "token_id": "144", "address": payout.address});
        let mut letter = with(notice("a", payout.cid, 6), changes);
        letter.extend(fields(json!({ "memo": memo })));
        letter
    };
    assert_eq!(tell(&whole, letter(json!("124"))).await, success());
    let paged = whole.get("a").await.expect("known");
    assert_eq!(
        (paged.state(), &paged.attention[..]),
        (PayoutState::Accepted, &["FIELD_MISMATCH".to_owned()][..])
    );
    assert_eq!(tell(&whole, letter(json!(123))).await, success());
    until(&whole, "a", PayoutState::Succeeded).await;
}

/// The first misfit does not hide the second, nor a message that fits after both.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_contradicts_one_that_was_kept_pages_all_the_same() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    assert_eq!(tell(&whole, notice("a", cid, 6)).await, success());
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!(tell(&whole, with(notice("a", cid, 6), json!({"amount": "2"}))).await, success());
    let paged = whole.get("a").await.expect("known");
    assert_eq!((paged.state(), &paged.txid), (PayoutState::Succeeded, &paid.txid));
    assert_eq!(paged.attention, ["FIELD_MISMATCH"]);
    assert_eq!(count(&whole.shell(), "notice WHERE third_party_id = 'a'"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn misfits_about_one_payout_are_kept_up_to_a_bound_and_push_out_no_open_question() {
    let whole = Whole::start().await;
    let cid = lost(&whole, order("a")).await;
    whole.upstream.fault(r#"{"on": "query", "delay_answer": "5s"}"#);
    let asked = whole.upstream.book.received().len();
    assert_eq!(tell(&whole, notice("a", cid, 1)).await, success());
    whole.upstream.received(asked + 1).await;
    for number in 1..=100 {
        let misfit = with(notice("a", cid + number, 6), json!({"amount": "2"}));
        assert_eq!(tell(&whole, misfit).await, success());
    }
    let shell = whole.shell();
    assert_eq!(count(&shell, "notice WHERE third_party_id = 'a'"), 32);
    assert_eq!(count(&shell, &format!("notice WHERE cid = {cid} AND due IS NOT NULL")), 1);
    assert_eq!(count(&shell, &format!("notice WHERE cid = {}", cid + 100)), 1, "the newest stay");
    let bound = until(&whole, "a", PayoutState::Accepted).await;
    assert_eq!((bound.cid, bound.attention), (cid, vec!["FIELD_MISMATCH".to_owned()]));
}
