//! What goes wrong in a ledger, said so that a person reads it: a damaged row once, an outage in a few lines.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::causes::chain;
use crate::metrics::Metrics;

/// How often an outage that goes on is said again.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// So many causes of one outage are said as soon as they show.
const CAUSES: usize = 4;

/// A row that cannot be read: text that our own checks would not have let in. What stands there is not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row} of {table} is damaged: {why}")]
pub(super) struct Damage {
    pub(super) table: &'static str,
    pub(super) row: i64,
    pub(super) why: String,
}

/// A row, or why it cannot be read.
pub(super) type Found<T> = Result<T, Damage>;

/// What both engines say of their failures.
#[derive(Debug)]
pub(super) struct Faults {
    metrics: Arc<Metrics>,
    /// None while all is well.
    outage: Mutex<Option<Outage>>,
    /// What could not be read.
    unread: Seldom,
    /// What was refused.
    refused: Seldom,
    /// Why a connection could not be made, when that was last said.
    unconnected: Mutex<Option<(Instant, String)>>,
}

/// Says when to say again what comes often.
#[derive(Debug, Default)]
struct Seldom(Mutex<Option<(Instant, u64)>>);

#[derive(Debug)]
struct Outage {
    began: Instant,
    said: Instant,
    failures: u64,
    /// What was said of it: the first failure need not be its cause.
    causes: Vec<String>,
}

impl Faults {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics: Arc::clone(metrics),
            outage: Mutex::default(),
            unread: Seldom::default(),
            refused: Seldom::default(),
            unconnected: Mutex::default(),
        })
    }

    /// Says, once for each row, that it is damaged.
    pub(super) fn damaged(&self, damage: &Damage) {
        let Damage { table, row, why } = damage;
        if self.metrics.disk.damaged.add(table, *row) {
            tracing::error!(table, row, why, "damaged row left out");
        }
    }

    /// Those that can be read.
    pub(super) fn whole<T>(&self, found: Vec<Found<T>>) -> Vec<T> {
        let whole = |found: Found<T>| found.map_err(|damage| self.damaged(&damage)).ok();
        found.into_iter().filter_map(whole).collect()
    }

    /// Says, now and then, that a statement was refused, which is of no consequence for others.
    pub(super) fn refused(&self, error: &dyn Error) {
        if let Some(times) = self.refused.again() {
            tracing::warn!(times, error = chain(error), "ledger refused a statement");
        }
    }

    /// Says, now and then, that something could not be read.
    pub(super) fn unread(&self, error: &dyn Error) {
        if let Some(times) = self.unread.again() {
            tracing::error!(times, error = chain(error), "ledger read failed");
        }
    }

    /// Says, now and then and for each new cause, that a connection could not be made, whether others work or not.
    pub(super) fn unconnected(&self, error: &dyn Error) {
        let error = chain(error);
        let mut last = self.unconnected.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            last.as_ref().filter(|(said, words)| *words == error && said.elapsed() < SAY_AGAIN);
        if known.is_none() {
            tracing::warn!(error = error.as_str(), "a connection to the ledger cannot be made");
            *last = Some((Instant::now(), error));
        }
    }

    /// Counts a failure that concerns everybody, and says so where that is news.
    pub(super) fn failed(&self, error: &dyn Error) {
        let (now, error) = (Instant::now(), chain(error));
        let mut outage = self.outage();
        let Some(Outage { said, failures, causes, .. }) = outage.as_mut() else {
            let causes = vec![error.clone()];
            *outage = Some(Outage { began: now, said: now, failures: 1, causes });
            drop(outage);
            tracing::error!(error, "ledger failed");
            return;
        };
        *failures += 1;
        let new = causes.len() < CAUSES && !causes.contains(&error);
        if new || now - *said >= SAY_AGAIN {
            *said = now;
            tracing::error!(failures, error = error.as_str(), "ledger still fails");
        }
        if new {
            causes.push(error);
        }
    }

    /// Says that the outage is over, if there was one.
    pub(super) fn over(&self) {
        let over = self.outage().take();
        if let Some(Outage { began, failures, .. }) = over {
            let seconds = began.elapsed().as_secs();
            tracing::warn!(failures, seconds, "ledger can be written again");
        }
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        // It is replaced or counted up; a panic elsewhere leaves it whole.
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seldom {
    /// How often it has come since it was last said, where that is long enough ago.
    fn again(&self) -> Option<u64> {
        // It is replaced whole.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = last.map_or(1, |(_, left_out)| left_out + 1);
        if let Some((_, left_out)) = last.as_mut().filter(|(said, _)| said.elapsed() < SAY_AGAIN) {
            *left_out = times;
            return None;
        }
        *last = Some((Instant::now(), 0));
        Some(times)
    }
}
