//! A port that speaks HTTP/1.1: one small request on each connection, read whole in a bounded time and beside a bounded
//! number of others.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::waiting::{Awaited, Waiting};
use super::{PAUSE, within_descriptors};

/// A request's head is read by then.
const HEAD: Duration = Duration::from_secs(5);
/// How often silent connections are looked at while all places are taken.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bytes of a head, and of a body.
const BYTES_MAX: usize = 16 * 1024;

/// What a port bears.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at once. Three quarters of them may be silent for long, and one address may have half of those; then the
    /// oldest silent one gives way.
    pub(crate) connections: usize,
    /// They take at most this part of the process's descriptors: the how-manieth.
    pub(crate) part: u64,
    /// For how long a silent connection gives way to none: where every request counts, and they may come in bursts.
    pub(crate) burst: Duration,
    /// From the first byte of a request to the last of its answer.
    pub(crate) patience: Duration,
}

/// What is answered, whole.
pub(crate) type Answer = Response<Full<Bytes>>;

/// An answer of a few words, perhaps of none.
pub(crate) fn plain(status: StatusCode, words: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(words));
    *answer.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, text);
    answer
}

/// Serves until `stop`, each request with what `reply` makes of it and of who sent it; then those under way end.
pub(crate) async fn serve<F>(
    socket: TcpListener,
    limits: Limits,
    reply: impl Fn(Request<Bytes>, IpAddr) -> F + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let most = within_descriptors(limits.connections, limits.part).max(4);
    let places = Arc::new(Semaphore::new(most));
    let waiting = Waiting::new(most * 3 / 4, most * 3 / 8, limits.burst, vec![]);
    let mut connections = JoinSet::new();
    loop {
        // Before the connection is taken: what comes in a burst waits in the kernel's queue.
        let accepted = async { (place(&places, &waiting).await, socket.accept().await) };
        let (Ok(place), Ok((stream, address))) = (tokio::select! {
            accepted = accepted => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            () = stop.cancelled() => break,
        }) else {
            // Out of descriptors, most likely: a busy loop would not bring them back.
            sleep(PAUSE).await;
            continue;
        };
        let address = address.ip().to_canonical();
        let awaited = Arc::new(waiting.enter(address));
        let gone = awaited.gone();
        let reply = reply.clone();
        let connection = attend(stream, awaited, move |request| reply(request, address));
        connections.spawn(async move {
            tokio::select! {
                // A peer that is slow or gone is nobody's fault here.
                _ = timeout(limits.patience, connection) => {}
                () = gone => {}
            }
            drop(place);
        });
    }
    drop(socket);
    while connections.join_next().await.is_some() {}
}

/// A place for one more connection; where all are taken, what has been silent for long gives way.
async fn place(
    places: &Arc<Semaphore>,
    waiting: &Waiting,
) -> Result<OwnedSemaphorePermit, AcquireError> {
    loop {
        let place = Arc::clone(places).acquire_owned();
        match timeout(LOOK_EVERY, place).await {
            Ok(place) => return place,
            Err(_) => waiting.make_room(),
        }
    }
}

/// One connection, which gives way until its request is whole.
fn attend<F>(
    stream: TcpStream,
    awaited: Arc<Awaited>,
    reply: impl Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
) -> impl Future<Output = Result<(), hyper::Error>>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (awaited, reply) = (Arc::clone(&awaited), reply.clone());
        async move {
            let (head, body) = request.into_parts();
            let read = Limited::new(body, BYTES_MAX).collect().await;
            awaited.came();
            Ok::<_, Infallible>(match read {
                Ok(body) => reply(Request::from_parts(head, body.to_bytes())).await,
                Err(error) if error.is::<LengthLimitError>() => {
                    plain(StatusCode::PAYLOAD_TOO_LARGE, "")
                }
                Err(_) => plain(StatusCode::BAD_REQUEST, ""),
            })
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
}
