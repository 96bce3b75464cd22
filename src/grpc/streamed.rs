//! Streams of requests that cannot be read. tonic-reflection ends its answer well where a message cannot be decoded; here
//! the answer says that it could not.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;

use super::status;

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Whether all messages of a request were read. A service that cannot decode one asks for no more.
#[derive(Clone, Debug, Default)]
pub(super) struct WasRead(Arc<AtomicBool>);

/// A request's body, watched.
pub(super) struct Asked {
    body: Body,
    was_read: WasRead,
    /// What has come of the next message's prefix.
    prefix: Vec<u8>,
    /// What is to come of the message behind it.
    left: usize,
}

/// The body of its answer.
pub(super) struct Answered {
    body: Body,
    was_read: WasRead,
}

impl Asked {
    pub(super) fn new(body: Body, was_read: WasRead) -> Self {
        Self { body, was_read, prefix: Vec::with_capacity(PREFIX), left: 0 }
    }

    fn follow(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let skipped = self.left.min(data.len());
            self.left -= skipped;
            data = &data[skipped..];
            let (prefix, rest) = data.split_at(data.len().min(PREFIX - self.prefix.len()));
            if self.left == 0 {
                self.prefix.extend(prefix);
                data = rest;
            }
            if let [_, a, b, c, d] = self.prefix[..] {
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.prefix.clear();
            }
        }
    }
}

impl hyper::body::Body for Asked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.follow(data);
                }
            }
            Some(Err(_)) => {}
            None => {
                let whole = self.prefix.is_empty() && self.left == 0;
                self.was_read.0.store(whole, Ordering::Release);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // So that the end is asked for, and seen.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Answered {
    pub(super) fn new(body: Body, was_read: WasRead) -> Self {
        Self { body, was_read }
    }
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let ends_well = |frame: &Frame<Bytes>| {
            let code = frame.trailers_ref().and_then(|trailers| trailers.get("grpc-status"));
            code.is_some_and(|code| code.as_bytes() == b"0")
        };
        match &frame {
            Some(Ok(last)) if ends_well(last) && !self.was_read.0.load(Ordering::Acquire) => {
                let mut trailers = HeaderMap::new();
                let told = status::undecodable().add_header(&mut trailers);
                Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
            }
            _ => Poll::Ready(frame),
        }
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

    #[test]
    fn messages_are_told_apart_wherever_they_are_cut() {
        let two = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 1], b"z"].concat();
        for size in 1..=two.len() {
            for cut in 0..=two.len() {
                let mut asked = Asked::new(Body::empty(), WasRead::default());
                two[..cut].chunks(size).for_each(|data| asked.follow(data));
                let whole = asked.prefix.is_empty() && asked.left == 0;
                assert_eq!(whole, [0, 8, 13, 19].contains(&cut), "{cut} in {size}s");
            }
        }
    }
}
