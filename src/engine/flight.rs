//! One send of one payout, from its record to its outcome.
//!
//! Record, then act, then record. The flight owns the order of these three; nothing in it depends
//! on whether anybody still waits for the answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::{Engine, Project, Refused};
use crate::ledger::{Begun, Id, Unavailable};
use crate::metrics::label::{Answer, Errand};
use crate::order::{Key, Order};
use crate::outcome::{Doubt, Outcome, Unsent};
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
    /// Recorded as the send began; what that came to is known, and could not be written down yet.
    Unwritten(Arc<Payout>, Outcome),
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
                let outcome = match self.stopped() {
                    Some(unsent) => Outcome::NotSent(unsent),
                    None => self.send(fence).await,
                };
                let settled = self.settle(&payout, &outcome).await;
                self.engine.tell(&payout, &settled, &request_id);
                self.land(Ok(settled));
            }
            Err(unrecorded) => {
                // A failed commit may have reached the disk. Callers are told at once; the id is
                // kept busy until the record, if there is one, says that nothing was sent.
                self.land(Err(unrecorded.clone().into()));
                let key = &self.track.order.key;
                while self.engine.ledger.unsend(key.clone(), &unrecorded).await.is_err() {
                    // At once when it shows, or never will: others may end it once its lease is over.
                    let waits = !unrecorded.over.is_cancelled();
                    tokio::select! {
                        () = tokio::time::sleep(WRITE_AGAIN) => {}
                        () = unrecorded.over.cancelled(), if waits => {}
                    }
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

    /// What has stopped sends since this one was let in: recording it can take a while.
    fn stopped(&self) -> Option<Unsent> {
        if self.project.is_paused() {
            Some(Unsent::Paused)
        } else {
            self.project.breaker.is_open().then_some(Unsent::BreakerOpen)
        }
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
    async fn settle(&self, payout: &Arc<Payout>, outcome: &Outcome) -> Payout {
        loop {
            let ledger = &self.engine.ledger;
            let poll_first = self.project.poll_first();
            let settle = ledger.settle(Payout::clone(payout), outcome.clone(), poll_first);
            if let Ok(settled) = settle.instrument(span::ledger("settle")).await {
                return settled;
            }
            if !matches!(*self.track.stage(), Stage::Unwritten(..)) {
                tracing::error!(
                    pid = self.track.order.key.pid,
                    third_party_id = self.track.order.key.third_party_id,
                    ?outcome,
                    "the outcome of a send is not written down yet; trying again"
                );
            }
            self.track.set(Stage::Unwritten(Arc::clone(payout), outcome.clone()));
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }

    fn land(&self, landed: Result<Payout, Refused>) {
        self.track.set(Stage::Landed(landed.map(Arc::new)));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Only a panic drops a flight that is still in the air. Nobody may know then what it sent, and until
        // that is written down another flight of the id could take it for a send of its own.
        let lost = self.track.aloft();
        if let (Some(lost), Ok(runtime)) = (lost, tokio::runtime::Handle::try_current()) {
            let (engine, track) = (Arc::clone(&self.engine), Arc::clone(&self.track));
            self.engine.tasks.spawn_on(write_crash(engine, track, lost), &runtime);
        } else {
            self.engine.strike(&self.track);
        }
    }
}

/// Records that the send of `payout` broke off, or what it had come to before, however long that takes, and lands
/// its flight.
async fn write_crash(
    engine: Arc<Engine>,
    track: Arc<Track>,
    (payout, outcome): (Payout, Option<Outcome>),
) {
    let outcome = outcome.unwrap_or(Outcome::InDoubt(Doubt::Crash));
    let settled = loop {
        match engine.ledger.settle(payout.clone(), outcome.clone(), Duration::ZERO).await {
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

    /// The recorded payout, while the end of its send is not written down, and that end, once it is known.
    pub(super) fn aloft(&self) -> Option<(Payout, Option<Outcome>)> {
        match &*self.stage() {
            Stage::Aloft(payout) => Some((Payout::clone(payout), None)),
            Stage::Unwritten(payout, outcome) => {
                Some((Payout::clone(payout), Some(outcome.clone())))
            }
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
///
/// # Errors
/// What the flight came to; or nothing is known to be recorded by then.
pub(super) async fn wait(track: &Track, until: Instant) -> Result<Payout, Refused> {
    // After a time-out, what was last known is the answer.
    let _ = timeout_at(until, track.landed()).await;
    let last = track.stage().clone();
    match last {
        Stage::Landed(landed) => landed.map(Arc::unwrap_or_clone),
        Stage::Aloft(payout) | Stage::Elsewhere(payout) => Ok(Arc::unwrap_or_clone(payout)),
        Stage::Unwritten(payout, _) => {
            let reason = Doubt::LedgerWriteFailed.as_str().to_owned();
            Ok(Payout { state: State::InDoubt, reason, ..Arc::unwrap_or_clone(payout) })
        }
        Stage::Recording => Err(Refused::NotRecordedYet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::LAST_WORDS;
    use crate::ledger::{Ledger, Resend};
    use crate::outcome::Refusal;
    use crate::sample::{self, LONG};

    /// A flight of the sample's order that is on the engine's list and has not begun.
    fn listed(engine: &Arc<Engine>) -> Flight {
        let (order, terms) = (Arc::new(sample::order()), Terms::open());
        let project = engine.project(1).expect("known");
        let permit = Arc::clone(&project.sends).try_acquire_owned().expect("a turn");
        let flight = Flight::new(engine, project, &order, &terms, permit);
        engine.flights().insert(order.key.clone(), Arc::clone(flight.track()));
        flight
    }

    /// The order of `flight`, recorded as sent.
    async fn recorded(ledger: &Ledger, flight: &Flight) -> Arc<Payout> {
        let (order, terms) = (Arc::clone(&flight.track.order), Arc::clone(&flight.track.terms));
        let begun = ledger.begin(order, terms, Resend::Never).await;
        let Ok(Begun::Send(sent)) = begun else { panic!("not recorded: {begun:?}") };
        Arc::new(sent)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_id_of_a_send_that_broke_off_is_busy_until_that_is_written_down() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let (engine, ledger) = sample::engine(&path);
        let (flight, terms) = (listed(&engine), Terms::open());
        let sent = recorded(&ledger, &flight).await;
        flight.track().set(Stage::Aloft(Arc::clone(&sent)));

        let shell = rusqlite::Connection::open(&path).expect("opened");
        shell.execute_batch("BEGIN IMMEDIATE").expect("held");
        // As a panic drops it, after the send.
        drop(flight);
        let repeat = async |until| engine.create((sample::order(), None), &terms, "", until).await;
        // Another flight would have had to record it first.
        assert_eq!(repeat(Instant::now()).await, Ok(Arc::unwrap_or_clone(sent)));
        shell.execute_batch("ROLLBACK").expect("let go");
        let known = repeat(Instant::now() + LONG).await.expect("known");
        assert_eq!((known.state, known.reason.as_str()), (State::InDoubt, "CRASH"));
        engine.drain(LONG).await;
        assert!(engine.flights().is_empty());
    }
    /// What becomes of a send that `stop` overtakes while it is being recorded: its reason.
    async fn overtaken(stop: impl FnOnce(&Project)) -> (State, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let (engine, ledger) = sample::engine(&folder.path().join("ledger"));
        let project = Arc::clone(engine.project(1).expect("known"));
        let flight = listed(&engine);
        stop(&project);
        // The look before the record has been passed.
        flight.fly(String::new()).await;
        let key = sample::order().key;
        let found = ledger.find(key.pid, Id::ThirdParty(key.third_party_id)).await;
        let payout = found.expect("read").expect("recorded");
        (payout.state, payout.reason)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_sent_that_a_pause_or_an_open_breaker_has_overtaken_during_its_record() {
        let paused = overtaken(|project| project.pause(true)).await;
        assert_eq!(paused, (State::NotSent, "PAUSED".to_owned()));
        let refusal = Refusal { code: "E0001".to_owned(), msg: String::new() };
        let refused = Outcome::NotSent(Unsent::GatewayRefused(refusal));
        let open = |project: &Project| {
            assert!(project.breaker.record(&refused, std::time::Instant::now()));
        };
        assert_eq!(overtaken(open).await, (State::NotSent, "BREAKER_OPEN".to_owned()));
        // Nobody listens at the project's address.
        assert_eq!(overtaken(|_| {}).await, (State::NotSent, "CONNECT_FAILED".to_owned()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_drain_writes_the_outcome_that_is_known_and_counts_only_what_it_wrote_as_shutdown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let (engine, ledger) = sample::engine(&path);
        let flight = listed(&engine);
        let sent = recorded(&ledger, &flight).await;
        // The flight's task, at its end.
        engine.tasks.spawn(std::future::pending::<()>());
        flight.track().set(Stage::Unwritten(Arc::clone(&sent), Outcome::Accepted(9)));
        let shell = rusqlite::Connection::open(&path).expect("opened");
        shell.execute_batch("BEGIN IMMEDIATE").expect("held");
        assert_eq!(engine.drain(LAST_WORDS).await, 0, "nothing could be written");
        shell.execute_batch("ROLLBACK").expect("let go");
        assert_eq!(engine.drain(LAST_WORDS).await, 0, "its outcome is known");
        let key = sample::order().key;
        let found = ledger.find(key.pid, Id::ThirdParty(key.third_party_id)).await;
        let payout = found.expect("read").expect("recorded");
        assert_eq!((payout.state, payout.cid), (State::Accepted, Some(9)));
    }
}
