//! The load: a closed loop of unique payouts, timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use payoutd::pb;
use payoutd::pb::payout_service_client::PayoutServiceClient;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::floor::Poster;
use crate::process::Child;
use crate::unique::unique;

/// What is driven.
#[derive(Clone)]
pub(crate) enum Target {
    /// A server of `CreatePayout`, over a few connections.
    Grpc(Vec<PayoutServiceClient<Channel>>),
    /// The sandbox itself, without anything between.
    Direct(Arc<Poster>),
}

/// What one round came to.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) calls: u64,
    pub(crate) cpu_us: f64,
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Target {
    pub(crate) async fn grpc(address: &str, concurrency: usize) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let mut clients = Vec::new();
        for _ in 0..(concurrency / 64).max(1) {
            let channel = endpoint.connect().await.expect("connected");
            clients.push(PayoutServiceClient::new(channel));
        }
        Self::Grpc(clients)
    }

    pub(crate) fn direct(address: &str) -> Self {
        Self::Direct(Arc::new(Poster::new(address)))
    }

    async fn call(&mut self, number: usize) {
        let id = unique();
        match self {
            Self::Direct(poster) => drop(poster.post(&id).await),
            Self::Grpc(clients) => {
                let at = number % clients.len();
                let request = pb::CreatePayoutRequest {
                    currency: "195@195".to_owned(),
                    address: "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS".to_owned(),
                    amount: "1.1".to_owned(),
                    third_party_id: id,
                    ..pb::CreatePayoutRequest::default()
                };
                let answer = clients[at].create_payout(request).await.expect("an answer");
                assert!(answer.into_inner().cid > 0, "no cid");
            }
        }
    }
}

/// Drives `target` with `concurrency` calls at a time for `time`.
pub(crate) async fn drive(
    target: &Target,
    concurrency: usize,
    time: Duration,
    server: Option<&Child>,
) -> Load {
    let before = server.map_or(0.0, Child::cpu_us);
    let start = Instant::now();
    let mut loops = JoinSet::new();
    for number in 0..concurrency {
        let mut target = target.clone();
        loops.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < time {
                let begun = Instant::now();
                target.call(number).await;
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
            times
        });
    }
    let mut times: Vec<f64> = loops.join_all().await.concat();
    let (elapsed, calls) = (start.elapsed().as_secs_f64(), times.len());
    let cpu = server.map_or(0.0, Child::cpu_us) - before;
    times.sort_by(f64::total_cmp);
    Load {
        calls: calls as u64,
        cpu_us: cpu / calls as f64,
        rate: calls as f64 / elapsed,
        p50_ms: times[calls / 2],
        p99_ms: times[calls * 99 / 100],
    }
}

/// Makes every create call from now on wait at the sandbox.
pub(crate) async fn hang(upstream: &Child) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}/faults", upstream.control());
    let body = r#"{"delay":"20s","times":0}"#;
    let post = http.post(url).header("content-type", "application/json").body(body);
    assert!(post.send().await.expect("an answer").status().is_success());
}

/// Has `calls` payouts wait at the sandbox all at once, and returns what `look` sees then.
pub(crate) async fn park(
    target: &Target,
    calls: usize,
    upstream: &Child,
    look: impl FnOnce() -> f64,
) -> f64 {
    let mut parked = JoinSet::new();
    for number in 0..calls {
        let mut target = target.clone();
        parked.spawn(async move { target.call(number).await });
    }
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}/requests", upstream.control());
    let limit = Instant::now() + Duration::from_secs(15);
    loop {
        let seen = http.get(&url).send().await.expect("an answer").bytes().await.expect("a body");
        let seen = seen.windows(6).filter(|window| *window == b"\"path\"").count();
        if seen == calls {
            break;
        }
        assert!(Instant::now() < limit, "only {seen} of {calls} calls have reached the sandbox");
    }
    let looked = look();
    parked.shutdown().await;
    looked
}
