//! What the sandbox knows, and how it decides: Cregis's side of the contract.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::book::Received;
use super::fault::{Fault, On, Script};
use super::life::{Job, Life};
use super::message::{Answer, Delivery, Kind, Letter, Push, Signer};
use super::order::{self, Move, Order};
use crate::json::Json;
use crate::sign;

/// How far a request's time stamp may be from our clock, in milliseconds.
const STALE_MS: i64 = 5 * 60 * 1000;

/// What the book says to a request.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) code: &'static str,
    pub(super) msg: &'static str,
    pub(super) data: Value,
    /// Ends when the answer may be sent, where that is not at once.
    pub(super) held: Option<oneshot::Receiver<()>>,
}

/// What a reset leaves as it is.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) signer: Signer,
    pub(super) verification_url: Option<String>,
    pub(super) duplicates: bool,
    /// Where orders go by themselves, and how long that takes.
    pub(super) outcome: Option<(i32, Duration)>,
    pub(super) next_cid: i64,
    pub(super) jobs: mpsc::UnboundedSender<Job>,
}

/// Everything the sandbox knows. Lost when it stops.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) terms: Terms,
    pub(super) orders: Vec<Order>,
    pub(super) received: Vec<Received>,
    pub(super) checks: Vec<Received>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) script: Script,
    by_cid: HashMap<i64, usize>,
    ids: HashSet<String>,
    nonces: HashSet<(String, i64)>,
    /// The first notice of each order, as it was written.
    first_notices: HashMap<i64, Bytes>,
}

pub(super) const fn refusal(code: &'static str, msg: &'static str) -> Verdict {
    Verdict { code, msg, data: Value::Null, held: None }
}

pub(super) const fn success(data: Value) -> Verdict {
    Verdict { code: "00000", msg: "success", data, held: None }
}

/// Ids grow with time, so that a sandbox that was restarted does not give one out again.
pub(super) fn first_cid() -> i64 {
    now_ms().saturating_mul(1000)
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

// === impl Memory: requests ===

impl Memory {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            orders: Vec::new(),
            received: Vec::new(),
            checks: Vec::new(),
            deliveries: Vec::new(),
            script: Script::default(),
            by_cid: HashMap::new(),
            ids: HashSet::new(),
            nonces: HashSet::new(),
            first_notices: HashMap::new(),
        }
    }

    /// The list that a request `on` belongs to.
    pub(super) fn requests(&mut self, on: On) -> &mut Vec<Received> {
        match on {
            On::Coins | On::Address => &mut self.checks,
            On::Payout | On::Query | On::Notice | On::Verification => &mut self.received,
        }
    }

    /// Whether a request comes from the project.
    pub(super) fn authenticate(&self, body: &Json) -> Result<(), Verdict> {
        let parameters = sign::parameters(body).ok_or(refusal("A0001", "parameter error"))?;
        if body.int64("pid") != Some(self.terms.signer.pid) {
            return Err(refusal("E0003", "project does not exist"));
        }
        let parameters: Vec<_> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let signature = body.text("sign").unwrap_or_default();
        if !sign::verify(self.terms.signer.key.expose_secret(), &parameters, signature) {
            return Err(refusal("B0001", "signature error"));
        }
        Ok(())
    }

    /// Whether a request is none of old.
    pub(super) fn freshen(&mut self, body: &Json) -> Result<(), Verdict> {
        let nonce = body.text("nonce").unwrap_or_default();
        let fits = nonce.len() == 6 && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let time = body.int64("timestamp").unwrap_or_default();
        let fresh = now_ms().abs_diff(time) <= STALE_MS.unsigned_abs();
        if !fits || !fresh || !self.nonces.insert((nonce.to_owned(), time)) {
            return Err(refusal("A0001", "parameter error"));
        }
        Ok(())
    }

    /// Answers a create call; stores a good order where `store` says so.
    pub(super) fn create(&mut self, body: &Json, store: bool) -> Result<Verdict, Verdict> {
        let order = Order::parse(body)?;
        if !self.terms.duplicates && self.ids.contains(&order.third_party_id) {
            return Err(refusal("E0009", "third party business number is duplicated"));
        }
        let cid = self.terms.next_cid;
        let mut verdict = success(json!({ "cid": cid }));
        if store {
            self.terms.next_cid += 1;
            self.ids.insert(order.third_party_id.clone());
            self.by_cid.insert(cid, self.orders.len());
            self.orders.push(Order { cid, ..order });
            verdict.held = self.begin(self.orders.len() - 1);
        }
        Ok(verdict)
    }

    /// Answers a query.
    pub(super) fn query(&self, body: &Json) -> Result<Verdict, Verdict> {
        let order = body.int64("cid").and_then(|cid| self.order(cid));
        let order = order.ok_or(refusal("E0014", "payout order does not exist"))?;
        Ok(success(order.answer(self.terms.signer.pid)))
    }

    fn order(&self, cid: i64) -> Option<&Order> {
        self.orders.get(*self.by_cid.get(&cid)?)
    }

    /// Has the order that was just stored go on by itself, where there is anything for it to do.
    fn begin(&mut self, at: usize) -> Option<oneshot::Receiver<()>> {
        let order = self.orders[at].clone();
        let early = self.script.strike_early(order.about());
        let mut asked_early = false;
        let verification = self.terms.verification_url.clone().map(|url| {
            let fault = self.strike(On::Verification, &order);
            asked_early = fault.before_answer;
            self.post_and_hear(self.terms.signer.write(Kind::Verification, &order, url, fault))
        });
        if verification.is_none() && early.is_none() && self.terms.outcome.is_none() {
            return None;
        }
        let holds = asked_early || early.is_some();
        let (hold, held) = if holds { Some(oneshot::channel()) } else { None }.unzip();
        let life = Life { cid: order.cid, verification, early: early.map(Box::new), hold };
        self.send(Job::Live(life));
        held
    }
}

// === impl Memory: moves and messages ===

impl Memory {
    /// Moves an order, and posts the notice that this brings.
    pub(super) fn shift(&mut self, cid: i64, to: &Move) -> bool {
        let Some(letter) = self.shifted(cid, to, None) else { return false };
        if let Some(letter) = letter {
            self.send(Job::Send(letter));
        }
        true
    }

    /// Moves an order that is still at `from`.
    pub(super) fn advance(&mut self, cid: i64, from: i32, to: i32) -> bool {
        let there = self.order(cid).is_some_and(|order| order.status == from);
        there && self.shift(cid, &Move::to(to, true))
    }

    /// Ends an order whose notice `early` strikes; gives the answer to that.
    pub(super) fn end(&mut self, cid: i64, early: Fault) -> Option<oneshot::Receiver<Answer>> {
        let outcome = self.terms.outcome.map_or(order::SUCCESS, |(outcome, _)| outcome);
        let letter = self.shifted(cid, &Move::to(outcome, true), Some(early))?;
        letter.map(|letter| self.post_and_hear(letter))
    }

    /// Moves an order; gives its notice, if there is to be one, or `None` where it is not ours.
    fn shifted(&mut self, cid: i64, to: &Move, early: Option<Fault>) -> Option<Option<Letter>> {
        let order = self.orders.get_mut(*self.by_cid.get(&cid)?)?;
        if !to.fits(order) {
            return None;
        }
        order.shift(to, now_ms());
        Some(if to.notice { self.notice(cid, early) } else { None })
    }

    /// Writes an order's notice, if it is to have one; `early` or the script may spoil it.
    fn notice(&mut self, cid: i64, early: Option<Fault>) -> Option<Letter> {
        let order = self.order(cid)?.clone();
        if order.callback_url.is_empty() || !order::is_told(order.status) {
            return None;
        }
        let fault = early.unwrap_or_else(|| self.strike(On::Notice, &order));
        let url = order.callback_url.clone();
        let letter = self.terms.signer.write(Kind::Notice, &order, url, fault);
        self.first_notices.entry(cid).or_insert_with(|| letter.body.clone());
        Some(letter)
    }

    /// Posts an order's notice by hand.
    pub(super) fn push(&mut self, cid: i64, push: Push) -> bool {
        let first = if push.stale { self.first_notices.get(&cid).cloned() } else { None };
        let letter = match (first, self.order(cid)) {
            (Some(body), Some(order)) => {
                let url = order.callback_url.clone();
                let letter = self.terms.signer.write(Kind::Notice, order, url, Fault::default());
                Some(Letter { body, ..letter })
            }
            _ => self.notice(cid, None),
        };
        let Some(mut letter) = letter else { return false };
        letter.times = letter.times.saturating_mul(push.times.unwrap_or(1));
        self.send(Job::Send(letter));
        true
    }

    /// Asks again whether an order may be paid, unless that has become idle.
    pub(super) fn ask(&mut self, cid: i64) -> Option<oneshot::Receiver<Answer>> {
        let url = self.terms.verification_url.clone()?;
        let order = self.order(cid)?.clone();
        if order.approved.is_some() || order::is_final(order.status) {
            return None;
        }
        let fault = self.strike(On::Verification, &order);
        let letter = self.terms.signer.write(Kind::Verification, &order, url, fault);
        Some(self.post_and_hear(letter))
    }

    /// Notes what the verification came to; a denial ends an order that is not final.
    pub(super) fn settle(&mut self, cid: i64, approved: bool) {
        let order = self.by_cid.get(&cid).and_then(|at| self.orders.get_mut(*at));
        let Some(order) = order else { return };
        order.approved = Some(approved);
        if !approved && !order::is_final(order.status) {
            self.shift(cid, &Move::to(order::APPROVAL_REJECTED, true));
        }
    }

    fn strike(&mut self, on: On, order: &Order) -> Fault {
        self.script.strike(on, order.about()).unwrap_or_default()
    }

    fn post_and_hear(&self, letter: Letter) -> oneshot::Receiver<Answer> {
        let (heard, hear) = oneshot::channel();
        self.send(Job::Send(Letter { heard: Some(heard), ..letter }));
        hear
    }

    fn send(&self, job: Job) {
        // Where nobody takes jobs, the sandbox has stopped.
        let _ = self.terms.jobs.send(job);
    }
}
