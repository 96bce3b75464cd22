//! The client to Cregis: one call is one POST, and every way it can end has a name.
//!
//! No redirects, no retries of a library's own, no proxy from the environment, HTTP/1.1, one total
//! deadline, answers capped. Only a failure before the connection stood proves that nothing was
//! sent; with redirects and retries off, that is exactly what `reqwest` calls a connect error.

pub mod coins;
pub mod echo;
mod fence;
mod nonce;
pub mod reply;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use reqwest::{Body, Client, Method, Request, Response, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use url::Url;

use crate::causes::chain;
use crate::config::Project;
use crate::order::Order;
use crate::outcome::{Doubt, Outcome, Unsent};
use crate::sign;
use echo::Echo;
use fence::Fenced;
use nonce::Nonces;
use reply::{Envelope, Meaning};

/// The most that an answer may hold.
const BODY_MAX: usize = 64 * 1024;
/// The most that a read may take; others wait for its place.
const READ_MAX: Duration = Duration::from_secs(10);
/// An idle connection is closed before Cregis might, so that a send seldom meets a closing one.
const IDLE: Duration = Duration::from_secs(5);

/// Stands for a clock that has not been seen yet.
const SKEW_UNKNOWN: u64 = u64::MAX;

/// A client for one Cregis project.
pub struct Cregis {
    http: Client,
    pid: i64,
    key: SecretString,
    payout: Url,
    query: Url,
    coins: Url,
    legal: Url,
    /// Where notices come to us, if anywhere.
    callback_url: String,
    /// A read that is late costs nothing and is asked again.
    read_timeout: Duration,
    nonces: Nonces,
    /// How far our clock was from Cregis's when it last told its own, in milliseconds.
    skew: AtomicU64,
}

/// Why a signed read brought no envelope.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No connection, or none that lasted.
    #[error("no answer from Cregis")]
    Transport(#[source] reqwest::Error),
    /// An answer that is not the documented envelope.
    #[error("answer with HTTP status {0} is not Cregis's envelope")]
    NotCregis(u16),
}

/// What Cregis says about an id of its own.
#[derive(Debug)]
pub enum Queried {
    /// It has an order under it.
    Found(Box<Echo>),
    /// It has none.
    Missing,
    /// It says something else: this code. Empty where the order itself could not be read.
    Other(String),
}

/// What a signed read found out about our standing at Cregis.
#[derive(Debug)]
pub struct Standing {
    /// The answer.
    pub envelope: Envelope,
    /// How far our clock is from the answer's `Date`, where it had one.
    pub skew: Option<Duration>,
}

impl Standing {
    /// Tells whether Cregis would work for us.
    pub fn is_good(&self) -> bool {
        self.envelope.meaning() != Meaning::RefusesGateway
    }
}

#[derive(Serialize)]
struct PayoutBody<'a> {
    pid: i64,
    currency: &'a str,
    address: &'a str,
    amount: &'a str,
    third_party_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    callback_url: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    remark: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    memo: &'a str,
    nonce: &'a str,
    timestamp: i64,
    sign: &'a str,
}

/// A parameter of a read.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
enum Parameter<'a> {
    Integer(i64),
    Text(&'a str),
}

impl fmt::Display for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

// === impl Cregis ===

impl Cregis {
    /// A client for `project`; `callback_url` goes with orders that name none of their own.
    ///
    /// # Errors
    /// Where the HTTP client cannot be built, as without any root certificates.
    pub fn new(project: &Project, callback_url: String) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(project.connect_timeout)
            .timeout(project.timeout)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("payoutd/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let at = |path: &str| {
            let mut url = project.base_url.clone();
            url.set_path(path);
            url
        };
        Ok(Self {
            http,
            pid: project.pid,
            key: project.api_key.clone(),
            payout: at("/api/v1/payout"),
            query: at("/api/v1/payout/query"),
            coins: at("/api/v1/coins"),
            legal: at("/api/v1/address/legal"),
            callback_url,
            read_timeout: project.timeout.min(READ_MAX),
            nonces: Nonces::new(),
            skew: AtomicU64::new(SKEW_UNKNOWN),
        })
    }

    /// The host that is asked.
    pub fn host(&self) -> &str {
        self.payout.host_str().unwrap_or_default()
    }

    /// How far our clock was from Cregis's at its last answer that had a `Date`.
    pub fn skew(&self) -> Option<Duration> {
        let millis = self.skew.load(Ordering::Relaxed);
        (millis != SKEW_UNKNOWN).then(|| Duration::from_millis(millis))
    }

    /// Sends `order`: exactly one POST, whatever happens; none where its first byte cannot leave before
    /// `fence`.
    pub async fn create_payout(&self, order: &Order, fence: Option<Instant>) -> Outcome {
        let Ok(body) = self.payout_body(order) else {
            // A map of texts and integers always serialises; if not, nothing has left.
            return Outcome::NotSent(Unsent::ConnectFailed);
        };
        let mut request = post(&self.payout, Bytes::new());
        *request.body_mut() = Some(Body::wrap(Fenced { body: Some(body.into()), fence }));
        let response = match self.http.execute(request).await {
            Ok(response) => response,
            Err(error) => return failed(&error),
        };
        let status = response.status().as_u16();
        if let Some(outcome) = reply::outcome_of_status(status) {
            return outcome;
        }
        let skew = self.note_skew(&response);
        match read(response, BODY_MAX).await {
            Ok(Some(body)) => reply::outcome(status, &body, skew),
            Ok(None) if status == 200 => Outcome::InDoubt(Doubt::BadBody),
            Ok(None) => Outcome::InDoubt(Doubt::HttpOther),
            Err(error) if status == 200 => failed(&error),
            Err(_) => Outcome::InDoubt(Doubt::HttpOther),
        }
    }

    /// Asks for a payout that cannot exist: moves nothing, and shows how we stand with Cregis.
    ///
    /// # Errors
    /// Where there was no answer, or none of Cregis's.
    pub async fn probe(&self) -> Result<Standing, ReadError> {
        self.read(&self.query, &[("cid", Parameter::Integer(1))], BODY_MAX).await
    }

    /// Asks what Cregis holds under `cid`. Moves nothing.
    ///
    /// # Errors
    /// Where there was no answer, or none of Cregis's.
    pub async fn query(&self, cid: i64) -> Result<Queried, ReadError> {
        let cid = [("cid", Parameter::Integer(cid))];
        let Envelope { code, data, .. } = self.read(&self.query, &cid, BODY_MAX).await?.envelope;
        Ok(match (code.as_str(), Echo::parse(&data)) {
            ("00000", Some(echo)) => Queried::Found(Box::new(echo)),
            ("00000", None) => Queried::Other(String::new()),
            ("E0014", _) => Queried::Missing,
            (_, _) => Queried::Other(code),
        })
    }

    /// How long a read may take.
    pub fn read_timeout(&self) -> Duration {
        self.read_timeout
    }

    /// One signed read at `url` with parameters of its `own`; the answer may hold `most` bytes.
    async fn read(
        &self,
        url: &Url,
        own: &[(&'static str, Parameter<'_>)],
        most: usize,
    ) -> Result<Standing, ReadError> {
        let nonce = self.nonces.next();
        let mut body = BTreeMap::from([
            ("pid", Parameter::Integer(self.pid)),
            ("nonce", Parameter::Text(&nonce)),
            ("timestamp", Parameter::Integer(now_ms())),
        ]);
        body.extend(own.iter().copied());
        let texts: Vec<_> = body.iter().map(|(name, value)| (*name, value.to_string())).collect();
        let sign = self.sign(&texts);
        body.insert("sign", Parameter::Text(&sign));
        let body = serde_json::to_vec(&body).unwrap_or_default();

        let transport = |error: reqwest::Error| ReadError::Transport(error.without_url());
        let mut request = post(url, body);
        *request.timeout_mut() = Some(self.read_timeout);
        let response = self.http.execute(request).await.map_err(transport)?;
        let (status, skew) = (response.status().as_u16(), self.note_skew(&response));
        let body = read(response, most).await.map_err(transport)?;
        match body.as_deref().and_then(Envelope::parse) {
            Some(envelope) if status == 200 || (400..500).contains(&status) => {
                Ok(Standing { envelope, skew })
            }
            Some(_) | None => Err(ReadError::NotCregis(status)),
        }
    }

    fn note_skew(&self, response: &Response) -> Option<Duration> {
        let skew = skew(response)?;
        let millis = u64::try_from(skew.as_millis()).unwrap_or(SKEW_UNKNOWN);
        self.skew.store(millis, Ordering::Relaxed);
        Some(skew)
    }

    fn payout_body(&self, order: &Order) -> serde_json::Result<Vec<u8>> {
        let (nonce, timestamp) = (self.nonces.next(), now_ms());
        let own = order.callback_url.as_str();
        let callback_url = if own.is_empty() { &self.callback_url } else { own };
        let (pid, time) = (self.pid.to_string(), timestamp.to_string());
        let sign = self.sign(&[
            ("pid", pid.as_str()),
            ("currency", order.currency.as_str()),
            ("address", &order.address),
            ("amount", order.amount.as_str()),
            ("third_party_id", &order.key.third_party_id),
            ("callback_url", callback_url),
            ("remark", &order.remark),
            ("memo", &order.memo),
            ("nonce", &nonce),
            ("timestamp", &time),
        ]);
        serde_json::to_vec(&PayoutBody {
            pid: self.pid,
            currency: order.currency.as_str(),
            address: &order.address,
            amount: order.amount.as_str(),
            third_party_id: &order.key.third_party_id,
            callback_url,
            remark: &order.remark,
            memo: &order.memo,
            nonce: &nonce,
            timestamp,
            sign: &sign,
        })
    }

    /// Tells whether `signature` over `parameters` is one by this project's key.
    pub fn signed_by_us(&self, parameters: &[(&str, &str)], signature: &str) -> bool {
        sign::verify(self.key.expose_secret(), parameters, signature)
    }

    fn sign<V: AsRef<str>>(&self, parameters: &[(&str, V)]) -> String {
        let parameters: Vec<_> =
            parameters.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        sign::sign(self.key.expose_secret(), &parameters)
    }
}

impl fmt::Debug for Cregis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cregis").field("pid", &self.pid).finish_non_exhaustive()
    }
}

fn post(url: &Url, body: impl Into<Body>) -> Request {
    let mut request = Request::new(Method::POST, url.clone());
    let json = header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    *request.body_mut() = Some(body.into());
    request
}

/// The whole body, or None where it is longer than `most`.
async fn read(mut response: Response, most: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// What a transport failure proves.
fn failed(error: &reqwest::Error) -> Outcome {
    let outcome = if error.is_builder() || error.is_connect() {
        Outcome::NotSent(Unsent::ConnectFailed)
    } else if Fenced::stopped(error) {
        Outcome::NotSent(Unsent::Expired)
    } else if error.is_timeout() {
        Outcome::InDoubt(Doubt::Timeout)
    } else if is_garbage(error) {
        Outcome::InDoubt(Doubt::BadBody)
    } else {
        Outcome::InDoubt(Doubt::ConnectionLost)
    };
    // The error's own text names the URL and nothing more; its causes tell what happened: no such name, refused, not
    // the certificate.
    let cause = error.source().map(chain).unwrap_or_default();
    tracing::warn!(?outcome, cause, "send failed");
    outcome
}

/// Tells whether what came back was not HTTP.
fn is_garbage(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// How far our clock is from the answer's `Date`.
fn skew(response: &Response) -> Option<Duration> {
    let date = response.headers().get(header::DATE)?.to_str().ok()?;
    let theirs = httpdate::parse_http_date(date).ok()?;
    let ours = SystemTime::now();
    ours.duration_since(theirs).or_else(|_| theirs.duration_since(ours)).ok()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
