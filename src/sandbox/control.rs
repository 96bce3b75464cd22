//! The sandbox's second port: what it remembers, and what it shall do wrong.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::book::{Book, Order, Received};
use super::fault::Fault;

/// `GET /orders`, `GET /requests`, `POST /faults`, `DELETE /faults`, `POST /reset`.
pub(super) fn router(book: Arc<Book>) -> Router {
    Router::new()
        .route("/orders", get(orders))
        .route("/requests", get(requests))
        .route("/faults", post(add_fault).delete(clear_faults))
        .route("/reset", post(reset))
        .with_state(book)
}

async fn orders(State(book): State<Arc<Book>>) -> Json<Vec<Order>> {
    Json(book.orders())
}

async fn requests(State(book): State<Arc<Book>>) -> Json<Vec<Received>> {
    Json(book.received())
}

async fn add_fault(State(book): State<Arc<Book>>, Json(fault): Json<Fault>) -> StatusCode {
    book.add_fault(fault);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(book): State<Arc<Book>>) -> StatusCode {
    book.clear_faults();
    StatusCode::NO_CONTENT
}

async fn reset(State(book): State<Arc<Book>>) -> StatusCode {
    book.reset();
    StatusCode::NO_CONTENT
}
