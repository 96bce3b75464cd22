//! The spans of a trace: the call, the check of what it asks for, and its flight with what that does.
//!
//! They say what was done and what it came to; never an amount, an address, an id of anybody's, a
//! body or a signature. Where no collector is configured, each costs a look at a flag.

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;
use tonic::codegen::http::HeaderMap;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::grpc::method::Method;
use crate::metrics::label::{Answer, Label};

/// What tells these spans from everybody else's.
pub(super) const TARGET: &str = module_path!();

/// The span of a call; it goes on from the trace that the caller's `traceparent` names.
pub(crate) fn rpc(method: Method, headers: &HeaderMap) -> Span {
    let (service, method) = match method.service() {
        // What the platform asks all day says nothing about payouts.
        "" => return Span::none(),
        service => (service, method.as_str()),
    };
    let span = info_span!(
        parent: None,
        "rpc",
        otel.name = format!("{service}/{method}"),
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
    );
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        // It is new, and so it takes one.
        let _ = span.set_parent(parent);
    }
    span
}

/// Notes what a call was answered.
pub(crate) fn answered(span: &Span, code: Code) {
    span.record("rpc.grpc.status_code", code as i64);
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => {
            span.record("otel.status_code", "ERROR");
        }
        // The others are the caller's doing, not ours.
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => {}
    }
}

/// The check of what a call asks for.
pub(crate) fn validate() -> Span {
    info_span!("validate")
}

/// A flight, which may outlive the call that starts it: it is in that call's trace, but does not keep
/// the call's span open.
pub(crate) fn flight() -> Span {
    let flight = info_span!(parent: None, "flight");
    if !flight.is_disabled() {
        // It is new, and so it takes one.
        let _ = flight.set_parent(Span::current().context());
    }
    flight
}

/// One wait for the ledger.
pub(crate) fn ledger(operation: &'static str) -> Span {
    info_span!("ledger", otel.name = format!("ledger {operation}"), db.operation.name = operation)
}

/// The one POST that pays.
pub(crate) fn upstream(host: &str) -> Span {
    info_span!(
        "upstream",
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = "POST",
        server.address = host,
        outcome = Empty,
    )
}

/// Notes what the POST came to.
pub(crate) fn came_to(span: &Span, answer: Answer) {
    span.record("outcome", answer.text());
    if answer != Answer::Accepted {
        span.record("otel.status_code", "ERROR");
    }
}

/// The present trace, where there is one: log lines name it.
pub(crate) fn trace_id() -> Option<String> {
    let current = Span::current();
    if current.is_disabled() {
        return None;
    }
    let id = current.context().span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}

/// A request's headers, as a propagator reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
