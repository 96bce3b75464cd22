//! Following one payout's revisions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Engine, Refused};
use crate::ledger::{Id, Revisions};
use crate::metrics::label::Shed;
use crate::payout::Payout;
use crate::policy::Terms;

/// Proxies close a stream that says nothing for minutes.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// What a watcher is told: a revision, or None as a sign of life.
type News = Result<Option<Payout>, Refused>;

/// One watcher. It holds no revisions beyond those it has just read: it reads the ledger when its
/// caller is ready for more, so a caller that stops reading costs nothing and misses nothing.
struct Watcher {
    engine: Arc<Engine>,
    terms: Arc<Terms>,
    pid: i64,
    id: Id,
    revisions: Revisions,
    draining: watch::Receiver<bool>,
    /// The last revision that was told.
    seen: i64,
    /// The last revision that is known to be in the ledger.
    latest: i64,
    /// The next revisions to be told, a few at a time.
    ahead: VecDeque<Payout>,
    over: bool,
    _place: OwnedSemaphorePermit,
}

impl Engine {
    /// The payout as it stands, or its revisions after `after`, and then every change, each once and
    /// in order. Ends after a final state, and with an error when the service stops.
    ///
    /// # Errors
    /// Unknown project or payout, too many watchers, or the ledger fails.
    pub async fn watch(
        self: &Arc<Self>,
        terms: &Arc<Terms>,
        pid: i64,
        id: Id,
        after: i64,
    ) -> Result<impl Stream<Item = News> + use<>, Refused> {
        let mut draining = self.draining.subscribe();
        if *draining.borrow_and_update() {
            return Err(Refused::Draining);
        }
        let places = Arc::clone(&self.watchers);
        let place = places.try_acquire_owned().map_err(|_| self.shed(Shed::Watches))?;
        let row = self.get(terms, pid, id.clone()).await?.row;
        // Watched before it is read again, so that no change falls between.
        let revisions = self.ledger.watch(row);
        let latest = self.get(terms, pid, id.clone()).await?;
        let revision = latest.revision;
        // The last revision of a final payout is told to everybody, known or not.
        let seen = match after {
            0 => revision - 1,
            _ if latest.state.is_final() => after.min(revision - 1),
            _ => after.min(revision),
        };
        let ahead = if seen == revision - 1 {
            VecDeque::from([latest])
        } else {
            self.ledger.history(latest, seen).await?.into()
        };
        let watcher = Watcher {
            engine: Arc::clone(self),
            terms: Arc::clone(terms),
            pid,
            id,
            revisions,
            draining,
            seen,
            latest: revision,
            ahead,
            over: false,
            _place: place,
        };
        Ok(unfold(watcher, Watcher::next))
    }
}

impl Watcher {
    async fn next(mut self) -> Option<(News, Self)> {
        if self.over {
            return None;
        }
        let news = self.news().await;
        if news.is_err() {
            self.over = true;
        }
        Some((news, self))
    }

    async fn news(&mut self) -> News {
        loop {
            if let Some(payout) = self.ahead.pop_front() {
                self.seen = payout.revision;
                self.over = self.seen >= self.latest && payout.state.is_final();
                return Ok(Some(payout));
            }
            if self.seen >= self.latest {
                tokio::select! {
                    biased;
                    () = self.revisions.after(self.seen) => {}
                    _ = self.draining.wait_for(|draining| *draining) => {
                        return Err(Refused::Draining);
                    }
                    () = tokio::time::sleep(HEARTBEAT) => return Ok(None),
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), Refused> {
        let latest = self.engine.get(&self.terms, self.pid, self.id.clone()).await?;
        self.latest = latest.revision;
        let history = self.engine.ledger.history(latest.clone(), self.seen).await?;
        self.ahead = history.into();
        if self.ahead.is_empty() && self.latest > self.seen {
            // A ledger that has lost the events of what its row says: the row is the news.
            self.ahead.push_back(latest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::time::Instant;

    use super::*;
    use crate::ledger::Resend;
    use crate::sample;

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_news_gives_a_sign_of_life_every_30_seconds() {
        let folder = tempfile::tempdir().expect("a folder");
        let (engine, ledger) = sample::engine(&folder.path().join("ledger"));
        let order = Arc::new(sample::order());
        ledger.begin(order, Terms::open(), Resend::Never).await.expect("recorded");
        let id = Id::ThirdParty("id".into());
        let news = engine.watch(&Terms::open(), 1, id, 0).await.expect("watched");
        let mut news = Box::pin(news);
        let first = news.next().await.expect("news").expect("OK");
        assert_eq!(first.map(|payout| payout.revision), Some(1));
        for _ in 0..3 {
            let silence = Instant::now();
            assert_eq!(news.next().await, Some(Ok(None)));
            assert_eq!(silence.elapsed().as_secs(), HEARTBEAT.as_secs());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_events_are_lost_the_row_is_the_news() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let (engine, ledger) = sample::engine(&path);
        let order = Arc::new(sample::order());
        ledger.begin(order, Terms::open(), Resend::Never).await.expect("recorded");
        let shell = rusqlite::Connection::open(&path).expect("opened");
        let damage = "DROP TRIGGER event_is_never_deleted; DELETE FROM event;";
        shell.execute_batch(damage).expect("damaged");
        let id = Id::ThirdParty("id".into());
        let news = engine.watch(&Terms::open(), 1, id, 0).await.expect("watched");
        let first = tokio::time::timeout(sample::LONG, Box::pin(news).next()).await;
        let first = first.expect("in time").expect("news").expect("OK");
        assert_eq!(first.map(|payout| payout.revision), Some(1));
    }
}
