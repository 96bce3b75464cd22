//! A request's body that is read for a bounded time, and beside a bounded number of others that have not come either.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, SizeHint};
use ipnet::IpNet;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use super::status;
use crate::engine::Refused;
use crate::listener::place::neighbourhood;

/// A request's body is whole by then, or it is refused.
const WHOLE: Duration = Duration::from_secs(10);
/// Bodies that may be waited for at once: each holds a message of at most 64 KiB.
const WAITING: usize = 512;
/// And those from one address; proxies, which many callers share, may have all.
const WAITING_EACH: usize = 128;

/// Request bodies that are waited for, the oldest first. Where there are too many the oldest gives way: a body that
/// comes right behind its headers, as nearly all do, is never the oldest for long.
#[derive(Debug, Default)]
pub(super) struct Waiting {
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
    /// Dropped where it gives way.
    _stays: oneshot::Sender<()>,
}

/// A place in the list, until this is dropped.
#[derive(Debug)]
struct Place {
    waiting: Arc<Waiting>,
    number: u64,
    gone: oneshot::Receiver<()>,
}

impl Waiting {
    pub(super) fn new(proxies: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { proxies, list: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let (stays, gone) = oneshot::channel();
        let whose = neighbourhood(address);
        let each = match self.proxies.iter().any(|proxy| proxy.contains(&address)) {
            true => WAITING,
            false => WAITING_EACH,
        };
        let mut list = self.list();
        let number = list.next;
        list.next += 1;
        let own = list.entries.iter().filter(|entry| entry.whose == whose);
        if own.count() >= each {
            let oldest = list.entries.iter().position(|entry| entry.whose == whose);
            oldest.and_then(|oldest| list.entries.remove(oldest));
        } else if list.entries.len() >= WAITING {
            list.entries.pop_front();
        }
        list.entries.push_back(Entry { number, whose, _stays: stays });
        drop(list);
        Place { waiting: Arc::clone(self), number, gone }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // Every change to the list is one call; a panic elsewhere leaves it whole.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut list = self.waiting.list();
        // They are in the order of their numbers.
        if let Ok(at) = list.entries.binary_search_by_key(&self.number, |entry| entry.number) {
            list.entries.remove(at);
        }
    }
}

/// A request's body; one that has come with its headers costs nothing more.
pub(super) struct Whole {
    body: Body,
    waiting: Arc<Waiting>,
    address: IpAddr,
    place: Option<(Pin<Box<Sleep>>, Place)>,
}

impl Whole {
    pub(super) fn new(body: Body, waiting: Arc<Waiting>, address: IpAddr) -> Self {
        Self { body, waiting, address, place: None }
    }
}

impl hyper::body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            if self.body.is_end_stream() || matches!(frame, Poll::Ready(None | Some(Err(_)))) {
                self.place = None;
            }
            return frame;
        }
        let this = &mut *self;
        let enter = || (Box::pin(sleep(WHOLE)), this.waiting.enter(this.address));
        let (patience, place) = this.place.get_or_insert_with(enter);
        if Pin::new(&mut place.gone).poll(context).is_ready() {
            return Poll::Ready(Some(Err(status::refused(&Refused::Overloaded))));
        }
        patience.as_mut().poll(context).map(|()| Some(Err(status::unfinished())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(place: &mut Place) -> bool {
        place.gone.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_oldest_of_an_address_gives_way_and_the_oldest_of_all() {
        let proxy = "10.0.0.0/8".parse().expect("a network");
        let waiting = Waiting::new(vec![proxy]);
        let enter = |address: &str, count| -> Vec<_> {
            let address = address.parse().expect("an address");
            (0..count).map(|_| waiting.enter(address)).collect()
        };
        let mut other = enter("192.0.2.2", 1);
        let mut own = enter("192.0.2.1", WAITING_EACH + 1);
        assert!(gone(&mut own[0]) && !gone(&mut own[1]) && !gone(&mut other[0]));
        let mut shared = enter("10.0.0.1", WAITING - WAITING_EACH - 1);
        assert!(!gone(&mut other[0]), "there was room");
        let mut late = enter("192.0.2.3", 1);
        assert!(gone(&mut other[0]) && !gone(&mut own[1]) && !gone(&mut shared[0]));
        drop((own, other, shared));
        assert_eq!(waiting.list().entries.len(), 1);
        assert!(!gone(&mut late[0]));
    }
}
