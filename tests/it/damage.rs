//! What one caller sends, or one damaged row holds, is that caller's and that row's: nobody else notices.

use std::sync::Arc;
use std::time::Duration;

use payoutd::pb::resolve_payout_request::Resolution::Void;
use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::order::Move;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;

use crate::callback::letter::{notice, success, tell, with};
use crate::meters::Page;
use crate::support::{Whole, bad_fields, order, reason, within};

/// Whether the ledger counts as one that can be written.
async fn is_well(whole: &Whole) -> bool {
    Page::of(&whole.service).await.value("ledger_writable") == 1.0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_text_with_control_characters_is_refused_on_its_field_and_turns_nothing() {
    let whole = Whole::start().await;
    whole.lost("a").await;
    let mut operator = whole.operator().await;
    for text in ["a\0b", "a\nb", "a\u{7f}b", "a\u{85}b"] {
        let request = pb::ResolvePayoutRequest {
            pid: 0,
            third_party_id: "a".to_owned(),
            resolution: Some(Void(true)),
            evidence: text.to_owned(),
        };
        let status = within(operator.resolve_payout(request)).await.expect_err("refused");
        let told = (status.code(), reason(&status).1, bad_fields(&status));
        assert_eq!(
            told,
            (Code::InvalidArgument, "INVALID_REQUEST".into(), vec!["evidence".into()])
        );
        let request = pb::SetIntakeRequest { pid: 0, paused: true, note: text.to_owned() };
        let status = within(operator.set_intake(request)).await.expect_err("refused");
        let told = (status.code(), reason(&status).1, bad_fields(&status));
        assert_eq!(told, (Code::InvalidArgument, "INVALID_REQUEST".into(), vec!["note".into()]));
        assert!(is_well(&whole).await, "{text:?}");
    }
    assert_eq!(whole.create(order("b")).await.expect("OK").state(), PayoutState::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nul_in_what_cregis_sends_is_kept_visibly_and_fails_nothing() {
    let whole =
        Whole::with(|config| config.projects[0].poll_first = Duration::from_millis(50)).await;
    let cid = whole.create(order("a")).await.expect("OK").cid;
    assert_eq!(tell(&whole, with(notice("a\0b", 5, 6), json!({}))).await, success());
    let ids = whole.shell().rows("SELECT third_party_id FROM notice WHERE payout IS NULL");
    assert_eq!(ids, [[Some("a\u{fffd}b".to_owned())]]);
    let end = Move { txid: Some("t\0x".to_owned()), ..Move::to(6, false) };
    assert!(whole.upstream.book.shift(cid, &end));
    let paid = whole.until("a", |payout| payout.state() == PayoutState::Succeeded).await;
    assert_eq!(paid.txid, "t\u{fffd}x");
    assert!(is_well(&whole).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_is_left_out_and_named_and_everything_beside_it_goes_on() {
    let whole = Arc::new(
        Whole::with(|config| config.projects[0].poll_first = Duration::from_millis(50)).await,
    );
    let mut cids = Vec::new();
    for number in 0..6 {
        cids.push(whole.create(order(&format!("dm-{number}"))).await.expect("OK").cid);
    }
    let damage = "UPDATE payout SET amount = '1,1' WHERE third_party_id = 'dm-3'";
    assert_eq!(whole.shell().execute(damage), 1);
    for (number, cid) in cids.iter().enumerate().filter(|(number, _)| *number != 3) {
        assert!(whole.upstream.book.set_status(*cid, 6, false));
        let id = format!("dm-{number}");
        whole.until(&id, |payout| payout.state() == PayoutState::Succeeded).await;
    }
    let mut client = whole.client.clone();
    let listed = client.list_payouts(pb::ListPayoutsRequest::default());
    let listed = within(listed).await.expect("OK").into_inner().payouts;
    let ids: Vec<_> = listed.iter().map(|payout| payout.third_party_id.as_str()).collect();
    assert_eq!(ids, ["dm-0", "dm-1", "dm-2", "dm-4", "dm-5"]);
    let page = Page::of(&whole.service).await;
    assert_eq!(page.value("ledger_damaged_rows"), 1.0);

    let (mut asked, mut beside) = (JoinSet::new(), JoinSet::new());
    for number in 0..100 {
        let whole = Arc::clone(&whole);
        if number % 10 == 0 {
            asked.spawn(async move { whole.create(order("dm-3")).await });
        } else {
            beside.spawn(async move { whole.create(order(&format!("well-{number}"))).await });
        }
    }
    for answer in beside.join_all().await {
        assert_eq!(answer.expect("OK").state(), PayoutState::Accepted);
        assert!(is_well(&whole).await);
    }
    for answer in asked.join_all().await {
        answer.expect_err("not to be told");
    }
    assert!(is_well(&whole).await);
    assert_eq!(whole.get("dm-3").await.expect_err("damaged").code(), Code::Unavailable);
    assert_eq!(Page::of(&whole.service).await.value("ledger_damaged_rows"), 1.0, "counted once");
    let posts = whole.upstream.book.posts();
    let posts = posts.iter().filter(|post| post.third_party_id.as_deref() == Some("dm-3"));
    assert_eq!(posts.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_total_fails_its_callers_records_alone_and_leaves_nothing_of_them() {
    use crate::support::{by, caller, limit};
    use payoutd::caller::Role::{Create, Read};
    let whole = Arc::new(
        Whole::with(|config| {
            let limits = vec![limit(None, Some("1000"))];
            let limited = payoutd::config::Caller { limits, ..caller("limited", &[Create, Read]) };
            config.callers =
                vec![limited, caller("shop", &[Create, Read]), caller("other", &[Create])];
        })
        .await,
    );
    let ask = |name: &'static str, id: String| {
        let client = whole.client.clone();
        async move { within(client.clone().create_payout(by(name, order(&id)))).await }
    };
    ask("limited", "before".into()).await.expect("OK");
    ask("shop", "first".into()).await.expect("OK");
    let shell = whole.shell();
    let Some(damage) = (match &shell {
        crate::support::Shell::File(_) => {
            Some("UPDATE spend SET total = 'x' WHERE caller = 'shop'")
        }
        // A numeric has no such text.
        crate::support::Shell::Server(..) => None,
    }) else {
        return;
    };
    assert_eq!(shell.execute(damage), 1);
    let (mut asked, mut beside) = (JoinSet::new(), JoinSet::new());
    for number in 0..60 {
        if number % 6 == 0 {
            asked.spawn(ask("shop", format!("s-{number}")));
        } else {
            beside.spawn(ask("other", format!("o-{number}")));
        }
    }
    for answer in beside.join_all().await {
        answer.expect("OK");
    }
    for answer in asked.join_all().await {
        assert_eq!(answer.expect_err("not recorded").code(), Code::Unavailable);
    }
    assert_eq!(shell.number("SELECT count(*) FROM payout WHERE third_party_id LIKE 's-%'"), 0);
    assert_eq!(shell.number("SELECT count(*) FROM event"), 2 * (2 + 50));
    assert!(is_well(&whole).await);
}
