//! A small Cregis with a memory: for tests, for `payoutd dev` and for callers' own CI.
//!
//! It verifies signatures, refuses a repeated id and a bad nonce, answers queries, tells its coins and
//! checks addresses, asks whether an order may be paid, takes it to an end and sends the notice. Told so through a second port, it
//! misbehaves: late, lost, broken or wrong answers, before or after it has stored the order; late,
//! lost, repeated, forged or mismatching messages. Nothing here is part of the service, and nothing
//! survives a stop.

pub mod book;
mod coins;
mod control;
pub mod fault;
mod life;
mod memory;
pub mod message;
pub mod order;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::json::Json;
use book::Book;
use fault::{Fault, On, Then, Twice};
use life::{Job, Worker};
use memory::Verdict;
pub use message::signed;

/// The project that a sandbox stands for unless told otherwise: the vendor's published example.
pub const PID: i64 = 1_382_528_827_416_576;
/// The vendor's published example key. It opens nothing.
pub const API_KEY: &str = "f502a9ac9ca54327986f29c03b271491";

/// How a sandbox is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it stands in for Cregis.
    pub listen: SocketAddr,
    /// Where it takes orders about itself.
    pub control: SocketAddr,
    /// The project it knows.
    pub pid: i64,
    /// That project's key.
    pub api_key: SecretString,
    /// Misbehave a little all the time.
    pub chaos: bool,
    /// The status that each order ends with by itself.
    pub outcome: Option<i32>,
    /// How long it takes to get there.
    pub outcome_after: Duration,
    /// Where each order is verified.
    pub verification_url: Option<String>,
    /// Take a repeated id for a new order, as a provider without that check would.
    pub no_duplicate_check: bool,
}

/// A sandbox that is bound.
#[derive(Debug)]
pub struct Sandbox {
    cregis: TcpListener,
    control: TcpListener,
    book: Arc<Book>,
    jobs: mpsc::UnboundedReceiver<Job>,
    http: reqwest::Client,
    chaos: bool,
}

/// A connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("dropped on purpose")]
struct Dropped;

type Body = UnsyncBoxBody<Bytes, Dropped>;

// === impl Settings ===

impl Default for Settings {
    /// The vendor's example project on any two free ports, well-behaved, with orders that stay as
    /// they are.
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: any,
            control: any,
            pid: PID,
            api_key: API_KEY.into(),
            chaos: false,
            outcome: None,
            outcome_after: Duration::from_secs(1),
            verification_url: None,
            no_duplicate_check: false,
        }
    }
}

// === impl Sandbox ===

impl Sandbox {
    /// Binds both ports; 0 takes any that is free.
    ///
    /// # Errors
    /// Where a port is not to be had, or the system has no root certificates.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        let (book, jobs) = Book::new(&settings);
        Ok(Self {
            cregis: TcpListener::bind(settings.listen).await?,
            control: TcpListener::bind(settings.control).await?,
            book: Arc::new(book),
            jobs,
            http: life::client().map_err(io::Error::other)?,
            chaos: settings.chaos,
        })
    }

    /// Where it stands in for Cregis.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.cregis.local_addr()
    }

    /// Where it takes orders about itself.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn control_address(&self) -> io::Result<SocketAddr> {
        self.control.local_addr()
    }

    /// What it remembers.
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book)
    }

    /// Serves until `stop`; then every connection is closed at once, and what was not sent never is.
    pub async fn run(self, stop: CancellationToken) {
        let Self { cregis, control, book, jobs, http, chaos } = self;
        let pages = control::router(Arc::clone(&book));
        let closed = stop.clone().cancelled_owned();
        let control = axum::serve(control, pages).with_graceful_shutdown(closed);
        let tasks = TaskTracker::new();
        let (worker_book, worker_stop) = (Arc::clone(&book), stop.clone());
        let worker = Worker { book: worker_book, http, tasks: tasks.clone(), stop: worker_stop };
        let accept = async {
            loop {
                let Ok((stream, _)) = cregis.accept().await else { continue };
                // Small answers must not wait for acknowledgements.
                let _ = stream.set_nodelay(true);
                let (book, stop) = (Arc::clone(&book), stop.clone());
                tasks.spawn(async move {
                    let service =
                        service_fn(move |request| serve(Arc::clone(&book), chaos, request));
                    let serve = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service);
                    // A connection that we drop on purpose ends with an error, too.
                    stop.run_until_cancelled(serve).await
                });
            }
        };
        tokio::select! {
            () = accept => {}
            _ = control => {}
            () = worker.run(jobs) => {}
            () = stop.cancelled() => {}
        }
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}

/// One request to what stands in for Cregis.
async fn serve(
    book: Arc<Book>,
    chaos: bool,
    request: Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    let path = request.uri().path().to_owned();
    let on = match path.as_str() {
        "/api/v1/payout" => On::Payout,
        "/api/v1/payout/query" => On::Query,
        "/api/v1/coins" => On::Coins,
        "/api/v1/address/legal" => On::Address,
        _ => return Ok(raw(404, "not found")),
    };
    if request.method() != Method::POST {
        return Ok(raw(405, "method not allowed"));
    }
    let body = Limited::new(request.into_body(), 64 * 1024).collect().await;
    let body = body.map_err(|_| Dropped)?.to_bytes();
    let body = Json::parse(&body).unwrap_or(Json::Null);

    let (number, scripted) = book.receive(&path, on, &body);
    let drawn = if chaos { Fault::chaos(on) } else { None };
    let fault = scripted.or(drawn).unwrap_or_default();
    pause(fault.delay).await;
    let mut verdict = decided(book.decide(on, &body, fault.stores())).await;
    if let (On::Payout, Some(twice)) = (on, fault.deliver_twice) {
        let second = decided(book.decide_again(&body, fault.stores())).await;
        verdict = match twice {
            Twice::First => verdict,
            Twice::Second => second,
        };
    }
    book.note_answer(on, number, verdict.code);
    pause(fault.delay_answer).await;
    misbehave(fault, verdict).await
}

/// Waits until the answer may be sent.
async fn decided(mut verdict: Verdict) -> Verdict {
    if let Some(held) = verdict.held.take() {
        // It always ends with the sender's end; nothing is ever sent.
        let _ = held.await;
    }
    verdict
}

/// The answer that `fault` makes of `verdict`.
async fn misbehave(fault: Fault, mut verdict: Verdict) -> Result<Response<Body>, Dropped> {
    if let Value::Object(data) = &mut verdict.data {
        if let Some(cid) = fault.cid {
            data.insert("cid".to_owned(), cid);
        }
        message::change(data, fault.fields);
    }
    let text = match (fault.body, fault.code) {
        (Some(body), _) => body,
        (None, Some(code)) => {
            let msg = fault.msg.unwrap_or_else(|| "scripted".to_owned());
            json!({ "code": code, "msg": msg, "data": null }).to_string()
        }
        (None, None) => envelope(verdict),
    };
    let status = fault.status.unwrap_or(200);
    let mut response = match fault.then {
        Then::Answer => raw(status, text),
        Then::Drop => return Err(Dropped),
        Then::Hang => pending().await,
        Then::Truncate => {
            let half = Bytes::from(text.clone()).slice(..text.len() / 2);
            let cut = tokio_stream::iter([Ok(Frame::data(half)), Err(Dropped)]);
            streamed(status, text.len(), StreamBody::new(cut).boxed_unsync())
        }
        Then::Drip => {
            let bytes: Vec<_> = text.bytes().map(|byte| Bytes::from(vec![byte])).collect();
            let slow = tokio_stream::iter(bytes).throttle(Duration::from_secs(1));
            let frames = slow.map(|byte| Ok(Frame::data(byte)));
            streamed(status, text.len(), StreamBody::new(frames).boxed_unsync())
        }
    };
    for (name, value) in fault.headers {
        let (Ok(name), Ok(value)) = (name.parse::<hyper::header::HeaderName>(), value.parse())
        else {
            continue;
        };
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn envelope(verdict: Verdict) -> String {
    json!({ "code": verdict.code, "msg": verdict.msg, "data": verdict.data }).to_string()
}

fn raw(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {});
    with_status(status, body.boxed_unsync())
}

/// A body that will not come as announced: its length is stated, so that the lack of it shows.
fn streamed(status: u16, length: usize, body: Body) -> Response<Body> {
    let mut response = with_status(status, body);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn with_status(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
