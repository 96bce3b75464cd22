//! The platform's port: `/livez` and `/readyz`.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;

/// The admin port's pages. `/livez` depends on nothing, so that no outage elsewhere restarts us;
/// `/readyz` follows the gRPC health of `""`.
pub fn router(ready: watch::Receiver<bool>) -> Router {
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
    Router::new().route("/livez", get(async || "ok\n")).route("/readyz", get(readyz))
}
