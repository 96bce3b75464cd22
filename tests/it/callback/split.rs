//! The signature has no separators: a genuine message of an attacker's own payout, cut elsewhere, is
//! a validly signed message about a victim's. It verifies, and moves nothing.

use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::PID;
use serde_json::json;

use super::letter::{
    Fields, accepted, barrier, count, fields, genuine, lost, notice, path, question, send, success,
    tell, tell_bytes, told, until, verifies, with,
};
use crate::support::{ADDRESS, Whole, order};

/// Whether the victim's cid is known, and the victim.
const VICTIMS: [bool; 2] = [true, false];

/// A victim that is paid at Cregis, for a question would show it. The remark fits the attacker's.
async fn victim(whole: &Whole, bound: bool, remark: &str) -> pb::Payout {
    let request = pb::CreatePayoutRequest { remark: remark.to_owned(), ..order("VICTIM") };
    if bound {
        whole.create(request).await.expect("OK");
    } else {
        lost(whole, request).await;
    }
    whole.get("VICTIM").await.expect("known")
}

/// The genuine notice that Cregis sends of the attacker's own payout, which looks like the victim's.
async fn overheard(whole: &Whole, attacker: pb::CreatePayoutRequest, status: i32) -> Fields {
    let id = attacker.third_party_id.clone();
    let payout = whole.create(attacker).await.expect("OK");
    let seen = whole.upstream.book.deliveries().len();
    assert!(whole.upstream.book.set_status(payout.cid, status, true));
    let state = if status == 6 { PayoutState::Succeeded } else { PayoutState::Failed };
    until(whole, &id, state).await;
    let sent = whole.upstream.book.deliveries().remove(seen).sent;
    assert!(verifies(sent.as_bytes()));
    serde_json::from_str(&sent).expect("JSON")
}

/// Sends the cut message; nothing but an attention may come of it.
async fn strike(whole: &Whole, before: &pb::Payout, forged: Fields, attention: &str) {
    let forged = serde_json::Value::Object(forged).to_string();
    assert!(verifies(forged.as_bytes()), "not even the signature is good: {forged}");
    assert_eq!(tell_bytes(whole.service.addresses.callback, forged.as_bytes()).await, success());
    barrier(whole, "after").await;
    let after = whole.get("VICTIM").await.expect("known");
    assert_eq!(after.attention, [attention]);
    let unmoved = pb::Payout {
        attention: Vec::new(),
        revision: before.revision,
        update_time: before.update_time,
        ..after
    };
    assert_eq!(&unmoved, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn i_a_a_remark_that_holds_another_message() {
    for bound in VICTIMS {
        let whole = Whole::start().await;
        let before = victim(&whole, bound, "x").await;
        let remark = "xstatus6third_party_idVICTIMtimestamp1token_id195txid";
        let attacker =
            pb::CreatePayoutRequest { remark: remark.to_owned(), ..told(&whole, "attacker") };
        let heard = overheard(&whole, attacker, 7).await;
        let tail =
            format!("status7third_party_idattackertimestamp{}token_id195", heard["timestamp"]);
        let changes = json!({"remark": "x", "status": 6, "third_party_id": "VICTIM",
            "timestamp": 1, "token_id": "195", "txid": tail});
        let attention = if bound { "CID_MISMATCH" } else { "FIELD_MISMATCH" };
        strike(&whole, &before, with(heard, changes), attention).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i_b_an_id_that_holds_another_message() {
    for bound in VICTIMS {
        let whole = Whole::start().await;
        let before = victim(&whole, bound, "").await;
        let heard = overheard(&whole, told(&whole, "VICTIMtimestamp1token_id195txid"), 6).await;
        let tail = format!(
            "timestamp{}token_id195txid{}",
            heard["timestamp"],
            heard["txid"].as_str().expect("paid")
        );
        let changes = json!({"third_party_id": "VICTIM", "timestamp": 1, "txid": tail});
        let attention = if bound { "CID_MISMATCH" } else { "FIELD_MISMATCH" };
        strike(&whole, &before, with(heard, changes), attention).await;
    }
}

/// Not even the recipient and the token have to be the attacker's: both sort after the remark.
#[tokio::test(flavor = "multi_thread")]
async fn i_a_a_verification_cut_the_same_way_is_denied() {
    for bound in VICTIMS {
        let whole = Whole::with(|config| config.projects[0].verification = true).await;
        let before = victim(&whole, bound, "x").await;
        let remark = format!("xthird_party_idVICTIMtimestamp1to_address{ADDRESS}token_id195zz");
        let usdt = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t";
        let recipient = "TEkxiTehnzSmSe2XqrBj4w32RUN966rdz8";
        let attacker = pb::CreatePayoutRequest {
            remark: remark.clone(),
            address: recipient.to_owned(),
            currency: format!("195@{usdt}"),
            ..order("attacker")
        };
        let own = whole.create(attacker).await.expect("OK").cid;
        let honest = with(
            question("attacker", own),
            json!({"remark": remark, "to_address": recipient, "token_id": usdt}),
        );
        let honest: Fields = serde_json::from_slice(&genuine(honest)).expect("JSON");
        let time = &honest["timestamp"];
        let tail =
            format!("third_party_idattackertimestamp{time}to_address{recipient}token_id{usdt}");
        let changes = json!({"remark": "x", "third_party_id": "VICTIM", "timestamp": 1,
            "to_address": ADDRESS, "token_id": "195", "zz": tail});
        let forged = serde_json::Value::Object(with(honest, changes)).to_string();
        assert!(verifies(forged.as_bytes()), "not even the signature is good: {forged}");
        let line = format!("POST {}", path("verification"));
        let address = whole.service.addresses.callback;
        let answer = send(address, &line, forged.as_bytes()).await;
        assert_eq!(answer, (200, "deny".to_owned()));
        let after = whole.get("VICTIM").await.expect("known");
        assert_eq!((after.state(), after.cid), (before.state(), before.cid));
        let attention = if bound { "CID_MISMATCH" } else { "FIELD_MISMATCH" };
        assert_eq!(after.attention, [attention]);
        let approved = "payout WHERE approved_cid IS NOT NULL";
        assert_eq!(count(&whole.shell(), approved), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i_c_and_i_d_a_currency_that_swallows_the_memo_and_a_token_that_swallows_the_txid() {
    for bound in VICTIMS {
        let whole = Whole::start().await;
        victim(&whole, bound, "").await;
        let cid = whole.upstream.book.orders()[0].cid;
        // It fits the victim with its memo gone, so it earns a question: that one says 0.
        let honest = with(notice("VICTIM", cid, 6), json!({"memo": "x"}));
        let honest: Fields = serde_json::from_slice(&genuine(honest)).expect("JSON");
        let cut = with(honest, json!({"currency": "TRXmemox", "memo": null}));
        let cut = serde_json::Value::Object(cut).to_string();
        assert!(verifies(cut.as_bytes()));
        let address = whole.service.addresses.callback;
        assert_eq!(tell_bytes(address, cut.as_bytes()).await, success());
        barrier(&whole, "before").await;
        let asked = whole.get("VICTIM").await.expect("known");
        assert_eq!((asked.state(), asked.cid), (PayoutState::Accepted, cid), "what Cregis says");
        assert_eq!((asked.cregis_status, asked.txid.as_str()), (Some(0), ""));

        let honest = with(notice("VICTIM", cid, 6), json!({"txid": "6dd0"}));
        let honest: Fields = serde_json::from_slice(&genuine(honest)).expect("JSON");
        let cut = with(honest, json!({"token_id": "195txid6dd0", "txid": null}));
        strike(&whole, &asked, cut, "FIELD_MISMATCH").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i_e_a_create_call_of_ours_that_is_cut_into_a_notice() {
    for bound in VICTIMS {
        let whole = Whole::start().await;
        let before = victim(&whole, bound, "ok").await;
        let own = accepted(&whole, "own").await;
        assert!(whole.upstream.book.set_status(own, 7, false));
        // Every free text of ours is the attacker's.
        let request = fields(json!({
            "pid": PID,
            "currency": "195@195",
            "address": ADDRESS,
            "amount": "1.1",
            "callback_url": format!("https://a.example/chain_id195cid{own}"),
            "remark": "okstatus7",
            "third_party_id": "VICTIMtimestamp1token_id195txid",
        }));
        let request: Fields = serde_json::from_slice(&genuine(request)).expect("JSON");
        let plain = serde_json::Value::Object(request.clone()).to_string();
        let address = whole.service.addresses.callback;
        assert_eq!(tell_bytes(address, plain.as_bytes()).await, (401, String::new()));
        let tail = format!("timestamp{}", request["timestamp"]);
        let changes = json!({"callback_url": "https://a.example/", "chain_id": "195", "cid": own,
            "remark": "ok", "status": 7, "third_party_id": "VICTIM", "timestamp": 1,
            "token_id": "195", "txid": tail});
        let attention = if bound { "CID_MISMATCH" } else { "FIELD_MISMATCH" };
        strike(&whole, &before, with(request, changes), attention).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i_f_the_same_values_in_other_types_are_refused() {
    for bound in VICTIMS {
        let whole = Whole::start().await;
        let before = victim(&whole, bound, "").await;
        let cid = whole.upstream.book.orders()[0].cid;
        assert!(whole.upstream.book.set_status(cid, 6, false));
        let honest: Fields =
            serde_json::from_slice(&genuine(notice("VICTIM", cid, 6))).expect("JSON");
        for changes in
            [json!({"status": "6"}), json!({"amount": 1.1}), json!({"cid": cid.to_string()})]
        {
            let aliased =
                serde_json::Value::Object(with(honest.clone(), changes.clone())).to_string();
            assert!(changes.get("amount").is_some() || verifies(aliased.as_bytes()));
            let address = whole.service.addresses.callback;
            let answer = tell_bytes(address, aliased.as_bytes()).await;
            assert_eq!(answer, (401, String::new()), "{changes}");
        }
        barrier(&whole, "after").await;
        assert_eq!(whole.get("VICTIM").await.expect("known"), before);
    }
}

/// Whoever has heard one message can write it in as many ways as there are places to cut it.
#[tokio::test(flavor = "multi_thread")]
async fn one_message_cut_in_hundreds_of_ways_is_one_row_and_one_question() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    let spare = json!({"txid": "0123456789abcdef", "remark": "0123456789abcdef"});
    let honest = with(notice("a", cid, 6), spare.clone());
    let honest: Fields = serde_json::from_slice(&genuine(honest)).expect("JSON");
    let asked = whole.upstream.book.received().len();
    let address = whole.service.addresses.callback;
    for cut in 0..256 {
        let mut changes = fields(json!({"txid": null, "remark": null}));
        for (field, at) in [("txid", cut % 16), ("remark", cut / 16)] {
            let (moved, rest) = spare[field].as_str().expect("text").split_at(at);
            changes.insert(format!("{field}{moved}"), rest.into());
        }
        let message = serde_json::Value::Object(with(honest.clone(), changes.into())).to_string();
        assert!(verifies(message.as_bytes()), "not even the signature is good: {message}");
        assert_eq!(tell_bytes(address, message.as_bytes()).await, success());
    }
    until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!(count(&whole.shell(), "notice"), 1);
    let questions = whole.upstream.book.received().len() - asked;
    assert_eq!(questions, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_agrees_with_an_end_that_is_known_leads_to_no_question() {
    let whole = Whole::with(|config| {
        config.projects[0].poll_first = std::time::Duration::from_millis(100);
    })
    .await;
    let cid = accepted(&whole, "a").await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    let paid = until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!(tell(&whole, notice("a", cid, 6)).await, success());
    barrier(&whole, "after").await;
    let unasked = "notice WHERE third_party_id = 'a' AND due IS NULL AND tries = 0";
    assert_eq!(count(&whole.shell(), unasked), 1);
    assert_eq!(whole.get("a").await.expect("known"), paid);
}
