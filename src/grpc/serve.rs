//! Serves connections, and resets the streams whose answers nobody takes.
//!
//! hyper holds an answer for as long as its client keeps the window shut. tonic's own server leaves no way to end such a
//! stream, so the loop over the connections is ours.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

use super::{HEADERS_MAX, STREAMS_MAX};
use crate::listener::Connection;
use crate::listener::waiting::{PATIENCE, Waiting};

/// An answer that has not moved for so long is given up, and its stream reset.
const STILL: Duration = Duration::from_secs(30);
/// Answers that may stand still at once, and those to one address; then the oldest is given up.
const STILL_MAX: usize = 2048;
const STILL_MAX_EACH: usize = 1024;
/// The most that leaves an answer at once, and so may lie in the connection unwatched.
const PIECE: usize = 16 * 1024;

/// Serves `connections` with `service` until `stop`; then those that are open end when their calls have.
pub(super) async fn serve<S, B>(
    connections: impl Stream<Item = Result<Connection, Infallible>>,
    service: S,
    proxies: Vec<IpNet>,
    stop: CancellationToken,
) where
    S: Service<Request<tonic::body::Body>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    let still = Waiting::new(STILL_MAX, STILL_MAX_EACH, PATIENCE, proxies);
    let mut open = JoinSet::new();
    {
        // Dropped, and the socket with it, before the last calls are waited for.
        let mut connections = pin!(connections);
        loop {
            let connection = tokio::select! {
                Some(Ok(connection)) = connections.next() => connection,
                Some(_) = open.join_next() => continue,
                () = stop.cancelled() => break,
            };
            open.spawn(attend(connection, service.clone(), Arc::clone(&still), stop.clone()));
        }
    }
    while open.join_next().await.is_some() {}
}

async fn attend<S, B>(
    connection: Connection,
    service: S,
    still: Arc<Waiting>,
    stop: CancellationToken,
) where
    S: Service<Request<tonic::body::Body>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    let origin = connection.origin().clone();
    let streams = Streams { still, address: origin.address };
    let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut request = request.map(tonic::body::Body::new);
        request.extensions_mut().insert(origin.clone());
        // Nothing in it has to get ready.
        let answer = service.clone().call(request);
        async { answer.await.map(|response| response.map(Moving::new)) }
    });
    let served = Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(100)
        .max_local_error_reset_streams(1024)
        .max_header_list_size(HEADERS_MAX)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(connection), answer);
    let mut served = pin!(served);
    tokio::select! {
        // However it ends, it is the client's.
        _ = served.as_mut() => return,
        () = stop.cancelled() => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

tokio::task_local! {
    /// How the answer of the stream that the task serves moves.
    static PROGRESS: Arc<Progress>;
}

/// Since when an answer has had something to send that has not moved; none where it has nothing to say.
#[derive(Debug, Default)]
struct Progress(Mutex<Option<Instant>>);

impl Progress {
    fn set(&self, since: Option<Instant>) {
        // Replaced whole.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the streams of a connection, each as a task that ends, and so resets it, where its answer stands still.
#[derive(Clone)]
struct Streams {
    still: Arc<Waiting>,
    address: IpAddr,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    #[expect(
        clippy::disallowed_methods,
        reason = "the connection, which is waited for, ends after its streams"
    )]
    fn execute(&self, stream: F) {
        tokio::spawn(watched(stream, self.clone()));
    }
}

async fn watched(stream: impl Future<Output = ()>, streams: Streams) {
    let progress = Arc::<Progress>::default();
    let mut stream = pin!(PROGRESS.scope(Arc::clone(&progress), stream));
    // Only an answer that the client does not take at once needs them.
    let (mut timer, mut place) = (None, None);
    poll_fn(|context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = progress.since() else {
            place = None;
            return Poll::Pending;
        };
        let end = since + STILL;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        let (_, gone) = place.get_or_insert_with(|| {
            let awaited = streams.still.enter(streams.address);
            let gone = Box::pin(awaited.gone());
            (awaited, gone)
        });
        let given_up = timer.as_mut().poll(context).is_ready();
        if given_up || gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// An answer's body that tells when it moves.
///
/// It leaves in pieces of which the last has one byte: hyper asks for the next one when there is room in the client's
/// window for the one before, so the answer has not ended while more than a piece of it is unsent.
struct Moving<B> {
    body: B,
    rest: Bytes,
    progress: Option<Arc<Progress>>,
}

impl<B> Moving<B> {
    fn new(body: B) -> Self {
        let progress = PROGRESS.try_with(Arc::clone).ok();
        Self { body, rest: Bytes::new(), progress }
    }

    fn tell(&self, since: Option<Instant>) {
        if let Some(progress) = &self.progress {
            progress.set(since);
        }
    }

    /// The next piece of what is to leave.
    fn piece(&mut self) -> Frame<Bytes> {
        let length = self.rest.len().saturating_sub(1).clamp(1, PIECE);
        Frame::data(self.rest.split_to(length.min(self.rest.len())))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Moving<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.rest.is_empty() {
            self.tell(Some(Instant::now()));
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.tell(frame.is_ready().then(Instant::now));
        let Poll::Ready(Some(Ok(frame))) = frame else { return frame };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(other) => other,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn an_answer_leaves_in_pieces_of_which_the_last_has_one_byte() {
        for length in [0, 1, 2, 3, PIECE, PIECE + 1, PIECE + 2, 3 * PIECE] {
            let whole: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut moving = Moving::new(Full::from(whole.clone()));
            let mut pieces = Vec::new();
            while let Some(frame) = moving.frame().await {
                pieces.push(frame.expect("no error").into_data().expect("data"));
            }
            assert_eq!(pieces.concat(), whole);
            assert!(pieces.iter().all(|piece| (1..=PIECE).contains(&piece.len())), "{length}");
            assert!(pieces.last().is_none_or(|last| last.len() == 1), "{length}");
        }
    }
}
