//! The sandbox's second port: what it remembers, what becomes of orders, and what it shall do
//! wrong.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::book::{Book, Received};
use super::fault::Fault;
use super::message::{Delivery, Push};
use super::order::{Move, Order};

/// The calls of `docs/sandbox.md`.
pub(super) fn router(book: Arc<Book>) -> Router {
    Router::new()
        .route("/orders", get(orders))
        .route("/orders/status", post(shift_all))
        .route("/orders/{cid}/status", post(shift))
        .route("/orders/{cid}/notice", post(push_notice))
        .route("/requests", get(requests))
        .route("/checks", get(checks))
        .route("/notices", get(notices))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/verification", put(verify_at))
        .route("/duplicates", put(allow_duplicates))
        .route("/reset", post(reset))
        .with_state(book)
}

/// Where orders are verified.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verification {
    url: Option<String>,
}

/// Whether ids may repeat.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Duplicates {
    allowed: bool,
}

/// How many orders were moved.
#[derive(Serialize)]
struct Moved {
    moved: usize,
}

async fn orders(State(book): State<Arc<Book>>) -> Json<Vec<Order>> {
    Json(book.orders())
}

async fn requests(State(book): State<Arc<Book>>) -> Json<Vec<Received>> {
    Json(book.received())
}

async fn checks(State(book): State<Arc<Book>>) -> Json<Vec<Received>> {
    Json(book.checks())
}

async fn notices(State(book): State<Arc<Book>>) -> Json<Vec<Delivery>> {
    Json(book.deliveries())
}

async fn shift(
    State(book): State<Arc<Book>>,
    Path(cid): Path<i64>,
    Json(to): Json<Move>,
) -> StatusCode {
    done(book.shift(cid, &to))
}

async fn shift_all(State(book): State<Arc<Book>>, Json(to): Json<Move>) -> Json<Moved> {
    Json(Moved { moved: book.shift_all(&to) })
}

async fn push_notice(
    State(book): State<Arc<Book>>,
    Path(cid): Path<i64>,
    push: Option<Json<Push>>,
) -> StatusCode {
    done(book.push_notice(cid, push.map(|Json(push)| push).unwrap_or_default()))
}

async fn add_fault(State(book): State<Arc<Book>>, Json(fault): Json<Fault>) -> StatusCode {
    book.add_fault(fault);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(book): State<Arc<Book>>) -> StatusCode {
    book.clear_faults();
    StatusCode::NO_CONTENT
}

async fn verify_at(State(book): State<Arc<Book>>, Json(at): Json<Verification>) -> StatusCode {
    book.verify_at(at.url);
    StatusCode::NO_CONTENT
}

async fn allow_duplicates(
    State(book): State<Arc<Book>>,
    Json(duplicates): Json<Duplicates>,
) -> StatusCode {
    book.allow_duplicates(duplicates.allowed);
    StatusCode::NO_CONTENT
}

async fn reset(State(book): State<Arc<Book>>) -> StatusCode {
    book.reset();
    StatusCode::NO_CONTENT
}

fn done(found: bool) -> StatusCode {
    if found { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}
