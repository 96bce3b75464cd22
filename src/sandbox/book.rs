//! The book: what the sandbox remembers, for those who look on and those who interfere.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::Settings;
use super::coins;
use super::fault::{About, Fault, On};
use super::life::Job;
use super::memory::{Memory, Terms, Verdict, first_cid, now_ms};
use super::message::{Answer, Delivery, Letter, Push, Signer};
use super::order::{self, Move, Order};
use crate::json::Json;

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

/// Everything the sandbox knows. Lost when it stops.
#[derive(Debug)]
pub struct Book {
    memory: Mutex<Memory>,
    /// How many requests about orders have been read; for those who wait for one.
    count: watch::Sender<usize>,
    /// How many messages have been sent; likewise.
    delivered: watch::Sender<usize>,
}

// === impl Book: for those who look on ===

impl Book {
    /// Every order, oldest first.
    pub fn orders(&self) -> Vec<Order> {
        self.memory().orders.clone()
    }

    /// Every request about orders, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.memory().received.clone()
    }

    /// The create calls among them.
    pub fn posts(&self) -> Vec<Received> {
        let received = self.received();
        received.into_iter().filter(|request| request.path == "/api/v1/payout").collect()
    }

    /// The requests about coins and addresses, oldest first: a caller asks them when it likes, so they
    /// are kept apart.
    pub fn checks(&self) -> Vec<Received> {
        self.memory().checks.clone()
    }

    /// How many requests about orders have been read, as it grows.
    pub fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// Every message that was sent, oldest first; one that was lost on purpose is not among them.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.memory().deliveries.clone()
    }

    /// How many messages have been sent and answered or given up, as it grows.
    pub fn deliveries_count(&self) -> watch::Receiver<usize> {
        self.delivered.subscribe()
    }
}

// === impl Book: for those who interfere ===

impl Book {
    /// Adds a fault to the script.
    pub fn add_fault(&self, fault: Fault) {
        self.memory().script.add(fault);
    }

    /// Forgets all faults.
    pub fn clear_faults(&self) {
        self.memory().script.clear();
    }

    /// Forgets orders, requests of any kind, messages and faults.
    pub fn reset(&self) {
        let mut memory = self.memory();
        *memory = Memory::new(memory.terms.clone());
    }

    /// Moves an order, with the notice that Cregis would send or without; false where none has
    /// this `cid`. Returns before the notice is sent.
    pub fn set_status(&self, cid: i64, status: i32, notice: bool) -> bool {
        self.shift(cid, &Move::to(status, notice))
    }

    /// As `set_status`, with all that can be said about a move.
    pub fn shift(&self, cid: i64, to: &Move) -> bool {
        self.memory().shift(cid, to)
    }

    /// Moves every order that is not final, and tells how many.
    pub fn shift_all(&self, to: &Move) -> usize {
        let mut memory = self.memory();
        let open = memory.orders.iter().filter(|order| !order::is_final(order.status));
        let cids: Vec<_> = open.map(|order| order.cid).collect();
        cids.into_iter().filter(|cid| memory.shift(*cid, to)).count()
    }

    /// Sends an order's notice by hand; false where it has none. Returns before it is sent.
    pub fn push_notice(&self, cid: i64, push: Push) -> bool {
        self.memory().push(cid, push)
    }

    /// Has new orders verified at `url`, or not any more.
    pub fn verify_at(&self, url: Option<String>) {
        self.memory().terms.verification_url = url;
    }

    /// Whether a repeated id is a new order, or refused.
    pub fn allow_duplicates(&self, allowed: bool) {
        self.memory().terms.duplicates = allowed;
    }
}

// === impl Book: for the sandbox itself ===

impl Book {
    /// An empty book, and the jobs that it will have.
    pub(super) fn new(settings: &Settings) -> (Self, mpsc::UnboundedReceiver<Job>) {
        let (jobs, queue) = mpsc::unbounded_channel();
        let terms = Terms {
            signer: Signer { pid: settings.pid, key: settings.api_key.clone() },
            verification_url: settings.verification_url.clone(),
            duplicates: settings.no_duplicate_check,
            outcome: settings.outcome.map(|outcome| (outcome, settings.outcome_after)),
            next_cid: first_cid(),
            jobs,
        };
        let memory = Mutex::new(Memory::new(terms));
        let (count, delivered) = (watch::Sender::new(0), watch::Sender::new(0));
        (Self { memory, count, delivered }, queue)
    }

    /// Notes a request, and returns its number and the fault that strikes it.
    pub(super) fn receive(&self, path: &str, on: On, body: &Json) -> (usize, Option<Fault>) {
        let (third_party_id, address) = (body.text("third_party_id"), body.text("address"));
        let mut memory = self.memory();
        let fault = memory.script.strike(on, About { third_party_id, address });
        let requests = memory.requests(on);
        let number = requests.len();
        requests.push(Received {
            path: path.to_owned(),
            third_party_id: third_party_id.map(str::to_owned),
            code: None,
            time: now_ms(),
        });
        drop(memory);
        if matches!(on, On::Payout | On::Query) {
            self.count.send_modify(|count| *count += 1);
        }
        (number, fault)
    }

    /// Decides about a request; stores a good order where `store` says so.
    pub(super) fn decide(&self, on: On, body: &Json, store: bool) -> Verdict {
        let mut memory = self.memory();
        let genuine = memory.authenticate(body).and_then(|()| memory.freshen(body));
        let decided = genuine.and_then(|()| match on {
            On::Payout => memory.create(body, store),
            On::Coins => coins::list(body),
            On::Address => coins::legal(body),
            On::Query | On::Notice | On::Verification => memory.query(body),
        });
        decided.unwrap_or_else(|refusal| refusal)
    }

    /// Decides about a create call once more, as if the wire had doubled it past the nonce check.
    pub(super) fn decide_again(&self, body: &Json, store: bool) -> Verdict {
        let mut memory = self.memory();
        let decided = memory.authenticate(body).and_then(|()| memory.create(body, store));
        decided.unwrap_or_else(|refusal| refusal)
    }

    /// Notes what request `number` was answered with.
    pub(super) fn note_answer(&self, on: On, number: usize, code: &str) {
        if let Some(request) = self.memory().requests(on).get_mut(number) {
            request.code = Some(code.to_owned());
        }
    }

    /// Notes a message that was sent, and what came back.
    pub(super) fn note_delivery(&self, letter: &Letter, answer: Option<&Answer>) {
        self.memory().deliveries.push(Delivery {
            kind: letter.kind,
            cid: letter.cid,
            third_party_id: letter.third_party_id.clone(),
            status: letter.status,
            sent: String::from_utf8_lossy(&letter.body).into_owned(),
            http_status: answer.map(|answer| answer.http_status),
            body: answer.map(|answer| answer.body.clone()).unwrap_or_default(),
            ok: answer.is_some_and(|answer| letter.kind.settled_by(answer)),
        });
        self.delivered.send_modify(|count| *count += 1);
    }

    /// Where orders go by themselves, and how long that takes.
    pub(super) fn outcome(&self) -> Option<(i32, Duration)> {
        self.memory().terms.outcome
    }

    pub(super) fn advance(&self, cid: i64, from: i32, to: i32) -> bool {
        self.memory().advance(cid, from, to)
    }

    pub(super) fn end(&self, cid: i64, early: Fault) -> Option<oneshot::Receiver<Answer>> {
        self.memory().end(cid, early)
    }

    pub(super) fn ask(&self, cid: i64) -> Option<oneshot::Receiver<Answer>> {
        self.memory().ask(cid)
    }

    pub(super) fn settle(&self, cid: i64, approved: bool) {
        self.memory().settle(cid, approved);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
