//! kill -9 around a notice: what was acknowledged, or only stored, reaches its end after a start.

use std::net::SocketAddr;

use payoutd::pb::{Payout, PayoutState};
use tokio::task::JoinSet;

use super::letter::{causes, count, genuine, notice, success, tell_bytes};
use crate::support::{Binary, Client, Shell, Upstream, get, ledger, order, within};

/// Where the latest process that wrote the log takes Cregis's messages.
fn callback(binary: &Binary) -> SocketAddr {
    let log = std::fs::read_to_string(&binary.log).expect("a log");
    let line = log.lines().rfind(|line| line.contains("\"message\":\"serving\""));
    let address = line.and_then(|line| line.split("\"callback\":\"").nth(1)?.split('"').next());
    address.expect("serving").parse().expect("an address")
}

async fn until(client: &Client, state: PayoutState) -> Payout {
    within(async {
        loop {
            let payout = get(client, "a").await.expect("known");
            if payout.state() == state {
                return payout;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

async fn until_kept(shell: &Shell) {
    within(async {
        while count(shell, "notice") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_a_notice_was_stored_its_payout_reaches_its_end_after_the_start() {
    // Before the answer to the notice is taken up, before the query is answered, after both.
    for moment in ["stored", "asked", "answered"] {
        for doubted in [false, true] {
            let upstream = Upstream::start().await;
            let folder = tempfile::tempdir().expect("a folder");
            let binary = Binary::start(upstream.address, &folder).await;
            let shell = Shell::file(&ledger(&folder));
            if doubted {
                upstream.fault(r#"{"then": "drop"}"#);
            }
            let mut client = binary.client().await;
            within(client.create_payout(order("a"))).await.expect("OK");
            let cid = upstream.book.orders()[0].cid;
            assert!(upstream.book.set_status(cid, 6, false));
            // No query is answered while this process lives.
            upstream.fault(r#"{"on": "query", "times": 0, "then": "hang"}"#);
            let (address, letter) = (callback(&binary), genuine(notice("a", cid, 6)));
            let sent = letter.clone();
            let mut call = JoinSet::from_iter([async move { tell_bytes(address, &sent).await }]);
            match moment {
                "stored" => until_kept(&shell).await,
                "asked" => upstream.received(2).await,
                _ => {
                    let answer = within(call.join_next()).await.expect("one").expect("no panic");
                    assert_eq!(answer, success());
                }
            }
            binary.kill().await;
            call.join_all().await;
            assert_eq!(count(&shell, "notice"), 1);

            upstream.book.clear_faults();
            let binary = Binary::start(upstream.address, &folder).await;
            let client = binary.client().await;
            let paid = until(&client, PayoutState::Succeeded).await;
            assert_eq!((paid.cid, paid.revision), (cid, 3), "{moment}");
            assert!(paid.attention.is_empty(), "{moment}: {:?}", paid.attention);
            assert_eq!(causes(&shell, "a"), ["RECORDED", "REPLY", "NOTICE"]);
            // Cregis, which may not have heard the answer, says it again.
            assert_eq!(tell_bytes(callback(&binary), &letter).await, success());
            assert_eq!(get(&client, "a").await.expect("known"), paid);
            assert_eq!((upstream.book.posts().len(), count(&shell, "notice")), (1, 1));
        }
    }
}
