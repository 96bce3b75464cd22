//! Meters of Cregis, and of our way to it.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::family::{ByPid, Histogram, Known, SECONDS, Table};
use super::label::{Answer, Errand, Letter, Verdict};

/// Cregis, and our way to it.
#[derive(Clone, Debug)]
pub struct Projects {
    /// How long Cregis took, by what was asked and what it came to.
    pub upstream: Table<(Errand, Answer), Histogram>,
    /// Messages of Cregis's, by how they were answered.
    pub callbacks: Table<(Letter, Verdict), Counter>,
    /// Sends under way.
    pub sends_in_flight: ByPid<Gauge>,
    /// Calls that wait for their turn to send.
    pub sends_queued: ByPid<Gauge>,
    /// Sends that may be under way.
    pub sends_limit: ByPid<Gauge>,
    /// 1 while the breaker is open.
    pub breaker_open: ByPid<Gauge>,
    /// 1 while an operator has paused the intake.
    pub intake_paused: ByPid<Gauge>,
    /// How late the look at the most overdue payout is.
    pub poll_lag: ByPid<Gauge>,
    /// How far our clock is from Cregis's, in seconds; unknown before its first answer.
    pub clock_skew: ByPid<Known>,
}

impl Projects {
    pub(super) fn register(registry: &mut Registry, pids: impl IntoIterator<Item = i64>) -> Self {
        let pids: Vec<i64> = pids.into_iter().collect();
        let projects = Self {
            upstream: Table::of(Answer::fits, || Histogram::of_seconds(SECONDS)),
            callbacks: Table::of(Verdict::fits, Counter::<u64, AtomicU64>::default),
            sends_in_flight: ByPid::new(&pids),
            sends_queued: ByPid::new(&pids),
            sends_limit: ByPid::new(&pids),
            breaker_open: ByPid::new(&pids),
            intake_paused: ByPid::new(&pids),
            poll_lag: ByPid::new(&pids),
            clock_skew: ByPid::new(&pids),
        };
        let all = projects.clone();
        registry.register("upstream_duration_seconds", "How long Cregis took", all.upstream);
        let help = "Messages from Cregis, by how they were answered";
        registry.register("callbacks", help, all.callbacks);
        registry.register("sends_in_flight", "Sends under way", all.sends_in_flight);
        registry.register("sends_queued", "Calls that wait for a send", all.sends_queued);
        registry.register("sends_limit", "Sends that may be under way", all.sends_limit);
        registry.register("breaker_open", "1 while no payouts are sent", all.breaker_open);
        let help = "1 while an operator has paused the intake";
        registry.register("intake_paused", help, all.intake_paused);
        let help = "How late the look at the most overdue payout is";
        registry.register("poll_lag_seconds", help, all.poll_lag);
        let help = "How far our clock is from the one of Cregis";
        registry.register("clock_skew_seconds", help, all.clock_skew);
        projects
    }
}
