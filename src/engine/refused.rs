//! Why a call is not answered with a payout.

use std::time::Duration;

use crate::ledger::{Unavailable, Unrecorded};
use crate::order::Violation;
use crate::outcome::Refusal;
use crate::policy::Rule;

/// Why a call for a payout is not answered with that payout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It breaks these rules.
    #[error("nothing was recorded; a rule is broken")]
    Invalid(Vec<Violation>),
    /// No such project here.
    #[error("no project with this pid")]
    UnknownProject,
    /// Nobody knows who calls.
    #[error("no valid token or certificate")]
    Unauthenticated,
    /// The caller may not do this here.
    #[error("the caller may not do this, or not in this project")]
    Forbidden,
    /// A rule of the caller's speaks against the payout.
    #[error("the caller's limits do not allow it: {}; nothing was recorded", .0.as_str())]
    Denied(Rule),
    /// The caller has called too often; the next call is welcome after this time.
    #[error("too many calls of this caller's; nothing was recorded")]
    OverQuota(Duration),
    /// No such payout here.
    #[error("no payout with this id")]
    UnknownPayout,
    /// The id stands for a payout that differs in these fields; where it is another caller's, that
    /// is all that is said.
    #[error("third_party_id was used before, for a payout that differs in {}", .0.join(", "))]
    Reused(Vec<&'static str>),
    /// Cregis refused the payout for good.
    #[error("Cregis refused the payout")]
    Rejected(Refusal),
    /// Certainly nothing was created: the request did not leave, or the record failed before it.
    #[error("nothing was sent; repeat with the same third_party_id")]
    NotSent,
    /// Certainly nothing was created: Cregis refuses the gateway.
    #[error("Cregis refuses this gateway; nothing was created")]
    GatewayRefused,
    /// An operator has paused the project.
    #[error("new payouts are paused; nothing was recorded")]
    Paused,
    /// The service is about to stop.
    #[error("the service is stopping; nothing was recorded")]
    Draining,
    /// The ledger does not answer, or its disk has too little room.
    #[error("the ledger is unavailable; nothing was sent")]
    LedgerUnavailable,
    /// Sends to this project are stopped until Cregis works again, or it does not answer a question.
    #[error("Cregis is unavailable; nothing was recorded")]
    UpstreamUnavailable,
    /// The call's time was over before the payout was durably recorded; it may still be.
    #[error("not recorded in time; it may still be: repeat with the same third_party_id")]
    NotRecordedYet,
    /// Too much is under way.
    #[error("too much is under way; nothing was recorded by this call")]
    Overloaded,
    /// Neither evidence nor age allows what an operator wants.
    #[error("not resolved: {0}")]
    ResolutionRefused(&'static str),
}

impl From<Unrecorded> for Refused {
    fn from(_: Unrecorded) -> Self {
        Self::LedgerUnavailable
    }
}

impl From<Unavailable> for Refused {
    fn from(_: Unavailable) -> Self {
        Self::LedgerUnavailable
    }
}
