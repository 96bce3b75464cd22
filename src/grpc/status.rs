//! Where an error becomes a gRPC status: the only place, and every case in it.
//!
//! The message is for people; the reason and `retry` in ErrorInfo are for programs, and `reason` lists
//! them. UNAVAILABLE, which meshes repeat by themselves, leaves only where certainly nothing was
//! created. CANCELLED and UNKNOWN are never answered.

use std::collections::HashMap;

use tonic::codegen::http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::reason::Reason;
use crate::cregis::reply::{Meaning, blamed_field, meaning};
use crate::engine::Refused;
use crate::order::Violation;
use crate::outcome::Refusal;

/// The domain of every reason.
pub const DOMAIN: &str = "payout.v1";

/// The status for a request that breaks rules; lists every violation.
pub(super) fn invalid(violations: &[Violation]) -> Status {
    let reason = Reason::InvalidRequest;
    let mut details = details(reason, []);
    for violation in violations {
        details.add_bad_request_violation(violation.field, &violation.rule);
    }
    let fields: Vec<_> = violations.iter().map(|violation| violation.field).collect();
    let message = format!("nothing was recorded; wrong: {}", fields.join(", "));
    Status::with_error_details(reason.code(), message, details)
}

/// The status for a call that has too little time left to be begun.
pub(super) fn deadline_too_short() -> Status {
    let reason = Reason::DeadlineTooShort;
    let message = "under 50 ms were left before the deadline; nothing was recorded";
    Status::with_error_details(reason.code(), message, details(reason, []))
}

/// The status for a request whose body did not come in time.
pub(super) fn unfinished() -> Status {
    let reason = Reason::InvalidRequest;
    let message = "the request was not whole within 10 s; nothing was recorded";
    Status::with_error_details(reason.code(), message, details(reason, []))
}

/// The status for a stream of requests of which one cannot be read.
pub(super) fn undecodable() -> Status {
    let reason = Reason::InvalidRequest;
    let message = "a message could not be decoded; nothing was recorded";
    Status::with_error_details(reason.code(), message, details(reason, []))
}

/// The status for what tonic has refused before any service of ours was asked, in place of its own, which has no
/// details and blames the server for what the client sent; none for every other answer. `served` tells whether
/// there is such a method.
pub(super) fn explained(headers: &HeaderMap, served: bool) -> Option<Status> {
    let status = Status::from_header_map(headers).filter(|status| status.details().is_empty())?;
    let reason = match status.code() {
        Code::Unimplemented if !served => Reason::UnknownMethod,
        // Too long, not to be decoded, not one message, or in a compression that is not taken.
        Code::Unimplemented | Code::Internal | Code::OutOfRange | Code::ResourceExhausted => {
            Reason::InvalidRequest
        }
        // Only health checks say so without details.
        Code::NotFound => Reason::UnknownService,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => return None,
    };
    let (code, details) = (reason.code(), details(reason, []));
    let mut explained = Status::with_error_details(code, status.message(), details);
    // Tells the client which compressions are taken.
    *explained.metadata_mut() = status.metadata().clone();
    Some(explained)
}

/// The status for everything that the engine refuses.
pub(super) fn refused(refused: &Refused) -> Status {
    use Refused as R;
    let plain = |reason| (reason, details(reason, []));
    let (reason, mut details) = match refused {
        R::Invalid(violations) => return invalid(violations),
        R::Rejected(refusal) => return rejected(refusal, refused.to_string()),
        R::Reused(fields) => {
            let reason = Reason::ThirdPartyIdReused;
            (reason, details(reason, [fields.join(",")]))
        }
        R::Denied(rule) => {
            let reason = Reason::PolicyDenied;
            (reason, details(reason, [rule.as_str().to_owned()]))
        }
        R::UnknownProject => plain(Reason::UnknownProject),
        R::UnknownPayout => plain(Reason::PayoutNotFound),
        R::Unauthenticated => plain(Reason::Unauthenticated),
        R::Forbidden => plain(Reason::PermissionDenied),
        R::NotSent => plain(Reason::NotSent),
        R::GatewayRefused => plain(Reason::CregisRefusedGateway),
        R::Paused => plain(Reason::Paused),
        R::Draining => plain(Reason::Draining),
        R::LedgerUnavailable => plain(Reason::LedgerUnavailable),
        R::UpstreamUnavailable => plain(Reason::UpstreamUnavailable),
        R::NotRecordedYet => plain(Reason::NotRecordedYet),
        R::Overloaded | R::OverQuota(_) => plain(Reason::Overloaded),
        R::ResolutionRefused(_) => plain(Reason::ResolutionRefused),
    };
    if let R::OverQuota(wait) = refused {
        details.set_retry_info(Some(*wait));
    }
    Status::with_error_details(reason.code(), refused.to_string(), details)
}

/// The status for a payout that Cregis has refused; names the field to blame, where there is one.
fn rejected(refusal: &Refusal, message: String) -> Status {
    let reason = Reason::RejectedByCregis;
    let mut details = details(reason, [refusal.code.clone(), refusal.msg.clone()]);
    let field = blamed_field(&refusal.code);
    if let Some(field) = field {
        details.add_bad_request_violation(field, &refusal.msg);
    }
    // A complaint about parameters blames the request, though not which of its fields.
    let blames = field.is_some() || meaning(&refusal.code) == Meaning::Parameter;
    let code = if blames { reason.code() } else { reason.code_without_field() };
    Status::with_error_details(code, message, details)
}

/// What the reason always comes with; `values` are its metadata's, in their order.
fn details<const N: usize>(reason: Reason, values: [String; N]) -> ErrorDetails {
    let names = reason.metadata();
    debug_assert_eq!(names.len(), N, "{reason:?} has other metadata");
    let mut metadata: HashMap<_, _> =
        names.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), value)).collect();
    metadata.insert("retry".to_owned(), reason.retry().as_str().to_owned());
    let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    if let Some(wait) = reason.wait() {
        details.set_retry_info(Some(wait));
    }
    details
}
