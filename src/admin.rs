//! The platform's port: `/livez`, `/readyz` and `/metrics`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::listener::http1::{self, Answer, Limits, plain};
use crate::metrics::Format;

/// Counting the ledger may take some seconds.
const LIMITS: Limits =
    Limits { connections: 64, part: 16, burst: Duration::ZERO, patience: Duration::from_secs(10) };

/// Serves the pages until `stop`. `/livez` depends on nothing, so that no outage elsewhere restarts us;
/// `/readyz` follows the gRPC health of `""`.
pub async fn serve(
    socket: TcpListener,
    ready: watch::Receiver<bool>,
    engine: Arc<Engine>,
    stop: CancellationToken,
) {
    let reply = move |request: Request<Bytes>, _: IpAddr| {
        let (ready, engine) = (ready.clone(), Arc::clone(&engine));
        async move { page(&request, &ready, &engine).await }
    };
    http1::serve(socket, LIMITS, reply, stop).await;
}

async fn page(request: &Request<Bytes>, ready: &watch::Receiver<bool>, engine: &Engine) -> Answer {
    let path = request.uri().path();
    if !["/livez", "/readyz", "/metrics"].contains(&path) {
        return plain(StatusCode::NOT_FOUND, "");
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    match path {
        "/livez" => plain(StatusCode::OK, "ok\n"),
        "/readyz" if *ready.borrow() => plain(StatusCode::OK, "ok\n"),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        _ => {
            let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
            let format = Format::of(accept.unwrap_or_default());
            engine.measure().await;
            let mut answer = Answer::new(Full::from(engine.metrics().encode(format)));
            let content_type = HeaderValue::from_static(format.content_type());
            answer.headers_mut().insert(CONTENT_TYPE, content_type);
            answer
        }
    }
}
