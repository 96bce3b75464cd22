//! What the ledger is asked; answered beside the writer, from connections that cannot write.

use std::sync::{Arc, mpsc};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::reader::{self, Read};
use super::{Due, Filter, Id, Lead, Ledger, Unavailable, sqlite};
use crate::order::Order;
use crate::payout::Payout;
use crate::policy::{Rule, Terms};

impl Ledger {
    /// Finds one payout.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub async fn find(&self, pid: i64, id: Id) -> Result<Option<Payout>, Unavailable> {
        self.read(move |db| sqlite::read::find(db, pid, &id)).await
    }

    /// The rule that speaks against sending `order` now, for the first time or after it was not sent.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub async fn judge(
        &self,
        order: Order,
        terms: Arc<Terms>,
    ) -> Result<Option<Rule>, Unavailable> {
        let now = sqlite::now();
        self.read(move |db| sqlite::spend::judge(db, &order, &terms, None, now)).await
    }

    /// One page of the payouts that fit `filter`, in the order in which they were recorded.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Payout>, Unavailable> {
        ask(&self.queues()?.lists, move |db| sqlite::read::list(db, &filter)).await
    }

    /// The next revisions of `latest` after `revision`, in order; not all at once where there are many.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub async fn history(&self, latest: Payout, revision: i64) -> Result<Vec<Payout>, Unavailable> {
        let latest = Box::new(latest);
        self.read(move |db| sqlite::read::history(db, &latest, revision)).await
    }

    /// Payouts that are to be looked at.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub async fn due(&self, due: Due) -> Result<Vec<Payout>, Unavailable> {
        self.read(move |db| sqlite::read::due(db, &due)).await
    }

    /// Notices that Cregis is to be asked about.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub async fn leads(&self, due: Due) -> Result<Vec<Lead>, Unavailable> {
        self.read(move |db| sqlite::notice::leads(db, &due)).await
    }

    /// Whether an operator has paused the project.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub async fn is_paused(&self, pid: i64) -> Result<bool, Unavailable> {
        self.read(move |db| sqlite::notice::is_paused(db, pid)).await
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        ask(&self.queues()?.reads, work).await
    }
}

/// Has one of the threads that read do `work`.
async fn ask<T: Send + 'static>(
    thread: &mpsc::Sender<Read>,
    work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
) -> Result<T, Unavailable> {
    let (reply, answer) = oneshot::channel();
    thread.send(reader::question(work, reply)).map_err(|_| Unavailable)?;
    answer.await.map_err(|_| Unavailable)?
}
