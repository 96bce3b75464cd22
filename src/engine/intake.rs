//! Who may send, and when: turns, pauses, and the end of the intake.
//!
//! Everything is decided before anything is recorded, so whoever is refused here has certainly not
//! been paid.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Engine, Project, Refused};
use crate::metrics::label::Shed;
use crate::order::Order;
use crate::payout::Payout;
use crate::policy::Terms;

/// How long a call may wait for its turn to send.
const QUEUE_WAIT: Duration = Duration::from_secs(1);

/// What waiting for a turn to send came to.
pub(super) enum Turn {
    /// The right to send.
    Granted(OwnedSemaphorePermit),
    /// The ledger knows the id, and nothing is to be sent.
    Unneeded(Box<Payout>),
}

/// Why a send cannot begin at once.
pub(super) enum NoTurn {
    /// Nothing may be sent.
    Closed(Refused),
    /// Everybody else is sending.
    Busy,
}

impl Engine {
    /// The right to send now, if there is one to be had.
    pub(super) fn turn(&self, project: &Project) -> Result<OwnedSemaphorePermit, NoTurn> {
        self.intake(project).map_err(NoTurn::Closed)?;
        Arc::clone(&project.sends).try_acquire_owned().map_err(|_| NoTurn::Busy)
    }

    /// Finds out whether `order` needs a turn at all, and waits for one if it does: what is known is
    /// answered even while nothing may be sent.
    pub(super) async fn wait_for_turn(
        &self,
        project: &Project,
        order: &Order,
        until: Instant,
        no_turn: NoTurn,
    ) -> Result<Turn, Refused> {
        match self.known(order).await? {
            Some(payout) if !project.resend(self.ledger.now()).would_send(&payout, order) => {
                return Ok(Turn::Unneeded(Box::new(payout)));
            }
            Some(_) | None => {}
        }
        match no_turn {
            NoTurn::Closed(closed) => Err(closed),
            NoTurn::Busy => {
                let permit = queue(&project.sends, &project.queue, until).await;
                let permit = permit.map_err(|why| self.shed(why))?;
                self.intake(project).map(|()| Turn::Granted(permit))
            }
        }
    }

    /// Counts a call that is turned away, and says so.
    pub fn shed(&self, why: Shed) -> Refused {
        self.metrics().rpc.shed.at(why).inc();
        Refused::Overloaded
    }

    /// Whether new sends are taken, apart from their number.
    fn intake(&self, project: &Project) -> Result<(), Refused> {
        if *self.draining.borrow() {
            Err(Refused::Draining)
        } else if !*self.ledger.writable().borrow() || self.disk.is_low() {
            Err(Refused::LedgerUnavailable)
        } else if project.is_paused() {
            Err(Refused::Paused)
        } else if project.breaker.is_open() {
            Err(Refused::UpstreamUnavailable)
        } else {
            Ok(())
        }
    }

    /// Pauses or resumes the intake of one project or, with None, of all that the caller may use;
    /// durably.
    ///
    /// # Errors
    /// A project that the caller may not use, or that is unknown; or the ledger fails, and then the
    /// intake may or may not be as asked.
    pub async fn set_intake(
        self: &Arc<Self>,
        terms: &Terms,
        pid: Option<i64>,
        paused: bool,
        note: String,
    ) -> Result<(), Refused> {
        let pids: Vec<i64> = match pid {
            Some(pid) if !terms.cover(pid) => return Err(Refused::Forbidden),
            Some(pid) => self.project(pid).map(|_| vec![pid])?,
            None => self.projects.keys().copied().filter(|pid| terms.cover(*pid)).collect(),
        };
        let engine = Arc::clone(self);
        // Not the caller's: one who goes away must not leave memory and ledger at odds.
        let set = self.tasks.spawn(async move {
            engine.keep_intake(pids, paused, note).await?;
            // Another replica may have begun to record a payout just before. It sends by then, or never.
            if let Some(fence) = engine.ledger.send_within().filter(|_| paused) {
                sleep(fence).await;
            }
            Ok(())
        });
        set.await.map_err(|_| Refused::LedgerUnavailable)?
    }

    async fn keep_intake(&self, pids: Vec<i64>, paused: bool, note: String) -> Result<(), Refused> {
        // One after the other, so that the last one in the ledger is the one that holds.
        let _turn = self.intake_turn.lock().await;
        // A pause holds from the first moment, a resumption only once it is kept.
        let set = |paused| {
            for project in pids.iter().filter_map(|pid| self.projects.get(pid)) {
                project.pause(paused);
            }
        };
        if paused {
            set(true);
        }
        self.ledger.set_intake(pids.clone(), paused, note).await?;
        set(paused);
        tracing::warn!(?pids, paused, "intake set by an operator");
        Ok(())
    }

    /// Takes no new payouts from now on; what is known is still answered.
    pub fn close_intake(&self) {
        let _no_flight_is_starting = self.flights();
        self.draining.send_replace(true);
    }
}

/// Waits for one of `turns`; bounded in time, and by `places` in how many wait.
///
/// # Errors
/// Why there is none.
pub(super) async fn queue(
    turns: &Arc<Semaphore>,
    places: &Semaphore,
    until: Instant,
) -> Result<OwnedSemaphorePermit, Shed> {
    let _place = places.try_acquire().map_err(|_| Shed::Queue)?;
    let patience = until.min(Instant::now() + QUEUE_WAIT);
    match timeout_at(patience, Arc::clone(turns).acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(_)) | Err(_) => Err(Shed::Wait),
    }
}
