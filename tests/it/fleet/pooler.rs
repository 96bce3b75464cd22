//! A pooler between the replicas and the server.

use super::opening::said;
use super::standby::over;
use crate::meters::Page;
use crate::support::authority::Authority;
use crate::support::bouncer::Bouncer;
use crate::support::server::Server;
use crate::support::{Service, Upstream, order, within};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_pooler_of_transactions_is_refused_by_that_name_at_the_start_and_by_check() {
    let upstream = Upstream::start().await;
    let server = Server::start(&Authority::new("databases")).await;
    for mode in ["transaction", "statement"] {
        let bouncer = Bouncer::start(&server, mode, 20).await;
        for command in ["serve", "check", "check"] {
            let (code, text) = said(command, &upstream, &[("LEDGER__URL", &bouncer.url())]).await;
            assert_eq!(code, Some(1), "{command}: {text}");
            assert!(text.contains("transaction pooling"), "{command}: {text}");
            assert!(text.contains("pool_mode = session"), "{command}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_pooler_of_sessions_is_as_good_as_the_server_though_it_has_fewer_than_are_wanted() {
    let upstream = Upstream::start().await;
    let server = Server::start(&Authority::new("databases")).await;
    let bouncer = Bouncer::start(&server, "session", 6).await;
    let (code, text) = said("check", &upstream, &[("LEDGER__URL", &bouncer.url())]).await;
    assert_eq!(code, Some(0), "{text}");
    let service = Service::start(over(&upstream, &bouncer.url(), 12, 60)).await;
    let client = service.client().await;
    for round in 0..4 {
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..40 {
            let mut client = client.clone();
            let id = format!("p-{round}-{number}");
            asked.spawn(async move { client.create_payout(order(&id)).await });
        }
        for answer in within(asked.join_all()).await {
            answer.expect("one that works is free soon");
        }
        assert_eq!(Page::of(&service).await.value("ledger_writable"), 1.0);
    }
}
