//! The use cases: create a payout, look one up, recover after a crash, stop.
//!
//! A payout is recorded, sent once and settled by a *flight*: a task that belongs to the engine and
//! not to any caller. Calls for the same id join the flight that is under way; whatever they find,
//! it is the ledger's row that answers them. Callers only wait, and may go away at any time.

mod coins;
pub mod evidence;
mod flight;
mod follow;
mod gauges;
mod intake;
mod news;
mod project;
mod refused;
mod watcher;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::disk::Disk;
use crate::ledger::{Filter, Id, Ledger, Unavailable};
use crate::metrics::Metrics;
use crate::metrics::label::Shed;
use crate::order::{Key, Order, Violation};
use crate::outcome::{Doubt, Outcome, Refusal};
use crate::payout::Payout;
use crate::policy::Terms;
use crate::state::State;
use crate::telemetry::span;
use flight::{Flight, Track};
use intake::Turn;
pub use project::Project;
use project::probe_while_open;
pub use refused::Refused;

/// Part of the drain that is kept for writing down what did not finish.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A call that joins another caller's flight tries again, once, where that caller's limits end it.
const TRIES: usize = 2;

/// How often a shared ledger is looked at for what other processes have left or ordered.
const SHARE_EVERY: Duration = Duration::from_secs(1);

/// Everything that happens to payouts.
#[derive(Debug)]
pub struct Engine {
    ledger: Ledger,
    disk: Disk,
    projects: HashMap<i64, Arc<Project>>,
    /// What is under way, by key. Locked for moments, never across an await.
    flights: Mutex<HashMap<Key, Arc<Track>>>,
    /// The flights' tasks.
    tasks: TaskTracker,
    draining: watch::Sender<bool>,
    /// One permit per watcher that may be there, and how many those are.
    watchers: Arc<Semaphore>,
    max_watches: usize,
    /// What is followed, as last counted.
    stock: gauges::Counted,
    /// Whoever sets an intake holds this.
    intake_turn: tokio::sync::Mutex<()>,
    /// A younger doubt cannot be voided.
    void_min_age: Duration,
}

// === impl Engine ===

impl Engine {
    /// An engine over an opened ledger and its disk. Nothing is sent before [`Engine::recover`].
    pub fn new(
        (ledger, disk): (Ledger, Disk),
        projects: HashMap<i64, Project>,
        void_min_age: Duration,
        max_watches: usize,
    ) -> Arc<Self> {
        let shared = projects.into_iter().map(|(pid, project)| (pid, Arc::new(project)));
        Arc::new(Self {
            ledger,
            disk,
            projects: shared.collect(),
            flights: Mutex::default(),
            tasks: TaskTracker::new(),
            draining: watch::Sender::new(false),
            watchers: Arc::new(Semaphore::new(max_watches)),
            max_watches,
            stock: gauges::Counted::default(),
            intake_turn: tokio::sync::Mutex::default(),
            void_min_age,
        })
    }

    /// Turns what a dead process left as SENDING into doubts, and finds the projects that are paused.
    /// Sends nothing.
    ///
    /// # Errors
    /// Where the ledger fails; then nothing may be served.
    pub async fn recover(&self) -> Result<(), Unavailable> {
        for (pid, project) in &self.projects {
            project.pause(self.ledger.is_paused(*pid).await?);
        }
        self.end_lost_sends().await?;
        let served = self.projects.keys().copied().collect();
        for warning in self.ledger.warnings(&served).await? {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    async fn end_lost_sends(&self) -> Result<(), Unavailable> {
        for payout in self.ledger.recover().await? {
            news::log_change(&payout, State::Sending, "");
        }
        Ok(())
    }

    /// Resolves a request's `pid`; 0 means the only project. None: 0 is ambiguous.
    ///
    /// # Errors
    /// [`Refused::Forbidden`] where the caller may not use the project, whether there is one or not.
    pub fn resolve(&self, terms: &Terms, pid: i64) -> Result<Option<i64>, Refused> {
        let pid = match (pid, self.projects.len()) {
            (0, 1) => self.projects.keys().next().copied(),
            (0, _) => None,
            (pid, _) => Some(pid),
        };
        let allowed = pid.is_none_or(|pid| terms.cover(pid));
        allowed.then_some(pid).ok_or(Refused::Forbidden)
    }

    /// The project `pid`.
    ///
    /// # Errors
    /// [`Refused::UnknownProject`].
    pub fn project(&self, pid: i64) -> Result<&Arc<Project>, Refused> {
        self.projects.get(&pid).ok_or(Refused::UnknownProject)
    }

    /// Has `order` paid at most once, within the caller's `terms`, and returns the payout as it stands
    /// at `until` at the latest.
    ///
    /// `late` is the rule that the order breaks, if it is one of those that change: such an order is never recorded, but
    /// what is recorded is answered all the same. Dropping the returned future changes nothing about the payout.
    /// `request_id` goes to the log.
    ///
    /// # Errors
    /// See [`Refused`]; every variant but `Reused` and `Rejected` means that nothing was created.
    pub async fn create(
        self: &Arc<Self>,
        (order, late): (Order, Option<Violation>),
        terms: &Arc<Terms>,
        request_id: &str,
        until: Instant,
    ) -> Result<Payout, Refused> {
        let project = Arc::clone(self.project(order.key.pid)?);
        let order = Arc::new(order);
        for _ in 0..TRIES {
            let aloft = self.flights().get(&order.key).map(Arc::clone);
            let track = match aloft {
                Some(track) => track,
                None => {
                    if let Some(late) = late.clone()
                        && let Some(payout) = self.excused(&order, late).await?
                    {
                        return answer(terms, &order, payout);
                    }
                    let permit = match self.turn(&project) {
                        Ok(permit) => permit,
                        // Rare and large: kept out of the memory of every call that waits.
                        Err(no_turn) => {
                            let turn = self.wait_for_turn(&project, &order, until, no_turn);
                            match Box::pin(turn).await? {
                                Turn::Granted(permit) => permit,
                                Turn::Unneeded(payout) => return answer(terms, &order, *payout),
                            }
                        }
                    };
                    self.take_off(&order, terms, request_id, permit)?
                }
            };
            match flight::wait(&track, until).await {
                Err(Refused::Denied(_)) if !track.is_for(&order, terms) => {}
                landed => return answer(terms, &order, landed?),
            }
        }
        Err(Refused::Overloaded)
    }

    /// The payout that `id` names, as the ledger holds it.
    ///
    /// # Errors
    /// Unknown project or payout, or the ledger fails.
    pub async fn get(&self, terms: &Terms, pid: i64, id: Id) -> Result<Payout, Refused> {
        self.project(pid)?;
        let found = self.ledger.find(pid, id).await?;
        found.filter(|payout| terms.show(payout)).ok_or(Refused::UnknownPayout)
    }

    /// One page of the payouts that fit `filter`.
    ///
    /// # Errors
    /// Unknown project, or the ledger fails.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Payout>, Refused> {
        self.project(filter.pid)?;
        Ok(self.ledger.list(filter).await?)
    }

    /// Checks that `order` could be created: by the ledger, and then by Cregis's own list of coins and
    /// its check of addresses. Records nothing and sends no payout, so neither a pause nor a low disk
    /// is in its way. An id that is recorded is answered as [`Engine::create`] would, and `late` as there.
    ///
    /// # Errors
    /// See [`Refused`]; has an answer by `until`.
    pub async fn validate(
        &self,
        order: &Order,
        late: Option<Violation>,
        terms: &Arc<Terms>,
        until: Instant,
    ) -> Result<(), Refused> {
        let project = self.project(order.key.pid)?;
        match self.known(order).await? {
            // A doubt is answered as one, whatever the limits say by now: a denial would invite a
            // second payment.
            Some(payout) if payout.state != State::NotSent => {
                return answer(terms, order, payout).map(drop);
            }
            Some(payout) => different(terms, order, &payout)?,
            None => {}
        }
        // Cregis's list of coins says anew how fine an amount may be.
        if let Some(late) = late.filter(|late| late.field != "amount") {
            return Err(Refused::Invalid(vec![late]));
        }
        let judged = self.ledger.judge(order.clone(), Arc::clone(terms)).await?;
        if let Some(rule) = judged.filter(|_| !terms.report_only) {
            return Err(Refused::Denied(rule));
        }
        let _turn = project.turn_to_check(until).await.map_err(|_| self.shed(Shed::Checks))?;
        project.validate(order, until).await
    }

    /// Starts the flight for `order`, or joins the one that has started meanwhile.
    ///
    /// Nothing is awaited between the decision to pay and the spawn.
    fn take_off(
        self: &Arc<Self>,
        order: &Arc<Order>,
        terms: &Arc<Terms>,
        request_id: &str,
        permit: OwnedSemaphorePermit,
    ) -> Result<Arc<Track>, Refused> {
        let project = self.project(order.key.pid)?;
        let mut flights = self.flights();
        // Under the lock that `drain` takes: after it, no flight starts.
        if *self.draining.borrow() {
            return Err(Refused::Draining);
        }
        if let Some(track) = flights.get(&order.key) {
            return Ok(Arc::clone(track));
        }
        let flight = Flight::new(self, project, order, terms, permit);
        let track = Arc::clone(flight.track());
        let flying = flight.fly(request_id.to_owned()).instrument(span::flight());
        let flying = Box::pin(flying);
        flights.insert(order.key.clone(), Arc::clone(&track));
        drop(flights);
        self.tasks.spawn(flying);
        Ok(track)
    }

    /// What is recorded under the id of an `order` that breaks a rule by now, where that is not to be sent again; None
    /// where it may be: Cregis itself refuses an amount that is too fine.
    ///
    /// # Errors
    /// The violation, or the ledger fails.
    async fn excused(&self, order: &Order, late: Violation) -> Result<Option<Payout>, Refused> {
        match self.known(order).await? {
            Some(_) if late.field == "amount" => Ok(None),
            Some(payout) if payout.state != State::NotSent => Ok(Some(payout)),
            Some(_) | None => Err(Refused::Invalid(vec![late])),
        }
    }

    async fn known(&self, order: &Order) -> Result<Option<Payout>, Refused> {
        let Key { pid, third_party_id } = order.key.clone();
        Ok(self.ledger.find(pid, Id::ThirdParty(third_party_id)).await?)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Arc<Track>>> {
        // Every change to the map is one call; a panic elsewhere leaves it whole.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // === running ===

    /// Does what goes on beside the calls, for as long as it is polled: each project's way back
    /// from an open breaker, its payouts' way to their end, and its list of coins; and the disk.
    pub async fn attend(&self) {
        let duties = self.projects.iter().map(|(pid, project)| async move {
            tokio::join!(
                follow::follow(self, *pid, project),
                probe_while_open(self.metrics(), *pid, project),
                coins::keep_fresh(*pid, project)
            )
        });
        tokio::join!(join_all(duties), self.disk.watch(), self.ledger.attend(), self.share());
    }

    /// Looks after what other processes do to a shared ledger: the sends of those that are gone, and the
    /// pauses that operators have told them.
    async fn share(&self) {
        while self.ledger.is_shared() {
            tokio::time::sleep(SHARE_EVERY).await;
            // What fails is said by the ledger, and tried again.
            let _ = self.end_lost_sends().await;
            let _turn = self.intake_turn.lock().await;
            for (pid, project) in &self.projects {
                if let Ok(paused) = self.ledger.is_paused(*pid).await {
                    project.pause(paused);
                }
            }
        }
    }

    /// The present by the ledger's clock, which is the database's where several processes share it.
    pub fn now(&self) -> SystemTime {
        self.ledger.now()
    }

    /// As [`Ledger::key`].
    pub fn key(&self, purpose: &str) -> [u8; 32] {
        self.ledger.key(purpose)
    }

    /// Where everything is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.ledger.metrics()
    }

    /// Whether the ledger took the last write, as it changes.
    pub fn ledger_writable(&self) -> watch::Receiver<bool> {
        self.ledger.writable()
    }

    /// Whether each project's breaker is open, as it changes.
    pub fn breakers(&self) -> Vec<watch::Receiver<bool>> {
        self.projects.values().map(|project| project.breaker.watch()).collect()
    }

    /// Leaves to the other processes of a shared ledger what is looked after here, once nobody attends.
    ///
    /// # Errors
    /// They take it over a little later.
    pub async fn release(&self) -> Result<(), Unavailable> {
        self.ledger.release().await
    }

    /// Waits until every flight has landed, for `patience` at most; what is still in the air then
    /// is recorded as IN_DOUBT SHUTDOWN. Returns how many were.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.close_intake();
        self.tasks.close();
        if timeout(patience.saturating_sub(LAST_WORDS), self.tasks.wait()).await.is_ok() {
            return 0;
        }
        // Their tasks go on until the process ends; an answer that still comes is kept, too.
        let aloft: Vec<_> = self.flights().values().filter_map(|track| track.aloft()).collect();
        let mut last_words = JoinSet::new();
        for (payout, outcome) in aloft {
            let ledger = self.ledger.clone();
            last_words.spawn(async move {
                let shutdown = Outcome::InDoubt(Doubt::Shutdown);
                let outcome = outcome.unwrap_or(shutdown);
                let settled = ledger.settle(payout, outcome, Duration::ZERO).await;
                settled.is_ok_and(|payout| payout.reason == Doubt::Shutdown.as_str())
            });
        }
        let written = timeout(LAST_WORDS, last_words.join_all()).await.unwrap_or_default();
        written.into_iter().filter(|written| *written).count()
    }
}

/// The one answer for a payout that `order` asks for: fresh or repeated, it is the same.
fn answer(terms: &Terms, order: &Order, payout: Payout) -> Result<Payout, Refused> {
    different(terms, order, &payout)?;
    let refusal = || Refusal { code: payout.reason.clone(), msg: payout.refusal_msg.clone() };
    match payout.state {
        State::Rejected => Err(Refused::Rejected(refusal())),
        State::NotSent if payout.gateway_refused() => Err(Refused::GatewayRefused),
        State::NotSent => Err(Refused::NotSent),
        State::Sending
        | State::InDoubt
        | State::Accepted
        | State::Voided
        | State::Succeeded
        | State::Failed
        | State::Denied => Ok(payout),
    }
}

fn different(terms: &Terms, order: &Order, payout: &Payout) -> Result<(), Refused> {
    if !terms.show(payout) {
        return Err(Refused::Reused(vec!["third_party_id"]));
    }
    match payout.order.differences(order) {
        same if same.is_empty() => Ok(()),
        differs => Err(Refused::Reused(differs)),
    }
}
