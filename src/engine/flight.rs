//! One send of one payout, from its record to its outcome.
//!
//! Record, then act, then record. The flight owns the order of these three; nothing in it depends
//! on whether anybody still waits for the answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::{Engine, Project, Refused};
use crate::ledger::Begun;
use crate::order::Order;
use crate::payout::{Doubt, Outcome, Payout, State};

/// Pause between attempts to write down what is known.
const WRITE_AGAIN: Duration = Duration::from_millis(250);

/// How far a flight has come, as its callers see it.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// The record is on its way to the disk.
    Recording,
    /// Recorded; the request may be on the wire.
    Aloft(Payout),
    /// Over.
    Landed(Result<Payout, Refused>),
}

/// A send under way. Dropping it, even by a panic, takes it off the engine's list.
pub(super) struct Flight {
    engine: Arc<Engine>,
    project: Arc<Project>,
    order: Arc<Order>,
    stage: watch::Sender<Stage>,
    _permit: OwnedSemaphorePermit,
}

impl Flight {
    pub(super) fn new(
        engine: &Arc<Engine>,
        project: &Arc<Project>,
        order: &Arc<Order>,
        permit: OwnedSemaphorePermit,
    ) -> (Self, watch::Receiver<Stage>) {
        let (stage, seen) = watch::channel(Stage::Recording);
        let flight = Self {
            engine: Arc::clone(engine),
            project: Arc::clone(project),
            order: Arc::clone(order),
            stage,
            _permit: permit,
        };
        (flight, seen)
    }

    /// Records the order, sends it if that is this flight's to do, and records the outcome.
    pub(super) async fn fly(self) {
        let resend = self.project.resend();
        match self.engine.ledger.begin(Arc::clone(&self.order), resend).await {
            Ok(Begun::Known(payout)) => self.land(Ok(payout)),
            Ok(Begun::Send(payout)) => {
                log_change(&payout, State::Sending);
                self.stage.send_replace(Stage::Aloft(payout.clone()));
                // Durable before the first byte leaves: after a crash, SENDING means "maybe sent",
                // and a maybe is never sent by recovery.
                let outcome = self.send().await;
                self.project.breaker.record(&outcome, std::time::Instant::now());
                let settled = self.settle(payout, outcome).await;
                self.land(Ok(settled));
            }
            Err(unavailable) => {
                // A failed commit may have reached the disk. Callers are told at once; the id is
                // kept busy until the record, if there is one, says that nothing was sent.
                self.land(Err(unavailable.into()));
                while self.engine.ledger.unsend(self.order.key.clone()).await.is_err() {
                    tokio::time::sleep(WRITE_AGAIN).await;
                }
            }
        }
    }

    /// Sends the order once; gives up waiting when the drain runs out of time.
    async fn send(&self) -> Outcome {
        let sent = self.project.cregis.create_payout(&self.order);
        let cut = self.engine.cut.run_until_cancelled(sent).await;
        cut.unwrap_or(Outcome::InDoubt(Doubt::Shutdown))
    }

    /// Writes the outcome down, however long that takes. Until it is durable nobody is told it.
    async fn settle(&self, payout: Payout, outcome: Outcome) -> Payout {
        loop {
            if let Ok(settled) = self.engine.ledger.settle(payout.clone(), outcome.clone()).await {
                log_change(&settled, payout.state);
                return settled;
            }
            tracing::error!(
                pid = self.order.key.pid,
                third_party_id = self.order.key.third_party_id,
                ?outcome,
                "the outcome of a send is not written down yet; trying again"
            );
            let reason = Doubt::LedgerWriteFailed.as_str().to_owned();
            let unwritten = Payout { state: State::InDoubt, reason, ..payout.clone() };
            self.stage.send_replace(Stage::Aloft(unwritten));
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }

    fn land(&self, landed: Result<Payout, Refused>) {
        self.stage.send_replace(Stage::Landed(landed));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Only a panic drops a flight that is still in the air. Nobody knows then what it sent.
        let lost = match &*self.stage.borrow() {
            Stage::Aloft(payout) => Some(payout.clone()),
            Stage::Recording | Stage::Landed(_) => None,
        };
        if let (Some(payout), Ok(runtime)) = (lost, tokio::runtime::Handle::try_current()) {
            let ledger = self.engine.ledger.clone();
            let crashed = async move {
                let outcome = Outcome::InDoubt(Doubt::Crash);
                while ledger.settle(payout.clone(), outcome.clone()).await.is_err() {
                    tokio::time::sleep(WRITE_AGAIN).await;
                }
            };
            self.engine.tasks.spawn_on(crashed, &runtime);
        }
        self.engine.flights().remove(&self.order.key);
    }
}

/// Waits for a flight to land, until `until` at the latest, and returns the payout as it stands.
pub(super) async fn wait(
    mut stage: watch::Receiver<Stage>,
    order: &Arc<Order>,
    until: Instant,
) -> Result<Payout, Refused> {
    let landed = stage.wait_for(|stage| matches!(stage, Stage::Landed(_)));
    // A time-out and a flight that broke off end alike: what was last known is the answer.
    let _ = timeout_at(until, landed).await;
    let last = stage.borrow().clone();
    match last {
        Stage::Landed(landed) => landed,
        Stage::Aloft(payout) => Ok(payout),
        // The record is being written and cannot be called back: it counts as sent.
        Stage::Recording => {
            Ok(Payout { revision: 0, ..Payout::first(0, Arc::clone(order), SystemTime::now()) })
        }
    }
}

/// The one line per state change. No address, no amount.
pub(super) fn log_change(payout: &Payout, from: State) {
    tracing::info!(
        pid = payout.order.key.pid,
        third_party_id = payout.order.key.third_party_id,
        cid = payout.cid,
        from = if payout.revision == 1 { "" } else { from.as_str() },
        state = payout.state.as_str(),
        reason = payout.reason,
        revision = payout.revision,
        "payout"
    );
}
