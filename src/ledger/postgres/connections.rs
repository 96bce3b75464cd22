//! The connections of one process: lent, waited for, and counted until the server has ended them.
//!
//! Whoever wants one waits for any that works: those that are there are used, and others are made beside that, by
//! nobody who waits. One that cannot be made is of no consequence while another works. One that has not answered is
//! not used, and goes on counting: the server may still be at what it was asked, as where a commit waits for a standby.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use deadpool_postgres::{Client, Pool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connection::Connector;
use super::schema::driven;
use super::{ANSWER, Error};
use crate::ledger::OpenError;
use crate::ledger::faults::Faults;

/// Whoever waits for a connection waits so long.
const WAIT: Duration = Duration::from_secs(2);
/// After one that could not be made no other is tried for so long, while others work.
const PAUSE: Duration = Duration::from_secs(1);
/// One that has not answered, and of which nobody knows, is taken for ended after this.
const FORGET: Duration = Duration::from_secs(300);
/// Pause between two looks whether the server has ended one.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Connections to one database.
#[derive(Debug)]
pub(super) struct Connections {
    shared: Arc<Shared>,
    /// Those that are being made, and those that have not answered. They end with this.
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Makes them.
    pool: Pool,
    connector: Connector,
    faults: Arc<Faults>,
    max: usize,
    /// A permit for each that may still be made.
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Line>>,
    /// A permit for each of `idle`.
    free: Semaphore,
    /// Those who wait.
    waiting: AtomicUsize,
    making: AtomicUsize,
    /// Those that have not answered.
    silent: AtomicUsize,
    /// The last that could not be made.
    refused: watch::Sender<Option<(Instant, Arc<Error>)>>,
    /// Whoever looks at the server over a connection of its own holds this: one at a time.
    look: tokio::sync::Mutex<()>,
}

/// One connection. Whoever drops it in the middle of a question leaves it to the pool, which hands it out as a new one.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) client: Client,
    pub(super) backend: Backend,
    _place: OwnedSemaphorePermit,
}

/// The server's end of a connection, told from all others that it ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    /// Its process.
    pub(super) pid: i32,
    started: SystemTime,
}

/// Counts as long as it lives.
struct Counted {
    shared: Arc<Shared>,
    count: fn(&Shared) -> &AtomicUsize,
}

// === impl Connections ===

impl Connections {
    /// At most `max`, which `pool` makes; `connector` leads to the same server.
    pub(super) fn new(pool: Pool, connector: Connector, faults: &Arc<Faults>, max: usize) -> Self {
        let shared = Shared {
            pool,
            connector,
            faults: Arc::clone(faults),
            max,
            room: Arc::new(Semaphore::new(max)),
            idle: Mutex::default(),
            free: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            making: AtomicUsize::new(0),
            silent: AtomicUsize::new(0),
            refused: watch::Sender::new(None),
            look: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared), tasks: Mutex::default() }
    }

    /// One that works, as soon as one is free.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where none works, and [`Error::Busy`] where all are in use for too long.
    pub(super) async fn get(&self) -> Result<Line, Error> {
        let shared = &self.shared;
        let mut refused = shared.refused.subscribe();
        let end = Instant::now() + WAIT;
        let _waits = Counted::new(shared, |shared| &shared.waiting);
        loop {
            if shared.free.available_permits() == 0 {
                self.make();
            }
            let free = async {
                tokio::select! {
                    biased;
                    free = shared.free.acquire() => free.is_ok_and(|free| {
                        free.forget();
                        true
                    }),
                    _ = refused.changed() => false,
                }
            };
            if timeout_at(end, free).await.map_err(|_| Error::Busy)? {
                let line = shared.idle().pop();
                match line {
                    Some(line) if !line.client.is_closed() => return Ok(line),
                    Some(line) => line.end(),
                    None => {}
                }
            } else if shared.working() == 0
                && let Some((_, why)) = refused.borrow_and_update().as_ref()
            {
                return Err(Error::Unreachable(Arc::clone(why)));
            }
        }
    }

    /// Takes back one that has answered.
    pub(super) fn give_back(&self, line: Line) {
        self.shared.give_back(line);
    }

    /// Takes back one that has not answered, and `turn`, which whoever asked holds; cancels what it returns once the
    /// server is at nothing for it any more.
    pub(super) fn outlast(
        &self,
        line: Line,
        turn: Option<OwnedSemaphorePermit>,
    ) -> CancellationToken {
        let over = CancellationToken::new();
        let (shared, ended) = (Arc::clone(&self.shared), over.clone());
        let silent = Counted::new(&shared, |shared| &shared.silent);
        self.spawn(async move {
            let forgotten = Instant::now() + FORGET;
            // Behind what it was asked before.
            let answer = timeout_at(forgotten, line.client.simple_query("")).await;
            let answered = answer.is_ok_and(|answer| answer.is_ok());
            while !answered && Instant::now() < forgotten && shared.lives(line.backend).await {
                sleep(LOOK_AGAIN).await;
            }
            ended.cancel();
            drop((turn, silent));
            shared.give_back(line);
        });
        over
    }

    /// How many there are, how many of them are in use, and how many wait for one.
    pub(super) fn count(&self) -> (usize, usize, usize) {
        let shared = &self.shared;
        let all = shared.max - shared.room.available_permits();
        (all, all - shared.idle().len().min(all), shared.waiting.load(Ordering::Relaxed))
    }

    /// Has another one made where somebody waits for it and there may be another: one at a time while none works.
    fn make(&self) {
        let shared = &self.shared;
        let (making, working) = (shared.making.load(Ordering::Relaxed), shared.working());
        let last = shared.refused.borrow().as_ref().map(|(when, _)| *when);
        let too_soon = working > 0 && last.is_some_and(|when| when.elapsed() < PAUSE);
        let wanted = if working > 0 { shared.waiting.load(Ordering::Relaxed) } else { 1 };
        if too_soon || making >= wanted {
            return;
        }
        let making = Counted::new(shared, |shared| &shared.making);
        let Ok(place) = Arc::clone(&shared.room).try_acquire_owned() else { return };
        let shared = Arc::clone(shared);
        self.spawn(async move {
            if let Err(error) = shared.make(place, making).await {
                shared.faults.unconnected(&error);
                let _ = shared.refused.send_replace(Some((Instant::now(), Arc::new(error))));
            }
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // A panic elsewhere leaves the set whole.
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl Shared {
    /// Makes one in `place`, and others for as long as somebody waits.
    async fn make(&self, mut place: OwnedSemaphorePermit, _making: Counted) -> Result<(), Error> {
        loop {
            let made = timeout(ANSWER, self.connect(place)).await;
            self.give_back(made.map_err(|_| Error::Silent)??);
            if self.waiting.load(Ordering::Relaxed) <= self.making.load(Ordering::Relaxed) {
                return Ok(());
            }
            let Ok(another) = Arc::clone(&self.room).try_acquire_owned() else { return Ok(()) };
            place = another;
        }
    }

    async fn connect(&self, place: OwnedSemaphorePermit) -> Result<Line, Error> {
        let client = self.pool.get().await?;
        let select = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let row = client.query_one(select, &[]).await?;
        let backend = Backend { pid: row.try_get(0)?, started: row.try_get(1)? };
        Ok(Line { client, backend, _place: place })
    }

    fn give_back(&self, line: Line) {
        if line.client.is_closed() {
            return line.end();
        }
        self.idle().push(line);
        self.free.add_permits(1);
    }

    /// How many are there and have not failed to answer.
    fn working(&self) -> usize {
        let others = self.making.load(Ordering::Relaxed) + self.silent.load(Ordering::Relaxed);
        (self.max - self.room.available_permits()).saturating_sub(others)
    }

    /// Whether the server may still be at something for a connection that has ended here.
    async fn lives(&self, backend: Backend) -> bool {
        let _alone = self.look.lock().await;
        // Where it cannot be seen, nobody knows.
        let Ok((client, driver)) = self.connector.connect().await else { return true };
        let found = driven::<_, OpenError>(driver, async {
            let select = "SELECT FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2";
            let asked = client.query_opt(select, &[&backend.pid, &backend.started]).await;
            asked.map_err(OpenError::from_postgres)
        });
        !matches!(timeout(WAIT, found).await, Ok(Ok(None)))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Line>> {
        // Every change to the list is one call.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Lets another one take its place.
    fn end(self) {
        drop(Client::take(self.client));
    }
}

impl Counted {
    fn new(shared: &Arc<Shared>, count: fn(&Shared) -> &AtomicUsize) -> Self {
        count(shared).fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), count }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.count)(&self.shared).fetch_sub(1, Ordering::Relaxed);
    }
}
