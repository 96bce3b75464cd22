//! Meters of calls.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tonic::Code;

use super::family::{Histogram, Known, SECONDS, Table};
use super::label::{Mode, Shed};
use crate::grpc::method::Method;
use crate::policy::Rule;

/// Calls, and whoever makes them.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// Calls that have ended, by method and code; one that its caller left is CANCELLED.
    pub requests: Table<(Method, Code), Counter>,
    /// How long unary calls took.
    pub duration: Table<Method, Histogram>,
    /// Calls under way.
    pub in_flight: Table<Method, Gauge>,
    /// Watchers.
    pub watchers: Gauge,
    /// Calls turned away for their number.
    pub shed: Table<Shed, Counter>,
    /// Payouts that policy refused, or would have.
    pub policy_refusals: Table<(Rule, Mode), Counter>,
    /// Orders whose address nothing is known about.
    pub unchecked_addresses: Counter,
    /// Calls by nobody known.
    pub authentication_failures: Counter,
    /// Connections that callers have open. Unknown until the listener says.
    pub connections: Known,
    /// When the server's certificate ends, in seconds since 1970. Unknown without TLS of our own.
    pub certificate_expiry: Known,
}

impl Rpc {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let rpc = Self {
            requests: Table::new(),
            duration: Table::of(Method::is_unary, || Histogram::of_seconds(SECONDS)),
            in_flight: Table::new(),
            watchers: Gauge::default(),
            shed: Table::new(),
            policy_refusals: Table::new(),
            unchecked_addresses: Counter::default(),
            authentication_failures: Counter::default(),
            connections: Known::default(),
            certificate_expiry: Known::default(),
        };
        let all = rpc.clone();
        registry.register("rpc_requests", "Calls that have ended", all.requests);
        registry.register("rpc_duration_seconds", "How long unary calls took", all.duration);
        registry.register("rpc_in_flight", "Calls under way", all.in_flight);
        registry.register("watchers", "WatchPayout streams that are open", all.watchers);
        registry.register("shed", "Calls turned away for their number", all.shed);
        let help = "Payouts that policy refused, or would have refused";
        registry.register("policy_refusals", help, all.policy_refusals);
        let help =
            "Orders that were let through with an address of a chain that payoutd does not know";
        registry.register("unchecked_addresses", help, all.unchecked_addresses);
        let help = "Calls without valid credentials";
        registry.register("authentication_failures", help, all.authentication_failures);
        let help = "Connections that callers have open";
        registry.register("connections", help, all.connections);
        let help = "When the server certificate ends";
        let name = "tls_certificate_expiry_timestamp_seconds";
        registry.register(name, help, all.certificate_expiry);
        rpc
    }
}
