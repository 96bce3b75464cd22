//! Many watchers at once: while payouts settle, and across a restart.

use payoutd::pb::PayoutState;
use std::sync::Arc;
use tokio::sync::watch::{Receiver, channel};
use tokio::task::JoinSet;
use tonic::Code;

use super::{named, quick};
use crate::support::{
    Client, Seen, Whole, beside, connect, ended, order, reason, seen, told, watch, watch_from,
    within,
};

/// Watchers, payouts and connections of the restart.
const WATCHERS: usize = 1_000;
const PAYOUTS: usize = 50;
const CONNECTIONS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_attach_while_their_payouts_settle_all_see_the_end() {
    let whole = Arc::new(quick().await);
    whole.upstream.fault(r#"{"every": 2, "times": 0, "delay_answer": "20ms"}"#);
    let (mut creates, mut watchers) = (JoinSet::new(), JoinSet::new());
    for number in 0..200 {
        let (id, by) = (format!("p{number}"), Arc::clone(&whole));
        creates.spawn(async move { by.create(order(&id)).await.expect("OK") });
        let (id, client) = (format!("p{number}"), whole.client.clone());
        watchers.spawn(async move {
            let mut watch = loop {
                match watch(&client, &id).await {
                    Ok(watch) => break watch,
                    Err(status) => assert_eq!(status.code(), Code::NotFound, "{status:?}"),
                }
            };
            let mut all = Vec::new();
            while let Some(payout) = told(&mut watch).await.expect("OK") {
                all.push(seen(&payout));
            }
            (id, all)
        });
    }
    while let Some(created) = creates.join_next().await {
        let created = created.expect("no panic");
        whole.upstream.book.set_status(created.cid, 6, false);
    }
    let mut late = 0;
    while let Some(done) = within(watchers.join_next()).await {
        let (id, all) = done.expect("no panic");
        let events = whole.events(&id);
        let first = usize::try_from(all[0].0).expect("small") - 1;
        late += usize::from(first > 0);
        assert_eq!(all, events[first..], "{id}");
        assert_eq!(all.last().expect("some").1, "SUCCEEDED");
    }
    assert!(late < 200, "some watchers attached before the answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_watchers_resume_across_a_restart_and_none_misses_a_revision() {
    let whole = quick().await;
    let ids: Vec<_> = (0..PAYOUTS).map(|number| format!("p{number}")).collect();
    for id in &ids {
        whole.create(order(id)).await.expect("OK");
    }
    let (clients, _) = channel(connections(&whole).await);
    let mut watchers = JoinSet::new();
    for number in 0..WATCHERS {
        let id = ids[number % PAYOUTS].clone();
        watchers.spawn(follow(id, number % CONNECTIONS, clients.subscribe()));
    }
    shift(&whole, &ids, 5).await;
    // Half have moved on before the stop, the rest move while nobody serves.
    let (early, late) = ids.split_at(PAYOUTS / 2);
    shift(&whole, early, 1).await;
    let cids: Vec<_> = late.iter().map(|id| whole.cid(id)).collect();
    let book = Arc::clone(&whole.upstream.book);
    let mover = beside(async move {
        for cid in cids {
            book.set_status(cid, 1, false);
            tokio::task::yield_now().await;
        }
    });
    let whole = whole.restart().await;
    ended(mover).await;
    // Some revisions, and some ends, come before anybody is back.
    shift(&whole, late, 1).await;
    shift(&whole, &late[..PAYOUTS / 4], 6).await;
    clients.send_replace(connections(&whole).await);
    shift(&whole, &ids, 6).await;

    let mut count = 0;
    while let Some(done) = within(watchers.join_next()).await {
        let (id, all, cuts) = done.expect("no panic");
        let events = whole.events(&id);
        let first = usize::try_from(all[0].0).expect("small") - 1;
        assert_eq!(all, events[first..], "{id}");
        assert!(cuts <= 1, "{cuts}");
        count += 1;
    }
    assert_eq!(count, WATCHERS);
}

type Followed = (String, Vec<Seen>, usize);

/// Watches to the end, on whatever connections there are; what was told, and how often it was cut off.
async fn follow(id: String, number: usize, mut clients: Receiver<Vec<Client>>) -> Followed {
    let (mut all, mut cuts) = (Vec::<Seen>::new(), 0);
    loop {
        let client = clients.borrow_and_update()[number].clone();
        let last = all.last().map_or(0, |last| last.0);
        let cut = match watch_from(&client, named(&id), last).await {
            Err(status) => status,
            Ok(mut watch) => loop {
                match told(&mut watch).await {
                    Ok(Some(payout)) => all.push(seen(&payout)),
                    Ok(None) => return (id, all, cuts),
                    Err(status) => break status,
                }
            },
        };
        assert_eq!(reason(&cut).1, "DRAINING");
        cuts += 1;
        within(clients.changed()).await.expect("served again");
    }
}

async fn connections(whole: &Whole) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(connect(whole.service.addresses.grpc).await);
    }
    clients
}

/// Moves the payouts at Cregis, and waits until the ledger knows.
async fn shift(whole: &Whole, ids: &[String], status: i32) {
    for id in ids {
        whole.upstream.book.set_status(whole.cid(id), status, false);
    }
    for id in ids {
        let payout = whole.until(id, |payout| payout.cregis_status == Some(status)).await;
        assert_eq!(payout.state() == PayoutState::Succeeded, status == 6);
    }
}
