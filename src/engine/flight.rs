//! One send of one payout, from its record to its outcome.
//!
//! Record, then act, then record. The flight owns the order of these three; nothing in it depends
//! on whether anybody still waits for the answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::{Engine, Project, Refused};
use crate::ledger::{Begun, Id, Unavailable};
use crate::metrics::label::{Answer, Errand};
use crate::order::{Key, Order};
use crate::outcome::{Doubt, Outcome};
use crate::payout::Payout;
use crate::policy::Terms;
use crate::state::State;
use crate::telemetry::span;

/// Pause between attempts to write down what is known.
const WRITE_AGAIN: Duration = Duration::from_millis(250);

/// How far a flight has come, as its callers see it.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// The record is on its way to the disk.
    Recording,
    /// Recorded; the request may be on the wire.
    Aloft(Arc<Payout>),
    /// Another process sends it.
    Elsewhere(Arc<Payout>),
    /// Over.
    Landed(Result<Arc<Payout>, Refused>),
}

/// What callers see of a flight.
#[derive(Debug)]
pub(super) struct Track {
    order: Arc<Order>,
    /// Of the caller whose call started it.
    terms: Arc<Terms>,
    stage: Mutex<Stage>,
    landed: Notify,
}

/// A send under way, and the only one of its id: it is on the engine's list until its end is durable, even
/// where it breaks off by a panic.
pub(super) struct Flight {
    engine: Arc<Engine>,
    project: Arc<Project>,
    track: Arc<Track>,
    /// Given back where another process sends.
    permit: Option<OwnedSemaphorePermit>,
}

impl Flight {
    pub(super) fn new(
        engine: &Arc<Engine>,
        project: &Arc<Project>,
        order: &Arc<Order>,
        terms: &Arc<Terms>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            engine: Arc::clone(engine),
            project: Arc::clone(project),
            track: Arc::new(Track {
                order: Arc::clone(order),
                terms: Arc::clone(terms),
                stage: Mutex::new(Stage::Recording),
                landed: Notify::new(),
            }),
            permit: Some(permit),
        }
    }

    pub(super) fn track(&self) -> &Arc<Track> {
        &self.track
    }

    /// Records the order, sends it if that is this flight's to do, and records the outcome.
    /// `request_id` is the call's that started it, for the log.
    pub(super) async fn fly(mut self, request_id: String) {
        let resend = self.project.resend(self.engine.ledger.now());
        let (order, terms) = (Arc::clone(&self.track.order), Arc::clone(&self.track.terms));
        let fence = self.engine.ledger.send_within().map(|soon| std::time::Instant::now() + soon);
        let begin = self.engine.ledger.begin(order, terms, resend);
        match begin.instrument(span::ledger("begin")).await {
            Ok(Begun::Known(payout)) => {
                let known = self.sent_elsewhere(payout).await;
                self.land(known.map_err(Refused::from));
            }
            Ok(Begun::Paused) => {
                self.project.pause(true);
                self.land(Err(Refused::Paused));
            }
            Ok(Begun::Denied(rule)) => {
                // Off the list first: whoever waits here under other terms has to start anew.
                self.engine.strike(&self.track);
                self.land(Err(Refused::Denied(rule)));
            }
            Ok(Begun::Send(payout)) => {
                // The line that counts comes with the outcome: or, after a crash, from recovery.
                tracing::debug!(
                    request.id = request_id,
                    payout.row,
                    revision = payout.revision,
                    "sending"
                );
                // Shared: thousands may wait here.
                let payout = Arc::new(payout);
                self.track.set(Stage::Aloft(Arc::clone(&payout)));
                // Durable before the first byte leaves: after a crash, SENDING means "maybe sent",
                // and a maybe is never sent by recovery.
                let outcome = self.send(fence).await;
                let settled = self.settle(&payout, &outcome).await;
                self.engine.tell(&payout, &settled, &request_id);
                self.land(Ok(settled));
            }
            Err(unavailable) => {
                // A failed commit may have reached the disk. Callers are told at once; the id is
                // kept busy until the record, if there is one, says that nothing was sent. What it
                // takes back is its own: no other flight of the id has begun.
                self.land(Err(unavailable.into()));
                while self.engine.ledger.unsend(self.track.order.key.clone()).await.is_err() {
                    tokio::time::sleep(WRITE_AGAIN).await;
                }
            }
        }
    }

    /// The known payout, once no other process is sending it, or as it stands when this one stops.
    async fn sent_elsewhere(&mut self, mut payout: Payout) -> Result<Payout, Unavailable> {
        self.permit = None;
        let mut draining = self.engine.draining.subscribe();
        let mut revisions = self.engine.ledger.watch(payout.row);
        while payout.state == State::Sending && !*draining.borrow_and_update() {
            // The caller hears how it stands when its own time is over.
            self.track.set(Stage::Elsewhere(Arc::new(payout.clone())));
            let Key { pid, third_party_id } = payout.order.key.clone();
            let known = self.engine.ledger.find(pid, Id::ThirdParty(third_party_id)).await?;
            payout = known.unwrap_or(payout);
            if payout.state == State::Sending {
                tokio::select! {
                    () = revisions.after(payout.revision) => {}
                    _ = draining.wait_for(|draining| *draining) => {}
                }
            }
        }
        Ok(payout)
    }

    /// Sends the order, once; counts what it came to.
    async fn send(&self, fence: Option<std::time::Instant>) -> Outcome {
        let span = span::upstream(self.project.cregis.host());
        let start = std::time::Instant::now();
        let outcome = self
            .project
            .cregis
            .create_payout(&self.track.order, fence)
            .instrument(span.clone())
            .await;
        let end = std::time::Instant::now();
        self.project.breaker.record(&outcome, end);
        let answer = Answer::from(&outcome);
        let metrics = self.engine.metrics();
        metrics.money.outcomes.at(answer).inc();
        metrics.projects.upstream.at((Errand::Create, answer)).took(end - start);
        span::came_to(&span, answer);
        outcome
    }

    /// Writes the outcome down, however long that takes. Until it is durable nobody is told it.
    async fn settle(&self, payout: &Payout, outcome: &Outcome) -> Payout {
        loop {
            let ledger = &self.engine.ledger;
            let poll_first = self.project.poll_first();
            let settle = ledger.settle(payout.clone(), outcome.clone(), poll_first);
            if let Ok(settled) = settle.instrument(span::ledger("settle")).await {
                return settled;
            }
            tracing::error!(
                pid = self.track.order.key.pid,
                third_party_id = self.track.order.key.third_party_id,
                ?outcome,
                "the outcome of a send is not written down yet; trying again"
            );
            let reason = Doubt::LedgerWriteFailed.as_str().to_owned();
            let unwritten = Payout { state: State::InDoubt, reason, ..payout.clone() };
            self.track.set(Stage::Aloft(Arc::new(unwritten)));
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }

    fn land(&self, landed: Result<Payout, Refused>) {
        self.track.set(Stage::Landed(landed.map(Arc::new)));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Only a panic drops a flight that is still in the air. Nobody knows then what it sent, and until
        // that is written down another flight of the id could take it for a send of its own.
        let lost = self.track.aloft();
        if let (Some(payout), Ok(runtime)) = (lost, tokio::runtime::Handle::try_current()) {
            let (engine, track) = (Arc::clone(&self.engine), Arc::clone(&self.track));
            self.engine.tasks.spawn_on(write_crash(engine, track, payout), &runtime);
        } else {
            self.engine.strike(&self.track);
        }
    }
}

/// Records that the send of `payout` broke off, however long that takes, and lands its flight.
async fn write_crash(engine: Arc<Engine>, track: Arc<Track>, payout: Payout) {
    let crash = Outcome::InDoubt(Doubt::Crash);
    let settled = loop {
        match engine.ledger.settle(payout.clone(), crash.clone(), Duration::ZERO).await {
            Ok(settled) => break settled,
            Err(_) => tokio::time::sleep(WRITE_AGAIN).await,
        }
    };
    engine.tell(&payout, &settled, "");
    track.set(Stage::Landed(Ok(Arc::new(settled))));
    engine.strike(&track);
}

impl Engine {
    /// Takes a flight off the list, where another one may have its place by now.
    fn strike(&self, track: &Arc<Track>) {
        let mut flights = self.flights();
        let key = &track.order.key;
        if flights.get(key).is_some_and(|listed| Arc::ptr_eq(listed, track)) {
            flights.remove(key);
        }
    }
}

impl Track {
    /// Whether it was started by this caller, for just this.
    pub(super) fn is_for(&self, order: &Order, terms: &Arc<Terms>) -> bool {
        Arc::ptr_eq(&self.terms, terms) && self.order.differences(order).is_empty()
    }

    fn set(&self, stage: Stage) {
        let landed = matches!(stage, Stage::Landed(_));
        *self.stage() = stage;
        if landed {
            self.landed.notify_waiters();
        }
    }

    /// The recorded payout, while its send is under way.
    pub(super) fn aloft(&self) -> Option<Payout> {
        match &*self.stage() {
            Stage::Aloft(payout) => Some(Payout::clone(payout)),
            Stage::Recording | Stage::Elsewhere(_) | Stage::Landed(_) => None,
        }
    }

    /// Returns once the flight has landed.
    async fn landed(&self) {
        let landed = self.landed.notified();
        tokio::pin!(landed);
        // Before the look at the stage, so that a landing between the two is not missed.
        landed.as_mut().enable();
        if !matches!(&*self.stage(), Stage::Landed(_)) {
            landed.await;
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // A stage is replaced whole; a panic elsewhere leaves a whole one.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a flight to land, until `until` at the latest, and returns the payout as it stands.
pub(super) async fn wait(
    track: &Track,
    order: &Arc<Order>,
    terms: &Terms,
    until: Instant,
) -> Result<Payout, Refused> {
    // After a time-out, what was last known is the answer.
    let _ = timeout_at(until, track.landed()).await;
    let last = track.stage().clone();
    match last {
        Stage::Landed(landed) => landed.map(Arc::unwrap_or_clone),
        Stage::Aloft(payout) | Stage::Elsewhere(payout) => Ok(Arc::unwrap_or_clone(payout)),
        // The record is being written and cannot be called back: it counts as sent.
        Stage::Recording => {
            let unseen = Payout::first(Arc::clone(order), &terms.caller, SystemTime::now());
            Ok(Payout { revision: 0, ..unseen })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Resend;
    use crate::sample::{self, LONG};

    #[tokio::test(flavor = "multi_thread")]
    async fn the_id_of_a_send_that_broke_off_is_busy_until_that_is_written_down() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let (engine, ledger) = sample::engine(&path);
        let (order, terms) = (Arc::new(sample::order()), Terms::open());
        let project = engine.project(1).expect("known");
        let permit = Arc::clone(&project.sends).try_acquire_owned().expect("a turn");
        let flight = Flight::new(&engine, project, &order, &terms, permit);
        engine.flights().insert(order.key.clone(), Arc::clone(flight.track()));
        let begun = ledger.begin(Arc::clone(&order), Arc::clone(&terms), Resend::Never).await;
        let Ok(Begun::Send(sent)) = begun else { panic!("not recorded: {begun:?}") };
        flight.track().set(Stage::Aloft(Arc::new(sent.clone())));

        let shell = rusqlite::Connection::open(&path).expect("opened");
        shell.execute_batch("BEGIN IMMEDIATE").expect("held");
        // As a panic drops it, after the send.
        drop(flight);
        let repeat = async |until| engine.create(sample::order(), &terms, "", until).await;
        // Another flight would have had to record it first.
        assert_eq!(repeat(Instant::now()).await, Ok(sent));
        shell.execute_batch("ROLLBACK").expect("let go");
        let known = repeat(Instant::now() + LONG).await.expect("known");
        assert_eq!((known.state, known.reason.as_str()), (State::InDoubt, "CRASH"));
        engine.drain(LONG).await;
        assert!(engine.flights().is_empty());
    }
}
