//! `grpc.health.v1`, told by what is true and not by what was hoped.
//!
//! The service follows the ledger and the drain; `cregis` follows the breakers alone, so that an
//! outage upstream does not take an instance out of a mesh that could still answer.

use std::future::pending;

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{StreamExt, StreamMap};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::engine::Engine;

/// The names that stand for this service as a whole.
const OURS: [&str; 3] = ["", "payout.v1.PayoutService", "payout.v1.OperatorService"];
/// The name that stands for Cregis.
const CREGIS: &str = "cregis";

/// Publishes health over gRPC and to the admin port.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    ready: watch::Sender<bool>,
    /// Whether the service is going away.
    leaving: watch::Sender<bool>,
}

// === impl Health ===

impl Health {
    /// Health of a service that is not up yet: NOT_SERVING under every name.
    pub async fn starting() -> Self {
        let health = Self {
            reporter: HealthReporter::new(),
            ready: watch::Sender::new(false),
            leaving: watch::Sender::new(false),
        };
        health.publish(false, false).await;
        health
    }

    /// The gRPC service.
    pub fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Whether `""` is SERVING, as it changes.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Publishes the engine's condition for as long as it is polled.
    pub async fn follow(&self, engine: &Engine) {
        let (writable, leaving) = (engine.ledger_writable(), self.leaving.subscribe());
        let breakers = engine.breakers();
        let all = [&writable, &leaving].into_iter().chain(&breakers);
        let mut news: StreamMap<usize, _> =
            all.cloned().map(WatchStream::new).enumerate().collect();
        while news.next().await.is_some() {
            // What is true now, which may be later than the news.
            let serving = *writable.borrow() && !*leaving.borrow();
            let upstream = !breakers.iter().any(|open| *open.borrow());
            self.publish(serving, upstream).await;
        }
        pending().await
    }

    /// Tells everybody, at once, that the service is going away.
    pub async fn drain(&self) {
        // First, so that nothing publishes SERVING again.
        self.leaving.send_replace(true);
        for name in OURS {
            self.reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
        self.ready.send_replace(false);
    }

    /// Ends every open Watch, so that none of them holds the server up.
    pub async fn end(&mut self) {
        for name in OURS.into_iter().chain([CREGIS]) {
            self.reporter.clear_service_status(name).await;
        }
    }

    async fn publish(&self, serving: bool, upstream: bool) {
        let status = |good| if good { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in OURS {
            self.reporter.set_service_status(name, status(serving)).await;
        }
        self.reporter.set_service_status(CREGIS, status(upstream)).await;
        self.ready.send_replace(serving);
    }
}
