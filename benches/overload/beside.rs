//! Who must be served while creates are shed: those who look up, health probes, watchers, operators.

use std::time::{Duration, Instant};

use payoutd::pb;
use payoutd::pb::operator_service_client::OperatorServiceClient;
use payoutd::pb::{get_payout_request, resolve_payout_request, watch_payout_request};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::load::{Client, order};
use crate::process::Child;

/// What they saw, in milliseconds; what was not answered is infinite.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) gets: Vec<f64>,
    pub(crate) checks: Vec<f64>,
    pub(crate) news: Vec<f64>,
}

/// Payouts in doubt, by id, with the cid that settles each.
pub(crate) type Doubts = Vec<(String, i64)>;

/// Posts to the sandbox's control port, or reads from it.
pub(crate) async fn control(upstream: &Child, path: &str, body: Option<&str>) -> Value {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}/{path}", upstream.control());
    let request = match body {
        Some(body) => {
            http.post(url).header("content-type", "application/json").body(body.to_owned())
        }
        None => http.get(url),
    };
    let bytes = request.send().await.expect("sent").bytes().await.expect("a body");
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

/// Makes `count` payouts whose answers are lost; as many others keep the breaker closed.
pub(crate) async fn doubts(client: &Client, upstream: &Child, count: usize) -> Doubts {
    let fault = format!(r#"{{"then":"drop","every":3,"times":{count}}}"#);
    control(upstream, "faults", Some(&fault)).await;
    let mut lost = Vec::new();
    for number in 0..3 * count {
        let id = format!("doubt-{number}");
        let answer = client.clone().create_payout(order(id.clone())).await.expect("OK");
        if answer.into_inner().cid == 0 {
            lost.push(id);
        }
    }
    let orders = control(upstream, "orders", None).await;
    let cid = |id: &str| {
        let all = orders.as_array().expect("a list");
        let order = all.iter().find(|order| order["third_party_id"] == id).expect("stored");
        order["cid"].as_i64().expect("a cid")
    };
    lost.into_iter().map(|id| (cid(&id), id)).map(|(cid, id)| (id, cid)).collect()
}

/// Looks up, probes and watches until `stop`; settles one of `doubts` every so often.
pub(crate) async fn beside(
    address: String,
    doubts: Doubts,
    every: Duration,
    stop: CancellationToken,
) -> Seen {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await.expect("connected");
    let known = doubts[0].0.clone();
    let (gets, checks, news) = tokio::join!(
        gets(Client::new(channel.clone()), known, stop.clone()),
        probes(channel.clone(), stop.clone()),
        news(channel, doubts, every, stop)
    );
    Seen { gets, checks, news }
}

async fn gets(client: Client, id: String, stop: CancellationToken) -> Vec<f64> {
    repeated(&stop, || {
        let mut client = client.clone();
        let id = Some(get_payout_request::Id::ThirdPartyId(id.clone()));
        async move { client.get_payout(pb::GetPayoutRequest { pid: 0, id }).await.is_ok() }
    })
    .await
}

async fn probes(channel: Channel, stop: CancellationToken) -> Vec<f64> {
    repeated(&stop, || {
        let mut client = HealthClient::new(channel.clone());
        async move { client.check(HealthCheckRequest::default()).await.is_ok() }
    })
    .await
}

/// Times `ask` a hundred times a second.
async fn repeated<F: Future<Output = bool>>(
    stop: &CancellationToken,
    ask: impl Fn() -> F,
) -> Vec<f64> {
    let mut beat = interval(Duration::from_millis(10));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Vec::new();
    while !stop.is_cancelled() {
        beat.tick().await;
        let begun = Instant::now();
        times.push(if ask().await { ms(begun) } else { f64::INFINITY });
    }
    times
}

/// From an operator's order to a watcher's hearing of it.
async fn news(
    channel: Channel,
    doubts: Doubts,
    every: Duration,
    stop: CancellationToken,
) -> Vec<f64> {
    let mut beat = interval(every);
    let mut heard = JoinSet::new();
    for (id, cid) in doubts {
        let mut watcher = Client::new(channel.clone());
        let named = Some(watch_payout_request::Id::ThirdPartyId(id.clone()));
        let watch = pb::WatchPayoutRequest { pid: 0, id: named, after_revision: 0 };
        let mut stream = watcher.watch_payout(watch).await.expect("watched").into_inner();
        stream.message().await.expect("as it stands");
        beat.tick().await;
        if stop.is_cancelled() {
            break;
        }
        let begun = Instant::now();
        heard.spawn(async move {
            let patience = Duration::from_secs(10);
            match tokio::time::timeout(patience, stream.message()).await {
                Ok(Ok(Some(_))) => ms(begun),
                Ok(Ok(None) | Err(_)) | Err(_) => f64::INFINITY,
            }
        });
        let mut operator = OperatorServiceClient::new(channel.clone());
        let resolve = pb::ResolvePayoutRequest {
            pid: 0,
            third_party_id: id,
            resolution: Some(resolve_payout_request::Resolution::Cid(cid)),
            evidence: "a benchmark".to_owned(),
        };
        if let Err(status) = operator.resolve_payout(resolve).await {
            eprintln!("not resolved: {status}");
        }
    }
    heard.join_all().await
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}
