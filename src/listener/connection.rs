//! A connection that has shown that it speaks HTTP/2, and what it proves about its other end.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::place::Place;
use crate::tls::Certificate;

/// What every HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) type Wire = Either<TcpStream, TlsStream<TcpStream>>;

/// A connection for the gRPC server.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    /// What was read off the wire and the server has yet to read.
    unread: &'static [u8],
    origin: Origin,
    _place: Place,
}

/// Where a connection comes from. The server puts it among each request's extensions.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The other end of the socket.
    pub address: IpAddr,
    /// The certificate that it showed.
    pub certificate: Option<Arc<Certificate>>,
}

impl Connection {
    /// Waits for the client's first words; none, where they are not HTTP/2's.
    ///
    /// The server itself would wait for ever, and would be kept from stopping meanwhile.
    pub(super) async fn greet(mut wire: Wire, origin: Origin, place: Place) -> Option<Self> {
        let mut heard = Vec::with_capacity(PREFACE.len());
        while heard.len() < PREFACE.len() {
            let left = PREFACE.len() - heard.len();
            let read = (&mut wire).take(left as u64).read_buf(&mut heard).await.ok()?;
            if read == 0 || !PREFACE.starts_with(&heard) {
                return None;
            }
        }
        Some(Self { wire, unread: PREFACE, origin, _place: place })
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.wire).poll_read(context, into);
        }
        let (now, later) = self.unread.split_at(self.unread.len().min(into.remaining()));
        into.put_slice(now);
        self.unread = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
