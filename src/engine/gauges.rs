//! What stands how, measured when somebody looks.
//!
//! Nothing is kept up to date meanwhile: what the ledger holds is counted there, so that it is right
//! after a restart, and everything else is read where it is.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::project::QUEUE;
use super::{Engine, Project};
use crate::ledger::{Open, Stock};
use crate::metrics::family::ByPid;
use crate::outcome::Doubt;
use crate::state::{STATES, State};

/// The ledger is counted no more often than this, ...
const COUNT_EVERY: Duration = Duration::from_secs(3);
/// ... and so seldom that counting takes at most this part of the reader's time.
const COUNT_PART: u32 = 50;
/// Whoever looks waits no longer than this for the count, and then sees the one before.
const COUNT_WAIT: Duration = Duration::from_secs(2);

/// What was last counted, and when that may be done again.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<(Option<Instant>, Stock)>);

impl Engine {
    /// Brings every gauge up to date.
    pub async fn measure(&self) {
        let metrics = self.metrics();
        let watchers = under_way(&self.watchers, self.max_watches);
        metrics.rpc.watchers.set(watchers);
        metrics.disk.writable.set(i64::from(*self.ledger.writable().borrow()));
        if let Some(free) = self.disk.free() {
            metrics.disk.free.set(i64::try_from(free).unwrap_or(i64::MAX));
        }
        self.ledger.measure();
        for (pid, project) in &self.projects {
            self.measure_project(*pid, project);
        }
        // Whoever has counted before us may still be at it; what they find serves us, too.
        let Ok(mut counted) = timeout(COUNT_WAIT, self.stock.0.lock()).await else { return };
        let (next, stock) = &mut *counted;
        if next.is_none_or(|next| next <= Instant::now()) {
            let start = Instant::now();
            if let Ok(Ok(fresh)) = timeout(COUNT_WAIT, self.ledger.stock()).await {
                *stock = fresh;
            }
            *next = Some(Instant::now() + COUNT_EVERY.max(start.elapsed() * COUNT_PART));
        }
        self.measure_stock(stock);
    }

    fn measure_project(&self, pid: i64, project: &Project) {
        let meters = &self.metrics().projects;
        let limit = project.max_in_flight;
        set(&meters.sends_in_flight, pid, under_way(&project.sends, limit));
        set(&meters.sends_queued, pid, under_way(&project.queue, limit.saturating_mul(QUEUE)));
        set(&meters.sends_limit, pid, whole(limit));
        set(&meters.breaker_open, pid, i64::from(project.breaker.is_open()));
        set(&meters.intake_paused, pid, i64::from(project.is_paused()));
        if let (Some(gauge), Some(skew)) = (meters.clock_skew.at(pid), project.cregis.skew()) {
            gauge.set(whole(skew.as_secs()));
        }
    }

    fn measure_stock(&self, stock: &Stock) {
        let (metrics, now) = (self.metrics(), self.ledger.now());
        let since = |then| now.duration_since(then).unwrap_or_default().as_secs();
        let money = &metrics.money;
        for state in STATES.into_iter().filter(|state| state.is_followed()) {
            let there = stock.open.iter().filter(|open| open.state == state);
            money.payouts.at(state).set(there.map(|open| open.count).sum());
        }
        let doubts = || stock.open.iter().filter(|open| open.state == State::InDoubt);
        for doubt in Doubt::ALL {
            let why = doubts().filter(|open| open.reason == doubt.as_str());
            money.doubts.at(doubt).set(why.map(|open| open.count).sum());
        }
        let oldest = doubts().map(|open| since(open.since)).max();
        money.oldest_doubt.set(whole(oldest.unwrap_or_default()));
        money.with_attention.set(stock.with_attention);
        for pid in self.projects.keys() {
            // What is being sent is nobody's to look at.
            let looked_at = |open: &&Open| {
                open.pid == *pid && matches!(open.state, State::InDoubt | State::Accepted)
            };
            let lag = stock.open.iter().filter(looked_at).map(|open| since(open.due)).max();
            set(&metrics.projects.poll_lag, *pid, whole(lag.unwrap_or_default()));
        }
    }
}

fn set(gauges: &ByPid<Gauge>, pid: i64, value: i64) {
    if let Some(gauge) = gauges.at(pid) {
        gauge.set(value);
    }
}

/// How many of a semaphore's places are taken.
fn under_way(places: &Semaphore, all: usize) -> i64 {
    whole(all.saturating_sub(places.available_permits()))
}

fn whole<N: TryInto<i64>>(value: N) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
