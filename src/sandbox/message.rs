//! What the sandbox says of its own accord: notices and verifications, written and signed.

use std::time::Duration;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::fault::{Fault, Then};
use super::memory::now_ms;
use super::order::Order;
use crate::sign;

/// The wallet that pays every order, whatever the chain.
const FROM_ADDRESS: &str = "T9yD14Nj9j7xAB4dbGeiX9h8unkKHxuWwb";
/// The key of whoever forges.
const FORGER: &str = "00000000000000000000000000000000";

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Tells how an order ended.
    Notice,
    /// Asks whether an order may be paid.
    Verification,
}

/// A message that has been sent once, and what came back.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// Which message it was.
    pub kind: Kind,
    /// Our id for the order.
    pub cid: i64,
    /// The caller's id.
    pub third_party_id: String,
    /// The order's status when the message was written.
    pub status: i32,
    /// What was sent.
    pub sent: String,
    /// The answer's HTTP status; null where none came.
    pub http_status: Option<u16>,
    /// The answer's body, or empty.
    pub body: String,
    /// Whether the answer settles it: 200 and exactly `success`, or `ok` or `deny`.
    pub ok: bool,
}

/// How a notice is pushed by hand, as posted to `/orders/{cid}/notice`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// How often the same bytes are sent; once where absent.
    pub times: Option<u64>,
    /// Send the bytes of the order's first notice instead of new ones.
    pub stale: bool,
}

/// In whose name messages are written.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub(super) pid: i64,
    pub(super) key: SecretString,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) http_status: u16,
    pub(super) body: String,
}

/// A message ready to go.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) kind: Kind,
    pub(super) cid: i64,
    pub(super) third_party_id: String,
    pub(super) status: i32,
    pub(super) url: String,
    pub(super) body: Bytes,
    pub(super) delay: Duration,
    pub(super) times: u64,
    /// It gets lost on its way.
    pub(super) lost: bool,
    /// Where the first answer is waited for.
    pub(super) heard: Option<oneshot::Sender<Answer>>,
}

/// A message in the name of the holder of `key`: `fields`, a nonce and a time stamp where they are
/// missing, and the signature over all of them.
pub fn signed(key: &str, fields: Map<String, Value>) -> Vec<u8> {
    Value::Object(sealed(key, fields)).to_string().into_bytes()
}

fn sealed(key: &str, mut fields: Map<String, Value>) -> Map<String, Value> {
    fields.entry("nonce").or_insert_with(|| nonce().into());
    fields.entry("timestamp").or_insert_with(|| now_ms().into());
    let texts: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
    let parameters: Vec<_> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let signature = sign::sign(key, &parameters);
    fields.insert("sign".to_owned(), signature.into());
    fields
}

/// A value as it is signed. Unlike the checking side, this signs whatever it is given.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Six hexadecimal digits: enough to tell our few messages apart.
fn nonce() -> String {
    let draw = getrandom::u32().unwrap_or_default();
    format!("{:06x}", draw >> 8)
}

/// Makes `changes` to `fields`; null takes a field out.
pub(super) fn change(fields: &mut Map<String, Value>, changes: Map<String, Value>) {
    for (name, value) in changes {
        if value.is_null() {
            fields.remove(&name);
        } else {
            fields.insert(name, value);
        }
    }
}

// === impl Kind ===

impl Kind {
    /// The documented fields for `order`, but for what signing adds; without the empty ones.
    fn fields(self, pid: i64, order: &Order) -> Map<String, Value> {
        let (chain_id, token_id) = order.coin();
        let fields = match self {
            Self::Notice => json!({
                "pid": pid,
                "cid": order.cid,
                "chain_id": chain_id,
                "token_id": token_id,
                "currency": order.currency,
                "address": order.address,
                "amount": order.amount,
                "third_party_id": order.third_party_id,
                "remark": order.remark,
                "status": order.status,
                "txid": order.txid,
                "block_height": order.block_height,
                "block_time": order.block_time,
                "memo": order.memo,
            }),
            Self::Verification => json!({
                "pid": pid,
                "cid": order.cid,
                "third_party_id": order.third_party_id,
                "chain_id": chain_id,
                "token_id": token_id,
                "from_address": FROM_ADDRESS,
                "to_address": order.address,
                "amount": order.amount,
                "remark": order.remark,
                "memo": order.memo,
            }),
        };
        let Value::Object(mut fields) = fields else { return Map::new() };
        fields.retain(|_, value| !value.is_null() && value.as_str() != Some(""));
        fields
    }

    /// Whether `answer` settles the matter.
    pub(super) fn settled_by(self, answer: &Answer) -> bool {
        match self {
            Self::Notice => answer.http_status == 200 && answer.body == "success",
            Self::Verification => answer.decision().is_some(),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// Whether it approves or denies; neither, unless in so many words.
    pub(super) fn decision(&self) -> Option<bool> {
        match (self.http_status, self.body.as_str()) {
            (200, "ok") => Some(true),
            (200, "deny") => Some(false),
            _ => None,
        }
    }
}

// === impl Signer ===

impl Signer {
    /// Writes and signs a message about `order`, with all that `fault` does to it.
    pub(super) fn write(&self, kind: Kind, order: &Order, url: String, fault: Fault) -> Letter {
        let mut fields = kind.fields(self.pid, order);
        change(&mut fields, fault.fields);
        let key = if fault.forge { FORGER } else { self.key.expose_secret() };
        let mut fields = sealed(key, fields);
        change(&mut fields, fault.tamper);
        Letter {
            kind,
            cid: order.cid,
            third_party_id: order.third_party_id.clone(),
            status: order.status,
            url,
            body: Value::Object(fields).to_string().into(),
            delay: fault.delay,
            times: fault.repeat.unwrap_or(1),
            lost: fault.then == Then::Drop,
            heard: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_the_nonce_and_the_time_stamp_it_has_and_gets_those_it_lacks() {
        let key = "f502a9ac9ca54327986f29c03b271491";
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).expect("JSON");
        let fields = json!({
            "pid": 1_382_528_827_416_576_i64,
            "cid": 1_382_626_461_605_888_i64,
            "nonce": "sw7kv5",
            "timestamp": 1_687_853_722_065_i64,
            "memo": null,
        });
        let Value::Object(fields) = fields else { unreachable!() };
        let whole = read(signed(key, fields));
        assert_eq!(whole["sign"], "af825ddb839e6796d62977caf18d3394", "the vendor's vector");
        let bare = read(signed(key, Map::new()));
        assert_eq!(bare["nonce"].as_str().map(str::len), Some(6));
        assert!(bare["timestamp"].is_i64() && bare["sign"].is_string());
    }
}
