//! Both ends of the sandbox's wire: signed calls into it, and whoever takes its messages.

use std::net::SocketAddr;
use std::sync::Arc;

use payoutd::json::Json;
use payoutd::sandbox::book::Book;
use payoutd::sandbox::{API_KEY, PID, signed};
use payoutd::sign;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::support::{ADDRESS, Upstream, any_port, within};

/// Takes messages, and answers what it is told to.
pub(super) struct Receiver {
    pub(super) url: String,
    messages: watch::Receiver<Vec<String>>,
    /// Each answer needs a permit.
    pub(super) gate: Arc<Semaphore>,
    _task: JoinSet<()>,
}

impl Receiver {
    /// Answers with 200 and each of `bodies` in turn, then with the last for ever.
    pub(super) async fn start(bodies: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind(any_port()).await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let (taken, messages) = watch::channel(Vec::new());
        let gate = Arc::new(Semaphore::new(1_000_000));
        let opened = Arc::clone(&gate);
        let answer = move |message: String| async move {
            let mut number = 0;
            taken.send_modify(|taken| {
                number = taken.len();
                taken.push(message);
            });
            opened.acquire().await.expect("open").forget();
            *bodies.get(number).or(bodies.last()).expect("an answer")
        };
        let router = axum::Router::new().route("/", axum::routing::post(answer));
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.expect("served") });
        Self { url, messages, gate, _task: task }
    }

    /// The messages, once there are `count`.
    pub(super) async fn messages(&self, count: usize) -> Vec<String> {
        let mut messages = self.messages.clone();
        let there = within(messages.wait_for(|there| there.len() >= count)).await;
        there.expect("the receiver lives").clone()
    }

    /// Answers nothing until the gate has permits again.
    pub(super) fn close(&self) {
        self.gate.forget_permits(usize::MAX);
    }
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { panic!("no object: {value}") };
    fields
}

pub(super) fn read(message: &str) -> Map<String, Value> {
    object(serde_json::from_str(message).expect("JSON"))
}

/// Whether a message bears the project's signature.
pub(super) fn is_genuine(message: &str) -> bool {
    let body = Json::parse(message.as_bytes()).expect("strict JSON");
    let parameters = sign::parameters(&body).expect("a flat object");
    let parameters: Vec<_> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
    sign::verify(API_KEY, &parameters, body.text("sign").expect("a signature"))
}

/// Posts a signed request and returns the answer.
async fn call(upstream: SocketAddr, path: &str, mut fields: Map<String, Value>) -> Value {
    fields.insert("pid".to_owned(), PID.into());
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let post = http.post(format!("http://{upstream}{path}")).body(signed(API_KEY, fields));
    let answer = within(post.send()).await.expect("sent").text().await.expect("text");
    serde_json::from_str(&answer).expect("an envelope")
}

pub(super) async fn try_create(upstream: SocketAddr, id: &str, callback_url: &str) -> Value {
    let mut fields = object(json!({
        "currency": "195@195",
        "address": ADDRESS,
        "amount": "1.1",
        "third_party_id": id,
        "remark": "rent",
    }));
    if !callback_url.is_empty() {
        fields.insert("callback_url".to_owned(), callback_url.into());
    }
    call(upstream, "/api/v1/payout", fields).await
}

pub(super) async fn create(upstream: SocketAddr, id: &str, callback_url: &str) -> i64 {
    let answer = try_create(upstream, id, callback_url).await;
    answer["data"]["cid"].as_i64().unwrap_or_else(|| panic!("no cid: {answer}"))
}

pub(super) async fn query(upstream: SocketAddr, cid: i64) -> Map<String, Value> {
    let answer = call(upstream, "/api/v1/payout/query", object(json!({ "cid": cid }))).await;
    object(answer["data"].clone())
}

/// Posts or puts to the control port.
pub(super) async fn control(
    upstream: &Upstream,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}{path}", upstream.control);
    let mut request = http.request(method.parse().expect("a method"), url);
    if !body.is_empty() {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    let answer = within(request.send()).await.expect("sent");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

/// Waits until `count` messages have been sent and answered.
pub(super) async fn delivered(book: &Book, count: usize) {
    let mut sent = book.deliveries_count();
    within(sent.wait_for(|sent| *sent >= count)).await.expect("the sandbox lives");
}
