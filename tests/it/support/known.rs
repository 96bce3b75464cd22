//! Callers that are told apart: in the settings, by the tokens of their requests, and what they are told.

use payoutd::caller::{Role, TokenHash};
use payoutd::config::Caller;
use payoutd::policy::Limit;
use payoutd::{amount::Amount, coin::Currency};
use tonic::{Request, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The token of the caller `name`.
pub(crate) fn token(name: &str) -> String {
    format!("token-of-{name}-4f1c9a")
}

/// A caller with one token and no bounds.
pub(crate) fn caller(name: &str, roles: &[Role]) -> Caller {
    Caller {
        name: name.to_owned(),
        identities: vec![],
        tokens: vec![TokenHash::of(token(name).as_bytes())],
        roles: roles.to_vec(),
        projects: vec![],
        own_payouts_only: false,
        max_calls: None,
        creates_per_minute: None,
        allow_addresses: vec![],
        report_only: false,
        limits: vec![],
    }
}

/// A limit of the example's currency.
pub(crate) fn limit(per_payout: Option<&str>, per_day: Option<&str>) -> Limit {
    let amount = |text: Option<&str>| text.map(|text| Amount::parse(text).expect("an amount"));
    Limit {
        currency: Currency::parse("195@195").expect("a currency"),
        per_payout: amount(per_payout),
        per_day: amount(per_day),
    }
}

/// A request of the caller `name`.
pub(crate) fn by<T>(name: &str, message: T) -> Request<T> {
    bearing(&format!("Bearer {}", token(name)), message)
}

/// A request with this `authorization`; an empty one is left out.
pub(crate) fn bearing<T>(authorization: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !authorization.is_empty() {
        let value = authorization.parse().expect("ASCII");
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// One word out of an error's metadata.
pub(crate) fn metadata(status: &Status, name: &str) -> String {
    let details: ErrorDetails = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    info.metadata.get(name).unwrap_or_else(|| panic!("no {name}")).clone()
}
