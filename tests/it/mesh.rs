//! A real Envoy in front of two services, each with a ledger of its own, over one Cregis.
//!
//! Envoy comes with `.ci/tools`, so these run only where they are asked for: `--ignored`.

mod edge;
mod envoy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use payoutd::pb::PayoutState;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{Binary, Client, PATIENCE, Upstream, connect, order, within};
use envoy::{Envoy, plain};

/// What Istio gives every route that says nothing about retries.
fn istio_retries() -> Value {
    json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
        "num_retries": 2,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            }
        }],
        "host_selection_retry_max_attempts": 5
    })
}

/// One of the services behind Envoy; comes back at the same address with the same ledger.
struct Instance {
    binary: Binary,
    folder: TempDir,
    upstream: SocketAddr,
    settings: Vec<(&'static str, String)>,
}

impl Instance {
    async fn start(upstream: SocketAddr, settings: Vec<(&'static str, String)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let binary = launch(upstream, &folder, &settings).await;
        Self { binary, folder, upstream, settings }
    }

    /// Stops in good order while Envoy sends everything to `other`, and comes back.
    async fn roll(mut self, envoy: &Envoy, other: u16) -> Self {
        let own = self.port();
        self.binary.signal(Signal::SIGTERM);
        envoy.uses(&[other]).await;
        assert_eq!(self.binary.code().await, Some(0));
        self.settings.push(("PAYOUTD_GRPC__LISTEN", self.binary.address.to_string()));
        let binary = launch(self.upstream, &self.folder, &self.settings).await;
        envoy.uses(&[own, other]).await;
        Self { binary, ..self }
    }

    fn port(&self) -> u16 {
        self.binary.address.port()
    }
}

async fn launch(
    upstream: SocketAddr,
    folder: &TempDir,
    settings: &[(&'static str, String)],
) -> Binary {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Binary::start_with(upstream, folder, &settings).await
}

/// Callers that create one payout after the other until they are stopped.
struct Load {
    stop: CancellationToken,
    callers: JoinSet<Vec<(String, Result<PayoutState, Code>)>>,
}

impl Load {
    fn begin(clients: Vec<Client>) -> Self {
        let stop = CancellationToken::new();
        let mut callers = JoinSet::new();
        for (caller, client) in clients.into_iter().enumerate() {
            let stop = stop.clone();
            callers.spawn(async move {
                let mut calls = Vec::new();
                while !stop.is_cancelled() {
                    let id = format!("load-{caller}-{}", calls.len());
                    let state = create(&client, &id).await;
                    calls.push((id, state));
                }
                calls
            });
        }
        Self { stop, callers }
    }

    async fn end(self) -> Vec<(String, Result<PayoutState, Code>)> {
        self.stop.cancel();
        within(self.callers.join_all()).await.concat()
    }
}

async fn create(client: &Client, id: &str) -> Result<PayoutState, Code> {
    let answer = within(client.clone().create_payout(order(id))).await;
    answer.map(|answer| answer.into_inner().payout.expect("a payout").state()).map_err(|s| s.code())
}

/// How many orders Cregis stored for each id.
fn orders(upstream: &Upstream) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for order in upstream.book.orders() {
        *count.entry(order.third_party_id).or_default() += 1;
    }
    count
}

/// Everything that the sandbox can do to a create call, but for taking our one request in twice.
const FAULTS: [&str; 16] = [
    r#""then": "drop""#,
    r#""then": "drop", "store": false"#,
    r#""then": "hang""#,
    r#""then": "hang", "store": false"#,
    r#""then": "truncate""#,
    r#""then": "drip""#,
    r#""delay": "600ms""#,
    r#""delay_answer": "600ms""#,
    r#""status": 500, "store": true"#,
    r#""status": 302, "headers": {"location": "/api/v1/payout"}, "store": true"#,
    r#""status": 429, "body": "slow down", "store": true"#,
    r#""body": "not json""#,
    r#""cid": "many""#,
    r#""code": "E0009", "store": true"#,
    r#""code": "E0008""#,
    r#""code": "B0001""#,
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: .ci/tools"]
async fn istios_own_retries_never_make_a_second_order_whatever_cregis_does() {
    let upstream = Upstream::start().await;
    upstream.book.allow_duplicates(true);
    // Short doubts; the rest is as shipped.
    let settings = || vec![("PAYOUTD_PROJECT__TIMEOUT", "2s".to_owned())];
    let first = Instance::start(upstream.address, settings()).await;
    let second = Instance::start(upstream.address, settings()).await;
    let hosts = [first.binary.address, second.binary.address];
    let envoy = Envoy::start(&plain(&hosts, &istio_retries())).await;
    envoy.uses(&[first.port(), second.port()]).await;
    let client = connect(envoy.address).await;

    for (number, fault) in FAULTS.iter().enumerate() {
        for kind in ["patient", "hurried", "gone"] {
            let id = format!("fault-{number}-{kind}");
            upstream.fault(&format!(r#"{{"third_party_id": "{id}", "times": 0, {fault}}}"#));
            let mut request = tonic::Request::new(order(&id));
            if kind == "hurried" {
                request.set_timeout(Duration::from_millis(300));
            }
            let mut caller = client.clone();
            let call = caller.create_payout(request);
            if kind == "gone" {
                // Drops the call, and with it the stream, once the request has come to Cregis.
                let seen = upstream.book.count();
                let before = *seen.borrow();
                let _ = tokio::time::timeout(PATIENCE, async {
                    tokio::select! { _ = call => (), () = upstream.received(before + 1) => () }
                })
                .await;
            } else {
                let _ = within(call).await;
            }
            // Keeps the breakers closed, or waits until they are again.
            for good in 0.. {
                let made = create(&client, &format!("good-{number}-{kind}-{good}")).await;
                if made.is_ok() && good > 2 {
                    break;
                }
            }
        }
    }

    assert!(envoy.counter("upstream_rq_retry").await > 0, "Envoy never retried");
    let twice: Vec<_> = orders(&upstream).into_iter().filter(|(_, count)| *count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
