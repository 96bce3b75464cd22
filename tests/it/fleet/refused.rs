//! What the database refuses one caller, and a database that cannot be used at all.

use std::sync::Arc;

use payoutd::caller::Role;
use tokio::task::JoinSet;

use super::opening::said;
use crate::meters::Page;
use crate::support::fleet::Fleet;
use crate::support::{Database, Upstream, by, caller, order, reason, within};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_lock_that_one_caller_waits_for_in_vain_turns_neither_health_nor_other_callers() {
    let fleet = Arc::new(
        Fleet::with(1, |config| {
            config.callers = vec![caller("a", &[Role::Create]), caller("b", &[Role::Create])];
        })
        .await,
    );
    let create = |name: &'static str, id: String| {
        let client = fleet.clients[0].clone();
        async move { within(client.clone().create_payout(by(name, order(&id)))).await }
    };
    create("a", "before".into()).await.expect("OK");
    let (shell, _driver) = fleet.database.shell().await;
    shell
        .batch_execute("BEGIN; SELECT FROM spend WHERE caller = 'a' FOR UPDATE")
        .await
        .expect("held");
    // Many are refused, at as many moments, and b goes on meanwhile.
    let (mut waits, mut refused, mut number) = (JoinSet::new(), 0, 0);
    while refused < 12 {
        if waits.len() < 4 {
            waits.spawn(create("a", format!("held-{number}")));
        }
        let mut lanes = JoinSet::new();
        for lane in 0..3 {
            lanes.spawn(create("b", format!("b-{number}-{lane}")));
        }
        for answer in lanes.join_all().await {
            answer.expect("nothing of b's is held");
        }
        let writable = Page::of(&fleet.services[0]).await.value("ledger_writable");
        assert_eq!(writable, 1.0, "after {number}");
        while let Some(ended) = waits.try_join_next() {
            let status = ended.expect("no panic").expect_err("not recorded");
            assert_eq!(reason(&status).1, "LEDGER_UNAVAILABLE");
            refused += 1;
        }
        number += 1;
    }
    waits.join_all().await;
    shell.batch_execute("ROLLBACK").await.expect("free");
    create("a", "held".into()).await.expect("OK");
    assert_eq!(fleet.posts("held"), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_cannot_hold_every_text_is_refused_with_what_to_do() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    let (shell, _driver) = database.shell().await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("enc_{}_{}", encoding.to_lowercase(), std::process::id());
        let create = format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        );
        shell.batch_execute(&create).await.expect("created");
        let url = database.url(None);
        let (server, _) = url.rsplit_once('/').expect("a path");
        let url = format!("{server}/{name}");
        for command in ["serve", "check"] {
            let (code, text) = said(command, &upstream, &[("LEDGER__URL", &url)]).await;
            assert_eq!(code, Some(1), "{command}: {text}");
            let told = format!("the database's encoding is {encoding}; it must be UTF8");
            assert!(text.contains(&told), "{command}: {text}");
        }
    }
}
