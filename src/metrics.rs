//! What the platform can count: typed, with closed sets of labels, and without anything global.
//!
//! A label is an enum or a configured project, never an id, an address or an error's text, so the
//! number of series is known at the start. Counting is an atomic addition. Gauges are set when
//! somebody looks ([`crate::engine::Engine::measure`]), so that they are right after a restart, too.

pub mod family;
pub mod label;
mod ledger;
mod money;
mod process;
mod project;
mod rpc;

use std::sync::Arc;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

pub use ledger::Disk;
pub use money::Money;
pub use project::Projects;
pub use rpc::Rpc;

/// Every meter of one service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls, and whoever makes them.
    pub rpc: Rpc,
    /// What has become of payouts.
    pub money: Money,
    /// Cregis, and our way to it.
    pub projects: Projects,
    /// The ledger's file.
    pub disk: Disk,
}

/// How meters are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's own text format, 0.0.4.
    Prometheus,
}

impl Metrics {
    /// Meters for a service that knows the projects `pids`.
    pub fn new(pids: impl IntoIterator<Item = i64>) -> Arc<Self> {
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix("payoutd");
        let (rpc, money) = (Rpc::register(ours), Money::register(ours));
        let projects = Projects::register(ours, pids);
        let disk = Disk::register(ours);
        process::register(&mut registry);
        Arc::new(Self { registry, rpc, money, projects, disk })
    }

    /// All meters as they stand.
    pub fn encode(&self, format: Format) -> String {
        let mut page = String::new();
        let encoded = match format {
            Format::OpenMetrics => text::encode(&mut page, &self.registry),
            Format::Prometheus => prometheus_text::encode(&mut page, &self.registry),
        };
        // Writing to a text cannot fail.
        encoded.map(|()| page).unwrap_or_default()
    }
}

impl Format {
    /// What a client that sends this `Accept` header can read.
    pub fn of(accept: &str) -> Self {
        let old = accept.contains("text/plain") && !accept.contains("application/openmetrics-text");
        if old { Self::Prometheus } else { Self::OpenMetrics }
    }

    /// The header that goes with it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}
