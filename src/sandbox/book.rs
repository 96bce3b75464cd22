//! What the sandbox remembers, and how it decides: Cregis's side of the contract.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::fault::{Fault, On, Script};
use crate::address;
use crate::amount::{Amount, InvalidAmount};
use crate::coin::Currency;
use crate::json::Json;
use crate::sign;

/// How far a request's time stamp may be from our clock, in milliseconds.
const STALE_MS: i64 = 5 * 60 * 1000;
/// What the documentation allows in a create call; anything else is a parameter error here.
const PAYOUT_FIELDS: [&str; 11] = [
    "pid",
    "currency",
    "address",
    "amount",
    "third_party_id",
    "callback_url",
    "remark",
    "memo",
    "nonce",
    "timestamp",
    "sign",
];

/// An order that the sandbox holds.
#[derive(Clone, Debug, Serialize)]
pub struct Order {
    /// Our id for it.
    pub cid: i64,
    /// The caller's id.
    pub third_party_id: String,
    /// The coin, as asked.
    pub currency: String,
    /// The recipient.
    pub address: String,
    /// The amount, as asked.
    pub amount: String,
    /// The remark, or empty.
    pub remark: String,
    /// The memo, or empty.
    pub memo: String,
    /// The callback URL, or empty.
    pub callback_url: String,
    /// Cregis's status number; 0 waits for approval.
    pub status: i32,
}

/// A request that reached us, good or bad.
#[derive(Clone, Debug, Serialize)]
pub struct Received {
    /// Its path.
    pub path: String,
    /// The caller's id, where it carried one.
    pub third_party_id: Option<String>,
    /// The code it was answered with by the book; null until then, and for what never got so far.
    pub code: Option<String>,
    /// When it was read, in milliseconds since 1970.
    pub time: i64,
}

/// What the book says to a request.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) code: &'static str,
    pub(super) msg: &'static str,
    pub(super) data: Value,
}

/// Everything the sandbox knows. Lost when it stops.
#[derive(Debug)]
pub struct Book {
    pid: i64,
    key: SecretString,
    memory: Mutex<Memory>,
    /// How many requests have been read; for those who wait for one.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Memory {
    orders: Vec<Order>,
    by_id: HashMap<String, usize>,
    by_cid: HashMap<i64, usize>,
    nonces: HashSet<(String, i64)>,
    received: Vec<Received>,
    script: Script,
    next_cid: i64,
}

const fn refusal(code: &'static str, msg: &'static str) -> Verdict {
    Verdict { code, msg, data: Value::Null }
}

// === impl Book ===

impl Book {
    /// An empty book for one project.
    pub fn new(pid: i64, key: SecretString) -> Self {
        let memory = Memory { next_cid: first_cid(), ..Memory::default() };
        Self { pid, key, memory: Mutex::new(memory), count: watch::Sender::new(0) }
    }

    /// Every order, oldest first.
    pub fn orders(&self) -> Vec<Order> {
        self.memory().orders.clone()
    }

    /// Every request, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.memory().received.clone()
    }

    /// The create calls among them.
    pub fn posts(&self) -> Vec<Received> {
        let received = self.received();
        received.into_iter().filter(|request| request.path == "/api/v1/payout").collect()
    }

    /// How many requests have been read, as it grows.
    pub fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// Adds a fault to the script.
    pub fn add_fault(&self, fault: Fault) {
        self.memory().script.add(fault);
    }

    /// Forgets all faults.
    pub fn clear_faults(&self) {
        self.memory().script.clear();
    }

    /// Forgets everything but the next cid.
    pub fn reset(&self) {
        let mut memory = self.memory();
        *memory = Memory { next_cid: memory.next_cid, ..Memory::default() };
    }

    /// Notes a request, and returns its number and the fault that strikes it.
    pub(super) fn receive(&self, path: &str, on: On, body: &Json) -> (usize, Option<Fault>) {
        let third_party_id = body.text("third_party_id").map(str::to_owned);
        let mut memory = self.memory();
        let fault = memory.script.strike(on, third_party_id.as_deref());
        let number = memory.received.len();
        memory.received.push(Received {
            path: path.to_owned(),
            third_party_id,
            code: None,
            time: now_ms(),
        });
        drop(memory);
        self.count.send_modify(|count| *count += 1);
        (number, fault)
    }

    /// Decides about request `number`; stores a good order where `store` says so.
    pub(super) fn decide(&self, number: usize, on: On, body: &Json, store: bool) -> Verdict {
        let mut memory = self.memory();
        let decided = self.authenticate(&mut memory, body).and_then(|()| match on {
            On::Payout => memory.create(body, store),
            On::Query => memory.query(body),
        });
        let verdict = decided.unwrap_or_else(|refusal| refusal);
        if let Some(request) = memory.received.get_mut(number) {
            request.code = Some(verdict.code.to_owned());
        }
        verdict
    }

    fn authenticate(&self, memory: &mut Memory, body: &Json) -> Result<(), Verdict> {
        let Json::Object(fields) = body else { return Err(refusal("A0001", "parameter error")) };
        let mut parameters = Vec::new();
        for (name, value) in fields {
            let text = match value {
                Json::Text(text) => text.clone(),
                Json::Integer(value) => value.to_string(),
                Json::Bool(value) => value.to_string(),
                Json::Null => String::new(),
                Json::Inexact | Json::List(_) | Json::Object(_) => {
                    return Err(refusal("A0001", "parameter error"));
                }
            };
            parameters.push((name.as_str(), text));
        }
        if body.int64("pid") != Some(self.pid) {
            return Err(refusal("E0003", "project does not exist"));
        }
        let parameters: Vec<_> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let signature = body.text("sign").unwrap_or_default();
        if !sign::verify(self.key.expose_secret(), &parameters, signature) {
            return Err(refusal("B0001", "signature error"));
        }
        let nonce = body.text("nonce").unwrap_or_default();
        let fits = nonce.len() == 6 && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let time = body.int64("timestamp").unwrap_or_default();
        let fresh = now_ms().abs_diff(time) <= STALE_MS.unsigned_abs();
        if !fits || !fresh || !memory.nonces.insert((nonce.to_owned(), time)) {
            return Err(refusal("A0001", "parameter error"));
        }
        Ok(())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Memory ===

impl Memory {
    fn create(&mut self, body: &Json, store: bool) -> Result<Verdict, Verdict> {
        if let Json::Object(fields) = body
            && fields.iter().any(|(name, _)| !PAYOUT_FIELDS.contains(&name.as_str()))
        {
            return Err(refusal("A0001", "unknown parameter"));
        }
        let order = check(body)?;
        if self.by_id.contains_key(&order.third_party_id) {
            return Err(refusal("E0009", "third party business number is duplicated"));
        }
        let cid = self.next_cid;
        if store {
            self.next_cid += 1;
            self.by_id.insert(order.third_party_id.clone(), self.orders.len());
            self.by_cid.insert(cid, self.orders.len());
            self.orders.push(Order { cid, ..order });
        }
        Ok(Verdict { code: "00000", msg: "success", data: json!({ "cid": cid }) })
    }

    fn query(&self, body: &Json) -> Result<Verdict, Verdict> {
        let at = body.int64("cid").and_then(|cid| self.by_cid.get(&cid));
        let Some(order) = at.and_then(|at| self.orders.get(*at)) else {
            return Err(refusal("E0014", "payout order does not exist"));
        };
        let (chain_id, token_id) = order.currency.split_once('@').unwrap_or_default();
        let data = json!({
            "pid": body.int64("pid"),
            "chain_id": chain_id,
            "token_id": token_id,
            "currency": order.currency,
            "address": order.address,
            "amount": order.amount,
            "status": order.status,
            "third_party_id": order.third_party_id,
            "remark": order.remark,
            "memo": order.memo,
            "txid": null,
            "block_height": null,
            "block_time": null,
        });
        Ok(Verdict { code: "00000", msg: "success", data })
    }
}

/// The fields of a create call, by the rules that the vendor has published.
fn check(body: &Json) -> Result<Order, Verdict> {
    let required = |name| {
        body.text(name).filter(|text| !text.is_empty()).ok_or(refusal("A0001", "parameter error"))
    };
    let optional = |name| body.text(name).unwrap_or_default().to_owned();
    let (third_party_id, address) = (required("third_party_id")?, required("address")?);
    let (currency, amount) = (required("currency")?, required("amount")?);

    let coin = Currency::parse(currency).ok_or(refusal("E0005", "currency is not supported"))?;
    match Amount::parse(amount) {
        Ok(amount) if coin.decimals().is_none_or(|most| amount.decimals() <= most) => {}
        Ok(_) => return Err(refusal("E0007", "amount has a wrong precision")),
        Err(InvalidAmount::Zero) => return Err(refusal("E0006", "amount must be above 0")),
        Err(InvalidAmount::Form | InvalidAmount::TooLong) => {
            return Err(refusal("E0016", "amount error"));
        }
    }
    if !address::fits(coin.chain(), address) {
        return Err(refusal("E0008", "address is invalid"));
    }
    if optional("remark").chars().count() > 256 {
        return Err(refusal("E0021", "remark is over 256 characters"));
    }
    Ok(Order {
        cid: 0,
        third_party_id: third_party_id.to_owned(),
        currency: currency.to_owned(),
        address: address.to_owned(),
        amount: amount.to_owned(),
        remark: optional("remark"),
        memo: optional("memo"),
        callback_url: optional("callback_url"),
        status: 0,
    })
}

/// Ids grow with time, so that a sandbox that was restarted does not give one out again.
fn first_cid() -> i64 {
    now_ms().saturating_mul(1000)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
