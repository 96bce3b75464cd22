//! The ledger of one process: a file, and three threads of which one writes.
//!
//! The writer takes whatever is queued, does it in one transaction, syncs once and only then answers
//! everybody, so a busy gateway shares its syncs. A second thread reads, so that looking things up never
//! waits for a disk, and a third one lists, so that it never waits for a page. A failed commit is trusted
//! in neither direction: the connection is dropped, the file opened anew, and nothing is acknowledged in
//! between. After each commit, and once a second where there is none, the writer looks whether the files that are
//! open are still at their paths: what is written to others is not there after a restart.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::SystemTime;

use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::{mpsc as tokio_mpsc, oneshot, watch};

use super::change::Change;
use super::faults::Faults;
use super::reader::{self, Read};
use super::sqlite::file::{Files, Lock};
use super::terms::Kept;
use super::watchers::Watchers;
use super::writer::{Batch, Signals, Write, Writer, operation, tell};
use super::{Begun, Notice, OpenError, Resend, Unavailable, Unrecorded, sqlite};
use crate::metrics::Metrics;
use crate::order::{Key, Order};
use crate::payout::Payout;
use crate::policy::{Rule, Terms};

/// The threads, and how they are asked.
#[derive(Debug)]
pub(super) struct Embedded {
    queues: Option<Queues>,
    identity: String,
    writable: watch::Receiver<bool>,
    /// The last one writes.
    running: Vec<thread::JoinHandle<()>>,
    faults: Arc<Faults>,
    /// Whether the ledger's files are where they were opened.
    in_place: Arc<AtomicBool>,
    /// Whether what is in them was found to be another ledger, or an older one.
    contradicted: Arc<AtomicBool>,
    /// The last field: freed when the threads have closed their connections.
    _lock: Lock,
}

#[derive(Debug)]
struct Queues {
    writes: mpsc::Sender<Write>,
    reads: mpsc::Sender<Read>,
    lists: mpsc::Sender<Read>,
}

impl Embedded {
    pub(super) fn open(
        path: &Path,
        witness: Option<&Path>,
        watchers: &Arc<Watchers>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let lock = Lock::claim(path)?;
        let path = lock.path();
        sqlite::check_closed(path, witness)?;
        let writer = sqlite::open_writer(path)?;
        let standing = sqlite::standing(&writer)?;
        let witness = sqlite::witness(path, witness, &standing)?;
        match sqlite::empty_log(&writer) {
            // Somebody's shell reads in it: what the file holds by itself is seen with the next checkpoint.
            Ok(()) | Err(OpenError::LogInUse) => {}
            Err(error) => return Err(error),
        }
        let identity = standing.ledger;
        let (db, pages) = (sqlite::open_reader(path)?, sqlite::open_reader(path)?);
        let files = Files::of(&lock)?;
        let in_place = Arc::clone(files.in_place());

        let (writes, queue) = mpsc::channel();
        let (reads, questions) = mpsc::channel();
        let (lists, long_questions) = mpsc::channel();
        let (committed, answers) = tokio_mpsc::unbounded_channel();
        let (up, writable) = watch::channel(true);
        let faults = Faults::new(metrics);
        let told = Arc::clone(&faults);
        let signals =
            Signals { committed, up, metrics: Arc::clone(metrics), faults: told, witness };
        let contradicted = Arc::<AtomicBool>::default();
        let kept = (files, Arc::clone(&contradicted));
        let writer = Writer::new(kept, writer, queue, signals);
        Handle::current().spawn(tell(answers, Arc::clone(watchers)));
        let (found, findings) = tokio_mpsc::unbounded_channel();
        Handle::current().spawn(reader::tell(findings));
        let listed = found.clone();
        let running = vec![
            spawn("ledger-reader", move || reader::run(&db, &questions, &found))?,
            spawn("ledger-lister", move || reader::run(&pages, &long_questions, &listed))?,
            spawn("ledger-writer", move || writer.run())?,
        ];
        let queues = Some(Queues { writes, reads, lists });
        Ok(Self {
            queues,
            identity,
            writable,
            running,
            faults,
            in_place,
            contradicted,
            _lock: lock,
        })
    }

    pub(super) async fn begin(
        &self,
        order: Arc<Order>,
        terms: Arc<Terms>,
        resend: Resend,
    ) -> Result<(Begun, Option<Rule>), Unrecorded> {
        // What the transaction has written is there if its commit comes through, whatever is said of it.
        let written = Arc::new(OnceLock::new());
        let writing = Arc::clone(&written);
        let begun = self.write(move |batch| {
            let begun = sqlite::change::begin(batch.db, &order, &terms, resend, batch.now)?;
            if let Begun::Send(payout) = &begun.0 {
                // Nobody else calls it so: the database is locked from that moment to the commit.
                let _ = writing.set(payout.send_time);
                batch.takes_off();
                batch.changed(payout);
            }
            Ok(begun)
        });
        begun.await.map_err(|_| Unrecorded::at_once(written.get().copied()))
    }

    pub(super) async fn settle(
        &self,
        payout: Payout,
        change: Change,
    ) -> Result<Option<Payout>, Unavailable> {
        self.change(move |batch| {
            batch.lands();
            sqlite::change::apply(batch.db, payout, &change, batch.now)
        })
        .await
    }

    pub(super) async fn apply(
        &self,
        before: Payout,
        change: Change,
    ) -> Result<Option<Payout>, Unavailable> {
        self.change(move |batch| sqlite::change::apply(batch.db, before, &change, batch.now)).await
    }

    pub(super) async fn unsend(
        &self,
        key: Key,
        send_time: SystemTime,
    ) -> Result<Option<Payout>, Unavailable> {
        self.change(move |batch| sqlite::change::unsend(batch.db, &key, send_time, batch.now)).await
    }

    pub(super) async fn recover(&self) -> Result<Vec<Payout>, Unavailable> {
        let faults = Arc::clone(&self.faults);
        self.write(move |batch| {
            let orphans = sqlite::change::recover(batch.db, &faults, batch.now)?;
            orphans.iter().for_each(|payout| batch.changed(payout));
            Ok(orphans)
        })
        .await
    }

    pub(super) async fn approve(&self, key: Key, cid: i64) -> Result<bool, Unavailable> {
        self.write(move |batch| sqlite::change::approve(batch.db, &key, cid)).await
    }

    pub(super) async fn postpone(
        &self,
        payout: Payout,
        due: SystemTime,
    ) -> Result<(), Unavailable> {
        let payout = Box::new(payout);
        self.write(move |batch| sqlite::change::postpone(batch.db, &payout, due)).await
    }

    pub(super) async fn keep(&self, notice: Notice, lead: bool) -> Result<Kept, Unavailable> {
        self.write(move |batch| sqlite::notice::keep(batch.db, &notice, lead, batch.now)).await
    }

    pub(super) async fn close(
        &self,
        notice: i64,
        due: Option<SystemTime>,
    ) -> Result<(), Unavailable> {
        self.write(move |batch| sqlite::notice::postpone(batch.db, notice, due)).await
    }

    pub(super) async fn set_intake(
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

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(super) fn writable(&self) -> watch::Receiver<bool> {
        self.writable.clone()
    }

    /// Answered from a connection that cannot write.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.ask(&self.queues()?.reads, work).await
    }

    /// As [`Embedded::read`], for what takes long.
    pub(super) async fn list<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.ask(&self.queues()?.lists, work).await
    }

    /// Has one of the threads that read do `work`; not from a file that is not at its path any more.
    async fn ask<T: Send + 'static>(
        &self,
        thread: &mpsc::Sender<Read>,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        if !self.in_place.load(Ordering::Acquire) || self.contradicted.load(Ordering::Acquire) {
            return Err(Unavailable);
        }
        let (reply, answer) = oneshot::channel();
        let question = reader::question(work, reply, Arc::clone(&self.faults));
        thread.send(question).map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)?
    }

    /// A write that returns the payout it has changed.
    async fn change(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<Option<Payout>, rusqlite::Error> + Send + 'static,
    ) -> Result<Option<Payout>, Unavailable> {
        self.write(move |batch| {
            let payout = work(batch)?;
            payout.iter().for_each(|payout| batch.changed(payout));
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
        self.queues.as_ref().ok_or(Unavailable)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let (queues, writer) = (self.queues.take(), self.running.pop());
        let writes = queues.map(|Queues { writes, .. }| writes);
        // A thread that panicked has nothing left to finish.
        self.running.drain(..).for_each(|thread| drop(thread.join()));
        // The last connection to be closed brings the log into the file, and two that are closed at once leave
        // that to each other: so the writer's comes after all others.
        drop(writes);
        drop(writer.map(thread::JoinHandle::join));
    }
}

fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name.into()).spawn(body).map_err(OpenError::Io)
}
