//! Stops sends to a project whose Cregis refuses us, or answers with doubt after doubt.
//!
//! Opens at once when Cregis refuses us, and when at least half of the last 20 sends within 30 s
//! (10 at least) ended in doubt. It closes only when a signed read has shown that Cregis works for
//! us again; time alone never closes it, and no payout is ever used to find out.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::outcome::{Outcome, Unsent};

/// How many sends are looked at.
const SENDS: usize = 20;
/// How far back.
const WINDOW: Duration = Duration::from_secs(30);
/// Fewer sends than this say nothing.
const SENDS_MIN: usize = 10;

/// The breaker of one project.
#[derive(Debug)]
pub struct Breaker {
    /// When a send ended, and whether in doubt; the newest last.
    sends: Mutex<VecDeque<(Instant, bool)>>,
    open: watch::Sender<bool>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new() -> Self {
        Self { sends: Mutex::default(), open: watch::Sender::new(false) }
    }

    /// Whether sends are stopped now.
    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Whether sends are stopped, as it changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }

    /// Takes note of what a send came to at `now`. True where this opened the breaker.
    pub fn record(&self, outcome: &Outcome, now: Instant) -> bool {
        let doubt = match outcome {
            Outcome::NotSent(Unsent::GatewayRefused(_) | Unsent::ClockSkew(_)) => {
                return self.set(true);
            }
            Outcome::InDoubt(_) | Outcome::CidTaken => true,
            Outcome::Accepted(_)
            | Outcome::Rejected(_)
            | Outcome::NotSent(
                Unsent::ConnectFailed
                | Unsent::LedgerUnavailable
                | Unsent::Expired
                | Unsent::Paused
                | Unsent::BreakerOpen,
            ) => false,
        };
        let mut sends = self.sends();
        sends.push_back((now, doubt));
        let recent = |at: &Instant| now.saturating_duration_since(*at) <= WINDOW;
        while sends.len() > SENDS || sends.front().is_some_and(|(at, _)| !recent(at)) {
            sends.pop_front();
        }
        let doubts = sends.iter().filter(|(_, doubt)| *doubt).count();
        let trips = sends.len() >= SENDS_MIN && doubts * 2 >= sends.len();
        drop(sends);
        trips && self.set(true)
    }

    /// Lets sends through again, and forgets what stopped them.
    pub fn close(&self) {
        self.sends().clear();
        self.set(false);
    }

    /// True where this changed something.
    fn set(&self, open: bool) -> bool {
        self.open.send_if_modified(|now| std::mem::replace(now, open) != open)
    }

    fn sends(&self) -> MutexGuard<'_, VecDeque<(Instant, bool)>> {
        // A panic elsewhere leaves the list as good as it was.
        self.sends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Doubt, Refusal};

    const DOUBT: Outcome = Outcome::InDoubt(Doubt::Timeout);

    #[test]
    fn a_refusal_of_us_opens_at_once_and_only_closing_closes() {
        let refusal = Refusal { code: "B0001".into(), msg: String::new() };
        for unsent in [Unsent::GatewayRefused(refusal.clone()), Unsent::ClockSkew(refusal)] {
            let breaker = Breaker::new();
            assert!(breaker.record(&Outcome::NotSent(unsent), Instant::now()));
            assert!(!breaker.record(&Outcome::Accepted(1), Instant::now()) && breaker.is_open());
            breaker.close();
            assert!(!breaker.is_open());
        }
    }

    #[test]
    fn half_of_the_last_20_in_doubt_opens_but_not_fewer_than_10_sends() {
        let now = Instant::now();
        let breaker = Breaker::new();
        for _ in 0..9 {
            assert!(!breaker.record(&DOUBT, now));
        }
        assert!(breaker.record(&DOUBT, now), "the tenth");

        let breaker = Breaker::new();
        for _ in 0..100 {
            assert!(!breaker.record(&Outcome::Accepted(1), now));
        }
        for _ in 0..9 {
            assert!(!breaker.record(&DOUBT, now));
        }
        assert!(breaker.record(&DOUBT, now), "10 of the last 20");
    }

    #[test]
    fn doubts_older_than_30_seconds_do_not_count() {
        let start = Instant::now();
        let breaker = Breaker::new();
        for _ in 0..9 {
            breaker.record(&DOUBT, start);
        }
        assert!(!breaker.record(&DOUBT, start + Duration::from_secs(31)));
    }

    #[test]
    fn refusals_of_payouts_and_failed_connects_are_not_doubts() {
        let breaker = Breaker::new();
        let refusal = Refusal { code: "E0008".into(), msg: String::new() };
        for _ in 0..20 {
            breaker.record(&Outcome::Rejected(refusal.clone()), Instant::now());
            breaker.record(&Outcome::NotSent(Unsent::ConnectFailed), Instant::now());
        }
        assert!(!breaker.is_open());
    }
}
