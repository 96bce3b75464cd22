//! Scripted misbehaviour: what the control port takes, and which request it strikes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// One fault, as posted to `/faults`. See `docs/sandbox.md` for every field with examples.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Which call or message it strikes.
    pub on: On,
    /// Only requests with this id; any where absent.
    pub third_party_id: Option<String>,
    /// Only requests or messages with this recipient; any where absent.
    pub address: Option<String>,
    /// Only every Nth request that matches.
    pub every: Option<u64>,
    /// How often it strikes before it is used up; 1 where absent, 0 for ever.
    pub times: Option<u64>,
    /// Pause before the request is looked at, or the message sent.
    #[serde(deserialize_with = "duration")]
    pub delay: Duration,
    /// Pause between storing and answering.
    #[serde(deserialize_with = "duration")]
    pub delay_answer: Duration,
    /// Whether a good order is stored. True where absent, except beside `code`.
    pub store: Option<bool>,
    /// How the answer ends; a message can only be dropped.
    pub then: Then,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// More headers of the answer; `date` shifts our clock.
    pub headers: BTreeMap<String, String>,
    /// A body to answer with, whatever happened.
    pub body: Option<String>,
    /// A code to answer with.
    pub code: Option<String>,
    /// The message beside `code`.
    pub msg: Option<String>,
    /// Any JSON in place of the cid.
    pub cid: Option<Value>,
    /// Fields of the answer's data, or of a message before it is signed; null takes one out.
    pub fields: Map<String, Value>,
    /// Fields of a message that are changed after it was signed.
    pub tamper: Map<String, Value>,
    /// Sign the message with another key.
    pub forge: bool,
    /// How often the message is sent in all; once where absent.
    pub repeat: Option<u64>,
    /// Have the message answered before the create call is.
    pub before_answer: bool,
    /// Take the create call in twice, and answer what the first or the second came to.
    pub deliver_twice: Option<Twice>,
    /// Requests that have matched so far.
    #[serde(skip)]
    matched: u64,
}

/// Which call or message a fault strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// `/api/v1/payout`
    #[default]
    Payout,
    /// `/api/v1/payout/query`
    Query,
    /// `/api/v1/coins`
    Coins,
    /// `/api/v1/address/legal`
    Address,
    /// Our notice to the callback URL.
    Notice,
    /// Our question to the verification URL.
    Verification,
}

/// What a request or a message is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    pub(super) third_party_id: Option<&'a str>,
    pub(super) address: Option<&'a str>,
}

/// Which answer comes back of a call that was taken in twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Twice {
    /// What the first taking came to.
    First,
    /// What the second came to.
    Second,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It is sent.
    #[default]
    Answer,
    /// The connection closes without a word.
    Drop,
    /// Nothing ever comes.
    Hang,
    /// Half of the body comes, then the connection closes.
    Truncate,
    /// The body comes a byte a second.
    Drip,
}

/// The faults that are waiting, first posted first tried.
#[derive(Debug, Default)]
pub(super) struct Script(Vec<Fault>);

impl Script {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that strikes this request or message, if any; counts it off.
    pub(super) fn strike(&mut self, on: On, about: About<'_>) -> Option<Fault> {
        self.first(about, |fault| fault.on == on && !fault.is_early_notice())
    }

    /// The fault that has an order end, and its notice answered, before its create call is.
    pub(super) fn strike_early(&mut self, about: About<'_>) -> Option<Fault> {
        self.first(about, Fault::is_early_notice)
    }

    fn first(&mut self, about: About<'_>, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.0.iter_mut().position(|fault| {
            let (id, address) = (fault.third_party_id.as_deref(), fault.address.as_deref());
            let named = (id.is_none() || id == about.third_party_id)
                && (address.is_none() || address == about.address);
            let matches = fits(fault) && named;
            fault.matched += u64::from(matches);
            matches && fault.matched.is_multiple_of(fault.every.unwrap_or(1).max(1))
        })?;
        let fault = &mut self.0[at];
        match fault.times.unwrap_or(1) {
            0 => Some(fault.clone()),
            1 => Some(self.0.remove(at)),
            left => {
                fault.times = Some(left - 1);
                Some(fault.clone())
            }
        }
    }
}

impl Fault {
    /// Whether a good order is stored although the answer will be wrong.
    pub(super) fn stores(&self) -> bool {
        self.store.unwrap_or(self.code.is_none())
    }

    /// Whether it strikes when an order is stored, not when its notice is written.
    fn is_early_notice(&self) -> bool {
        self.on == On::Notice && self.before_answer
    }

    /// A little misbehaviour, drawn for each request by `--chaos`: one in five is late, one in
    /// twenty is stored and never answered, one in twenty meets a server error.
    pub(super) fn chaos(on: On) -> Option<Self> {
        let draw = getrandom::u32().unwrap_or_default();
        let late = Duration::from_millis(u64::from(draw >> 16) % 2000);
        let fault = Self { on, ..Self::default() };
        match draw % 20 {
            0 => Some(Self { then: Then::Drop, ..fault }),
            1 => Some(Self { status: Some(503), store: Some(draw & 64 == 0), ..fault }),
            2..=5 => Some(Self { delay: late, ..fault }),
            _ => None,
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(json: &str) -> Script {
        Script(vec![serde_json::from_str(json).expect("a fault")])
    }

    fn id(id: &str) -> About<'_> {
        About { third_party_id: Some(id), ..About::default() }
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_says() {
        let mut once = script("{}");
        assert!(once.strike(On::Payout, About::default()).is_some());
        assert!(once.strike(On::Payout, About::default()).is_none());
        let mut third = script(r#"{"every": 3, "times": 2}"#);
        let struck: Vec<_> =
            (1..=12).filter(|_| third.strike(On::Payout, About::default()).is_some()).collect();
        assert_eq!(struck, [3, 6]);
        let mut ever = script(r#"{"times": 0}"#);
        assert!((0..100).all(|_| ever.strike(On::Payout, About::default()).is_some()));
    }

    #[test]
    fn a_fault_strikes_only_what_it_names() {
        let mut named = script(r#"{"third_party_id": "a", "on": "query"}"#);
        assert!(named.strike(On::Payout, id("a")).is_none());
        assert!(named.strike(On::Query, id("b")).is_none());
        assert!(named.strike(On::Query, id("a")).is_some());
        let mut named = script(r#"{"on": "address", "address": "T1"}"#);
        let at = |address| About { address: Some(address), ..About::default() };
        assert!(named.strike(On::Address, at("T2")).is_none());
        assert!(named.strike(On::Address, at("T1")).is_some());
    }

    #[test]
    fn an_early_notice_is_struck_by_the_create_call_alone() {
        let mut early = script(r#"{"on": "notice", "before_answer": true}"#);
        assert!(early.strike(On::Notice, id("a")).is_none());
        assert!(early.strike_early(id("a")).is_some());
        let mut asked = script(r#"{"on": "verification", "before_answer": true}"#);
        assert!(asked.strike_early(id("a")).is_none());
        assert!(asked.strike(On::Verification, id("a")).is_some());
    }

    #[test]
    fn a_refusal_stores_nothing_unless_told_to() {
        assert!(Fault::default().stores());
        assert!(!Fault { code: Some("E0008".into()), ..Fault::default() }.stores());
        assert!(serde_json::from_str::<Fault>(r#"{"dely": "1s"}"#).is_err(), "typos are refused");
    }
}
