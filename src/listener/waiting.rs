//! Connections and calls that are waited for, and which of them give way where there are too many.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::place::neighbourhood;

/// What has waited for less gives way to nothing: callers and Cregis come in bursts, too, and are not late for that.
pub(crate) const PATIENCE: Duration = Duration::from_millis(300);

/// What is waited for, the oldest first. Where there is too much of it the oldest gives way, once it has waited for longer
/// than `patience`: a peer that sends all at once, as nearly all do, is never that old.
#[derive(Debug)]
pub(crate) struct Waiting {
    most: usize,
    /// From one address; proxies, which many share, may have all.
    most_each: usize,
    patience: Duration,
    proxies: Vec<IpNet>,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    next: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    since: Instant,
    whose: IpAddr,
    gone: CancellationToken,
}

/// A place in the list, until this is dropped.
#[derive(Debug)]
pub(crate) struct Awaited {
    waiting: Arc<Waiting>,
    number: u64,
    gone: CancellationToken,
}

impl Waiting {
    /// At most `most`, and `most_each` from one address that is none of `proxies`; for up to `patience` there may be more.
    pub(crate) fn new(
        most: usize,
        most_each: usize,
        patience: Duration,
        proxies: Vec<IpNet>,
    ) -> Arc<Self> {
        Arc::new(Self { most, most_each, patience, proxies, list: Mutex::default() })
    }

    /// A place for `address`; where there is none, the oldest of that address, or else of all, give way.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Awaited {
        let gone = CancellationToken::new();
        let whose = neighbourhood(address);
        let each = match self.proxies.iter().any(|proxy| proxy.contains(&address)) {
            true => self.most,
            false => self.most_each,
        };
        let mut list = self.list();
        let number = list.next;
        list.next += 1;
        let own = list.entries.iter().filter(|entry| entry.whose == whose).count() + 1;
        self.dismiss(&mut list, own.saturating_sub(each), |entry| entry.whose == whose);
        let all = list.entries.len() + 1;
        self.dismiss(&mut list, all.saturating_sub(self.most), |_| true);
        let since = Instant::now();
        list.entries.push_back(Entry { number, since, whose, gone: gone.clone() });
        drop(list);
        Awaited { waiting: Arc::clone(self), number, gone }
    }

    /// All that has waited for longer than the patience gives way.
    pub(crate) fn make_room(&self) {
        self.dismiss(&mut self.list(), usize::MAX, |_| true);
    }

    /// The oldest `count` of those `among` that have waited for longer than the patience give way.
    fn dismiss(&self, list: &mut List, mut count: usize, among: impl Fn(&Entry) -> bool) {
        if count == 0 {
            return;
        }
        list.entries.retain(|entry| {
            let goes = count > 0 && among(entry) && entry.since.elapsed() >= self.patience;
            if goes {
                count -= 1;
                entry.gone.cancel();
            }
            !goes
        });
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // Every change to the list is one call; a panic elsewhere leaves it whole.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    /// Ends once it has to give way.
    pub(crate) fn gone(&self) -> WaitForCancellationFutureOwned {
        self.gone.clone().cancelled_owned()
    }

    /// Leaves the list: all has come, and it gives way to nobody any more.
    pub(crate) fn came(&self) {
        let mut list = self.waiting.list();
        // They are in the order of their numbers.
        if let Ok(at) = list.entries.binary_search_by_key(&self.number, |entry| entry.number) {
            list.entries.remove(at);
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.came();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_an_address_gives_way_and_the_oldest_of_all() {
        let proxy = "10.0.0.0/8".parse().expect("a network");
        let waiting = Waiting::new(16, 4, Duration::ZERO, vec![proxy]);
        let enter = |address: &str, count| -> Vec<_> {
            let address = address.parse().expect("an address");
            (0..count).map(|_| waiting.enter(address)).collect()
        };
        let gone = |awaited: &Awaited| awaited.gone.is_cancelled();
        let other = enter("192.0.2.2", 1);
        let own = enter("192.0.2.1", 5);
        assert!(gone(&own[0]) && !gone(&own[1]) && !gone(&other[0]));
        let shared = enter("10.0.0.1", 11);
        assert!(!gone(&other[0]), "there was room");
        let late = enter("192.0.2.3", 1);
        assert!(gone(&other[0]) && !gone(&own[1]) && !gone(&shared[0]));
        own[1].came();
        let later = enter("192.0.2.4", 1);
        assert!(!gone(&own[1]) && !gone(&own[2]), "its place was free");
        drop((own, other, shared, later));
        assert_eq!(waiting.list().entries.len(), 1);
        assert!(!gone(&late[0]));
    }

    #[test]
    fn a_burst_gives_way_to_nothing_before_the_patience_is_over() {
        let waiting = Waiting::new(2, 1, Duration::from_secs(3600), vec![]);
        let address = "192.0.2.1".parse().expect("an address");
        let burst: Vec<_> = (0..8).map(|_| waiting.enter(address)).collect();
        waiting.make_room();
        assert!(burst.iter().all(|awaited| !awaited.gone.is_cancelled()));
    }

    #[test]
    fn what_is_too_much_gives_way_whole_once_it_is_old() {
        let waiting = Waiting::new(4, 4, Duration::ZERO, vec![]);
        let address = "192.0.2.1".parse().expect("an address");
        let old: Vec<_> = (0..4).map(|_| waiting.enter(address)).collect();
        waiting.make_room();
        assert!(old.iter().all(|awaited| awaited.gone.is_cancelled()));
        assert_eq!(waiting.list().entries.len(), 0);
    }
}
