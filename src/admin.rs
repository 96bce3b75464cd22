//! The platform's port: `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use tokio::sync::watch;

use crate::engine::Engine;
use crate::metrics::Format;

/// The admin port's pages. `/livez` depends on nothing, so that no outage elsewhere restarts us;
/// `/readyz` follows the gRPC health of `""`.
pub fn router(ready: watch::Receiver<bool>, engine: Arc<Engine>) -> Router {
    let readyz = move || {
        let ready = *ready.borrow();
        async move {
            if ready {
                (StatusCode::OK, "ok\n")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            }
        }
    };
    let metrics = move |headers: HeaderMap| async move {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::of(accept.unwrap_or_default());
        engine.measure().await;
        let content_type = [(header::CONTENT_TYPE, format.content_type())];
        (content_type, engine.metrics().encode(format))
    };
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}
