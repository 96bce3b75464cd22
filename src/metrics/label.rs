//! Closed sets of label values. Nothing that a caller or Cregis writes can become one.

use std::fmt::Debug;

use tonic::Code;

use crate::attention::Attention;
use crate::grpc::method::Method;
use crate::outcome::{Doubt, Outcome, Unsent};
use crate::policy::Rule;
use crate::state::{STATES, State};

/// A label with a closed set of values.
pub trait Label: Copy + Debug + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];
    /// Where the value stands in [`Label::ALL`].
    fn place(self) -> usize;
    /// The value, as it is shown.
    fn text(self) -> &'static str;
}

/// One label, or a pair of them.
pub trait Labels: Copy + Debug + Send + Sync + 'static {
    /// How many values there are.
    const COUNT: usize;
    /// The value at a place below `COUNT`.
    fn at(place: usize) -> Self;
    /// The value's place.
    fn place(self) -> usize;
    /// Names and values.
    fn pairs(self) -> Vec<(&'static str, &'static str)>;
}

impl<L: Label> Labels for L {
    const COUNT: usize = L::ALL.len();

    fn at(place: usize) -> Self {
        L::ALL[place]
    }

    fn place(self) -> usize {
        Label::place(self)
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![(L::NAME, self.text())]
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const COUNT: usize = A::ALL.len() * B::ALL.len();

    fn at(place: usize) -> Self {
        (A::ALL[place / B::ALL.len()], B::ALL[place % B::ALL.len()])
    }

    fn place(self) -> usize {
        Label::place(self.0) * B::ALL.len() + Label::place(self.1)
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        vec![(A::NAME, self.0.text()), (B::NAME, self.1.text())]
    }
}

/// An enum of label values.
macro_rules! label {
    ($(#[$doc:meta])+ $name:ident as $label:literal {
        $($(#[$what:meta])+ $value:ident = $text:literal,)+
    }) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$what])+ $value,)+
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn place(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }
    };
}

/// Makes a label of an enum that has its names already.
macro_rules! labelled {
    ($name:ident as $label:literal, $all:expr) => {
        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = $all;

            fn place(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

labelled!(State as "state", &STATES);
labelled!(Doubt as "reason", &Doubt::ALL);
labelled!(Attention as "attention", &Attention::ALL);
labelled!(Method as "method", &Method::ALL);
labelled!(Rule as "rule", &Rule::ALL);

impl Label for Code {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = &[
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    fn place(self) -> usize {
        self as usize
    }

    fn text(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

label! {
    /// What Cregis is asked.
    Errand as "call" {
        /// To pay.
        Create = "create",
        /// What has become of a payout.
        Query = "query",
        /// Whether it works for us again.
        Probe = "probe",
    }
}

label! {
    /// What asking Cregis came to.
    Answer as "outcome" {
        /// It took the payout.
        Accepted = "ACCEPTED",
        /// It named an id that belongs to another payout.
        CidTaken = "CID_TAKEN",
        /// It refused the payout.
        Rejected = "REJECTED",
        /// It refused us, or our clock.
        GatewayRefused = "GATEWAY_REFUSED",
        /// Nothing left.
        NotSent = "NOT_SENT",
        /// Nobody knows.
        InDoubt = "IN_DOUBT",
        /// It has the order, or works for us.
        Good = "GOOD",
        /// It has no such order.
        Missing = "MISSING",
        /// It refused to say.
        Refused = "REFUSED",
        /// There was no answer, or none of Cregis's.
        Unanswered = "UNANSWERED",
    }
}

label! {
    /// Why a call was turned away before anything was recorded, for its number alone.
    Shed as "reason" {
        /// Too many `CreatePayout` calls wait: `grpc.max_calls`.
        Calls = "calls",
        /// Too many wait for a turn to send.
        Queue = "queue",
        /// No turn came within a second.
        Wait = "wait",
        /// Too many watch: `grpc.max_watches`.
        Watches = "watches",
        /// Too many look something up: `grpc.max_reads`.
        Reads = "reads",
        /// Too many read a page.
        Lists = "lists",
        /// Too many orders are being shown to Cregis by `validate_only`.
        Checks = "checks",
        /// The caller has too many calls under way.
        CallerCalls = "caller_calls",
        /// The caller calls too often.
        CallerRate = "caller_rate",
    }
}

label! {
    /// Which of Cregis's messages.
    Letter as "kind" {
        /// A payout notice.
        Notice = "notice",
        /// An external verification.
        Verification = "verification",
    }
}

label! {
    /// How a message of Cregis's was answered.
    Verdict as "verdict" {
        /// A notice was kept.
        Success = "success",
        /// A verification was approved.
        Ok = "ok",
        /// A verification was denied.
        Deny = "deny",
        /// Forged or malformed.
        Forged = "forged",
        /// For nobody here.
        Unknown = "unknown",
        /// The ledger or the confirming query was silent.
        Unavailable = "unavailable",
    }
}

label! {
    /// Whether a policy's refusal was meant.
    Mode as "mode" {
        /// The payout was refused.
        Enforced = "enforced",
        /// It went on, and the refusal was only reported.
        Reported = "reported",
    }
}

impl Answer {
    /// Whether the pair can come to be; so that no series is there that never counts.
    pub(super) fn fits((asked, answer): (Errand, Self)) -> bool {
        match answer {
            Self::Accepted
            | Self::CidTaken
            | Self::Rejected
            | Self::GatewayRefused
            | Self::NotSent
            | Self::InDoubt => asked == Errand::Create,
            Self::Missing => asked == Errand::Query,
            Self::Good | Self::Refused | Self::Unanswered => asked != Errand::Create,
        }
    }

    /// Whether a send can come to it.
    pub(super) fn of_a_send(self) -> bool {
        Self::fits((Errand::Create, self))
    }
}

impl From<&Outcome> for Answer {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted(_) => Self::Accepted,
            Outcome::CidTaken => Self::CidTaken,
            Outcome::Rejected(_) => Self::Rejected,
            Outcome::NotSent(Unsent::GatewayRefused(_) | Unsent::ClockSkew(_)) => {
                Self::GatewayRefused
            }
            Outcome::NotSent(
                Unsent::ConnectFailed
                | Unsent::LedgerUnavailable
                | Unsent::Expired
                | Unsent::Paused
                | Unsent::BreakerOpen,
            ) => Self::NotSent,
            Outcome::InDoubt(_) => Self::InDoubt,
        }
    }
}

impl Verdict {
    /// Whether the pair can come to be.
    pub(super) fn fits((letter, verdict): (Letter, Self)) -> bool {
        match verdict {
            Self::Success => letter == Letter::Notice,
            Self::Ok | Self::Deny => letter == Letter::Verification,
            Self::Forged | Self::Unknown | Self::Unavailable => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn whole<L: Labels>() {
        let mut seen = BTreeSet::new();
        for place in 0..L::COUNT {
            assert_eq!(L::at(place).place(), place, "{:?}", L::at(place));
            assert!(seen.insert(L::at(place).pairs()), "{:?} stands twice", L::at(place));
        }
        assert!(L::COUNT > 1);
    }

    #[test]
    fn every_label_stands_at_its_own_place_under_its_own_name() {
        whole::<(Method, Code)>();
        whole::<(Errand, Answer)>();
        whole::<(Letter, Verdict)>();
        whole::<(Rule, Mode)>();
        whole::<Shed>();
        whole::<State>();
        whole::<Doubt>();
        whole::<Attention>();
    }

    #[test]
    fn codes_stand_at_the_places_of_their_numbers() {
        for (number, code) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::from(number as i32), *code);
        }
    }
}
