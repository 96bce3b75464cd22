//! The listener for callers: accepts, limits, shakes hands, and hands the server only connections
//! that speak HTTP/2.
//!
//! Nothing here waits for a slow peer: those that are still arriving do so beside each other, each
//! within its time, and where too many are, the oldest gives way. Nothing here ends the loop, either.

mod connection;
pub(crate) mod http1;
pub(crate) mod place;
pub(crate) mod waiting;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::StreamExt;
use tokio_util::either::Either;
use tonic::transport::server::TcpIncoming;

use crate::causes::chain;
use crate::config;
use crate::metrics::family::Known;
use crate::telemetry::lines::Lines;
use crate::tls::{Certificate, Certificates};
use place::{Place, Places};

pub use connection::{Connection, Origin};

/// A TLS handshake is over by then, or the connection is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// And from its first byte to its HTTP/2 preface a connection has so long.
const GREETING: Duration = Duration::from_secs(10);
/// Connections that may be on their way in at once; one more drives the oldest out.
const ARRIVING_MAX: usize = 256;
/// How long nothing is accepted after accepting failed, as it does when descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);
/// Probes of the kernel's find peers that vanished without a word.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The same warning comes at most once in so long.
const HUSH: Duration = Duration::from_secs(60);

/// A bound socket and everything that is arriving at it.
#[derive(Debug)]
pub struct Listener {
    socket: TcpIncoming,
    certificates: Option<Arc<Certificates>>,
    places: Arc<Places>,
    arriving: JoinSet<Option<Connection>>,
    /// Those of `arriving`, oldest first; some have ended.
    order: VecDeque<AbortHandle>,
    /// Nothing is accepted before this.
    paused: Option<Instant>,
    failing: Lines,
    full: Lines,
}

// === impl Listener ===

impl Listener {
    /// Listens on `socket`, with TLS where `certificates` are given; `open` counts the connections.
    pub fn new(
        socket: TcpListener,
        settings: &config::Grpc,
        certificates: Option<Arc<Certificates>>,
        open: &Known,
    ) -> Self {
        let socket = TcpIncoming::from(socket);
        let wanted = settings.max_connections;
        let most = within_descriptors(wanted, 2);
        if most < wanted {
            tracing::warn!(
                wanted,
                most,
                "fewer connections than grpc.max_connections: raise nofile"
            );
        }
        Self {
            socket: socket.with_nodelay(Some(true)).with_keepalive(Some(KEEPALIVE)),
            certificates,
            places: Places::new(most, settings.trusted_proxies.clone(), open.clone()),
            arriving: JoinSet::new(),
            order: VecDeque::new(),
            paused: None,
            failing: Lines::new(1, HUSH),
            full: Lines::new(1, HUSH),
        }
    }

    /// Every connection that is ready to be served. Dropping the stream closes the socket.
    pub fn incoming(self) -> impl Stream<Item = Result<Connection, Infallible>> + Send {
        stream::unfold(self, |mut listener| async {
            let connection = listener.next().await;
            Some((Ok(connection), listener))
        })
    }

    async fn next(&mut self) -> Connection {
        loop {
            let accepted = async {
                if let Some(until) = self.paused {
                    sleep_until(until).await;
                }
                self.socket.next().await
            };
            tokio::select! {
                Some(arrived) = self.arriving.join_next() => {
                    if let Ok(Some(connection)) = arrived {
                        return connection;
                    }
                }
                Some(accepted) = accepted => self.admit(accepted),
            }
        }
    }

    fn admit(&mut self, accepted: io::Result<TcpStream>) {
        self.paused = None;
        let accepted = accepted.and_then(|stream| {
            let address = stream.peer_addr()?.ip().to_canonical();
            Ok((stream, address))
        });
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            // That peer has gone; the next one may be fine.
            Err(gone) if is_the_peers(&gone) => return,
            Err(error) => {
                self.paused = Some(Instant::now() + PAUSE);
                if let Some(left_out) = self.failing.admit() {
                    let error = chain(&error);
                    tracing::warn!(error, left_out, "connections cannot be accepted; trying on");
                }
                return;
            }
        };
        let Some(place) = self.places.take(address) else {
            if let Some(left_out) = self.full.admit() {
                tracing::warn!(%address, left_out, "too many connections: closed at once");
            }
            return;
        };
        self.make_room();
        let arrival = arrive(stream, address, self.certificates.clone(), place);
        self.order.push_back(self.arriving.spawn(arrival));
    }

    /// Drives out the oldest of those that are arriving, where there are too many.
    fn make_room(&mut self) {
        while self.order.front().is_some_and(AbortHandle::is_finished) {
            self.order.pop_front();
        }
        if self.order.len() >= ARRIVING_MAX {
            self.order.retain(|arriving| !arriving.is_finished());
        }
        if self.order.len() >= ARRIVING_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
    }
}

/// From an accepted socket to a connection that can be served; none where it does not get there.
async fn arrive(
    stream: TcpStream,
    address: IpAddr,
    certificates: Option<Arc<Certificates>>,
    place: Place,
) -> Option<Connection> {
    let greeting = async {
        let Some(certificates) = certificates else {
            let origin = Origin { address, certificate: None };
            return Connection::greet(Either::Left(stream), origin, place).await;
        };
        let stream = match timeout(HANDSHAKE, certificates.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "handshake failed");
                return None;
            }
            Err(_) => {
                tracing::debug!(%address, "handshake took too long");
                return None;
            }
        };
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown.map(|chain| Arc::new(Certificate::new(chain, &certificates)));
        let origin = Origin { address, certificate };
        Connection::greet(Either::Right(stream), origin, place).await
    };
    timeout(GREETING, greeting).await.ok().flatten()
}

fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    let kind = error.kind();
    [E::ConnectionAborted, E::ConnectionReset, E::NotConnected].contains(&kind)
}

/// So many of the `wanted` connections that they take at most the `part`th part of the process's descriptors: half are
/// the callers', and what is left of the other two ports' stays for the ledger and Cregis.
fn within_descriptors(wanted: usize, part: u64) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = limit.and_then(|limit| usize::try_from(limit / part).ok()).unwrap_or(usize::MAX);
    wanted.min(most)
}
