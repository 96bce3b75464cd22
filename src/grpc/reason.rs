//! Every reason for which a call is refused: what programs read, and what people do next.
//!
//! The one source. `status` answers from it; docs/errors.json and the table of errors in
//! docs/outcomes.md are made from it, by `BLESS=1 cargo test --locked --test it documents::`.

use std::time::Duration;

use tonic::Code;

/// Worth another try within moments.
const SOON: Duration = Duration::from_secs(1);
/// Something has to recover first.
const LATER: Duration = Duration::from_secs(5);

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing was created: come back with the same id.
    SameId,
    /// Refused for good under this id.
    NewId,
    /// Nothing was recorded: correct the request.
    Fix,
    /// Repeating cannot help.
    Never,
}

impl Retry {
    /// The word in the metadata of ErrorInfo.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SameId => "same_id",
            Self::NewId => "new_id",
            Self::Fix => "fix",
            Self::Never => "never",
        }
    }
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`situation` says it")]
pub enum Reason {
    InvalidRequest,
    UnknownMethod,
    UnknownService,
    UnknownProject,
    PayoutNotFound,
    ThirdPartyIdReused,
    RejectedByCregis,
    NotSent,
    CregisRefusedGateway,
    Paused,
    Draining,
    LedgerUnavailable,
    UpstreamUnavailable,
    Unauthenticated,
    PermissionDenied,
    PolicyDenied,
    Overloaded,
    ResolutionRefused,
    DeadlineTooShort,
    NotRecordedYet,
}

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Self; 20] = [
        Self::InvalidRequest,
        Self::UnknownMethod,
        Self::UnknownService,
        Self::UnknownProject,
        Self::PayoutNotFound,
        Self::ThirdPartyIdReused,
        Self::RejectedByCregis,
        Self::NotSent,
        Self::CregisRefusedGateway,
        Self::Paused,
        Self::Draining,
        Self::LedgerUnavailable,
        Self::UpstreamUnavailable,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::PolicyDenied,
        Self::Overloaded,
        Self::ResolutionRefused,
        Self::DeadlineTooShort,
        Self::NotRecordedYet,
    ];

    /// What programs go by: the word, the code, `retry`, and how long RetryInfo asks to wait.
    fn row(self) -> (&'static str, Code, Retry, Option<Duration>) {
        use {Code as C, Reason as R, Retry as T};
        match self {
            R::InvalidRequest => ("INVALID_REQUEST", C::InvalidArgument, T::Fix, None),
            R::UnknownMethod => ("UNKNOWN_METHOD", C::Unimplemented, T::Fix, None),
            R::UnknownService => ("UNKNOWN_SERVICE", C::NotFound, T::Fix, None),
            R::UnknownProject => ("UNKNOWN_PROJECT", C::NotFound, T::Fix, None),
            R::PayoutNotFound => ("PAYOUT_NOT_FOUND", C::NotFound, T::Fix, None),
            R::ThirdPartyIdReused => ("THIRD_PARTY_ID_REUSED", C::AlreadyExists, T::Never, None),
            R::RejectedByCregis => ("REJECTED_BY_CREGIS", C::InvalidArgument, T::NewId, None),
            R::NotSent => ("NOT_SENT", C::Unavailable, T::SameId, Some(SOON)),
            R::CregisRefusedGateway => {
                ("CREGIS_REFUSED_GATEWAY", C::Unavailable, T::SameId, Some(LATER))
            }
            R::Paused => ("PAUSED", C::Unavailable, T::SameId, Some(LATER)),
            R::Draining => ("DRAINING", C::Unavailable, T::SameId, Some(SOON)),
            R::LedgerUnavailable => ("LEDGER_UNAVAILABLE", C::Unavailable, T::SameId, Some(LATER)),
            R::UpstreamUnavailable => {
                ("UPSTREAM_UNAVAILABLE", C::Unavailable, T::SameId, Some(LATER))
            }
            R::Unauthenticated => ("UNAUTHENTICATED", C::Unauthenticated, T::Fix, None),
            R::PermissionDenied => ("PERMISSION_DENIED", C::PermissionDenied, T::Fix, None),
            R::PolicyDenied => ("POLICY_DENIED", C::PermissionDenied, T::Fix, None),
            R::Overloaded => ("OVERLOADED", C::ResourceExhausted, T::SameId, Some(SOON)),
            R::ResolutionRefused => ("RESOLUTION_REFUSED", C::FailedPrecondition, T::Fix, None),
            R::DeadlineTooShort => ("DEADLINE_TOO_SHORT", C::DeadlineExceeded, T::SameId, None),
            R::NotRecordedYet => ("NOT_RECORDED_YET", C::DeadlineExceeded, T::SameId, None),
        }
    }

    /// The word in ErrorInfo.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The gRPC code; of a refusal by Cregis, where a field is to blame.
    pub fn code(self) -> Code {
        self.row().1
    }

    /// The gRPC code where no field is to blame.
    pub fn code_without_field(self) -> Code {
        if self == Self::RejectedByCregis { Code::FailedPrecondition } else { self.code() }
    }

    /// What the caller does next, for programs.
    pub fn retry(self) -> Retry {
        self.row().2
    }

    /// How long RetryInfo asks to wait, unless more is known; none: it does not come.
    pub fn wait(self) -> Option<Duration> {
        self.row().3
    }

    /// What ErrorInfo's metadata hold besides `retry`: each name, and what it stands for.
    pub fn metadata(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::ThirdPartyIdReused => &[(
                "fields",
                "their names, never values; `third_party_id` alone: it is another caller's",
            )],
            Self::RejectedByCregis => &[("cregis_code", "its code"), ("cregis_msg", "its words")],
            Self::PolicyDenied => &[("rule", "which limit")],
            Self::InvalidRequest
            | Self::UnknownMethod
            | Self::UnknownService
            | Self::UnknownProject
            | Self::PayoutNotFound
            | Self::NotSent
            | Self::CregisRefusedGateway
            | Self::Paused
            | Self::Draining
            | Self::LedgerUnavailable
            | Self::UpstreamUnavailable
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::Overloaded
            | Self::ResolutionRefused
            | Self::DeadlineTooShort
            | Self::NotRecordedYet => &[],
        }
    }

    /// What is the case, for people.
    pub fn situation(self) -> &'static str {
        match self {
            Self::InvalidRequest => {
                "bad request; `BadRequest` lists every bad field, none where the message could not be read; nothing recorded"
            }
            Self::UnknownMethod => "no such service or method here",
            Self::UnknownService => "a health check of a service that is not here",
            Self::UnknownProject => "no such project here",
            Self::PayoutNotFound => "no such payout here",
            Self::ThirdPartyIdReused => {
                "same id, another currency, address, amount, memo, remark or callback_url"
            }
            Self::RejectedByCregis => {
                "Cregis refused the payout; `BadRequest` names the field to blame"
            }
            Self::NotSent => "no byte of the request left",
            Self::CregisRefusedGateway => "Cregis refuses the gateway",
            Self::Paused => "an operator has paused new payouts",
            Self::Draining => "the service is stopping",
            Self::LedgerUnavailable => "the ledger cannot be read or written, or its disk is low",
            Self::UpstreamUnavailable => {
                "the breaker is open, or Cregis does not answer a query or a check"
            }
            Self::Unauthenticated => "no token or certificate, or not a valid one",
            Self::PermissionDenied => "not your method, or not your project",
            Self::PolicyDenied => "a limit of yours; nothing recorded",
            Self::Overloaded => {
                "too much under way, or over your own quota or places; nothing recorded by this call"
            }
            Self::ResolutionRefused => "ResolvePayout that evidence or age does not allow",
            Self::DeadlineTooShort => "under 50 ms left before the deadline; nothing recorded",
            Self::NotRecordedYet => {
                "the deadline was over before the payout was durably recorded; it may still be"
            }
        }
    }

    /// What the caller does, for people.
    pub fn advice(self) -> &'static str {
        match self {
            Self::InvalidRequest => "correct it; the id is still free",
            Self::UnknownMethod => "correct the path, or use a payoutd that has it",
            Self::UnknownService => "correct `service`",
            Self::UnknownProject => "correct `pid`",
            Self::PayoutNotFound => "it was never recorded: create it",
            Self::ThirdPartyIdReused => "a bug of yours: two payouts share an id",
            Self::RejectedByCregis => "correct it, new id",
            Self::NotSent
            | Self::Paused
            | Self::LedgerUnavailable
            | Self::UpstreamUnavailable
            | Self::Overloaded => "same id, after RetryInfo",
            Self::CregisRefusedGateway => "same id, after RetryInfo; operators are paged",
            Self::Draining => "same id, after RetryInfo: another instance answers",
            Self::Unauthenticated => {
                "get a valid one, then the same id: this says nothing about earlier calls"
            }
            Self::PermissionDenied => {
                "ask for the role or the project, then the same id: this says nothing about earlier calls"
            }
            Self::PolicyDenied => "correct it, or ask for more; same id",
            Self::ResolutionRefused => "read the message; look at Cregis",
            Self::DeadlineTooShort | Self::NotRecordedYet => "same id, longer deadline",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UNAVAILABLE is what meshes repeat by themselves, RESOURCE_EXHAUSTED what they take for overload.
    #[test]
    fn what_may_be_repeated_says_so_by_its_code_and_the_rest_does_not() {
        for reason in Reason::ALL {
            let codes = [reason.code(), reason.code_without_field()];
            let waits = codes.contains(&Code::Unavailable) || codes == [Code::ResourceExhausted; 2];
            assert_eq!(reason.wait().is_some(), waits, "{reason:?}");
            let late = [Reason::DeadlineTooShort, Reason::NotRecordedYet].contains(&reason);
            let again = waits || late;
            assert_eq!(reason.retry() == Retry::SameId, again, "{reason:?}");
            for code in codes {
                let never = [Code::Ok, Code::Cancelled, Code::Unknown, Code::Internal];
                assert!(!never.contains(&code), "{reason:?}");
            }
        }
    }
}
