//! Where Cregis speaks to us: payout notices, and external verification before it pays.
//!
//! A port of its own, open to the internet. What comes in is limited first, then parsed strictly,
//! then its signature is verified; only then is the ledger looked at. A signature alone moves
//! nothing: see [`crate::engine::evidence`]. The bare words `success`, `ok` and `deny` leave only after
//! the commit they stand for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::causes::chain;
use crate::cregis::echo::Echo;
use crate::engine::Engine;
use crate::engine::evidence::Message;
use crate::json::Json;
use crate::listener::http1::{self, Answer, Limits, plain};
use crate::listener::waiting::PATIENCE;
use crate::metrics::label::{Letter, Verdict};
use crate::sign;
use crate::telemetry::lines::Lines;

/// A whole request takes no longer, its answer included.
const LIMITS: Limits =
    Limits { connections: 256, part: 8, burst: PATIENCE, patience: Duration::from_secs(5) };
/// Refused messages are logged so seldom; a metric counts them all.
const HUSH: Duration = Duration::from_secs(60);

/// What a message is answered from.
#[derive(Debug)]
struct Desk {
    engine: Arc<Engine>,
    forged: Lines,
}

/// How a message is answered, and as what that counts.
type Judged = (StatusCode, &'static str, Verdict);

/// For nobody here.
const UNKNOWN: Judged = (StatusCode::NOT_FOUND, "", Verdict::Unknown);
/// Somebody that it takes does not answer.
const UNAVAILABLE: Judged = (StatusCode::SERVICE_UNAVAILABLE, "", Verdict::Unavailable);

/// Serves until `stop`; then requests under way have 5 s to end.
pub async fn serve(listener: TcpListener, engine: Arc<Engine>, stop: CancellationToken) {
    let desk = Arc::new(Desk { engine, forged: Lines::new(1, HUSH) });
    let reply = move |request, peer| {
        let desk = Arc::clone(&desk);
        async move { desk.answer(request, peer).await }
    };
    http1::serve(listener, LIMITS, reply, stop).await;
}

/// Which message to which project a request brings. One way of writing it and no other: a rule in front of this port that
/// names the path then holds.
fn addressed(uri: &Uri) -> Option<(i64, Letter)> {
    if uri.authority().is_some() {
        return None;
    }
    let (written, kind) = uri.path().strip_prefix("/callbacks/")?.split_once('/')?;
    let letter = match kind {
        "payout" => Letter::Notice,
        "verification" => Letter::Verification,
        _ => return None,
    };
    let pid: i64 = written.parse().ok()?;
    (pid.to_string() == written).then_some((pid, letter))
}

impl Desk {
    async fn answer(&self, request: Request<Bytes>, peer: IpAddr) -> Answer {
        let Some((pid, letter)) = addressed(request.uri()) else {
            return plain(StatusCode::NOT_FOUND, "");
        };
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        let judged = match letter {
            Letter::Notice => self.take_notice(pid, request.body(), peer).await,
            Letter::Verification => self.verify(pid, request.body(), peer).await,
        };
        let (status, words, verdict) = judged;
        self.engine.metrics().projects.callbacks.at((letter, verdict)).inc();
        plain(status, words)
    }

    /// A notice: kept, then acknowledged; a query says what it is worth.
    async fn take_notice(&self, pid: i64, body: &[u8], peer: IpAddr) -> Judged {
        let message = match self.read(pid, body, Echo::parse, peer) {
            Ok(read) => read,
            Err(refused) => return refused,
        };
        match self.engine.take_notice(pid, message).await {
            Ok(()) => (StatusCode::OK, "success", Verdict::Success),
            Err(error) => {
                tracing::error!(pid, error = chain(&error), "notice not kept");
                UNAVAILABLE
            }
        }
    }

    /// An external verification: `ok` for the one cid of a payout that we know, `deny` for all else.
    async fn verify(&self, pid: i64, body: &[u8], peer: IpAddr) -> Judged {
        if !self.engine.project(pid).is_ok_and(|project| project.verification()) {
            return UNKNOWN;
        }
        let message = match self.read(pid, body, Echo::parse_verification, peer) {
            Ok(read) => read,
            Err(refused) => return refused,
        };
        match self.engine.verify(pid, &message).await {
            Ok(true) => (StatusCode::OK, "ok", Verdict::Ok),
            Ok(false) => (StatusCode::OK, "deny", Verdict::Deny),
            // The decision stays open rather than wrong.
            Err(error) => {
                let error = chain(&error);
                tracing::error!(pid, error, "verification not answered");
                UNAVAILABLE
            }
        }
    }

    /// Reads a message to the project `pid`, or says how it is refused. Nothing that is refused here
    /// has touched the ledger, and nothing is refused for where it comes from: behind a proxy all have one address.
    fn read(
        &self,
        pid: i64,
        body: &[u8],
        echo: fn(&Json) -> Option<Echo>,
        peer: IpAddr,
    ) -> Result<Message, Judged> {
        let project = self.engine.project(pid).map_err(|_| UNKNOWN)?;
        let message =
            message(pid, body, echo, |parameters, signature| project.signed(parameters, signature));
        message.ok_or_else(|| {
            if let Some(left_out) = self.forged.admit() {
                tracing::warn!(pid, %peer, left_out, "forged or malformed message refused");
            }
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
    Some(Message { cid, echo, body })
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
    fn a_path_is_written_in_one_way_only() {
        let read = |uri: &str| addressed(&uri.parse().expect("a URI"));
        assert!(matches!(read("/callbacks/17/payout"), Some((17, Letter::Notice))));
        assert!(matches!(read("/callbacks/17/verification"), Some((17, Letter::Verification))));
        for other in [
            "/callbacks/+17/payout",
            "/callbacks/017/payout",
            "/callbacks/%317/payout",
            "/callbacks/17/%70ayout",
            "/callbacks/17/payout/",
            "/callbacks//17/payout",
            "//callbacks/17/payout",
            "/callbacks/-0/payout",
            "/callbacks/99999999999999999999/payout",
            "http://a.example/callbacks/17/payout",
        ] {
            assert!(read(other).is_none(), "{other}");
        }
    }
}
