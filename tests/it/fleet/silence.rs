//! A database that does not answer: who waits for how long, and what that says about what was asked.

use std::sync::Arc;

use payoutd::config::{Config, Ledger};
use payoutd::pb::{self, PayoutState};
use tokio::task::JoinSet;
use tonic::Code;

use crate::meters::Page;
use crate::support::fleet::{Fleet, wired};
use crate::support::proxy::{Proxy, Wire};
use crate::support::{Service, any_port, beside, ended, get, order, reason, settled, within};

/// A replica whose way to the database is a wire that can be held.
async fn replica(fleet: &Fleet) -> (Proxy, Service) {
    let (proxy, ledger) = wired(&fleet.database).await;
    let mut config = fleet.services[0].config.clone();
    config.ledger = ledger;
    config.grpc = payoutd::config::Grpc::at(any_port());
    (proxy, Service::start(config).await)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_record_that_is_not_answered_is_given_up_in_time_and_never_sent_even_if_it_comes() {
    let fleet = Fleet::start(1).await;
    let (proxy, service) = replica(&fleet).await;
    let client = service.client().await;
    proxy.set(Wire::HoldsQuestion("silent".to_owned()));
    let mut asking = client.clone();
    let asked = beside(async move { asking.create_payout(order("silent")).await });
    let status = ended(asked).await.expect_err("nobody answered");
    assert_eq!((status.code(), &*reason(&status).1), (Code::Unavailable, "LEDGER_UNAVAILABLE"));
    // Everything else goes on meanwhile.
    let other = within(async {
        loop {
            match client.clone().create_payout(order("other")).await {
                Ok(answer) => return answer.into_inner().cid,
                Err(status) => assert_eq!(reason(&status).1, "LEDGER_UNAVAILABLE"),
            }
        }
    });
    assert!(other.await > 0);
    // What was held gets there after all: a time-out was no refusal.
    proxy.set(Wire::Open);
    let payout = settled(&client, "silent").await;
    let never_sent = [PayoutState::NotSent, PayoutState::InDoubt].contains(&payout.state());
    assert!(never_sent, "{payout:?}");
    assert_eq!(fleet.posts("silent"), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn an_outcome_whose_record_is_not_answered_is_recorded_over_another_connection() {
    let fleet = Fleet::start(1).await;
    let (proxy, service) = replica(&fleet).await;
    let client = service.client().await;
    // What ends a send is recorded with this word.
    proxy.set(Wire::HoldsAnswer("REPLY".to_owned()));
    let mut asking = client.clone();
    let asked = beside(async move { asking.create_payout(order("a")).await });
    proxy.holds(2).await;
    proxy.set(Wire::Open);
    let payout = ended(asked).await.expect("OK").into_inner().payout.expect("a payout");
    assert_eq!(payout.state(), PayoutState::Accepted);
    assert_eq!(fleet.posts("a"), 1);
    assert_eq!(get(&fleet.clients[0], "a").await.expect("known"), payout);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_pooler_that_lost_the_server_under_a_record_has_not_refused_it() {
    let fleet = Fleet::start(1).await;
    let (proxy, service) = replica(&fleet).await;
    let client = service.client().await;
    proxy.set(Wire::LosesAnswer("a-lost".to_owned()));
    let mut asking = client.clone();
    let asked = beside(async move { asking.create_payout(order("a-lost")).await });
    proxy.holds(1).await;
    proxy.set(Wire::Open);
    assert!(ended(asked).await.expect("OK").into_inner().cid > 0);
    assert_eq!(fleet.posts("a-lost"), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn the_connections_and_who_waits_for_one_are_measured() {
    let one = |config: &mut Config| {
        if let Ledger::Shared(shared) = &mut config.ledger {
            shared.max_connections = 1;
        }
    };
    let fleet = Fleet::with(1, one).await;
    let page = Page::of(&fleet.services[0]).await;
    assert_eq!(page.value("ledger_connections"), 1.0);
    let (shell, _driver) = fleet.database.shell().await;
    shell.batch_execute("BEGIN; LOCK TABLE payout").await.expect("locked");
    let mut asked = JoinSet::new();
    for _ in 0..3 {
        let client = fleet.clients[0].clone();
        asked.spawn(async move { get(&client, "nobody").await });
    }
    let measured = async {
        loop {
            let page = Page::of(&fleet.services[0]).await;
            let busy = page.value("ledger_connections_busy");
            if busy == 1.0 && page.value("ledger_connections_awaited") > 0.0 {
                return;
            }
        }
    };
    within(measured).await;
    shell.batch_execute("ROLLBACK").await.expect("unlocked");
    asked.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn one_connection_is_enough_for_everything() {
    let one = |config: &mut Config| {
        if let Ledger::Shared(shared) = &mut config.ledger {
            shared.max_connections = 1;
        }
        let limits = vec![crate::support::limit(None, Some("1000"))];
        let roles = [payoutd::caller::Role::Create, payoutd::caller::Role::Read];
        config.callers =
            vec![payoutd::config::Caller { limits, ..crate::support::caller("shop", &roles) }];
    };
    let fleet = Arc::new(Fleet::with(2, one).await);
    let mut asked = JoinSet::new();
    for number in 0..60 {
        let fleet = Arc::clone(&fleet);
        asked.spawn(async move {
            // Each id three times, by way of both.
            let id = format!("one-{}", number / 3);
            let request = crate::support::by("shop", order(&id));
            let mut client = fleet.clients[number % 2].clone();
            let paid = within(client.create_payout(request)).await.expect("OK");
            let id = pb::get_payout_request::Id::ThirdPartyId(id);
            let request = pb::GetPayoutRequest { pid: 0, id: Some(id) };
            let read = client.get_payout(crate::support::by("shop", request));
            let read = within(read).await.expect("OK").into_inner().payout.expect("a payout");
            assert_eq!(read.cid, paid.into_inner().cid);
        });
    }
    asked.join_all().await;
    assert_eq!(fleet.upstream.book.posts().len(), 20);
}
