//! Where Cregis speaks to us: payout notices, and external verification before it pays.
//!
//! A port of its own, open to the internet. What comes in is limited first, then parsed strictly,
//! then its signature is verified; only then is the ledger looked at. A signature alone moves
//! nothing: see [`crate::engine::evidence`]. The bare words `success`, `ok` and `deny` leave only after
//! the commit they stand for.

mod guard;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sha3::{Digest, Sha3_256};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cregis::echo::Echo;
use crate::engine::Engine;
use crate::engine::evidence::Message;
use crate::json::Json;
use crate::metrics::label::{Letter, Verdict};
use crate::sign;
use guard::Guard;

/// A message is a dozen short fields.
const BODY_MAX: usize = 16 * 1024;
/// A whole request, from the first byte of its head to the last of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 64;

/// What a handler has at hand.
#[derive(Clone, Debug)]
struct Desk {
    engine: Arc<Engine>,
    guard: Arc<Guard>,
    /// Who speaks.
    peer: IpAddr,
}

/// How a message is answered, and as what that counts.
type Judged = (StatusCode, &'static str, Verdict);
type Answer = (StatusCode, &'static str);

/// For nobody here.
const UNKNOWN: Judged = (StatusCode::NOT_FOUND, "", Verdict::Unknown);
/// Somebody that it takes does not answer.
const UNAVAILABLE: Judged = (StatusCode::SERVICE_UNAVAILABLE, "", Verdict::Unavailable);

/// Serves until `stop`; then requests under way have 5 s to end.
pub async fn serve(listener: TcpListener, engine: Arc<Engine>, stop: CancellationToken) {
    let guard = Arc::new(Guard::default());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async { (place.await, listener.accept().await) };
        let (Ok(place), Ok((stream, address))) = (tokio::select! {
            accepted = accepted => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            () = stop.cancelled() => break,
        }) else {
            // Out of descriptors, most likely: a busy loop would not bring them back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let desk =
            Desk { engine: Arc::clone(&engine), guard: Arc::clone(&guard), peer: ip(address) };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(BODY_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router(desk)));
        connections.spawn(async move {
            // A peer that is slow or gone is nobody's fault here.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/callbacks/{pid}/payout", post(notice))
        .route("/callbacks/{pid}/verification", post(verification))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(desk)
}

/// A notice: kept, then acknowledged; a query says what it is worth.
async fn notice(State(desk): State<Desk>, Path(pid): Path<String>, body: Bytes) -> Answer {
    let judged = desk.take_notice(&pid, &body).await;
    desk.count(Letter::Notice, judged)
}

/// An external verification: `ok` for the one cid of a payout that we know, `deny` for all else.
async fn verification(State(desk): State<Desk>, Path(pid): Path<String>, body: Bytes) -> Answer {
    let judged = desk.verify(&pid, &body).await;
    desk.count(Letter::Verification, judged)
}

impl Desk {
    async fn take_notice(&self, pid: &str, body: &[u8]) -> Judged {
        let (pid, message) = match self.read(pid, body, Echo::parse) {
            Ok(read) => read,
            Err(refused) => return refused,
        };
        match self.engine.take_notice(pid, message).await {
            Ok(()) => (StatusCode::OK, "success", Verdict::Success),
            Err(error) => {
                tracing::error!(pid, error = &error as &dyn std::error::Error, "notice not kept");
                UNAVAILABLE
            }
        }
    }

    async fn verify(&self, pid: &str, body: &[u8]) -> Judged {
        let on = |pid: i64| self.engine.project(pid).is_ok_and(|project| project.verification());
        if !pid.parse().is_ok_and(on) {
            return UNKNOWN;
        }
        let (pid, message) = match self.read(pid, body, Echo::parse_verification) {
            Ok(read) => read,
            Err(refused) => return refused,
        };
        match self.engine.verify(pid, &message).await {
            Ok(true) => (StatusCode::OK, "ok", Verdict::Ok),
            Ok(false) => (StatusCode::OK, "deny", Verdict::Deny),
            // The decision stays open rather than wrong.
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(pid, error, "verification not answered");
                UNAVAILABLE
            }
        }
    }

    fn count(&self, letter: Letter, (status, words, verdict): Judged) -> Answer {
        self.engine.metrics().projects.callbacks.at((letter, verdict)).inc();
        (status, words)
    }

    /// Reads a message to the project `pid`, or says how it is refused. Nothing that is refused here
    /// has touched the ledger.
    fn read(
        &self,
        pid: &str,
        body: &[u8],
        echo: fn(&Json) -> Option<Echo>,
    ) -> Result<(i64, Message), Judged> {
        if self.guard.is_shut(self.peer) {
            return Err((StatusCode::TOO_MANY_REQUESTS, "", Verdict::Limited));
        }
        let project = pid.parse().ok().and_then(|pid| Some((pid, self.engine.project(pid).ok()?)));
        let (pid, project) = project.ok_or(UNKNOWN)?;
        let message =
            message(pid, body, echo, |parameters, signature| project.signed(parameters, signature));
        message.map(|message| (pid, message)).ok_or_else(|| {
            self.guard.refused(self.peer);
            tracing::warn!(pid, peer = %self.peer, "forged or malformed message refused");
            (StatusCode::UNAUTHORIZED, "", Verdict::Forged)
        })
    }
}

/// A message whose signature is good and whose fields are all there; None for anything else, and
/// nobody is told which it was.
fn message(
    pid: i64,
    body: &[u8],
    echo: fn(&Json) -> Option<Echo>,
    signed: impl FnOnce(&[(&str, &str)], &str) -> bool,
) -> Option<Message> {
    let json = Json::parse(body).ok()?;
    // Over everything that came, known or not: a new field of Cregis's is signed, too.
    let parameters = sign::parameters(&json)?;
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, &**value)).collect();
    if !signed(&parameters, json.text("sign")?) {
        return None;
    }
    // What one of our own requests, reflected at us, would lack.
    json.text("nonce")?;
    json.int64("timestamp")?;
    // Documented as a text; how a number would have been written for the signature is not.
    json.text("amount")?;
    let cid = json.int64("cid").filter(|cid| *cid > 0)?;
    let echo = echo(&json).filter(|echo| echo.pid == Some(pid))?;
    let body = std::str::from_utf8(body).ok()?.to_owned();
    Some(Message { digest: digest(parameters), cid, echo, body })
}

/// Tells messages apart by what they say: blanks, order and empty fields are not signed, so whoever
/// has heard one message could write it in endless ways.
fn digest(mut parameters: Vec<(&str, &str)>) -> [u8; 32] {
    parameters.retain(|(name, value)| *name != "sign" && !value.is_empty());
    parameters.sort_unstable();
    let mut sha3 = Sha3_256::new();
    for text in parameters.into_iter().flat_map(<[&str; 2]>::from) {
        sha3.update((text.len() as u64).to_be_bytes());
        sha3.update(text);
    }
    sha3.finalize().into()
}

fn ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    const KEY: &str = "key";

    fn genuine() -> Vec<u8> {
        let fields = json!({"pid": 1, "cid": 9, "chain_id": "195", "token_id": "195",
            "address": "TXsm", "amount": "1.1", "third_party_id": "id", "status": 6});
        let fields: Map<String, Value> = fields.as_object().expect("an object").clone();
        crate::sandbox::signed(KEY, fields)
    }

    fn read(body: &[u8]) -> Option<Message> {
        message(1, body, Echo::parse, |parameters, sign| sign::verify(KEY, parameters, sign))
    }

    #[test]
    fn a_message_with_any_bit_flipped_or_byte_missing_is_none() {
        let whole = genuine();
        assert_eq!(read(&whole).expect("good").cid, 9);
        for at in 0..whole.len() {
            assert!(read(&whole[..at]).is_none(), "cut off at {at}");
            let shorter = [&whole[..at], &whole[at + 1..]].concat();
            assert!(read(&shorter).is_none(), "without byte {at}");
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(&flipped).is_none(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn messages_that_share_a_signature_but_not_their_fields_are_told_apart() {
        let ab = vec![("a", "b"), ("c", "d")];
        assert_eq!(digest(ab.clone()), digest(vec![("c", "d"), ("x", ""), ("a", "b")]));
        for other in [vec![("a", "bcd")], vec![("a", "bc"), ("d", "")], vec![("ab", "cd")]] {
            assert_ne!(digest(ab.clone()), digest(other));
        }
    }
}
