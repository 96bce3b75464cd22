//! The payout: what we hold about one, and how outcomes and evidence change it.
//!
//! Pure. Which state follows which is the table's business ([`crate::state`]); what else changes
//! with it is decided here.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::attention::{AGE_MAX, Attention};
use crate::order::Order;
use crate::outcome::{Doubt, Outcome, Unsent};
use crate::state::{Contradiction, Event, State};

/// What a signed query showed about a payout; every field of its echo agreed with the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Cregis's id, the one that was asked for.
    pub cid: i64,
    /// Cregis's status number.
    pub status: i32,
    /// Hash of the transaction, or empty.
    pub txid: String,
    /// Height of its block, or 0.
    pub block_height: i64,
    /// Time of its block.
    pub block_time: Option<SystemTime>,
}

/// A payout as the ledger holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Payout {
    /// The ledger's row.
    pub row: i64,
    /// What was asked for.
    pub order: Arc<Order>,
    /// Who created it; empty where callers have no names. It never changes.
    pub caller: String,
    /// Whose call sent it last, where that was not `caller`: the payout counts against its limits.
    pub sender: Option<String>,
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
    /// What the last signed query showed, once there was one that agreed.
    pub progress: Option<Box<Progress>>,
    /// The one id that may be paid, once external verification has approved it.
    pub approved_cid: Option<i64>,
    /// When the present or last send was recorded.
    pub send_time: SystemTime,
    /// When it was first recorded.
    pub create_time: SystemTime,
    /// When it came into its present state.
    pub state_time: SystemTime,
    /// When it last changed.
    pub update_time: SystemTime,
    /// When it is to be looked at next; None where nothing can come any more.
    pub due: Option<SystemTime>,
    /// How often Cregis has been asked since the last news.
    pub polls: i64,
    /// Starts at 1 and grows by one with every change.
    pub revision: i64,
    /// What a person should look at.
    pub attention: Vec<String>,
}

impl Payout {
    /// The payout that a new `order` of `caller`'s becomes: recorded as SENDING before anything is sent.
    pub fn first(order: Arc<Order>, caller: &str, now: SystemTime) -> Self {
        Self {
            row: 0,
            order,
            caller: caller.to_owned(),
            sender: None,
            cid: None,
            state: State::Sending,
            reason: String::new(),
            refusal_msg: String::new(),
            earlier_doubt: None,
            progress: None,
            approved_cid: None,
            send_time: now,
            create_time: now,
            state_time: now,
            update_time: now,
            due: Some(now),
            polls: 0,
            revision: 1,
            attention: Vec::new(),
        }
    }

    /// The payout claimed for one more send, on `caller`'s behalf.
    ///
    /// # Errors
    /// Where the state does not allow a send.
    pub fn resent(&self, caller: &str, now: SystemTime) -> Result<Self, Contradiction> {
        let left_doubt = (self.state == State::InDoubt).then(|| self.reason.clone());
        let mut next = self.moved(Event::Send, now)?;
        next.earlier_doubt = left_doubt.or(next.earlier_doubt);
        next.send_time = now;
        next.sender = (caller != self.caller).then(|| caller.to_owned());
        Ok(next)
    }

    /// The caller against whose limits it counts.
    pub fn sender(&self) -> &str {
        self.sender.as_deref().unwrap_or(&self.caller)
    }

    /// Tells whether it was not sent because Cregis refuses the gateway.
    pub fn gateway_refused(&self) -> bool {
        use Unsent as U;
        let ours = [U::ConnectFailed, U::LedgerUnavailable, U::Expired, U::Paused, U::BreakerOpen];
        self.state == State::NotSent && ours.iter().all(|unsent| unsent.reason() != self.reason)
    }

    /// The payout after its send came to `outcome`; once accepted, it is asked about after
    /// `poll_first`.
    ///
    /// Evidence may have been faster than the reply: then the reply adds nothing, unless it
    /// disagrees.
    pub fn settled(&self, outcome: &Outcome, poll_first: Duration, now: SystemTime) -> Self {
        let event = outcome.event();
        let Ok(mut next) = self.moved(event, now) else {
            return self.noted_all(&self.objections(outcome), now);
        };
        next.reason = outcome.reason().to_owned();
        next.refusal_msg = outcome.refusal().map_or_else(String::new, |r| r.msg.clone());
        match outcome {
            Outcome::Accepted(cid) => {
                next.cid = Some(*cid);
                next.due = Some(now + poll_first);
                if self.state.is_closed() {
                    next.note(Attention::ExistsAfterClose);
                }
            }
            Outcome::CidTaken => next.note(Attention::DuplicateCid),
            Outcome::Rejected(_) | Outcome::NotSent(_) | Outcome::InDoubt(_) => {}
        }
        let kept_doubt = next.state == State::InDoubt && event != Event::Doubt;
        if let (true, Some(doubt)) = (kept_doubt, &self.earlier_doubt) {
            next.reason.clone_from(doubt);
        }
        next
    }

    /// What a reply says against the state, where that state does not take it any more.
    fn objections(&self, outcome: &Outcome) -> Vec<Attention> {
        let exists = self.state.is_closed().then_some(Attention::ExistsAfterClose);
        match outcome {
            Outcome::Accepted(cid) if self.cid.is_some_and(|bound| bound != *cid) => {
                vec![Attention::CidMismatch]
            }
            Outcome::CidTaken => [Attention::DuplicateCid].into_iter().chain(exists).collect(),
            Outcome::InDoubt(Doubt::AcceptedNoCid | Doubt::ExistsUpstream) => {
                exists.into_iter().collect()
            }
            Outcome::Rejected(_) if self.cid.is_some() => vec![Attention::Contradiction],
            Outcome::Accepted(_)
            | Outcome::Rejected(_)
            | Outcome::NotSent(_)
            | Outcome::InDoubt(_) => Vec::new(),
        }
    }

    /// The payout after a signed query showed `progress`. Unchanged where that is no news.
    pub fn confirmed(&self, progress: &Progress, poll_first: Duration, now: SystemTime) -> Self {
        if self.cid.is_some_and(|cid| cid != progress.cid) {
            return self.noted(Attention::CidMismatch, now);
        }
        if self.progress.as_deref() == Some(progress) {
            return self.clone();
        }
        let closed = self.state.is_closed();
        // First that it exists, then what has become of it: one revision, one news.
        let bound = if self.cid.is_none() || closed {
            self.state.after(Event::Exist, false)
        } else {
            Ok(self.state)
        };
        let doubted = self.earlier_doubt.is_some();
        let Ok(state) = bound.and_then(|state| state.after(event_of(progress.status), doubted))
        else {
            return self.noted(Attention::Contradiction, now);
        };
        let mut next = self.in_state(state, now);
        next.cid = Some(progress.cid);
        next.progress = Some(Box::new(progress.clone()));
        next.due = (!state.is_final()).then(|| now + poll_first);
        if closed {
            next.note(Attention::ExistsAfterClose);
        }
        next
    }

    /// Whether the answer to a question that was asked at revision `asked` has been overtaken: the end
    /// has become known since, and the answer does not know it yet. That contradicts nothing.
    pub fn outruns(&self, progress: &Progress, asked: i64) -> bool {
        let ended = matches!(self.state, State::Succeeded | State::Failed | State::Denied);
        ended && self.revision > asked && event_of(progress.status) == Event::Exist
    }

    /// The payout after an operator found that it was never created.
    ///
    /// # Errors
    /// Where it is not in doubt.
    pub fn voided(&self, now: SystemTime) -> Result<Self, Contradiction> {
        self.moved(Event::Void, now)
    }

    /// The payout with `attention`; unchanged where it has that already.
    pub fn noted(&self, attention: Attention, now: SystemTime) -> Self {
        self.noted_all(&[attention], now)
    }

    fn noted_all(&self, attention: &[Attention], now: SystemTime) -> Self {
        let mut next = self.clone();
        attention.iter().for_each(|attention| next.note(*attention));
        if next.attention.len() > self.attention.len() {
            next.revision += 1;
            next.update_time = now;
        }
        next
    }

    fn note(&mut self, attention: Attention) {
        if !self.attention.iter().any(|known| known == attention.as_str()) {
            self.attention.push(attention.as_str().to_owned());
        }
    }

    fn moved(&self, event: Event, now: SystemTime) -> Result<Self, Contradiction> {
        let state = self.state.after(event, self.earlier_doubt.is_some())?;
        Ok(self.in_state(state, now))
    }

    /// The next revision, in `state`. What belonged to the state before is gone.
    fn in_state(&self, state: State, now: SystemTime) -> Self {
        let mut next = Self {
            state,
            reason: String::new(),
            refusal_msg: String::new(),
            update_time: now,
            polls: 0,
            revision: self.revision + 1,
            ..self.clone()
        };
        if state != self.state {
            next.state_time = now;
            next.attention.retain(|known| known != Attention::Age.as_str());
        }
        next.due = match state {
            State::Sending => Some(now),
            State::InDoubt => Some(now + AGE_MAX),
            State::Accepted => self.due,
            State::NotSent
            | State::Rejected
            | State::Voided
            | State::Succeeded
            | State::Failed
            | State::Denied => None,
        };
        next
    }
}

/// What a status of Cregis's means. An unknown one promises nothing but that the payout exists.
fn event_of(status: i32) -> Event {
    match status {
        6 => Event::Succeed,
        7 => Event::Fail,
        2..=4 => Event::Deny,
        _ => Event::Exist,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Refusal;
    use crate::sample::order;

    const FIRST: Duration = Duration::from_secs(30);

    fn later() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(60)
    }

    fn payout() -> Payout {
        Payout::first(Arc::new(order()), "a", SystemTime::UNIX_EPOCH)
    }

    fn after(outcome: &Outcome) -> Payout {
        payout().settled(outcome, FIRST, later())
    }

    fn refusal() -> Refusal {
        Refusal { code: "E0034".into(), msg: "quota".into() }
    }

    fn progress(cid: i64, status: i32) -> Progress {
        Progress { cid, status, ..Progress::default() }
    }

    #[test]
    fn a_refused_second_send_leaves_the_first_sends_doubt() {
        let doubted = after(&Outcome::InDoubt(Doubt::Timeout));
        let resent = doubted.resent("b", later()).expect("allowed");
        assert_eq!((resent.caller.as_str(), resent.sender()), ("a", "b"));
        let own = doubted.resent("a", later()).expect("allowed");
        assert_eq!((own.sender.as_deref(), own.sender()), (None, "a"));
        assert_eq!((resent.state, resent.revision, resent.send_time), (State::Sending, 3, later()));
        for outcome in [
            Outcome::Rejected(refusal()),
            Outcome::NotSent(Unsent::GatewayRefused(refusal())),
            Outcome::NotSent(Unsent::ConnectFailed),
        ] {
            let settled = resent.settled(&outcome, FIRST, later());
            assert_eq!((settled.state, settled.reason.as_str()), (State::InDoubt, "TIMEOUT"));
        }
        let accepted = resent.settled(&Outcome::Accepted(9), FIRST, later());
        assert_eq!((accepted.state, accepted.cid), (State::Accepted, Some(9)));
        assert_eq!(accepted.due, Some(later() + FIRST));
    }

    #[test]
    fn a_cid_that_is_bound_elsewhere_is_a_doubt_that_pages() {
        let settled = after(&Outcome::CidTaken);
        assert_eq!((settled.state, settled.cid), (State::InDoubt, None));
        assert_eq!(settled.reason, "ACCEPTED_NO_CID");
        assert_eq!(settled.attention, ["DUPLICATE_CID"]);
    }

    #[test]
    fn a_query_binds_a_doubt_and_ends_it_in_one_revision() {
        for (status, state) in [
            (0, State::Accepted),
            (5, State::Accepted),
            (1, State::Accepted),
            (99, State::Accepted),
            (2, State::Denied),
            (3, State::Denied),
            (4, State::Denied),
            (6, State::Succeeded),
            (7, State::Failed),
        ] {
            let doubted = after(&Outcome::InDoubt(Doubt::Timeout));
            let next = doubted.confirmed(&progress(9, status), FIRST, later());
            assert_eq!((next.state, next.cid, next.revision), (state, Some(9), 3), "{status}");
            assert_eq!((next.reason.as_str(), next.attention.len()), ("", 0));
            assert_eq!(next.due.is_none(), state.is_final());
            assert_eq!(next.confirmed(&progress(9, status), FIRST, later()), next, "no news");
        }
    }

    #[test]
    fn what_was_closed_reopens_and_pages_when_it_exists_after_all() {
        let voided = after(&Outcome::InDoubt(Doubt::Crash)).voided(later()).expect("a doubt");
        for closed in [
            after(&Outcome::Rejected(refusal())),
            after(&Outcome::NotSent(Unsent::ConnectFailed)),
            voided,
        ] {
            let next = closed.confirmed(&progress(9, 6), FIRST, later());
            assert_eq!((next.state, next.cid), (State::Succeeded, Some(9)), "{}", closed.state);
            assert_eq!(next.attention, ["EXISTS_AFTER_CLOSE"]);
        }
    }

    #[test]
    fn evidence_against_a_final_state_pages_and_moves_nothing() {
        let paid = after(&Outcome::Accepted(9)).confirmed(&progress(9, 6), FIRST, later());
        for status in [0, 1, 2, 3, 4, 5, 7] {
            let next = paid.confirmed(&progress(9, status), FIRST, later());
            assert_eq!((next.state, &next.progress), (State::Succeeded, &paid.progress));
            assert_eq!(next.attention, ["CONTRADICTION"], "{status}");
        }
        let other = paid.confirmed(&progress(8, 6), FIRST, later());
        assert_eq!((other.cid, other.attention), (Some(9), vec!["CID_MISMATCH".to_owned()]));
    }

    #[test]
    fn a_reply_that_comes_after_the_evidence_adds_nothing_unless_it_disagrees() {
        let known = payout().confirmed(&progress(9, 1), FIRST, later());
        for (outcome, attention) in [
            (Outcome::Accepted(9), None),
            (Outcome::InDoubt(Doubt::ExistsUpstream), None),
            (Outcome::NotSent(Unsent::ConnectFailed), None),
            (Outcome::Accepted(8), Some("CID_MISMATCH")),
            (Outcome::Rejected(refusal()), Some("CONTRADICTION")),
        ] {
            let next = known.settled(&outcome, FIRST, later());
            assert_eq!((next.state, next.cid), (State::Accepted, Some(9)), "{outcome:?}");
            assert_eq!(next.attention.first().map(String::as_str), attention, "{outcome:?}");
        }
    }

    #[test]
    fn age_belongs_to_a_state_and_leaves_with_it() {
        let old = after(&Outcome::Accepted(9)).noted(Attention::Age, later());
        assert_eq!((old.revision, old.noted(Attention::Age, later()).revision), (3, 3));
        let ended = old.confirmed(&progress(9, 6), FIRST, later());
        assert!(ended.attention.is_empty());
    }
}
