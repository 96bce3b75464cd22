//! Cregis's side of the listener: messages about the example payout, the wire, and the ledger's rows.

use std::net::SocketAddr;

use payoutd::json::Json;
use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::{API_KEY, PID, signed};
use payoutd::sign;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ADDRESS, Row, Shell, Whole, order, within};

pub(crate) type Fields = Map<String, Value>;
/// Status and body.
pub(crate) type Answer = (u16, String);

pub(super) fn fields(value: Value) -> Fields {
    let Value::Object(fields) = value else { panic!("no object: {value}") };
    fields
}

/// What Cregis tells of the example payout: the documented fields, but for what signing adds.
pub(crate) fn notice(id: &str, cid: i64, status: i32) -> Fields {
    fields(json!({
        "pid": PID,
        "cid": cid,
        "chain_id": "195",
        "token_id": "195",
        "currency": "TRX",
        "address": ADDRESS,
        "amount": "1.1",
        "third_party_id": id,
        "status": status,
    }))
}

/// What Cregis asks before it pays the example payout.
pub(super) fn question(id: &str, cid: i64) -> Fields {
    fields(json!({
        "pid": PID,
        "cid": cid,
        "third_party_id": id,
        "chain_id": "195",
        "token_id": "195",
        "from_address": "T9yD14Nj9j7xAB4dbGeiX9h8unkKHxuWwb",
        "to_address": ADDRESS,
        "amount": "1.1",
    }))
}

/// `fields` with `changes`; null takes a field out.
pub(crate) fn with(mut fields: Fields, changes: Value) -> Fields {
    for (name, value) in self::fields(changes) {
        if value.is_null() {
            fields.remove(&name);
        } else {
            fields.insert(name, value);
        }
    }
    fields
}

pub(super) fn genuine(fields: Fields) -> Vec<u8> {
    signed(API_KEY, fields)
}

/// Whether the signature, and no more, is good.
pub(super) fn verifies(message: &[u8]) -> bool {
    let body = Json::parse(message).expect("strict JSON");
    let parameters = sign::parameters(&body).expect("a flat object");
    let parameters: Vec<_> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
    sign::verify(API_KEY, &parameters, body.text("sign").expect("a signature"))
}

/// Where notices to the sandbox's project go.
pub(super) fn path(kind: &str) -> String {
    format!("/callbacks/{PID}/{kind}")
}

/// One request; the answer is empty where the connection was cut.
pub(super) async fn send(address: SocketAddr, line: &str, body: &[u8]) -> Answer {
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(address).await.expect("connected");
    // It may answer and close before it has all.
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    within(hear(&mut stream)).await
}

/// What comes back, to the end of the connection.
pub(super) async fn hear(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return (0, text) };
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}

pub(super) async fn tell_bytes(address: SocketAddr, body: &[u8]) -> Answer {
    send(address, &format!("POST {}", path("payout")), body).await
}

pub(crate) async fn tell(whole: &Whole, fields: Fields) -> Answer {
    tell_bytes(whole.service.addresses.callback, &genuine(fields)).await
}

pub(super) async fn ask(whole: &Whole, fields: Fields) -> Answer {
    let line = format!("POST {}", path("verification"));
    send(whole.service.addresses.callback, &line, &genuine(fields)).await
}

pub(crate) fn success() -> Answer {
    (200, "success".to_owned())
}

/// The example payout under `id`, whose notices Cregis sends to the service itself.
pub(crate) fn told(whole: &Whole, id: &str) -> pb::CreatePayoutRequest {
    let callback_url = format!("http://{}{}", whole.service.addresses.callback, path("payout"));
    pb::CreatePayoutRequest { callback_url, ..order(id) }
}

/// Has the example payout accepted; returns its cid.
pub(super) async fn accepted(whole: &Whole, id: &str) -> i64 {
    let payout = whole.create(order(id)).await.expect("OK");
    assert_eq!(payout.state(), PayoutState::Accepted);
    payout.cid
}

/// Has the example payout stored at Cregis and its answer lost; returns the cid that nobody knows.
pub(super) async fn lost(whole: &Whole, request: pb::CreatePayoutRequest) -> i64 {
    whole.upstream.fault(r#"{"then": "drop"}"#);
    let id = request.third_party_id.clone();
    let payout = whole.create(request).await.expect("OK");
    assert_eq!((payout.state(), payout.cid), (PayoutState::InDoubt, 0));
    let orders = whole.upstream.book.orders();
    orders.iter().find(|order| order.third_party_id == id).expect("stored").cid
}

/// Waits until the payout is in `state`.
pub(crate) async fn until(whole: &Whole, id: &str, state: PayoutState) -> pb::Payout {
    within(async {
        loop {
            let payout = whole.get(id).await.expect("known");
            if payout.state() == state {
                return payout;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Has every lead before it looked at: tells the end of another payout and waits for it.
pub(super) async fn barrier(whole: &Whole, id: &str) {
    let cid = accepted(whole, id).await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    assert_eq!(tell(whole, notice(id, cid, 6)).await, success());
    until(whole, id, PayoutState::Succeeded).await;
    within(async {
        while count(&whole.shell(), "notice WHERE due IS NOT NULL") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

// === the ledger's rows ===

/// Every row that evidence could touch.
pub(super) fn snapshot(shell: &Shell) -> Vec<Vec<Row>> {
    let tables = ["payout", "event", "notice"];
    tables.map(|table| shell.rows(&format!("SELECT * FROM {table} ORDER BY 1, 2"))).into()
}

pub(super) fn count(shell: &Shell, from: &str) -> i64 {
    shell.number(&format!("SELECT count(*) FROM {from}"))
}

/// What moved the payout, revision by revision.
pub(super) fn causes(shell: &Shell, id: &str) -> Vec<String> {
    let rows = shell.rows(&format!(
        "SELECT cause FROM event JOIN payout ON payout.id = event.payout
         WHERE third_party_id = '{id}' ORDER BY event.revision"
    ));
    rows.into_iter().flatten().flatten().collect()
}
