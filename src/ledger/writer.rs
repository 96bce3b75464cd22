//! The thread that writes: whatever is queued, one transaction, one sync, then the answers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc as tokio_mpsc, oneshot, watch};

use super::faults::Faults;
use super::sqlite::file::Files;
use super::watchers::Watchers;
use super::witness::{Mark, Witness};
use super::{OpenError, Unavailable, sqlite};
use crate::causes::chain;
use crate::metrics::Metrics;
use crate::payout::Payout;
use crate::state::State;

/// The most operations that share one commit.
const BATCH_MAX: usize = 512;
/// For each send under way, the writer waits this long for company before it commits, ...
const GATHER_EACH: Duration = Duration::from_micros(80);
/// ... but never longer than this.
const GATHER_MAX: Duration = Duration::from_millis(4);
/// How often a ledger that failed is tried again.
const REOPEN_EVERY: Duration = Duration::from_millis(500);
/// How often the ledger's files are looked at while nothing is written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What an operation has at hand within its batch.
pub(super) struct Batch<'a> {
    /// The transaction.
    pub(super) db: &'a Connection,
    /// One moment for all of it.
    pub(super) now: SystemTime,
    /// Payouts that have changed, for those who watch them.
    changed: Vec<(i64, i64)>,
    /// Payouts that have come into another state, and which.
    entered: Vec<(i64, State)>,
    /// Sends begun and not settled yet.
    aloft: u32,
}

/// An operation: does its work in the transaction, and leaves its answer for after the commit.
pub(super) type Write = Box<dyn FnOnce(&mut Batch<'_>) -> Result<Answer, sqlite::Error> + Send>;

/// An operation's answer, kept back until the commit.
type Answer = Box<dyn FnOnce(Result<(), Unavailable>) + Send>;

/// What a batch leaves: its answers, what it changed, and what became of the commit.
pub(super) struct Told {
    answers: Vec<Answer>,
    changed: Vec<(i64, i64)>,
    committed: Result<(), Unavailable>,
}

impl Batch<'_> {
    /// Notes that `payout` stands as it does, changed or not.
    pub(super) fn changed(&mut self, payout: &Payout) {
        // What came into its state in this batch has its moment; a second look is no second coming.
        let came = (payout.row, payout.state);
        if payout.state_time == self.now && !self.entered.contains(&came) {
            self.entered.push(came);
        }
        self.changed.push((payout.row, payout.revision));
    }

    /// Does `operation`; where it fails, nothing of it is left.
    fn alone(&mut self, operation: Write) -> Result<Answer, sqlite::Error> {
        let before = (self.changed.len(), self.entered.len(), self.aloft);
        self.db.prepare_cached("SAVEPOINT operation")?.execute([])?;
        let done = operation(self);
        if done.is_err() {
            self.changed.truncate(before.0);
            self.entered.truncate(before.1);
            self.aloft = before.2;
            self.db.prepare_cached("ROLLBACK TO operation")?.execute([])?;
        }
        self.db.prepare_cached("RELEASE operation")?.execute([])?;
        done
    }

    /// Notes that a send begins.
    pub(super) fn takes_off(&mut self) {
        self.aloft += 1;
    }

    /// Notes that a send has ended.
    pub(super) fn lands(&mut self) {
        self.aloft = self.aloft.saturating_sub(1);
    }
}

/// The operation that does `work` and answers through `reply`.
pub(super) fn operation<T: Send + 'static>(
    work: impl FnOnce(&mut Batch<'_>) -> Result<T, sqlite::Error> + Send + 'static,
    reply: oneshot::Sender<Result<T, Unavailable>>,
) -> Write {
    Box::new(move |batch| {
        let value = work(batch)?;
        // Whoever asked may have gone; the work is done all the same.
        let answer = move |committed: Result<(), _>| drop(reply.send(committed.map(|()| value)));
        Ok(Box::new(answer) as Answer)
    })
}

/// Answers whole batches from within the runtime: waking it from the writer's thread costs a system
/// call each time, so it is done once for a batch and not once for each of those who wait.
pub(super) async fn tell(
    mut batches: tokio_mpsc::UnboundedReceiver<Told>,
    watchers: Arc<Watchers>,
) {
    while let Some(Told { answers, changed, committed }) = batches.recv().await {
        if committed.is_ok() {
            watchers.publish(&changed);
        }
        answers.into_iter().for_each(|answer| answer(committed));
    }
}

/// Where the writer tells what it did.
pub(super) struct Signals {
    /// What each batch leaves.
    pub(super) committed: tokio_mpsc::UnboundedSender<Told>,
    /// Whether the last attempt to write succeeded.
    pub(super) up: watch::Sender<bool>,
    /// Where it is counted.
    pub(super) metrics: Arc<Metrics>,
    /// Where it is said what could not be done.
    pub(super) faults: Arc<Faults>,
    /// Remembers what it told.
    pub(super) witness: Witness,
}

pub(super) struct Writer {
    files: Files,
    /// Whether what is in the file was found to be another ledger, or older than what was acknowledged.
    contradicted: Arc<AtomicBool>,
    /// None after a failure, until the file could be opened again.
    db: Option<Connection>,
    /// When opening was last tried.
    opened: Instant,
    queue: mpsc::Receiver<Write>,
    signals: Signals,
    /// Transactions committed, and operations in them: how well the syncs are shared.
    commits: u64,
    operations: u64,
    /// Sends begun and not settled yet: how much more is about to come.
    aloft: u32,
}

impl Writer {
    pub(super) fn new(
        (files, contradicted): (Files, Arc<AtomicBool>),
        db: Connection,
        queue: mpsc::Receiver<Write>,
        signals: Signals,
    ) -> Self {
        Self {
            files,
            contradicted,
            db: Some(db),
            opened: Instant::now(),
            queue,
            signals,
            commits: 0,
            operations: 0,
            aloft: 0,
        }
    }

    pub(super) fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            if self.db.is_none() && self.opened.elapsed() >= REOPEN_EVERY {
                self.reopen();
            }
            let wait = if self.db.is_some() { LOOK_EVERY } else { REOPEN_EVERY };
            match self.queue.recv_timeout(wait) {
                Ok(first) => batch.push(first),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if self.look() {
                        self.compare();
                    }
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            self.gather();
            batch.extend(self.queue.try_iter().take(BATCH_MAX - 1));
            self.commit(&mut batch);
        }
        let (commits, operations) = (self.commits, self.operations);
        tracing::info!(ledger.commits = commits, ledger.operations = operations, "ledger closed");
    }

    /// Lets more operations arrive while many sends are under way: a shared sync costs each of
    /// them less than the wait. A lone payout never waits.
    fn gather(&self) {
        if self.aloft > 1 {
            thread::sleep((GATHER_EACH * self.aloft).min(GATHER_MAX));
        }
    }

    /// Whether the ledger's files are where they were opened, and the database's one is no older copy of itself. Where
    /// they have just come back, the ledger is opened anew: somebody may have written to it elsewhere.
    fn look(&mut self) -> bool {
        let before = self.files.in_place().load(Ordering::Acquire);
        let in_place = self.files.look();
        if before != in_place {
            self.signals.up.send_replace(false);
            if in_place {
                self.db = None;
            } else {
                self.signals.witness.restore();
            }
        }
        if in_place && self.db.is_some() && self.files.rewritten() {
            let checked = sqlite::check_stored(self.files.path(), &self.signals.witness);
            return checked.map_err(|error| self.contradict(&error)).is_ok();
        }
        in_place
    }

    /// Has the ledger opened anew where its rows are not those that were acknowledged last.
    fn compare(&mut self) {
        let witness = &self.signals.witness;
        let Some(found) = self.db.as_ref().and_then(|db| sqlite::standing(db).ok()) else { return };
        if let Err(error) = sqlite::check(&found, witness) {
            self.contradict(&error);
        }
    }

    /// Neither writes nor reads what is another ledger by now, or an older one.
    fn contradict(&mut self, error: &OpenError) {
        let error = chain(error);
        tracing::error!(error, "ledger was replaced in its file: nothing is written or read");
        self.contradicted.store(true, Ordering::Release);
        self.signals.up.send_replace(false);
        // Brought into an older file, the log would make that look like the present one.
        if let Some(db) = self.db.take() {
            let _ = sqlite::keep_log(&db);
        }
    }

    /// Opens the file again after a failure; opening proves that it can be written.
    fn reopen(&mut self) {
        self.opened = Instant::now();
        if !self.look() {
            return;
        }
        let opened = open_again(self.files.path(), &self.signals.witness);
        // What was opened must be what is locked, and what the readers have.
        if !self.look() {
            return;
        }
        match opened {
            Ok(db) => {
                self.contradicted.store(false, Ordering::Release);
                self.signals.faults.over();
                self.db = Some(db);
                self.signals.up.send_replace(true);
            }
            Err(error) => {
                if matches!(error, OpenError::RolledBack { .. } | OpenError::OtherLedger { .. }) {
                    self.contradicted.store(true, Ordering::Release);
                }
                self.signals.faults.failed(&error);
            }
        }
    }

    /// Does everything in `batch` in one transaction; answers only after the commit.
    fn commit(&mut self, batch: &mut Vec<Write>) {
        let mut answers = Vec::with_capacity(batch.len());
        let (aloft, start) = (self.aloft, Instant::now());
        let in_place = self.files.in_place().load(Ordering::Acquire);
        let committed = match &mut self.db {
            Some(db) if in_place => {
                write(db, batch, &mut answers, aloft, &self.signals).map_err(|error| {
                    if matches!(error, sqlite::Error::StatementChangedRows(_)) {
                        self.contradicted.store(true, Ordering::Release);
                    }
                    self.signals.faults.failed(&error);
                    self.db = None;
                    self.signals.up.send_replace(false);
                    Unavailable
                })
            }
            Some(_) | None => Err(Unavailable),
        };
        // A commit to a file that is not at its path is gone with this process, so nobody may rely upon it.
        let committed = if self.look() { committed } else { Err(Unavailable) };
        // What was not reached is told the same by dropping its reply.
        batch.clear();
        let (changed, committed) = match committed {
            Ok(Done { aloft, changed, entered, mark }) => {
                // Before anybody is told.
                self.signals.witness.saw(mark);
                self.aloft = aloft;
                self.commits += 1;
                self.operations += answers.len() as u64;
                let metrics = &self.signals.metrics;
                metrics.disk.commit.took(start.elapsed());
                metrics.disk.batch.observe(answers.len() as u64);
                for (_, state) in entered {
                    metrics.money.transitions.at(state).inc();
                }
                (changed, Ok(()))
            }
            Err(unavailable) => (Vec::new(), Err(unavailable)),
        };
        // Without a runtime there is nobody left to be told.
        let _ = self.signals.committed.send(Told { answers, changed, committed });
    }
}

/// What a transaction did.
struct Done {
    /// Sends that are aloft after it.
    aloft: u32,
    changed: Vec<(i64, i64)>,
    entered: Vec<(i64, State)>,
    /// How far the ledger has come with it.
    mark: Mark,
}

/// Opens the file anew; what is in it may be another ledger by now.
fn open_again(path: &Path, witness: &Witness) -> Result<Connection, OpenError> {
    sqlite::check_stored(path, witness)?;
    let db = sqlite::open_writer(path)?;
    let checked = sqlite::standing(&db).map_err(OpenError::from);
    let checked = checked.and_then(|standing| sqlite::check(&standing, witness));
    match checked.and_then(|()| sqlite::empty_log(&db)) {
        Ok(()) => Ok(db),
        Err(error) => {
            let _ = sqlite::keep_log(&db);
            Err(error)
        }
    }
}

/// Does `batch` in one transaction.
fn write(
    db: &mut Connection,
    batch: &mut Vec<Write>,
    answers: &mut Vec<Answer>,
    aloft: u32,
    signals: &Signals,
) -> Result<Done, sqlite::Error> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = {
        let now = sqlite::now();
        let mut hand = Batch { db: &tx, now, changed: vec![], entered: vec![], aloft };
        for operation in batch.drain(..) {
            // Whoever fails here is told so at once, by the loss of the reply.
            match hand.alone(operation) {
                Err(error) if sqlite::is_own(&error) => match sqlite::damage(&error) {
                    Some(damage) => signals.faults.damaged(damage),
                    None => signals.faults.refused(&error),
                },
                done => answers.push(done?),
            }
        }
        let mark = sqlite::count(&tx, &signals.witness, now)?;
        Done { aloft: hand.aloft, changed: hand.changed, entered: hand.entered, mark }
    };
    tx.commit()?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_an_old_copy_by_now_is_not_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let _lock = sqlite::file::Lock::claim(&path).expect("free");
        let db = sqlite::open_writer(&path).expect("opened");
        let witness = Witness::open(None, &sqlite::standing(&db).expect("read").ledger);
        let witness = witness.expect("no file is needed");
        let mark = sqlite::count(&db, &witness, sqlite::now()).expect("counted");
        witness.saw(mark);
        open_again(&path, &witness).expect("as it was");
        db.execute("UPDATE ledger SET commits = 0", []).expect("an old copy");
        let error = open_again(&path, &witness).expect_err("older");
        assert!(
            matches!(error, OpenError::RolledBack { acknowledged, .. } if acknowledged == mark)
        );
        db.execute("UPDATE ledger SET commits = 9, identity = 'x'", []).expect("another one");
        let error = open_again(&path, &witness).expect_err("another");
        assert!(matches!(error, OpenError::OtherLedger { .. }));
    }
}
