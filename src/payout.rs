//! The payout: its states, and the one table that moves it.
//!
//! Everything here is pure. No other code decides which state follows which.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::order::Order;
use crate::outcome::{Outcome, Unsent};

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

/// What a person should look at; it never hides the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Cregis named an id that belongs to another payout.
    DuplicateCid,
}

impl Attention {
    /// The name in the ledger and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DuplicateCid => "DUPLICATE_CID",
        }
    }
}

/// A payout as the ledger holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Payout {
    /// The ledger's row.
    pub row: i64,
    /// What was asked for.
    pub order: Arc<Order>,
    /// Cregis's id, once known.
    pub cid: Option<i64>,
    /// Where it stands.
    pub state: State,
    /// Why it stands there, in UPPER_SNAKE; a refusal's reason is Cregis's code.
    pub reason: String,
    /// Cregis's message behind a refusal.
    pub refusal_msg: String,
    /// The doubt that an earlier send left. While it stands, no later refusal proves anything
    /// about that earlier send.
    pub earlier_doubt: Option<String>,
    /// When the present or last send was recorded.
    pub send_time: SystemTime,
    /// When it was first recorded.
    pub create_time: SystemTime,
    /// When it last changed.
    pub update_time: SystemTime,
    /// Starts at 1 and grows by one with every change.
    pub revision: i64,
    /// What a person should look at.
    pub attention: Vec<String>,
}

// === impl State ===

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
            (S::Sending | S::InDoubt, E::Accept) => Ok(S::Accepted),
            // A second send that was refused says nothing about the first.
            (S::Sending, E::Reject | E::Unsend) if earlier_doubt => Ok(S::InDoubt),
            (S::Sending, E::Reject) => Ok(S::Rejected),
            (S::Sending, E::Unsend) => Ok(S::NotSent),
            (S::Sending, E::Doubt) => Ok(S::InDoubt),
            (S::Sending, E::Send)
            | (S::NotSent | S::InDoubt, E::Reject | E::Unsend | E::Doubt)
            | (S::NotSent, E::Accept)
            | (
                S::Accepted | S::Rejected | S::Voided | S::Succeeded | S::Failed | S::Denied,
                E::Send | E::Accept | E::Reject | E::Unsend | E::Doubt,
            ) => Err(Contradiction { state: self, event }),
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

// === impl Payout ===

impl Payout {
    /// The payout that a new `order` becomes: recorded as SENDING before anything is sent.
    pub fn first(row: i64, order: Arc<Order>, now: SystemTime) -> Self {
        Self {
            row,
            order,
            cid: None,
            state: State::Sending,
            reason: String::new(),
            refusal_msg: String::new(),
            earlier_doubt: None,
            send_time: now,
            create_time: now,
            update_time: now,
            revision: 1,
            attention: Vec::new(),
        }
    }

    /// The payout claimed for one more send.
    ///
    /// # Errors
    /// Where the state does not allow a send.
    pub fn resent(&self, now: SystemTime) -> Result<Self, Contradiction> {
        let state = self.state.after(Event::Send, self.earlier_doubt.is_some())?;
        let left_doubt = (self.state == State::InDoubt).then(|| self.reason.clone());
        Ok(Self {
            state,
            reason: String::new(),
            refusal_msg: String::new(),
            earlier_doubt: left_doubt.or_else(|| self.earlier_doubt.clone()),
            send_time: now,
            update_time: now,
            revision: self.revision + 1,
            ..self.clone()
        })
    }

    /// Tells whether it was not sent because Cregis refuses the gateway.
    pub fn gateway_refused(&self) -> bool {
        let ours = [&Unsent::ConnectFailed, &Unsent::LedgerUnavailable];
        self.state == State::NotSent && ours.iter().all(|unsent| unsent.reason() != self.reason)
    }

    /// The payout after its send came to `outcome`.
    ///
    /// # Errors
    /// Where the state does not allow the outcome.
    pub fn settled(&self, outcome: &Outcome, now: SystemTime) -> Result<Self, Contradiction> {
        let event = outcome.event();
        let state = self.state.after(event, self.earlier_doubt.is_some())?;
        let kept_doubt = state == State::InDoubt && event != Event::Doubt;
        let mut next = Self {
            state,
            reason: outcome.reason().to_owned(),
            refusal_msg: outcome.refusal().map_or_else(String::new, |r| r.msg.clone()),
            update_time: now,
            revision: self.revision + 1,
            ..self.clone()
        };
        match outcome {
            Outcome::Accepted(cid) => next.cid = Some(*cid),
            Outcome::CidTaken => {
                let attention = Attention::DuplicateCid.as_str();
                if !next.attention.iter().any(|known| known == attention) {
                    next.attention.push(attention.to_owned());
                }
            }
            Outcome::Rejected(_) | Outcome::NotSent(_) | Outcome::InDoubt(_) => {}
        }
        if let (true, Some(doubt)) = (kept_doubt, &self.earlier_doubt) {
            next.reason.clone_from(doubt);
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::order::Draft;
    use crate::outcome::{Doubt, Refusal};

    const EVENTS: [Event; 5] =
        [Event::Send, Event::Accept, Event::Reject, Event::Unsend, Event::Doubt];

    /// What every state does with every event, in the order of [`EVENTS`]; `-` contradicts.
    const TABLE: [(State, [&str; 5]); 9] = [
        (State::Sending, ["-", "ACCEPTED", "REJECTED", "NOT_SENT", "IN_DOUBT"]),
        (State::NotSent, ["SENDING", "-", "-", "-", "-"]),
        (State::InDoubt, ["SENDING", "ACCEPTED", "-", "-", "-"]),
        (State::Accepted, ["-"; 5]),
        (State::Rejected, ["-"; 5]),
        (State::Voided, ["-"; 5]),
        (State::Succeeded, ["-"; 5]),
        (State::Failed, ["-"; 5]),
        (State::Denied, ["-"; 5]),
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
                let refusal =
                    state == State::Sending && matches!(event, Event::Reject | Event::Unsend);
                let expected = if refusal { Ok(State::InDoubt) } else { plain };
                assert_eq!(doubted, expected, "{state} {event:?}");
            }
        }
    }

    #[test]
    fn states_are_read_back_by_name() {
        for state in STATES {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("SENT"), None);
    }

    fn payout() -> Payout {
        let draft = Draft {
            pid: 1,
            currency: "7777@7777".into(),
            address: "a".into(),
            amount: "1".into(),
            third_party_id: "id".into(),
            ..Draft::default()
        };
        let order = Order::check(draft, false).expect("good");
        Payout::first(1, Arc::new(order), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_refused_second_send_leaves_the_first_sends_doubt() {
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let doubted = payout().settled(&Outcome::InDoubt(Doubt::Timeout), later).expect("allowed");
        let resent = doubted.resent(later).expect("allowed");
        assert_eq!((resent.state, resent.revision, resent.send_time), (State::Sending, 3, later));

        let refusal = Refusal { code: "E0034".into(), msg: "quota".into() };
        for outcome in [
            Outcome::Rejected(refusal.clone()),
            Outcome::NotSent(Unsent::GatewayRefused(refusal)),
            Outcome::NotSent(Unsent::ConnectFailed),
        ] {
            let settled = resent.settled(&outcome, later).expect("allowed");
            assert_eq!((settled.state, settled.reason.as_str()), (State::InDoubt, "TIMEOUT"));
        }
        let accepted = resent.settled(&Outcome::Accepted(9), later).expect("allowed");
        assert_eq!((accepted.state, accepted.cid), (State::Accepted, Some(9)));
    }

    #[test]
    fn a_cid_that_is_bound_elsewhere_is_a_doubt_that_pages() {
        let settled = payout().settled(&Outcome::CidTaken, SystemTime::now()).expect("allowed");
        assert_eq!((settled.state, settled.cid), (State::InDoubt, None));
        assert_eq!(settled.reason, "ACCEPTED_NO_CID");
        assert_eq!(settled.attention, ["DUPLICATE_CID"]);
    }
}
