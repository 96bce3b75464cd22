//! The replicas, and a closed loop of payouts over all of them.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::load::{self, Client, End, percentile};
use crate::process::{Child, Folder};

/// Services over one ledger. Killed when dropped.
pub(crate) struct Fleet {
    pub(crate) replicas: Vec<Child>,
    pub(crate) clients: Vec<Client>,
    /// From each one's start until it said SERVING.
    pub(crate) starts: Vec<Duration>,
    _logs: Vec<Folder>,
}

/// When a loop ends.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    Time(Duration),
    Calls(usize),
}

/// What it came to.
pub(crate) struct Load {
    pub(crate) calls: usize,
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Fleet {
    /// Starts one replica over the ledger at `url` for each of `upstreams`, all at once, and waits until all
    /// of them serve.
    pub(crate) async fn start(
        url: &str,
        upstreams: &[String],
        settings: &[(&str, String)],
    ) -> Self {
        let mut all = vec![("PAYOUTD_LEDGER__URL", url.to_owned())];
        all.extend_from_slice(settings);
        let logs: Vec<_> = upstreams.iter().map(|_| Folder::new()).collect();
        let begun = Instant::now();
        let pairs = upstreams.iter().zip(&logs);
        let replicas: Vec<_> =
            pairs.map(|(upstream, log)| Child::service(upstream, log, &all)).collect();
        let mut waiting = JoinSet::new();
        for replica in &replicas {
            waiting.spawn(serves(replica.address().to_owned(), begun));
        }
        let starts = waiting.join_all().await;
        let mut clients = Vec::new();
        for replica in &replicas {
            clients.extend(load::connect(replica.address(), 1).await);
        }
        Self { replicas, clients, starts, _logs: logs }
    }

    /// CPU time that they have used together, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.replicas.iter().map(Child::cpu_us).sum()
    }

    /// Payouts under new ids with `concurrency` calls at a time, evenly over the replicas. What is not taken,
    /// as when the disk was held up for seconds, is told on stderr and not counted.
    pub(crate) async fn drive(&self, concurrency: usize, until: Until) -> Load {
        let start = Instant::now();
        let mut loops = JoinSet::new();
        for number in 0..concurrency {
            let client = self.clients[number % self.clients.len()].clone();
            loops.spawn(async move {
                let (mut asked, mut times) = (0, Vec::new());
                while match until {
                    Until::Time(time) => start.elapsed() < time,
                    Until::Calls(calls) => asked < calls / concurrency,
                } {
                    let (end, time) = load::call(client.clone()).await;
                    asked += 1;
                    times.extend((end == End::Taken).then_some(time));
                }
                times
            });
        }
        let mut times = loops.join_all().await.concat();
        Load {
            calls: times.len(),
            seconds: start.elapsed().as_secs_f64(),
            p50_ms: percentile(&mut times, 50),
            p99_ms: percentile(&mut times, 99),
        }
    }
}

/// How long after `begun` the service at `address` says that it serves.
async fn serves(address: String, begun: Instant) -> Duration {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    loop {
        if let Ok(channel) = endpoint.connect().await {
            let check = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
            if check.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving) {
                return begun.elapsed();
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not serve");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
