//! The states of a payout, and the one table that moves it between them.
//!
//! Everything here is pure. No other code decides which state follows which.

use std::fmt;

/// Where a payout stands. Written to the ledger before anyone is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Recorded; the request may be on the wire.
    Sending,
    /// Recorded; certainly nothing left, or Cregis refused us and not the payout.
    NotSent,
    /// It may or may not exist at Cregis.
    InDoubt,
    /// Cregis has it; its id is known.
    Accepted,
    /// Cregis refused to create it. Final.
    Rejected,
    /// An operator closed a doubt as never created. Final.
    Voided,
    /// The money moved. Final.
    Succeeded,
    /// Failed on the chain. Final.
    Failed,
    /// Refused or cancelled at Cregis before signing. Final.
    Denied,
}

/// Every state, in the order of the contract's table.
pub const STATES: [State; 9] = [
    State::Sending,
    State::NotSent,
    State::InDoubt,
    State::Accepted,
    State::Rejected,
    State::Voided,
    State::Succeeded,
    State::Failed,
    State::Denied,
];

/// What can happen to a payout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A `CreatePayout` for this very id claims the right to send it once more.
    Send,
    /// The send ended: Cregis has it.
    Accept,
    /// The send ended: refused for good.
    Reject,
    /// The send ended: nothing was created.
    Unsend,
    /// The send ended: nobody knows.
    Doubt,
    /// A signed query showed that Cregis has it, and that it is not final there.
    Exist,
    /// A signed query showed status 6.
    Succeed,
    /// A signed query showed status 7.
    Fail,
    /// A signed query showed status 2, 3 or 4.
    Deny,
    /// An operator found that it was never created.
    Void,
}

/// An event that the state does not allow. Never applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payout in {state} cannot take {event:?}")]
pub struct Contradiction {
    /// The state it was in.
    pub state: State,
    /// What was said to have happened.
    pub event: Event,
}

impl State {
    /// The state after `event`; `earlier_doubt` tells that a former send may have succeeded.
    ///
    /// No wildcard: a new event must be thought about in every state.
    ///
    /// # Errors
    /// A [`Contradiction`] where the event cannot be true of this state.
    pub fn after(self, event: Event, earlier_doubt: bool) -> Result<Self, Contradiction> {
        use {Event as E, State as S};
        match (self, event) {
            // Only a caller's repeat sends again; whether policy allows it for a doubt is decided
            // before this event is raised.
            (S::NotSent | S::InDoubt, E::Send) => Ok(S::Sending),
            // A reply may come after others have given its send up and closed the payout: it exists all the same.
            (S::Sending | S::NotSent | S::InDoubt | S::Rejected | S::Voided, E::Accept) => {
                Ok(S::Accepted)
            }
            // A second send that was refused says nothing about the first.
            (S::Sending, E::Reject | E::Unsend) | (S::InDoubt, E::Unsend) if earlier_doubt => {
                Ok(S::InDoubt)
            }
            (S::Sending, E::Reject) => Ok(S::Rejected),
            // Others may have made a doubt of a send that its owner never made; whether that is so is decided before.
            (S::Sending | S::InDoubt, E::Unsend) => Ok(S::NotSent),
            (S::Sending, E::Doubt) => Ok(S::InDoubt),
            // A notice may overtake the reply, and what we have closed may exist after all.
            (
                S::Sending | S::NotSent | S::InDoubt | S::Accepted | S::Rejected | S::Voided,
                E::Exist,
            ) => Ok(S::Accepted),
            // The money has moved or never will; the same news again changes nothing.
            (S::Accepted | S::Succeeded, E::Succeed) => Ok(S::Succeeded),
            (S::Accepted | S::Failed, E::Fail) => Ok(S::Failed),
            (S::Accepted | S::Denied, E::Deny) => Ok(S::Denied),
            (S::InDoubt, E::Void) => Ok(S::Voided),
            (S::Sending, E::Send | E::Succeed | E::Fail | E::Deny | E::Void)
            | (
                S::NotSent,
                E::Reject | E::Unsend | E::Doubt | E::Succeed | E::Fail | E::Deny | E::Void,
            )
            | (S::InDoubt, E::Reject | E::Doubt | E::Succeed | E::Fail | E::Deny)
            | (S::Accepted, E::Send | E::Accept | E::Reject | E::Unsend | E::Doubt | E::Void)
            | (
                S::Rejected | S::Voided,
                E::Send
                | E::Reject
                | E::Unsend
                | E::Doubt
                | E::Succeed
                | E::Fail
                | E::Deny
                | E::Void,
            )
            | (
                S::Succeeded | S::Failed | S::Denied,
                E::Send | E::Accept | E::Reject | E::Unsend | E::Doubt | E::Exist | E::Void,
            )
            | (S::Succeeded, E::Fail | E::Deny)
            | (S::Failed, E::Succeed | E::Deny)
            | (S::Denied, E::Succeed | E::Fail) => Err(Contradiction { state: self, event }),
        }
    }

    /// Whether nothing but a contradiction can follow: the end that callers wait for.
    pub fn is_final(self) -> bool {
        match self {
            Self::Rejected | Self::Voided | Self::Succeeded | Self::Failed | Self::Denied => true,
            Self::Sending | Self::NotSent | Self::InDoubt | Self::Accepted => false,
        }
    }

    /// Whether callers are told that nothing was created.
    pub fn is_closed(self) -> bool {
        match self {
            Self::NotSent | Self::Rejected | Self::Voided => true,
            Self::Sending
            | Self::InDoubt
            | Self::Accepted
            | Self::Succeeded
            | Self::Failed
            | Self::Denied => false,
        }
    }

    /// Whether money may move, or has moved: what counts against a limit.
    pub fn spends(self) -> bool {
        match self {
            Self::Sending | Self::InDoubt | Self::Accepted | Self::Succeeded => true,
            Self::NotSent | Self::Rejected | Self::Voided | Self::Failed | Self::Denied => false,
        }
    }

    /// Whether it is looked at until something comes of it: it has a due time in the ledger.
    pub fn is_followed(self) -> bool {
        match self {
            Self::Sending | Self::InDoubt | Self::Accepted => true,
            Self::NotSent
            | Self::Rejected
            | Self::Voided
            | Self::Succeeded
            | Self::Failed
            | Self::Denied => false,
        }
    }

    /// The name in the ledger and, behind `PAYOUT_STATE_`, in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "SENDING",
            Self::NotSent => "NOT_SENT",
            Self::InDoubt => "IN_DOUBT",
            Self::Accepted => "ACCEPTED",
            Self::Rejected => "REJECTED",
            Self::Voided => "VOIDED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Denied => "DENIED",
        }
    }

    /// Reads [`State::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        STATES.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 10] = [
        Event::Send,
        Event::Accept,
        Event::Reject,
        Event::Unsend,
        Event::Doubt,
        Event::Exist,
        Event::Succeed,
        Event::Fail,
        Event::Deny,
        Event::Void,
    ];

    /// What every state does with every event, in the order of [`EVENTS`]; `-` contradicts.
    const TABLE: [(State, [&str; 10]); 9] = [
        (
            State::Sending,
            ["-", "ACCEPTED", "REJECTED", "NOT_SENT", "IN_DOUBT", "ACCEPTED", "-", "-", "-", "-"],
        ),
        (State::NotSent, ["SENDING", "ACCEPTED", "-", "-", "-", "ACCEPTED", "-", "-", "-", "-"]),
        (
            State::InDoubt,
            ["SENDING", "ACCEPTED", "-", "NOT_SENT", "-", "ACCEPTED", "-", "-", "-", "VOIDED"],
        ),
        (
            State::Accepted,
            ["-", "-", "-", "-", "-", "ACCEPTED", "SUCCEEDED", "FAILED", "DENIED", "-"],
        ),
        (State::Rejected, ["-", "ACCEPTED", "-", "-", "-", "ACCEPTED", "-", "-", "-", "-"]),
        (State::Voided, ["-", "ACCEPTED", "-", "-", "-", "ACCEPTED", "-", "-", "-", "-"]),
        (State::Succeeded, ["-", "-", "-", "-", "-", "-", "SUCCEEDED", "-", "-", "-"]),
        (State::Failed, ["-", "-", "-", "-", "-", "-", "-", "FAILED", "-", "-"]),
        (State::Denied, ["-", "-", "-", "-", "-", "-", "-", "-", "DENIED", "-"]),
    ];

    #[test]
    fn every_state_answers_every_event_as_the_table_says() {
        for (state, row) in TABLE {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                let found = state.after(event, false).map_or("-", State::as_str);
                assert_eq!(found, expected, "{state} {event:?}");
            }
        }
    }

    #[test]
    fn an_earlier_doubt_turns_only_refusals_of_a_send_into_doubt() {
        for state in STATES {
            for event in EVENTS {
                let plain = state.after(event, false);
                let doubted = state.after(event, true);
                let refusal = matches!(
                    (state, event),
                    (State::Sending, Event::Reject | Event::Unsend)
                        | (State::InDoubt, Event::Unsend)
                );
                let expected = if refusal { Ok(State::InDoubt) } else { plain };
                assert_eq!(doubted, expected, "{state} {event:?}");
            }
        }
    }

    #[test]
    fn no_event_sends_a_payout_that_is_accepted_or_final() {
        for state in STATES {
            let may_send = matches!(state, State::NotSent | State::InDoubt);
            assert_eq!(state.after(Event::Send, false).is_ok(), may_send, "{state}");
            assert!(!may_send || !state.is_final());
        }
    }

    #[test]
    fn states_are_read_back_by_name() {
        for state in STATES {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("SENT"), None);
    }
}
