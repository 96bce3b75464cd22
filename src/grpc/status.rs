//! Where an error becomes a gRPC status: the only place, and every case in it.
//!
//! The message is for people; the reason and `retry` in ErrorInfo are for programs. UNAVAILABLE,
//! which meshes repeat by themselves, leaves only where certainly nothing was created. CANCELLED
//! and UNKNOWN are never answered.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::cregis::reply::{Meaning, blamed_field, meaning};
use crate::engine::Refused;
use crate::order::Violation;

/// The domain of every reason.
pub const DOMAIN: &str = "payout.v1";

/// What the caller does next.
#[derive(Clone, Copy)]
enum Retry {
    SameId,
    NewId,
    Fix,
    Never,
}

/// Worth another try within moments.
const SOON: Duration = Duration::from_secs(1);
/// Something has to recover first.
const LATER: Duration = Duration::from_secs(5);

/// The status for a request that breaks rules; lists every violation.
pub(super) fn invalid(violations: &[Violation]) -> Status {
    let mut details = info("INVALID_REQUEST", Retry::Fix, []);
    for violation in violations {
        details.add_bad_request_violation(violation.field, &violation.rule);
    }
    let fields: Vec<_> = violations.iter().map(|violation| violation.field).collect();
    let message = format!("nothing was recorded; wrong: {}", fields.join(", "));
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The status for a call that has too little time left to be begun.
pub(super) fn deadline_too_short() -> Status {
    let message = "under 50 ms were left before the deadline; nothing was recorded";
    let details = info("DEADLINE_TOO_SHORT", Retry::SameId, []);
    Status::with_error_details(Code::DeadlineExceeded, message, details)
}

/// The status for everything that the engine refuses.
pub(super) fn refused(refused: &Refused) -> Status {
    use {Code as C, Refused as R, Retry as T};
    let (code, reason, retry, wait) = match refused {
        R::Invalid(violations) => return invalid(violations),
        R::UnknownProject => (C::NotFound, "UNKNOWN_PROJECT", T::Fix, None),
        R::UnknownPayout => (C::NotFound, "PAYOUT_NOT_FOUND", T::Fix, None),
        R::Unauthenticated => (C::Unauthenticated, "UNAUTHENTICATED", T::Fix, None),
        R::Forbidden => (C::PermissionDenied, "PERMISSION_DENIED", T::Fix, None),
        R::Denied(_) => (C::PermissionDenied, "POLICY_DENIED", T::Fix, None),
        R::Reused(_) => (C::AlreadyExists, "THIRD_PARTY_ID_REUSED", T::Never, None),
        R::Rejected(refusal) => {
            let parameter = meaning(&refusal.code) == Meaning::Parameter;
            let blames = parameter || blamed_field(&refusal.code).is_some();
            let code = if blames { C::InvalidArgument } else { C::FailedPrecondition };
            (code, "REJECTED_BY_CREGIS", T::NewId, None)
        }
        R::NotSent => (C::Unavailable, "NOT_SENT", T::SameId, Some(SOON)),
        R::GatewayRefused => (C::Unavailable, "CREGIS_REFUSED_GATEWAY", T::SameId, Some(LATER)),
        R::Paused => (C::Unavailable, "PAUSED", T::SameId, Some(LATER)),
        R::Draining => (C::Unavailable, "DRAINING", T::SameId, Some(SOON)),
        R::LedgerUnavailable => (C::Unavailable, "LEDGER_UNAVAILABLE", T::SameId, Some(LATER)),
        R::UpstreamUnavailable => (C::Unavailable, "UPSTREAM_UNAVAILABLE", T::SameId, Some(LATER)),
        R::Overloaded => (C::ResourceExhausted, "OVERLOADED", T::SameId, Some(SOON)),
        R::OverQuota(wait) => (C::ResourceExhausted, "OVERLOADED", T::SameId, Some(*wait)),
        R::ResolutionRefused(_) => (C::FailedPrecondition, "RESOLUTION_REFUSED", T::Fix, None),
    };
    let mut details = match refused {
        R::Reused(fields) => info(reason, retry, [("fields", fields.join(","))]),
        R::Rejected(refusal) => {
            let (code, msg) = (refusal.code.clone(), refusal.msg.clone());
            let mut details = info(reason, retry, [("cregis_code", code), ("cregis_msg", msg)]);
            if let Some(field) = blamed_field(&refusal.code) {
                details.add_bad_request_violation(field, &refusal.msg);
            }
            details
        }
        R::Denied(rule) => info(reason, retry, [("rule", rule.as_str().to_owned())]),
        R::Invalid(_)
        | R::UnknownProject
        | R::UnknownPayout
        | R::Unauthenticated
        | R::Forbidden
        | R::NotSent
        | R::GatewayRefused
        | R::Paused
        | R::Draining
        | R::LedgerUnavailable
        | R::UpstreamUnavailable
        | R::Overloaded
        | R::OverQuota(_)
        | R::ResolutionRefused(_) => info(reason, retry, []),
    };
    if wait.is_some() {
        details.set_retry_info(wait);
    }
    Status::with_error_details(code, refused.to_string(), details)
}

fn info<const N: usize>(reason: &str, retry: Retry, metadata: [(&str, String); N]) -> ErrorDetails {
    let retry = match retry {
        Retry::SameId => "same_id",
        Retry::NewId => "new_id",
        Retry::Fix => "fix",
        Retry::Never => "never",
    };
    let mut all: HashMap<String, String> =
        metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    all.insert("retry".to_owned(), retry.to_owned());
    ErrorDetails::with_error_info(reason, DOMAIN, all)
}
