//! What counts as a gRPC call, and how much of one is read before anything is known about who sends it.
//!
//! tonic looks at the path alone: a web page's form, which a browser sends without asking, would be an order like any
//! other. And tonic waits for a message for as long as its client likes.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{Method as Verb, Request, Response, StatusCode};
use tower::{Layer, Service};

use super::body::{self, Whole};
use super::method::{HEALTH_WATCH, Method};
use super::status;
use super::streamed::{Answered, Asked, WasRead};
use crate::config;
use crate::engine::Refused;
use crate::listener::Origin;
use crate::listener::place::Places;
use crate::listener::waiting::Waiting;
use crate::metrics::family::Known;

/// Health watches that may be open at once: they need no credentials.
const HEALTH_WATCHES: usize = 1024;

/// The protocol's rules, as a layer around all services.
#[derive(Clone, Debug)]
pub(super) struct Protocol {
    waiting: Arc<Waiting>,
    health_watches: Arc<Places>,
    reflection: bool,
}

/// Services that only gRPC calls reach.
#[derive(Clone, Debug)]
pub(super) struct Checked<S> {
    services: S,
    protocol: Protocol,
}

impl Protocol {
    pub(super) fn new(settings: &config::Grpc) -> Self {
        let proxies = || settings.trusted_proxies.clone();
        let health_watches = Places::new(HEALTH_WATCHES, proxies(), Known::default());
        let reflection = settings.reflection;
        Self { waiting: body::waiting(proxies()), health_watches, reflection }
    }
}

/// The HTTP status for what is no gRPC call; none for a call.
fn no_call<B>(request: &Request<B>) -> Option<StatusCode> {
    let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    let is_grpc = matches!(content_type, Some(b"application/grpc" | b"application/grpc+proto"));
    if request.method() != Verb::POST || !is_grpc {
        return Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    // Browsers set it by themselves, and no page can take it away.
    let site = request.headers().get("sec-fetch-site").map(|value| value.as_bytes());
    (site == Some(b"cross-site")).then_some(StatusCode::FORBIDDEN)
}

impl<S> Layer<S> for Protocol {
    type Service = Checked<S>;

    fn layer(&self, services: S) -> Checked<S> {
        Checked { services, protocol: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Checked<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(code) = no_call(&request) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = code;
            return Box::pin(async { Ok(response) });
        }
        let Some(origin) = request.extensions().get::<Origin>() else {
            return refuse(&Refused::Unauthenticated);
        };
        let (path, address) = (request.uri().path(), origin.address);
        let method = Method::of(path);
        let offered = method != Method::Reflection || self.protocol.reflection;
        let served = offered && method.is_served(path);
        let mut held = None;
        if path == HEALTH_WATCH {
            held = self.protocol.health_watches.take(address);
            if held.is_none() {
                return refuse(&Refused::Overloaded);
            }
        }
        let waiting = Arc::clone(&self.protocol.waiting);
        let request = request.map(|body| Body::new(Whole::new(body, waiting, address)));
        let streamed = (method == Method::Reflection && served).then(WasRead::default);
        let request = match &streamed {
            Some(was_read) => request.map(|body| Body::new(Asked::new(body, was_read.clone()))),
            None => request,
        };
        let answer = self.services.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            if let Some(status) = status::explained(response.headers(), served) {
                response = status.into_http();
            }
            if let Some(was_read) = streamed {
                response = response.map(|body| Body::new(Answered::new(body, was_read)));
            }
            let kept = held.map(Kept::of).or_else(|| response.extensions_mut().remove());
            Ok(match kept {
                Some(kept) => response.map(|body| Body::new(Held { body, _kept: kept })),
                None => response,
            })
        })
    }
}

fn refuse<E: Send + 'static>(refused: &Refused) -> BoxFuture<Response<Body>, E> {
    let response = status::refused(refused).into_http();
    Box::pin(async { Ok(response) })
}

/// What an answer keeps until it is sent or given up. A handler puts it among its answer's extensions.
#[derive(Clone)]
pub(super) struct Kept(#[expect(dead_code, reason = "held")] Arc<dyn Any + Send + Sync>);

impl Kept {
    pub(super) fn of(places: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(places))
    }
}

/// An answer's body that keeps its places for as long as it lives.
struct Held {
    body: Body,
    _kept: Kept,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
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
    fn only_a_post_of_grpc_that_no_other_site_has_sent_is_a_call() {
        let asked = |verb: &str, content_type: Option<&str>, site: Option<&str>| {
            let mut request = Request::builder().method(verb).uri("/x.Y/Z");
            for (name, value) in [("content-type", content_type), ("sec-fetch-site", site)] {
                request =
                    value.into_iter().fold(request, |request, value| request.header(name, value));
            }
            no_call(&request.body(()).expect("a request")).map(|code| code.as_u16())
        };
        for grpc in ["application/grpc", "application/grpc+proto"] {
            assert_eq!(asked("POST", Some(grpc), None), None);
            for site in ["none", "same-origin"] {
                assert_eq!(asked("POST", Some(grpc), Some(site)), None, "{site}");
            }
            assert_eq!(asked("POST", Some(grpc), Some("cross-site")), Some(403));
            for verb in ["GET", "PUT", "OPTIONS", "post"] {
                assert_eq!(asked(verb, Some(grpc), None), Some(415), "{verb}");
            }
        }
        for other in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json",
            "application/grpc-web",
            "application/grpc+json",
            "application/grpc, text/plain",
        ] {
            assert_eq!(asked("POST", Some(other), None), Some(415), "{other}");
        }
        assert_eq!(asked("POST", None, None), Some(415));
    }
}
