//! The durable record of every payout, and the only place where one is changed.
//!
//! The operations are the domain's verbs; the SQL behind them is in `ledger/sqlite.rs` and below it.
//! One thread writes: it takes whatever is queued, does it in one transaction, syncs once and only
//! then answers everybody, so a busy gateway shares its syncs. A second thread reads, so that looking
//! things up never waits for a disk, and a third one lists, so that it never waits for a page. A failed
//! commit is trusted in neither direction: the connection is dropped, the file opened anew, and nothing
//! is acknowledged in between.

mod questions;
mod reader;
mod sqlite;
mod stock;
mod terms;
mod watchers;
mod writer;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{mpsc as tokio_mpsc, oneshot, watch};

use crate::attention::Attention;
use crate::metrics::Metrics;
use crate::metrics::label::Mode;
use crate::order::{Key, Order};
use crate::outcome::{Doubt, Outcome, Unsent};
use crate::payout::{Payout, Progress};
use crate::policy::Terms;
use reader::Read;
pub use stock::{Open, Stock};
pub use terms::{Begun, Cause, Due, Filter, Id, Lead, Notice, OpenError, Resend, Unavailable};
pub use watchers::Revisions;
use watchers::Watchers;
use writer::{Batch, Signals, Write, Writer, operation, tell};

/// A handle to the ledger's threads. Clones share them; dropping the last one finishes what is
/// queued, ends the threads and frees the lock before it returns.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Threads>);

#[derive(Debug)]
struct Queues {
    writes: mpsc::Sender<Write>,
    reads: mpsc::Sender<Read>,
    lists: mpsc::Sender<Read>,
}

#[derive(Debug)]
struct Threads {
    metrics: Arc<Metrics>,
    queues: Option<Queues>,
    writable: watch::Receiver<bool>,
    watchers: Arc<Watchers>,
    running: Vec<thread::JoinHandle<()>>,
}

// === impl Ledger ===

impl Ledger {
    /// Opens or creates the ledger at `path` and starts its threads. Blocks; needs a runtime.
    ///
    /// # Errors
    /// Where it is held by another process, newer, foreign, not durable or not to be opened.
    pub fn open(path: &Path, metrics: &Arc<Metrics>) -> Result<Self, OpenError> {
        let lock = sqlite::claim(path)?;
        let writer = sqlite::open_writer(path)?;
        let (db, pages) = (sqlite::open_reader(path)?, sqlite::open_reader(path)?);

        let (writes, queue) = mpsc::channel();
        let (reads, questions) = mpsc::channel();
        let (lists, long_questions) = mpsc::channel();
        let (committed, answers) = tokio_mpsc::unbounded_channel();
        let (up, writable) = watch::channel(true);
        let signals = Signals { committed, up, metrics: Arc::clone(metrics) };
        let writer = Writer::new(path, writer, lock, queue, signals);
        let watchers = Arc::<Watchers>::default();
        Handle::current().spawn(tell(answers, Arc::clone(&watchers)));
        let (found, findings) = tokio_mpsc::unbounded_channel();
        Handle::current().spawn(reader::tell(findings));
        let listed = found.clone();
        let running = vec![
            spawn("ledger-writer", move || writer.run())?,
            spawn("ledger-reader", move || reader::run(&db, &questions, &found))?,
            spawn("ledger-lister", move || reader::run(&pages, &long_questions, &listed))?,
        ];
        let queues = Some(Queues { writes, reads, lists });
        let metrics = Arc::clone(metrics);
        Ok(Self(Arc::new(Threads { metrics, queues, writable, watchers, running })))
    }

    // === writing ===

    /// Makes `order` durable as SENDING within the caller's `terms`, or finds what its id already
    /// stands for.
    ///
    /// # Errors
    /// Nothing may be sent. The record may exist all the same: see [`Ledger::unsend`].
    pub async fn begin(
        &self,
        order: Arc<Order>,
        terms: Arc<Terms>,
        resend: Resend,
    ) -> Result<Begun, Unavailable> {
        let (asked, caller) = (Arc::clone(&order), Arc::clone(&terms));
        let begun = self.write(move |batch| {
            let (begun, reported) =
                sqlite::change::begin(batch.db, &order, &terms, resend, batch.now)?;
            if let Begun::Send(payout) = &begun {
                batch.takes_off();
                batch.changed(payout);
            }
            Ok((begun, reported))
        });
        let (begun, reported) = begun.await?;
        let refusals = &self.0.metrics.rpc.policy_refusals;
        if let Begun::Denied(rule) = &begun {
            refusals.at((*rule, Mode::Enforced)).inc();
        }
        if let Some(rule) = reported {
            refusals.at((rule, Mode::Reported)).inc();
            let Key { pid, third_party_id } = &asked.key;
            let (caller, rule) = (&caller.caller, rule.as_str());
            tracing::warn!(caller, pid, third_party_id, rule, "policy would refuse");
        }
        Ok(begun)
    }

    /// Makes durable what the send of `payout` came to, and returns the payout as it then stands;
    /// once accepted, it is due after `poll_first`.
    ///
    /// # Errors
    /// The outcome may or may not be recorded; calling again is harmless.
    pub async fn settle(
        &self,
        payout: Payout,
        outcome: Outcome,
        poll_first: Duration,
    ) -> Result<Payout, Unavailable> {
        let payout = Box::new(payout);
        self.write(move |batch| {
            batch.lands();
            let now = batch.now;
            let settled = sqlite::change::settle(batch.db, &payout, &outcome, poll_first, now)?;
            batch.changed(&settled);
            Ok(settled)
        })
        .await
    }

    /// Takes back the record of a `begin` that failed, if there is one: nothing was sent for it.
    ///
    /// # Errors
    /// Call again; until it succeeds the row may say SENDING.
    pub async fn unsend(&self, key: Key) -> Result<Option<Payout>, Unavailable> {
        self.write(move |batch| {
            let outcome = Outcome::NotSent(Unsent::LedgerUnavailable);
            let unsent = sqlite::change::unsend(batch.db, &key, &outcome, batch.now)?;
            unsent.iter().for_each(|payout| batch.changed(payout));
            Ok(unsent)
        })
        .await
    }

    /// Turns every send of a process that is gone into a doubt, and returns those payouts.
    ///
    /// # Errors
    /// Nothing may be served before this has succeeded.
    pub async fn recover(&self) -> Result<Vec<Payout>, Unavailable> {
        let crash = Outcome::InDoubt(Doubt::Crash);
        self.write(move |batch| {
            let orphans = sqlite::change::recover(batch.db, &crash, batch.now)?;
            orphans.iter().for_each(|payout| batch.changed(payout));
            Ok(orphans)
        })
        .await
    }

    /// Makes durable what a signed query showed about the payout that stood as `asked`; then it is due
    /// after `poll_first`.
    ///
    /// # Errors
    /// It may or may not be recorded; calling again is harmless.
    pub async fn confirm(
        &self,
        asked: Payout,
        progress: Progress,
        poll_first: Duration,
        cause: Cause,
    ) -> Result<Payout, Unavailable> {
        let (asked, how) = (Box::new(asked), (poll_first, cause));
        self.change(move |batch| {
            sqlite::change::confirm(batch.db, &asked, &progress, &how, batch.now)
        })
        .await
    }

    /// Marks the payout as one that a person should look at.
    ///
    /// # Errors
    /// It may or may not be recorded; calling again is harmless.
    pub async fn note(
        &self,
        key: Key,
        attention: Attention,
        cause: Cause,
    ) -> Result<Payout, Unavailable> {
        self.change(move |batch| sqlite::change::note(batch.db, &key, attention, &cause, batch.now))
            .await
    }

    /// Closes a doubt that is at least `age` old as never created; None where that is not allowed.
    ///
    /// # Errors
    /// It may or may not be recorded.
    pub async fn void(
        &self,
        key: Key,
        age: Duration,
        evidence: String,
    ) -> Result<Option<Payout>, Unavailable> {
        let evidence = Cause::Operator(evidence);
        self.write(move |batch| {
            let voided = sqlite::change::void(batch.db, &key, age, &evidence, batch.now)?;
            voided.iter().for_each(|payout| batch.changed(payout));
            Ok(voided)
        })
        .await
    }

    /// Approves `cid` as the only one that may ever be paid for the payout; true where it is.
    ///
    /// # Errors
    /// The approval must not be spoken.
    pub async fn approve(&self, key: Key, cid: i64) -> Result<bool, Unavailable> {
        self.write(move |batch| sqlite::change::approve(batch.db, &key, cid)).await
    }

    /// Puts off the next look at the payout until `due`.
    ///
    /// # Errors
    /// It is looked at again soon.
    pub async fn postpone(&self, payout: Payout, due: SystemTime) -> Result<(), Unavailable> {
        let payout = Box::new(payout);
        self.write(move |batch| sqlite::change::postpone(batch.db, &payout, due)).await
    }

    /// Keeps a notice, once; false where it was kept before. With `lead`, Cregis is to be asked.
    ///
    /// # Errors
    /// The notice must not be acknowledged.
    pub async fn keep(&self, notice: Notice, lead: bool) -> Result<bool, Unavailable> {
        self.write(move |batch| sqlite::notice::keep(batch.db, &notice, lead, batch.now)).await
    }

    /// Asks about a notice again at `due`, or no more.
    ///
    /// # Errors
    /// It is asked about again soon.
    pub async fn close(&self, notice: i64, due: Option<SystemTime>) -> Result<(), Unavailable> {
        self.write(move |batch| sqlite::notice::postpone(batch.db, notice, due)).await
    }

    /// Keeps whether the projects `pids` take new payouts.
    ///
    /// # Errors
    /// It may or may not be recorded.
    pub async fn set_intake(
        &self,
        pids: Vec<i64>,
        paused: bool,
        note: String,
    ) -> Result<(), Unavailable> {
        self.write(move |batch| {
            let keep =
                |pid: &i64| sqlite::notice::set_intake(batch.db, *pid, paused, &note, batch.now);
            pids.iter().try_for_each(keep)
        })
        .await
    }

    /// The revisions of the payout in `row`, as they come from now on.
    pub fn watch(&self, row: i64) -> Revisions {
        self.0.watchers.watch(row)
    }

    /// Where the ledger counts what it does, and others may, too.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Whether the last attempt to write succeeded, as it changes.
    pub fn writable(&self) -> watch::Receiver<bool> {
        self.0.writable.clone()
    }

    /// A write that returns the payout it has changed.
    async fn change(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<Payout, rusqlite::Error> + Send + 'static,
    ) -> Result<Payout, Unavailable> {
        self.write(move |batch| {
            let payout = work(batch)?;
            batch.changed(&payout);
            Ok(payout)
        })
        .await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let writes = &self.queues()?.writes;
        writes.send(operation(work, reply)).map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)?
    }

    fn queues(&self) -> Result<&Queues, Unavailable> {
        self.0.queues.as_ref().ok_or(Unavailable)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queues = None;
        for thread in self.running.drain(..) {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name.into()).spawn(body).map_err(OpenError::Io)
}
