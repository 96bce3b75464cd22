//! Who is to be told that a payout has changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Everybody who waits for a payout's next revision, by the payout's row.
///
/// Only the number of the latest revision is kept: a watcher reads the revisions themselves from the
/// ledger, at its own pace, so a slow one costs no memory and misses nothing.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<HashMap<i64, Watched>>);

/// One payout that somebody watches.
#[derive(Debug)]
struct Watched {
    latest: watch::Sender<i64>,
    /// Counted here, under the lock: the last one to go takes this along.
    watchers: usize,
}

/// The latest revision of one payout, as it grows.
#[derive(Debug)]
pub struct Revisions {
    row: i64,
    latest: watch::Receiver<i64>,
    watchers: Arc<Watchers>,
}

impl Watchers {
    /// Begins to watch the payout in `row`.
    pub(super) fn watch(self: &Arc<Self>, row: i64) -> Revisions {
        let mut all = self.all();
        let new = || Watched { latest: watch::Sender::new(0), watchers: 0 };
        let watched = all.entry(row).or_insert_with(new);
        watched.watchers += 1;
        let latest = watched.latest.subscribe();
        drop(all);
        Revisions { row, latest, watchers: Arc::clone(self) }
    }

    /// The rows that somebody watches.
    pub(super) fn rows(&self) -> Vec<i64> {
        self.all().keys().copied().collect()
    }

    /// Tells of changes: rows and their new revisions.
    pub(super) fn publish(&self, changed: &[(i64, i64)]) {
        let all = self.all();
        if all.is_empty() {
            return;
        }
        for (row, revision) in changed {
            if let Some(watched) = all.get(row) {
                // What was read first may be told last.
                watched.latest.send_if_modified(|latest| {
                    let newer = *revision > *latest;
                    *latest = (*latest).max(*revision);
                    newer
                });
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<i64, Watched>> {
        // Every change to the map is whole at once; a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Revisions {
    /// Waits until there is a revision after `seen`. Never, where none will come.
    pub async fn after(&mut self, seen: i64) {
        if self.latest.wait_for(|latest| *latest > seen).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Revisions {
    fn drop(&mut self) {
        let mut all = self.watchers.all();
        if let Some(watched) = all.get_mut(&self.row) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                all.remove(&self.row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_watcher_of_a_payout_takes_its_entry_along_whoever_leaves_with_it() {
        let watchers = Arc::<Watchers>::default();
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for round in 0..20_000 {
                        let one = watchers.watch(round);
                        start.wait();
                        drop(one);
                    }
                });
            }
        });
        assert!(watchers.all().is_empty(), "an entry without watchers stays");
    }

    #[test]
    fn what_was_read_first_and_is_told_last_takes_nothing_back() {
        let watchers = Arc::<Watchers>::default();
        let watching = watchers.watch(1);
        watchers.publish(&[(1, 3)]);
        watchers.publish(&[(1, 2)]);
        assert_eq!(*watching.latest.borrow(), 3);
    }

    #[tokio::test]
    async fn a_watcher_that_stays_is_told_after_another_has_left() {
        let watchers = Arc::<Watchers>::default();
        let (left, mut stays) = (watchers.watch(1), watchers.watch(1));
        drop(left);
        watchers.publish(&[(1, 7), (2, 9)]);
        stays.after(6).await;
        drop(stays);
        assert!(watchers.all().is_empty());
    }
}
