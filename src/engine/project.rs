//! One Cregis project, as the engine uses it: its client, its breaker, its turns to send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, Semaphore};

use super::coins::Coins;
use crate::breaker::Breaker;
use crate::causes::chain;
use crate::config;
use crate::cregis::Cregis;
use crate::ledger::Resend;
use crate::metrics::Metrics;
use crate::metrics::label::{Answer, Errand};

/// How often an open breaker asks Cregis how we stand.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// So many calls may wait for each send that may be under way.
pub(super) const QUEUE: usize = 2;

/// One Cregis project, as the engine uses it.
#[derive(Debug)]
pub struct Project {
    pub(super) cregis: Cregis,
    pub(super) breaker: Breaker,
    pub(super) coins: Coins,
    /// One permit per send that may be under way.
    pub(super) sends: Arc<Semaphore>,
    /// How many those are.
    pub(super) max_in_flight: usize,
    /// Bounds how many wait for one.
    pub(super) queue: Semaphore,
    /// Something is worth asking about before its time.
    pub(super) news: Notify,
    /// Whether an operator has paused the intake; the ledger keeps it.
    paused: AtomicBool,
    /// How long after its acceptance a payout is first asked about.
    poll_first: Duration,
    /// Whether Cregis calls our external-verification URL.
    verification: bool,
    /// The age at which a repeat may send a doubt again, where that is allowed at all.
    resend_after: Option<Duration>,
    strict_text: bool,
}

// === impl Project ===

impl Project {
    /// Builds the project's client. `callback_url` goes with orders that name none.
    ///
    /// # Errors
    /// Where the HTTP client cannot be built.
    pub fn new(
        settings: &config::Project,
        callback_url: String,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self {
            cregis: Cregis::new(settings, callback_url)?,
            breaker: Breaker::new(),
            coins: Coins::new(),
            sends: Arc::new(Semaphore::new(settings.max_in_flight)),
            max_in_flight: settings.max_in_flight,
            queue: Semaphore::new(settings.max_in_flight.saturating_mul(QUEUE)),
            news: Notify::new(),
            paused: AtomicBool::new(false),
            poll_first: settings.poll_first,
            verification: settings.verification,
            resend_after: settings.resend_in_doubt.then_some(settings.timeout),
            strict_text: settings.strict_text,
        })
    }

    /// Whether free text must not contain a signed parameter's name.
    pub fn strict_text(&self) -> bool {
        self.strict_text
    }

    /// Whether Cregis calls our external-verification URL.
    pub fn verification(&self) -> bool {
        self.verification
    }

    /// Tells whether `signature` over `parameters` is one by this project's key.
    pub fn signed(&self, parameters: &[(&str, &str)], signature: &str) -> bool {
        self.cregis.signed_by_us(parameters, signature)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// How long after its acceptance a payout is first asked about.
    pub(super) fn poll_first(&self) -> Duration {
        self.poll_first
    }

    /// What a repeat may send again `now`, by the ledger's clock.
    pub(super) fn resend(&self, now: SystemTime) -> Resend {
        match self.resend_after {
            Some(age) => Resend::DoubtsOlderThan(now - age),
            None => Resend::Never,
        }
    }
}

/// Asks Cregis how we stand while the breaker is open, and closes it when the answer is good.
pub(super) async fn probe_while_open(metrics: &Metrics, pid: i64, project: &Project) {
    let mut open = project.breaker.watch();
    while open.wait_for(|open| *open).await.is_ok() {
        tracing::error!(pid, "cregis: breaker open, no payouts are sent");
        while project.breaker.is_open() {
            tokio::time::sleep(PROBE_EVERY).await;
            let start = Instant::now();
            let answer = project.cregis.probe().await;
            let came_to = match &answer {
                Ok(standing) if standing.is_good() => Answer::Good,
                Ok(_) => Answer::Refused,
                Err(_) => Answer::Unanswered,
            };
            metrics.projects.upstream.at((Errand::Probe, came_to)).took(start.elapsed());
            match answer {
                Ok(standing) if standing.is_good() => project.breaker.close(),
                Ok(standing) => {
                    let code = standing.envelope.code;
                    tracing::error!(pid, cregis.code = code, "cregis: still refuses us");
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(pid, error, "cregis: still no answer");
                }
            }
        }
        tracing::warn!(pid, "cregis: breaker closed, payouts are sent again");
    }
}
