//! The ledger of several processes: a PostgreSQL database, and no state of its own.
//!
//! Every change of a payout is one statement that checks the revision it starts from, so whoever is
//! second finds no row and looks again. The unique key decides who sends. Whoever sends holds a lease by
//! the database's clock; when it is over any replica turns the row into a doubt, and nobody sends again.

mod change;
mod claim;
mod clock;
mod connection;
mod connections;
pub(super) mod copy;
pub(super) mod grant;
mod hear;
mod notice;
mod probe;
mod read;
mod schema;
mod spend;
mod store;
mod witness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use deadpool_postgres::{Client, HookError, PoolError};
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_util::sync::CancellationToken;

use super::faults::{Damage, Faults};
use super::migrate::Migrated;
use super::watchers::Watchers;
use super::witness::{Mark, Witness};
use super::{OpenError, Unavailable};
use crate::config::Shared;
use crate::metrics::Metrics;
use crate::payout::Payout;
use change::Turns;
use claim::Claims;
use clock::Clock;
use connection::{Connector, unsafe_because};
use connections::{Backend, Connections};

/// The first byte of a send leaves so soon after its record was asked for, or never: by then its lease
/// has hardly begun.
pub(super) const SEND_WITHIN: Duration = Duration::from_secs(2);
/// How often the database is looked at, whatever it says by itself.
const PULSE: Duration = Duration::from_secs(1);
/// Whoever has asked the database something waits so long. It gives up sooner by itself, and says so; a
/// wire that has gone silent does not.
const ANSWER: Duration = Duration::from_secs(6);
/// What was acknowledged, and, where that is a change, the payout's row and revision.
type News = (Mark, Option<(i64, i64)>);

/// A database, and what this process knows of it.
#[derive(Debug)]
pub(super) struct Postgres {
    connections: Connections,
    connector: Connector,
    /// Names this process in the rows that it sends.
    owner: String,
    /// `max_connections`, and two.
    wanted: i64,
    /// How long a send may take, from its record on.
    lease: Duration,
    clock: Clock,
    claims: Claims,
    up: watch::Sender<bool>,
    /// Whoever tries whether it can be written holds this, to the end of the answer: one at a time.
    probing: Arc<Semaphore>,
    /// The callers whose records are under way.
    turns: Turns,
    /// Something has failed, so it is worth looking at once whether anything else would.
    failure: Notify,
    watchers: Arc<Watchers>,
    metrics: Arc<Metrics>,
    faults: Arc<Faults>,
    /// Whether something was refused since the last pulse.
    doubted: AtomicBool,
    witness: Arc<Witness>,
    /// What the other replicas have not been told.
    news: mpsc::UnboundedSender<News>,
    /// Its other end; whoever attends holds it.
    outbox: Mutex<mpsc::UnboundedReceiver<News>>,
}

/// Makes the tables, or brings them up to date, however long that takes.
pub(super) async fn migrate(settings: &Shared) -> Result<Migrated, OpenError> {
    schema::bring_up(&Connector::new(settings)?.patient()).await
}

/// Why a statement could not do its work.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot connect to PostgreSQL")]
    Pool(#[source] PoolError),
    /// No connection works.
    #[error("no connection to PostgreSQL")]
    Unreachable(#[source] Arc<Error>),
    #[error("all connections to PostgreSQL are in use, and none was free in time")]
    Busy,
    #[error("PostgreSQL could not do it")]
    Database(#[from] tokio_postgres::Error),
    #[error("PostgreSQL does not answer")]
    Silent,
    /// A question that was not answered in time. It may still be done, until the token is cancelled.
    #[error("PostgreSQL has not answered in time")]
    Unanswered(CancellationToken),
    /// The same, where the connection or the answer broke.
    #[error("PostgreSQL's answer was lost")]
    Lost(#[source] tokio_postgres::Error, CancellationToken),
    #[error("commits would not be durable: {0}")]
    NotSafe(String),
    /// A new connection over which nothing is to be written.
    #[error("{0}")]
    Refused(String),
    /// Text that our own checks would not have let in: a damaged database.
    #[error("{0} is not a legal value")]
    Damaged(&'static str),
    /// A row with such text.
    #[error(transparent)]
    Row(#[from] Damage),
    #[error("no randomness")]
    Random(#[from] getrandom::Error),
    /// The database has lost what was acknowledged.
    #[error(transparent)]
    Contradicted(Box<OpenError>),
    /// The same, found when something was to be added.
    #[error("the ledger has lost what was acknowledged: {0}")]
    Gone(Mark),
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        if let PoolError::PostCreateHook(HookError::Message(why)) = error {
            return Self::Refused(why.into_owned());
        }
        Self::Pool(error)
    }
}

impl Error {
    /// Until when it may be done all the same, where the answer is missing.
    fn pending(&self) -> Option<&CancellationToken> {
        match self {
            Self::Unanswered(over) | Self::Lost(_, over) => Some(over),
            // Nothing was asked, or it was refused.
            Self::Pool(_)
            | Self::Unreachable(_)
            | Self::Busy
            | Self::Silent
            | Self::Database(_)
            | Self::NotSafe(_)
            | Self::Refused(_)
            | Self::Contradicted(_)
            | Self::Gone(_)
            | Self::Damaged(_)
            | Self::Row(_)
            | Self::Random(_) => None,
        }
    }

    /// Tells whether it is a reason to turn callers elsewhere: nobody here can use the database. A statement that was
    /// refused is a matter of whoever asked.
    fn is_outage(&self) -> bool {
        match self {
            // All our connections are in use, and whoever uses them hears whether they work.
            Self::Busy | Self::Damaged(_) | Self::Row(_) => false,
            Self::Database(error) => error.as_db_error().is_none_or(concerns_all),
            Self::Pool(_)
            | Self::Unreachable(_)
            | Self::Unanswered(_)
            | Self::Lost(..)
            | Self::Silent
            | Self::NotSafe(_)
            | Self::Refused(_)
            | Self::Contradicted(_)
            | Self::Gone(_)
            | Self::Random(_) => true,
        }
    }
}

/// Tells whether an answer of the database's says that nothing was done. The end of a connection does not
/// say that of what went before it, though it is told like an answer: a pooler that loses its server under a
/// COMMIT tells so with class 08, mostly as FATAL.
fn refuses(answer: &DbError) -> bool {
    let ends = answer.severity() != "ERROR"
        && answer.parsed_severity().is_none_or(|severity| severity != Severity::Error);
    let class = answer.code().code().get(..2).unwrap_or_default();
    !ends && class != "08" && *answer.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
}

/// Tells whether an answer of the database's is about the database, or our rights and tables in it, and not about one
/// statement: values that it cannot hold, a lock that somebody else had for too long, a row that came first.
fn concerns_all(answer: &DbError) -> bool {
    let class = answer.code().code().get(..2).unwrap_or_default();
    let all = ["08", "28", "3D", "3F", "42", "53", "57", "58", "F0", "XX"];
    !refuses(answer)
        || *answer.code() == SqlState::READ_ONLY_SQL_TRANSACTION
        || all.contains(&class) && *answer.code() != SqlState::QUERY_CANCELED
}

impl Postgres {
    pub(super) async fn open(
        settings: &Shared,
        watchers: &Arc<Watchers>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let connector = Connector::new(settings)?;
        connection::has_sessions(&connector).await?;
        schema::bring_up(&connector).await?;
        let witness = witness::open(&connector, settings.witness.as_deref()).await?;
        let max = settings.max_connections;
        let pool = connector.pool(max, &witness)?;
        let faults = Faults::new(metrics);
        let connections = Connections::new(pool, connector.clone(), &faults, max);
        let mut name = [0u8; 16];
        getrandom::fill(&mut name).map_err(|error| OpenError::Postgres(error.into()))?;
        let (news, outbox) = mpsc::unbounded_channel();
        let shared = Self {
            connections,
            connector,
            owner: hex::encode(name),
            wanted: i64::try_from(max).unwrap_or(i64::MAX).saturating_add(2),
            lease: settings.lease,
            clock: Clock::new(),
            claims: Claims::default(),
            up: watch::Sender::new(true),
            probing: Arc::new(Semaphore::new(1)),
            turns: Turns::new(max),
            failure: Notify::new(),
            watchers: Arc::clone(watchers),
            metrics: Arc::clone(metrics),
            faults,
            doubted: AtomicBool::new(false),
            witness,
            news,
            outbox: Mutex::new(outbox),
        };
        shared.pulse().await.map_err(|error| OpenError::Postgres(error.into()))?;
        Ok(shared)
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// How many connections this process may have at the server.
    pub(super) fn connections_wanted(&self) -> i64 {
        self.wanted
    }

    pub(super) fn identity(&self) -> &str {
        self.witness.ledger()
    }

    pub(super) fn writable(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    pub(super) async fn attend(&self) {
        tokio::join!(self.beat(), self.hear(), self.tell());
    }

    /// Looks at the database again and again: that it answers and has lost nothing, what time it has, and
    /// what has changed that nobody has told.
    async fn beat(&self) {
        loop {
            let _ = timeout(PULSE, self.failure.notified()).await;
            match self.pulse().await {
                Ok(()) => {
                    self.faults.over();
                    self.up.send_replace(true);
                }
                Err(error) => {
                    // Whatever it is, all of them depend on it; only where all connections are in use, whoever uses
                    // them hears whether they work.
                    if !matches!(error, Error::Busy) {
                        self.faults.failed(&error);
                        self.up.send_replace(false);
                    }
                    sleep(PULSE).await;
                }
            }
        }
    }

    async fn pulse(&self) -> Result<(), Error> {
        let watched = self.watchers.rows();
        let doubted = self.doubted.swap(false, Ordering::Relaxed) || !*self.up.borrow();
        // Whoever tries is still waiting for an answer: that says enough.
        let turn = if doubted { Some(self.turn_to_probe()?) } else { None };
        self.ask_in_turn(turn, async |client, backend| {
            let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
            if row.try_get::<_, i32>(0)? != backend.pid {
                return Err(Error::Refused(OpenError::Pooled.to_string()));
            }
            // Its settings may be changed under us.
            if let Some(why) = unsafe_because(client).await? {
                return Err(Error::NotSafe(why));
            }
            let asked = Instant::now();
            let statement = client
                .prepare_cached("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
                .await?;
            let time = client.query_one(&statement, &[]).await?.try_get(0)?;
            self.clock.set(time, asked);
            let held = witness::look(client, &self.witness).await?;
            held.map_err(|error| Error::Contradicted(error.into()))?;
            if doubted {
                probe::insert(client).await?;
                probe::commit(client).await?;
            }
            if !watched.is_empty() {
                self.watchers.publish(&read::revisions(client, &watched).await?);
            }
            Ok(())
        })
        .await
    }

    /// Does `work` over a connection, in bounded time.
    ///
    /// # Errors
    /// Those of `work`; and where the answer takes too long, it may have been done.
    async fn ask<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.ask_in_turn(None, async |client, _| work(client).await).await
    }

    /// The same over a connection to the given end of the server's; `turn` is held until the answer, however late.
    async fn ask_in_turn<T>(
        &self,
        turn: Option<OwnedSemaphorePermit>,
        work: impl AsyncFnOnce(&mut Client, Backend) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut line = self.connections.get().await?;
        let backend = line.backend;
        match timeout(ANSWER, work(&mut line.client, backend)).await {
            // It may still be done there, and nobody is to wait behind that.
            Err(_) => Err(Error::Unanswered(self.connections.outlast(line, turn))),
            Ok(Err(Error::Database(error))) if !error.as_db_error().is_some_and(refuses) => {
                Err(Error::Lost(error, self.connections.outlast(line, turn)))
            }
            Ok(done) => {
                self.connections.give_back(line);
                done
            }
        }
    }

    fn turn_to_probe(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.probing).try_acquire_owned().map_err(|_| Error::Silent)
    }

    pub(super) fn measure(&self) {
        let (all, busy, awaited) = self.connections.count();
        let disk = &self.metrics.disk;
        for (gauge, count) in [
            (&disk.connections, all),
            (&disk.connections_busy, busy),
            (&disk.connections_awaited, awaited),
        ] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Says that the database could not do something. Where that concerns everybody, it is not relied upon until a
    /// pulse says otherwise.
    fn failed(&self, error: Error) -> Unavailable {
        if let Error::Row(damage) = &error {
            self.faults.damaged(damage);
        } else if error.is_outage() {
            self.faults.failed(&error);
            self.up.send_replace(false);
            self.failure.notify_one();
        } else {
            self.faults.refused(&error);
            // A time-out of one may be the first sign of an outage.
            self.doubted.store(true, Ordering::Relaxed);
        }
        Unavailable
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Remembers and counts what has changed with the event `seq`, and tells whoever waits for it, here
    /// and elsewhere.
    fn changed(&self, payout: &Payout, seq: i64, start: Instant) {
        // First: from here on somebody may hear of it.
        let mark = Mark { number: seq, time: clock::micros(payout.update_time) };
        self.witness.saw(mark);
        self.metrics.disk.commit.took(start.elapsed());
        self.metrics.disk.batch.observe(1);
        if payout.state_time == payout.update_time {
            self.metrics.money.transitions.at(payout.state).inc();
        }
        let change = (payout.row, payout.revision);
        self.watchers.publish(&[change]);
        // Nobody attends any more: the others poll.
        let _ = self.news.send((mark, Some(change)));
    }
}
