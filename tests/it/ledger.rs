//! The ledger: append-only, and the same after a restart; and its verbs.

mod file;

use std::sync::Arc;
use std::time::Duration;

use payoutd::ledger::{Begun, Cause, Id, Ledger, Resend};
use payoutd::metrics::Metrics;
use payoutd::order::{Draft, Order};
use payoutd::outcome::Outcome;
use payoutd::payout::Progress;
use payoutd::pb::PayoutState;
use payoutd::policy::Terms;
use payoutd::state::State;
use tokio::task::JoinSet;

use crate::support::{Shell, Whole, kept_in, order, within};

#[tokio::test(flavor = "multi_thread")]
async fn every_revision_is_kept_and_nothing_can_be_changed_or_deleted_by_hand() {
    let whole = Whole::start().await;
    whole.create(order("a")).await.expect("OK");
    let shell = whole.shell();
    let events = shell.rows("SELECT revision, cause, state, cid FROM event ORDER BY revision");
    let cid = whole.upstream.book.orders()[0].cid.to_string();
    let words = [["1", "RECORDED", "SENDING", ""], ["2", "REPLY", "ACCEPTED", &cid]];
    let words = words.map(|row| row.map(|word| (!word.is_empty()).then(|| word.to_owned())));
    assert_eq!(events, words);
    for forbidden in ["DELETE FROM event", "UPDATE event SET state = ''", "DELETE FROM payout"] {
        shell.attempt(forbidden).expect_err(forbidden);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let whole = Whole::start().await;
    let payout = whole.create(order("a")).await.expect("OK");
    let whole = whole.restart().await;
    assert_eq!(whole.get("a").await.expect("known"), payout);
    assert_eq!(whole.create(order("a")).await.expect("known"), payout);
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

/// Recovery of a clean ledger changes nothing; of an unclean one, only SENDING.
#[tokio::test(flavor = "multi_thread")]
async fn recovery_touches_nothing_but_sends_under_way() {
    let whole = Whole::start().await;
    whole.create(order("accepted")).await.expect("OK");
    whole.upstream.fault(r#"{"code": "E0008"}"#);
    whole.create(order("rejected")).await.expect_err("refused");
    let (rejected, accepted) =
        (whole.get("rejected").await.expect("known"), whole.get("accepted").await.expect("known"));
    // As a process leaves it that dies between record and send.
    whole.create(order("orphan")).await.expect("OK");
    let config = whole.service.stop().await;
    let reason = Shell::of(&config.ledger).orphan("orphan");
    let service = crate::support::Service::start(config).await;
    let client = service.client().await;
    let orphan = crate::support::get(&client, "orphan").await.expect("known");
    assert_eq!((orphan.state(), orphan.reason.as_str()), (PayoutState::InDoubt, reason));
    assert_eq!(crate::support::get(&client, "accepted").await.expect("known"), accepted);
    assert_eq!(crate::support::get(&client, "rejected").await.expect("known"), rejected);
    assert_eq!(whole.upstream.book.posts().len(), 3, "recovery has sent");
}

fn an_order(id: &str) -> Arc<Order> {
    let draft = Draft {
        pid: 1,
        currency: "7777@7777".into(),
        address: "a".into(),
        amount: "1".into(),
        third_party_id: id.into(),
        ..Draft::default()
    };
    Arc::new(Order::check(draft, false).expect("good"))
}

/// Readers share snapshots; none may be older than the question.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_after_a_record_sees_it_however_many_ask_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::of(&kept_in(&folder).await, &Metrics::new([])).await.expect("opened");
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            for number in 0..50 {
                let id = format!("{task}-{number}");
                let found =
                    async || ledger.find(1, Id::ThirdParty(id.clone())).await.expect("read");
                assert_eq!(found().await, None);
                ledger.begin(an_order(&id), Terms::open(), Resend::Never).await.expect("recorded");
                assert_eq!(found().await.map(|payout| payout.revision), Some(1), "{id}");
            }
        });
    }
    within(tasks.join_all()).await;
}

/// Two questions about one payout may be under way at once, and the older answer come last.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_overtaken_pages_nobody_and_a_real_contradiction_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::of(&kept_in(&folder).await, &Metrics::new([])).await.expect("opened");
    let order = an_order("id");
    let Ok(Begun::Send(sent)) = ledger.begin(order, Terms::open(), Resend::Never).await else {
        panic!("not recorded")
    };
    let soon = Duration::from_secs(30);
    let asked = ledger.settle(sent, Outcome::Accepted(9), soon).await.expect("settled");
    let told = async |asked, status| {
        let progress = Progress { cid: 9, status, ..Progress::default() };
        ledger.confirm(asked, progress, soon, Cause::Poll).await.expect("recorded")
    };
    let paid = told(asked.clone(), 6).await;
    assert_eq!((paid.state, paid.due), (State::Succeeded, None));
    assert_eq!(told(asked.clone(), 1).await, paid, "asked before the end was known");
    let contradicted = told(paid, 1).await;
    assert_eq!(contradicted.attention, ["CONTRADICTION"], "asked after it");
    assert_eq!(told(asked, 7).await.state, State::Succeeded, "an end never moves");
}
