//! What goes wrong in a ledger, said so that a person reads it: a damaged row once, an outage in a few lines.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::Metrics;

/// How often an outage that goes on is said again.
const SAY_AGAIN: Duration = Duration::from_secs(30);

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
    /// When it was last said that something could not be read.
    unread: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Outage {
    began: Instant,
    said: Instant,
    failures: u64,
}

impl Faults {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics: Arc::clone(metrics),
            outage: Mutex::default(),
            unread: Mutex::default(),
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

    /// Says that a statement was refused, which is of no consequence for others.
    pub(super) fn refused(&self, error: &dyn Error) {
        tracing::warn!(error = chain(error), "ledger refused a statement");
    }

    /// Says, now and then, that something could not be read.
    pub(super) fn unread(&self, error: &dyn Error) {
        let mut said = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let new = said.is_none_or(|said| said.elapsed() >= SAY_AGAIN);
        if new {
            *said = Some(Instant::now());
            tracing::error!(error = chain(error), "ledger read failed");
        }
    }

    /// Counts a failure that concerns everybody, and says so where that is news.
    pub(super) fn failed(&self, error: &dyn Error) {
        let now = Instant::now();
        let mut outage = self.outage();
        let Some(Outage { said, failures, .. }) = outage.as_mut() else {
            *outage = Some(Outage { began: now, said: now, failures: 1 });
            drop(outage);
            tracing::error!(error = chain(error), "ledger failed");
            return;
        };
        *failures += 1;
        if now - *said >= SAY_AGAIN {
            *said = now;
            tracing::error!(failures, error = chain(error), "ledger still fails");
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

/// An error and its causes on one line, none of them twice: some say their cause themselves.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}
