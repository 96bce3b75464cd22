//! A request's body that is read for a bounded time, and beside a bounded number of others that have not come either.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, SizeHint};
use ipnet::IpNet;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tonic::body::Body;

use super::status;
use crate::engine::Refused;
use crate::listener::waiting::{Awaited, PATIENCE, Waiting};

/// A request's body is whole by then, or it is refused.
const WHOLE: Duration = Duration::from_secs(10);
/// Bodies that may be waited for at once: each holds a message of at most 64 KiB.
const WAITING: usize = 512;
/// And those from one address; proxies, which many callers share, may have all.
const WAITING_EACH: usize = 128;

/// The list of request bodies that are waited for.
pub(super) fn waiting(proxies: Vec<IpNet>) -> Arc<Waiting> {
    Waiting::new(WAITING, WAITING_EACH, PATIENCE, proxies)
}

/// A request's body; one that has come with its headers costs nothing more.
pub(super) struct Whole {
    body: Body,
    waiting: Arc<Waiting>,
    address: IpAddr,
    place: Option<Place>,
}

/// How long it is waited for, its place, and when that is another's.
type Place = (Pin<Box<Sleep>>, Awaited, Pin<Box<WaitForCancellationFutureOwned>>);

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
        let enter = || {
            let awaited = this.waiting.enter(this.address);
            let gone = Box::pin(awaited.gone());
            (Box::pin(sleep(WHOLE)), awaited, gone)
        };
        let (patience, _, gone) = this.place.get_or_insert_with(enter);
        if gone.as_mut().poll(context).is_ready() {
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
