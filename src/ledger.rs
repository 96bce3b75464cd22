//! The durable record of every payout, and the only place where one is changed.
//!
//! The operations are the domain's verbs; the SQL behind them is in `ledger/sqlite.rs`. One thread writes:
//! it takes whatever is queued, does it in one transaction, syncs once and only then answers
//! everybody, so a busy gateway shares its syncs. A second thread reads, so that looking things up
//! never waits for a disk. A failed commit is trusted in neither direction: the connection is
//! dropped, the file opened anew, and nothing is acknowledged in between.

mod sqlite;
mod writer;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::SystemTime;

use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::{mpsc as tokio_mpsc, oneshot, watch};

use crate::order::{Key, Order};
use crate::outcome::Outcome;
use crate::payout::{Payout, State};
use writer::{Signals, Write, Writer, tell};

/// Names a payout within a project.
#[derive(Clone, Debug)]
pub enum Id {
    /// The caller's id.
    ThirdParty(String),
    /// Cregis's id.
    Cid(i64),
}

/// When a recorded payout may be sent once more. `NOT_SENT` always may.
#[derive(Clone, Copy, Debug)]
pub enum Resend {
    /// A doubt is never sent again.
    Never,
    /// A doubt may be, once its last send was recorded before this time.
    DoubtsOlderThan(SystemTime),
}

/// What recording an order found.
#[derive(Debug)]
pub enum Begun {
    /// The payout is durable as SENDING, and the caller of `begin` is the one that must send it.
    Send(Payout),
    /// The id is known, and nothing is to be sent. Its order may differ from the one given.
    Known(Payout),
}

/// The ledger could not do it; nothing is known to have been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is unavailable")]
pub struct Unavailable;

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error("another process has this ledger open")]
    Locked,
    /// It was written by a newer payoutd.
    #[error("the ledger has schema version {found}, newer than the {known} known here")]
    Newer {
        /// The version in the file.
        found: i64,
        /// The newest that this build can write.
        known: i64,
    },
    /// The file is a database of something else.
    #[error("the file is not a payoutd ledger")]
    Foreign,
    /// The file system or the build does not give durable commits.
    #[error("commits would not be durable: journal_mode={journal} synchronous={synchronous}")]
    NotDurable {
        /// What SQLite answered for `journal_mode`.
        journal: String,
        /// What SQLite answered for `synchronous`.
        synchronous: i64,
    },
    /// The file or its folder cannot be used.
    #[error("cannot use the ledger file")]
    Io(#[source] std::io::Error),
    /// SQLite refused.
    #[error("SQLite cannot open the ledger")]
    Sqlite(#[from] rusqlite::Error),
}

/// A handle to the ledger's two threads. Clones share them; dropping the last one finishes what is
/// queued, ends the threads and frees the lock before it returns.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Threads>);

#[derive(Debug)]
struct Threads {
    queues: Option<(mpsc::Sender<Write>, mpsc::Sender<Read>)>,
    writable: watch::Receiver<bool>,
    running: Vec<thread::JoinHandle<()>>,
}

impl Resend {
    fn allows(self, payout: &Payout) -> bool {
        match (payout.state, self) {
            (State::NotSent, _) => true,
            (State::InDoubt, Self::DoubtsOlderThan(limit)) => payout.send_time <= limit,
            (State::InDoubt, Self::Never) => false,
            (
                State::Sending
                | State::Accepted
                | State::Rejected
                | State::Voided
                | State::Succeeded
                | State::Failed
                | State::Denied,
                _,
            ) => false,
        }
    }

    /// Tells whether `order`, asked for again, would send `known` once more.
    pub fn would_send(self, known: &Payout, order: &Order) -> bool {
        self.allows(known) && known.order.differences(order).is_empty()
    }
}

// === impl Ledger ===

impl Ledger {
    /// Opens or creates the ledger at `path` and starts its threads. Blocks; needs a runtime.
    ///
    /// # Errors
    /// Where it is held by another process, newer, foreign, not durable or not to be opened.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = sqlite::claim(path)?;
        let writer = sqlite::open_writer(path)?;
        let reader = sqlite::open_reader(path)?;

        let (writes, queue) = mpsc::channel();
        let (reads, questions) = mpsc::channel();
        let (committed, answers) = tokio_mpsc::unbounded_channel();
        let (up, writable) = watch::channel(true);
        let writer = Writer::new(path, writer, lock, queue, Signals { committed, up });
        Handle::current().spawn(tell(answers));
        let running = vec![
            spawn("ledger-writer", move || writer.run())?,
            spawn("ledger-reader", move || answer(&reader, &questions))?,
        ];
        Ok(Self(Arc::new(Threads { queues: Some((writes, reads)), writable, running })))
    }

    /// Makes `order` durable as SENDING, or finds what its id already stands for.
    ///
    /// # Errors
    /// Nothing may be sent. The record may exist all the same: see [`Ledger::unsend`].
    pub async fn begin(&self, order: Arc<Order>, resend: Resend) -> Result<Begun, Unavailable> {
        self.write(|reply| Write::Begin { order, resend, reply }).await
    }

    /// Makes durable what the send of `payout` came to, and returns the payout as it then stands.
    ///
    /// # Errors
    /// The outcome may or may not be recorded; calling again is harmless.
    pub async fn settle(&self, payout: Payout, outcome: Outcome) -> Result<Payout, Unavailable> {
        self.write(|reply| Write::Settle { payout: Box::new(payout), outcome, reply }).await
    }

    /// Takes back the record of a `begin` that failed, if there is one: nothing was sent for it.
    ///
    /// # Errors
    /// Call again; until it succeeds the row may say SENDING.
    pub async fn unsend(&self, key: Key) -> Result<Option<Payout>, Unavailable> {
        self.write(|reply| Write::Unsend { key, reply }).await
    }

    /// Turns every send of a process that is gone into a doubt, and returns those payouts.
    ///
    /// # Errors
    /// Nothing may be served before this has succeeded.
    pub async fn recover(&self) -> Result<Vec<Payout>, Unavailable> {
        self.write(|reply| Write::Recover { reply }).await
    }

    /// Finds one payout.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub async fn find(&self, pid: i64, id: Id) -> Result<Option<Payout>, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let (_, reads) = self.0.queues.as_ref().ok_or(Unavailable)?;
        reads.send(Read { pid, id, reply }).map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)?
    }

    /// Whether the last attempt to write succeeded, as it changes.
    pub fn writable(&self) -> watch::Receiver<bool> {
        self.0.writable.clone()
    }

    async fn write<T>(
        &self,
        operation: impl FnOnce(oneshot::Sender<Result<T, Unavailable>>) -> Write,
    ) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let (writes, _) = self.0.queues.as_ref().ok_or(Unavailable)?;
        writes.send(operation(reply)).map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)?
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

// === reading ===

struct Read {
    pid: i64,
    id: Id,
    reply: oneshot::Sender<Result<Option<Payout>, Unavailable>>,
}

fn answer(db: &Connection, questions: &mpsc::Receiver<Read>) {
    for Read { pid, id, reply } in questions {
        let found = sqlite::find(db, pid, &id).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "ledger read failed");
            Unavailable
        });
        // Whoever asked may have gone.
        let _ = reply.send(found);
    }
}
