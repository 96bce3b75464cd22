//! The last look at the clock before the first byte of a send.
//!
//! A process can be held up between the record of a send and its first byte for longer than the others
//! wait for it. What it asks about then is the body: it is handed over only in time, and until it is there
//! nothing of the request, not even its head, is written to the connection.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body that is not handed over after `fence`.
pub(super) struct Fenced {
    /// None once it has been handed over.
    pub(super) body: Option<Bytes>,
    pub(super) fence: Option<Instant>,
}

/// It was too late to send.
#[derive(Debug)]
pub(super) struct TooLate;

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too late to send")
    }
}

impl Error for TooLate {}

impl Fenced {
    /// Whether that is why a send failed.
    pub(super) fn stopped(error: &(dyn Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<TooLate>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl Body for Fenced {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        let Some(body) = self.body.take() else { return Poll::Ready(None) };
        let late = self.fence.is_some_and(|fence| Instant::now() >= fence);
        Poll::Ready(Some(if late { Err(TooLate) } else { Ok(Frame::data(body)) }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, |body| body.len() as u64))
    }
}
