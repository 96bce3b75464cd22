//! What is too late to be sent leaves no byte.

use std::sync::Arc;
use std::time::{Duration, Instant};

use payoutd::cregis::Cregis;
use payoutd::order::{Draft, Order};
use payoutd::outcome::{Outcome, Unsent};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{any_port, project, within};

fn an_order() -> Arc<Order> {
    let draft = Draft {
        pid: 1,
        currency: "7777@7777".into(),
        address: "a".into(),
        amount: "1".into(),
        third_party_id: "id".into(),
        ..Draft::default()
    };
    Arc::new(Order::check(draft, false).expect("good"))
}

/// The connection stands by then, so the last look is after that and before the first byte.
#[tokio::test(flavor = "multi_thread")]
async fn after_its_fence_a_send_leaves_no_byte_on_a_connection_that_stands() {
    let listener = TcpListener::bind(any_port()).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let cregis = Cregis::new(&project(address), String::new()).expect("built");
    let order = an_order();
    let late = Instant::now();
    let sent = cregis.create_payout(&order, Some(late));
    let read = async {
        let (mut connection, _) = listener.accept().await.expect("a connection");
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).await.expect("closed");
        bytes
    };
    let (outcome, bytes) = within(async { tokio::join!(sent, read) }).await;
    assert_eq!(outcome, Outcome::NotSent(Unsent::Expired));
    assert_eq!(String::from_utf8_lossy(&bytes), "");

    // And before it, all of them.
    let soon = Instant::now() + Duration::from_secs(20);
    let sent = cregis.create_payout(&order, Some(soon));
    let read = async {
        let (mut connection, _) = listener.accept().await.expect("a connection");
        let mut bytes = vec![0; 4096];
        let count = connection.read(&mut bytes).await.expect("a request");
        bytes.truncate(count);
        bytes
    };
    let (outcome, bytes) = within(async { tokio::join!(sent, read) }).await;
    assert!(matches!(outcome, Outcome::InDoubt(_)), "{outcome:?}");
    assert!(bytes.starts_with(b"POST /api/v1/payout HTTP/1.1\r\n"));
}
