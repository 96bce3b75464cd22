//! Those whose words have not all come, and who gives way where there are too many.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::place::neighbourhood;

/// Who is waited for, the oldest first. Where there are too many the oldest gives way: whoever says all at once, as nearly
/// all do, is never the oldest for long.
#[derive(Debug)]
pub(crate) struct Waiting {
    most: usize,
    /// From one address; proxies, which many share, may have all.
    most_each: usize,
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
    /// At most `most` at once, and `most_each` from one address that is none of `proxies`.
    pub(crate) fn new(most: usize, most_each: usize, proxies: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { most, most_each, proxies, list: Mutex::default() })
    }

    /// A place for `address`; the oldest gives way where there is none.
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
        let own = list.entries.iter().filter(|entry| entry.whose == whose);
        let oldest = if own.count() >= each {
            let oldest = list.entries.iter().position(|entry| entry.whose == whose);
            oldest.and_then(|oldest| list.entries.remove(oldest))
        } else if list.entries.len() >= self.most {
            list.entries.pop_front()
        } else {
            None
        };
        list.entries.push_back(Entry { number, whose, gone: gone.clone() });
        drop(list);
        if let Some(oldest) = oldest {
            oldest.gone.cancel();
        }
        Awaited { waiting: Arc::clone(self), number, gone }
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
        let waiting = Waiting::new(16, 4, vec![proxy]);
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
}
