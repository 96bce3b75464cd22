//! What one send can come to. Closed: everything that is not certain is a doubt.

use crate::state::Event;

/// Why it is not known whether a payout exists at Cregis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// No complete answer within the deadline.
    Timeout,
    /// The connection broke after the request may have left.
    ConnectionLost,
    /// A server error, whatever its body.
    Http5xx,
    /// Any other status that proves nothing.
    HttpOther,
    /// An answer that is not the documented envelope.
    BadBody,
    /// Success without a usable id.
    AcceptedNoCid,
    /// Cregis says that the id exists there.
    ExistsUpstream,
    /// A code that nobody has promised the meaning of.
    UnlistedCode,
    /// The process ended, or its send broke off by a fault of ours, while the request may have been on the wire.
    Crash,
    /// The replica that was sending it said nothing for longer than a send can take.
    LeaseExpired,
    /// The process was stopped before an answer came.
    Shutdown,
    /// The outcome is known to this process but could not be written down.
    LedgerWriteFailed,
}

impl Doubt {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::Timeout,
        Self::ConnectionLost,
        Self::Http5xx,
        Self::HttpOther,
        Self::BadBody,
        Self::AcceptedNoCid,
        Self::ExistsUpstream,
        Self::UnlistedCode,
        Self::Crash,
        Self::LeaseExpired,
        Self::Shutdown,
        Self::LedgerWriteFailed,
    ];

    /// The doubt of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|doubt| doubt.as_str() == name)
    }

    /// The name in the ledger and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "TIMEOUT",
            Self::ConnectionLost => "CONNECTION_LOST",
            Self::Http5xx => "HTTP_5XX",
            Self::HttpOther => "HTTP_OTHER",
            Self::BadBody => "BAD_BODY",
            Self::AcceptedNoCid => "ACCEPTED_NO_CID",
            Self::ExistsUpstream => "EXISTS_UPSTREAM",
            Self::UnlistedCode => "UNLISTED_CODE",
            Self::Crash => "CRASH",
            Self::LeaseExpired => "LEASE_EXPIRED",
            Self::Shutdown => "SHUTDOWN",
            Self::LedgerWriteFailed => "LEDGER_WRITE_FAILED",
        }
    }
}

/// Cregis's words when it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Cregis's code, such as `E0008`.
    pub code: String,
    /// Cregis's message, for people.
    pub msg: String,
}

/// Why nothing of a payout can exist at Cregis although it was to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// DNS, connect or TLS failed: no byte of the request left.
    ConnectFailed,
    /// Cregis refused the gateway: key, address, project, wallet, approval flow or quota.
    GatewayRefused(Refusal),
    /// Cregis found a parameter wrong while our clock is more than 60 s off its own.
    ClockSkew(Refusal),
    /// The ledger failed before the send; nothing was sent.
    LedgerUnavailable,
    /// The process was held up between the record and the send for too long to send still.
    Expired,
    /// An operator paused the project between the record and the send.
    Paused,
    /// The breaker opened between the record and the send.
    BreakerOpen,
}

/// What one send came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Cregis has the payout under this id.
    Accepted(i64),
    /// Cregis named an id that already belongs to another payout; only the ledger can tell.
    CidTaken,
    /// Cregis refused this payout for good.
    Rejected(Refusal),
    /// Certainly nothing was created.
    NotSent(Unsent),
    /// Anything less certain.
    InDoubt(Doubt),
}

// === impl Unsent ===

impl Unsent {
    /// The reason in the ledger and in the API.
    pub fn reason(&self) -> &str {
        match self {
            Self::ConnectFailed => "CONNECT_FAILED",
            Self::GatewayRefused(refusal) => &refusal.code,
            Self::ClockSkew(_) => "CLOCK_SKEW",
            Self::LedgerUnavailable => "LEDGER_UNAVAILABLE",
            Self::Expired => "SEND_EXPIRED",
            Self::Paused => "PAUSED",
            Self::BreakerOpen => "BREAKER_OPEN",
        }
    }

    /// What Cregis said, where it said anything.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::GatewayRefused(refusal) | Self::ClockSkew(refusal) => Some(refusal),
            Self::ConnectFailed
            | Self::LedgerUnavailable
            | Self::Expired
            | Self::Paused
            | Self::BreakerOpen => None,
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The event that this outcome is.
    pub fn event(&self) -> Event {
        match self {
            Self::Accepted(_) => Event::Accept,
            Self::Rejected(_) => Event::Reject,
            Self::NotSent(_) => Event::Unsend,
            Self::CidTaken | Self::InDoubt(_) => Event::Doubt,
        }
    }

    /// The reason that goes with it.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Accepted(_) => "",
            Self::CidTaken => Doubt::AcceptedNoCid.as_str(),
            Self::Rejected(refusal) => &refusal.code,
            Self::NotSent(unsent) => unsent.reason(),
            Self::InDoubt(doubt) => doubt.as_str(),
        }
    }

    /// What Cregis said, where it refused.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Rejected(refusal) => Some(refusal),
            Self::NotSent(unsent) => unsent.refusal(),
            Self::Accepted(_) | Self::CidTaken | Self::InDoubt(_) => None,
        }
    }
}
