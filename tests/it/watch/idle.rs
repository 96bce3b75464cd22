//! Watchers that do not read.

use payoutd::pb::{self, PayoutState};
use tonic::transport::Endpoint;

use super::named;
use crate::support::{Binary, Client, Upstream, get, order, told, watch, watch_from, within};

const STREAMS: usize = 200;
const PAYOUTS: usize = 4;
const FLIPS: usize = 160;

/// A connection on which next to nothing can be sent before it is read.
async fn narrow(binary: &Binary) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", binary.address)).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(4_096);
    Client::new(endpoint.connect().await.expect("connected"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_stops_reading_grows_no_memory_and_slows_nobody() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("PAYOUTD_PROJECT__POLL_FIRST", "20ms"), ("PAYOUTD_LOG__LEVEL", "info")];
    let binary = Binary::start_with(upstream.address, &folder, &settings).await;
    let client = binary.client().await;
    let ids: Vec<_> = (0..PAYOUTS).map(|number| format!("p{number}")).collect();
    let mut cids = Vec::new();
    for id in &ids {
        // Each revision that a watcher is sent is over a kilobyte.
        let remark = "\u{1f4b8}".repeat(256);
        let request = pb::CreatePayoutRequest { remark, ..order(id) };
        cids.push(
            within(client.clone().create_payout(request)).await.expect("OK").into_inner().cid,
        );
    }
    let idle = narrow(&binary).await;
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        streams.push(watch(&idle, &ids[number % PAYOUTS]).await.expect("OK"));
    }
    let mut before = 0;
    for flip in 0..FLIPS {
        // The first flips warm up whatever there is to warm up.
        if flip == 20 {
            before = binary.rss_kb();
        }
        let status = [5, 1, 0][flip % 3];
        for cid in &cids {
            upstream.book.set_status(*cid, status, false);
        }
        for id in &ids {
            within(async {
                while get(&client, id).await.expect("OK").cregis_status != Some(status) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
    let grown = binary.rss_kb() - before;
    assert!(grown < 20 * 1024, "{grown} KB more");

    // Others are served, and the slow ones have missed nothing once they read.
    let other = get(&client, "p0").await.expect("OK");
    assert!(other.revision > FLIPS as i64, "{}", other.revision);
    let mut quick = watch_from(&client, named("p0"), 1).await.expect("OK");
    for revision in 2..=other.revision {
        assert_eq!(told(&mut quick).await.expect("OK").expect("told").revision, revision);
    }
    upstream.book.set_status(cids[0], 6, false);
    let mut slow = streams.swap_remove(0);
    let mut last = told(&mut slow).await.expect("OK").expect("told");
    while let Some(payout) = told(&mut slow).await.expect("OK") {
        assert_eq!(payout.revision, last.revision + 1);
        last = payout;
    }
    assert_eq!(last.state(), PayoutState::Succeeded);
}
