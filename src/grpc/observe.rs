//! Counts every call and gives it a span, however it ends.
//!
//! The outermost layer. A call that its caller leaves, or whose stream
//! is reset, is only ever dropped; so what was not told otherwise by then counts as CANCELLED.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tonic::Code;
use tonic::codegen::http::{HeaderMap, Request, Response, StatusCode};
use tonic::codegen::{BoxFuture, Service};
use tower::Layer;
use tracing::{Instrument, Span};

use super::method::Method;
use crate::metrics::Metrics;
use crate::telemetry::span;

/// The layer that counts.
#[derive(Clone, Debug)]
pub(super) struct Observe(pub(super) Arc<Metrics>);

/// A service whose calls are counted.
#[derive(Clone, Debug)]
pub(super) struct Observed<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

/// An answer's body, watched for the code in its trailers.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: B,
    seen: Seen,
}

/// A call under way. Dropping it counts it.
#[derive(Debug)]
struct Seen {
    metrics: Arc<Metrics>,
    method: Method,
    start: Instant,
    code: Option<Code>,
    span: Span,
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observed { inner, metrics: Arc::clone(&self.0) }
    }
}

impl<S, B, R> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<Watched<R>>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = Method::of(request.uri().path());
        let span = span::rpc(method, request.headers());
        let mut seen = Seen::begin(&self.metrics, method, span.clone());
        let answering = span.in_scope(|| self.inner.call(request)).instrument(span);
        Box::pin(async move {
            let response = answering.await?;
            // An answer without a body has its code among the headers.
            seen.refused(response.status());
            seen.look(response.headers());
            Ok(response.map(|body| Watched { body, seen }))
        })
    }
}

impl Seen {
    fn begin(metrics: &Arc<Metrics>, method: Method, span: Span) -> Self {
        metrics.rpc.in_flight.at(method).inc();
        let metrics = Arc::clone(metrics);
        Self { metrics, method, start: Instant::now(), code: None, span }
    }

    /// What is no gRPC call has no code of its own.
    fn refused(&mut self, status: StatusCode) {
        if status.is_client_error() {
            self.code = Some(Code::InvalidArgument);
        }
    }

    fn look(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        let rpc = &self.metrics.rpc;
        rpc.in_flight.at(self.method).dec();
        rpc.requests.at((self.method, code)).inc();
        if self.method.is_unary() {
            rpc.duration.at(self.method).took(self.start.elapsed());
        }
        // A span ends where it was last left.
        self.span.in_scope(|| span::answered(&self.span, code));
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let span = self.seen.span.clone();
        let frame = span.in_scope(|| Pin::new(&mut self.body).poll_frame(context));
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.seen.look(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
