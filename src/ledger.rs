//! The durable record of every payout, and the only place where one is changed.
//!
//! The operations are the domain's verbs. Two engines do them, and what a verb does to a payout is the
//! same in both (`ledger/change.rs`): the embedded one keeps a file for one process, the shared one a PostgreSQL
//! database for several. Their SQL is in `ledger/sqlite.rs`, `ledger/postgres.rs` and below these, and
//! nowhere else.

mod change;
pub mod copy;
mod embedded;
mod faults;
pub mod migrate;
mod postgres;
mod questions;
mod reader;
mod rows;
mod sqlite;
mod stock;
mod terms;
mod watchers;
mod witness;
mod writer;

use std::collections::HashSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha3::{Digest, Sha3_256};
use tokio::sync::watch;

use crate::attention::Attention;
use crate::config;
use crate::metrics::Metrics;
use crate::metrics::label::Mode;
use crate::order::{Key, Order};
use crate::outcome::Outcome;
use crate::payout::{Payout, Progress};
use crate::policy::Terms;
use change::Change;
use embedded::Embedded;
use postgres::Postgres;
pub use stock::{Open, Stock};
use terms::Kept;
pub use terms::{
    Begun, Cause, Due, Filter, Id, Lead, Notice, OpenError, Resend, Unavailable, Unrecorded,
};
pub use watchers::Revisions;
use watchers::Watchers;
pub use witness::Mark;

/// A handle to the ledger. Clones share it; dropping the last one finishes what is queued and frees
/// the embedded ledger's lock before it returns.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    watchers: Arc<Watchers>,
    metrics: Arc<Metrics>,
}

/// Who keeps it.
#[derive(Debug)]
enum Store {
    Embedded(Embedded),
    Shared(Box<Postgres>),
}

// === impl Ledger ===

impl Ledger {
    /// Opens the ledger that the settings name. Needs a runtime.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn of(settings: &config::Ledger, metrics: &Arc<Metrics>) -> Result<Self, OpenError> {
        match settings {
            config::Ledger::Embedded { path, witness, .. } => {
                Self::embedded(path, witness.as_deref(), metrics)
            }
            config::Ledger::Shared(settings) => {
                let watchers = Arc::<Watchers>::default();
                let shared = Postgres::open(settings, &watchers, metrics).await?;
                let (store, metrics) = (Store::Shared(Box::new(shared)), Arc::clone(metrics));
                Ok(Self(Arc::new(Inner { store, watchers, metrics })))
            }
        }
    }

    /// Opens or creates the embedded ledger at `path`, with its witness beside it, and starts its
    /// threads. Blocks; needs a runtime.
    ///
    /// # Errors
    /// Where it is held by another process, newer, foreign, not durable, older than its witness or not to
    /// be opened.
    pub fn open(path: &Path, metrics: &Arc<Metrics>) -> Result<Self, OpenError> {
        Self::embedded(path, None, metrics)
    }

    fn embedded(
        path: &Path,
        witness: Option<&Path>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let watchers = Arc::<Watchers>::default();
        let store = Store::Embedded(Embedded::open(path, witness, &watchers, metrics)?);
        Ok(Self(Arc::new(Inner { store, watchers, metrics: Arc::clone(metrics) })))
    }

    /// Does what a shared ledger needs beside its verbs, for as long as it is polled: hears of what the
    /// other replicas do, and ends the sends of those that are gone.
    pub async fn attend(&self) {
        match &self.0.store {
            Store::Embedded(_) => {}
            Store::Shared(shared) => shared.attend().await,
        }
    }

    /// Gives back what [`Ledger::due`] and [`Ledger::leads`] have found and nobody has settled, when this
    /// process stops: the other replicas look after it at once.
    ///
    /// # Errors
    /// They look after it a little later.
    pub async fn release(&self) -> Result<(), Unavailable> {
        match &self.0.store {
            Store::Embedded(_) => Ok(()),
            Store::Shared(shared) => shared.release().await,
        }
    }

    /// The present by the clock that the ledger's times are told by.
    pub fn now(&self) -> SystemTime {
        match &self.0.store {
            Store::Embedded(_) => sqlite::now(),
            Store::Shared(shared) => shared.now(),
        }
    }

    /// Whether other processes may write to it.
    pub fn is_shared(&self) -> bool {
        match self.0.store {
            Store::Embedded(_) => false,
            Store::Shared(_) => true,
        }
    }

    /// How soon after a `begin` was asked for the first byte must leave, or never; None where nobody
    /// else could take the payout for lost.
    pub fn send_within(&self) -> Option<Duration> {
        match self.0.store {
            Store::Embedded(_) => None,
            Store::Shared(_) => Some(postgres::SEND_WITHIN),
        }
    }

    // === writing ===

    /// Makes `order` durable as SENDING within the caller's `terms`, or finds what its id already
    /// stands for.
    ///
    /// # Errors
    /// Nothing may be sent. Where the record may exist all the same: see [`Ledger::unsend`].
    pub async fn begin(
        &self,
        order: Arc<Order>,
        terms: Arc<Terms>,
        resend: Resend,
    ) -> Result<Begun, Unrecorded> {
        let (asked, caller) = (Arc::clone(&order), Arc::clone(&terms));
        let (begun, reported) = match &self.0.store {
            Store::Embedded(embedded) => embedded.begin(order, terms, resend).await?,
            Store::Shared(shared) => aside(shared.begin(&order, &terms, resend)).await?,
        };
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
        let change = Change::settle(&payout, outcome, poll_first);
        let settled = match &self.0.store {
            Store::Embedded(embedded) => embedded.settle(payout, change).await?,
            Store::Shared(shared) => aside(shared.apply(payout, &change)).await?,
        };
        settled.ok_or(Unavailable)
    }

    /// Takes back the record of the `begin` that came to `unrecorded`, if there is one, and no other of that id. Nothing
    /// was sent for it.
    ///
    /// # Errors
    /// Call again; until it succeeds the row may say SENDING, or come to say so.
    pub async fn unsend(
        &self,
        key: Key,
        unrecorded: &Unrecorded,
    ) -> Result<Option<Payout>, Unavailable> {
        let Some(send_time) = unrecorded.send_time else { return Ok(None) };
        match &self.0.store {
            Store::Embedded(embedded) => embedded.unsend(key, send_time).await,
            Store::Shared(shared) => {
                let over = unrecorded.over.is_cancelled();
                aside(shared.unsend(&key, send_time, over)).await
            }
        }
    }

    /// What is to be said of a ledger that serves: the projects with open payouts that are not among those `served`, and
    /// a server that has fewer connections than this process may want.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn warnings(&self, served: &HashSet<i64>) -> Result<Vec<String>, Unavailable> {
        let mut warnings = self.stock().await?.not_followed(served);
        if let Store::Shared(shared) = &self.0.store {
            let wanted = shared.connections_wanted();
            warnings.extend(shared.too_few(wanted).await?.map(|room| {
                format!(
                    "this process may want {wanted} connections (ledger.max_connections and two), and PostgreSQL has {room} \
                     for its role, other replicas included: raise its max_connections, or the limit of the role or \
                     the database, or lower ledger.max_connections"
                )
            }));
        }
        Ok(warnings)
    }

    /// Tries what a payout needs of a shared ledger, a new row and a commit, in bounded time.
    ///
    /// # Errors
    /// Which of them did not come back, or failed, and why.
    pub async fn try_out(&self) -> Result<(), String> {
        match &self.0.store {
            // Opening it was that.
            Store::Embedded(_) => Ok(()),
            Store::Shared(shared) => shared.try_out().await,
        }
    }

    /// Turns every send of a process that is gone into a doubt, and returns those payouts. In a shared
    /// ledger these are the ones whose lease is over; [`Ledger::attend`] finds those that follow.
    ///
    /// # Errors
    /// Nothing may be served before this has succeeded.
    pub async fn recover(&self) -> Result<Vec<Payout>, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => embedded.recover().await,
            Store::Shared(shared) => shared.sweep().await,
        }
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
        let change = Change::confirm(&asked, progress, poll_first, cause);
        self.apply(asked, change).await?.ok_or(Unavailable)
    }

    /// Marks the payout as one that a person should look at.
    ///
    /// # Errors
    /// It may or may not be recorded; calling again is harmless.
    pub async fn note(
        &self,
        payout: Payout,
        attention: Attention,
        cause: Cause,
    ) -> Result<Payout, Unavailable> {
        self.apply(payout, Change::note(attention, cause)).await?.ok_or(Unavailable)
    }

    /// Closes a doubt that is at least `age` old as never created; None where that is not allowed.
    ///
    /// # Errors
    /// It may or may not be recorded.
    pub async fn void(
        &self,
        payout: Payout,
        age: Duration,
        evidence: String,
    ) -> Result<Option<Payout>, Unavailable> {
        self.apply(payout, Change::void(age, evidence)).await
    }

    /// Approves `cid` as the only one that may ever be paid for the payout; true where it is.
    ///
    /// # Errors
    /// The approval must not be spoken.
    pub async fn approve(&self, key: Key, cid: i64) -> Result<bool, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => embedded.approve(key, cid).await,
            Store::Shared(shared) => shared.approve(&key, cid).await,
        }
    }

    /// Puts off the next look at the payout until `due`.
    ///
    /// # Errors
    /// It is looked at again soon.
    pub async fn postpone(&self, payout: Payout, due: SystemTime) -> Result<(), Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => embedded.postpone(payout, due).await,
            Store::Shared(shared) => shared.postpone(&payout, due).await,
        }
    }

    /// Keeps a notice, once; false where one that says the same was kept before. With `lead`, Cregis is to be asked.
    ///
    /// # Errors
    /// The notice must not be acknowledged.
    pub async fn keep(&self, notice: Notice, lead: bool) -> Result<bool, Unavailable> {
        let kept = match &self.0.store {
            Store::Embedded(embedded) => embedded.keep(notice, lead).await?,
            Store::Shared(shared) => shared.keep(&notice, lead).await?,
        };
        match kept {
            Kept::New => Ok(true),
            Kept::Known => Ok(false),
            Kept::Full => Err(Unavailable),
        }
    }

    /// Asks about a notice again at `due`, or no more.
    ///
    /// # Errors
    /// It is asked about again soon.
    pub async fn close(&self, notice: i64, due: Option<SystemTime>) -> Result<(), Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => embedded.close(notice, due).await,
            Store::Shared(shared) => shared.close(notice, due).await,
        }
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
        match &self.0.store {
            Store::Embedded(embedded) => embedded.set_intake(pids, paused, note).await,
            Store::Shared(shared) => shared.set_intake(&pids, paused, &note).await,
        }
    }

    /// The revisions of the payout in `row`, as they come from now on.
    pub fn watch(&self, row: i64) -> Revisions {
        self.0.watchers.watch(row)
    }

    /// A key for `purpose` that every process over this ledger or a copy of it derives alike. It is made of the ledger's
    /// random identity, which stands in the ledger and its witnesses, and which no caller is told.
    pub fn key(&self, purpose: &str) -> [u8; 32] {
        let identity = match &self.0.store {
            Store::Embedded(embedded) => embedded.identity(),
            Store::Shared(shared) => shared.identity(),
        };
        Sha3_256::digest([purpose, identity].join("\0")).into()
    }

    /// Where the ledger counts what it does, and others may, too.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Brings the gauges of a shared ledger's connections up to date.
    pub fn measure(&self) {
        match &self.0.store {
            Store::Embedded(_) => {}
            Store::Shared(shared) => shared.measure(),
        }
    }

    /// Whether the last attempt to write succeeded, as it changes.
    pub fn writable(&self) -> watch::Receiver<bool> {
        match &self.0.store {
            Store::Embedded(embedded) => embedded.writable(),
            Store::Shared(shared) => shared.writable(),
        }
    }

    async fn apply(&self, before: Payout, change: Change) -> Result<Option<Payout>, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => embedded.apply(before, change).await,
            Store::Shared(shared) => aside(shared.apply(before, &change)).await,
        }
    }
}

/// Keeps the large future of a PostgreSQL verb out of the memory of every payout under way.
fn aside<T>(verb: impl Future<Output = T>) -> Pin<Box<impl Future<Output = T>>> {
    Box::pin(verb)
}
