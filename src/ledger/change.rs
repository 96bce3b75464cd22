//! What each verb does to a payout. Pure, so that both engines do the same, and do it again where
//! somebody else was faster.

use std::time::{Duration, SystemTime};

use super::Cause;
use crate::attention::Attention;
use crate::outcome::{Doubt, Outcome, Unsent};
use crate::payout::{Payout, Progress};
use crate::state::State;

/// What a payout becomes at a moment; None where this is not to be done to it.
type Step = Box<dyn Fn(&Payout, SystemTime) -> Option<Payout> + Send + Sync>;

/// What is to be done to a payout, whatever it is by then.
pub(super) struct Change {
    /// Kept with the revision.
    pub(super) cause: Cause,
    step: Step,
    /// Instead, where the cid that it would bind belongs to another payout.
    if_taken: Step,
}

impl Change {
    /// The payout after it; None where it is not to be done to such a payout.
    pub(super) fn next(&self, before: &Payout, taken: bool, now: SystemTime) -> Option<Payout> {
        let step = if taken { &self.if_taken } else { &self.step };
        step(before, now)
    }

    /// The send of `sent` came to `outcome`; once accepted, it is due after `poll_first`.
    pub(super) fn settle(sent: &Payout, outcome: Outcome, poll_first: Duration) -> Self {
        let (begun, taken) = (sent.send_time, sent.send_time);
        Self {
            cause: Cause::Reply,
            step: Box::new(move |before, now| {
                Some(after_send(begun, before, &outcome, poll_first, now))
            }),
            if_taken: Box::new(move |before, now| {
                Some(after_send(taken, before, &Outcome::CidTaken, poll_first, now))
            }),
        }
    }

    /// A signed query that was made when the payout stood as `asked` showed `progress`.
    pub(super) fn confirm(
        asked: &Payout,
        progress: Progress,
        poll_first: Duration,
        cause: Cause,
    ) -> Self {
        let revision = asked.revision;
        Self {
            cause,
            step: Box::new(move |before, now| {
                let late = before.outruns(&progress, revision);
                Some(if late {
                    before.clone()
                } else {
                    before.confirmed(&progress, poll_first, now)
                })
            }),
            if_taken: Box::new(|before, now| Some(before.noted(Attention::DuplicateCid, now))),
        }
    }

    /// A person should look at it.
    pub(super) fn note(attention: Attention, cause: Cause) -> Self {
        Self::plain(cause, move |before, now| Some(before.noted(attention, now)))
    }

    /// An operator found that it was never created; only a doubt that is at least `age` old.
    pub(super) fn void(age: Duration, evidence: String) -> Self {
        Self::plain(Cause::Operator(evidence), move |before, now| {
            let old = now.duration_since(before.state_time).is_ok_and(|since| since >= age);
            before.voided(now).ok().filter(|_| old)
        })
    }

    /// The record of the send that began at `send_time` failed, so it was not sent: whoever began it knows, even where
    /// others have taken it for lost meanwhile.
    pub(super) fn unsend(send_time: SystemTime) -> Self {
        Self::plain(Cause::Unsent, move |before, now| {
            let lapsed = before.reason == Doubt::LeaseExpired.as_str();
            let begun = match before.state {
                State::Sending => before.send_time == send_time,
                State::InDoubt => before.send_time == send_time && lapsed,
                State::NotSent
                | State::Accepted
                | State::Rejected
                | State::Voided
                | State::Succeeded
                | State::Failed
                | State::Denied => false,
            };
            let unsent = Outcome::NotSent(Unsent::LedgerUnavailable);
            begun.then(|| before.settled(&unsent, Duration::ZERO, now))
        })
    }

    /// The process that was sending `sent` is gone.
    pub(super) fn recover(sent: &Payout) -> Self {
        Self::ends_send(sent.send_time, Cause::Recovery, Outcome::InDoubt(Doubt::Crash))
    }

    /// Whoever was sending `sent` has said nothing for too long.
    pub(super) fn lapse(sent: &Payout) -> Self {
        Self::ends_send(sent.send_time, Cause::Recovery, Outcome::InDoubt(Doubt::LeaseExpired))
    }

    fn plain(
        cause: Cause,
        step: impl Fn(&Payout, SystemTime) -> Option<Payout> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self { cause, step: Box::new(step.clone()), if_taken: Box::new(step) }
    }

    /// Ends this send, and no later one of the same payout.
    fn ends_send(begun: SystemTime, cause: Cause, outcome: Outcome) -> Self {
        Self::plain(cause, move |before, now| {
            let sending = before.state == State::Sending && before.send_time == begun;
            sending.then(|| before.settled(&outcome, Duration::ZERO, now))
        })
    }
}

/// The payout after the send that began at `begun` came to `outcome`.
///
/// Another send may be under way by then, or have become a doubt. Only that Cregis has the payout is true of both.
fn after_send(
    begun: SystemTime,
    before: &Payout,
    outcome: &Outcome,
    poll_first: Duration,
    now: SystemTime,
) -> Payout {
    let another = before.state == State::Sending && before.send_time != begun;
    match outcome {
        Outcome::NotSent(_) if before.state == State::InDoubt => before.clone(),
        Outcome::Rejected(_) | Outcome::NotSent(_) | Outcome::InDoubt(_) if another => {
            before.clone()
        }
        Outcome::Accepted(_)
        | Outcome::CidTaken
        | Outcome::Rejected(_)
        | Outcome::NotSent(_)
        | Outcome::InDoubt(_) => before.settled(outcome, poll_first, now),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::outcome::Refusal;
    use crate::sample::order;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn sent() -> Payout {
        Payout::first(Arc::new(order()), "a", at(1))
    }

    #[test]
    fn the_late_end_of_an_earlier_send_does_not_end_the_one_that_is_under_way() {
        let first = sent();
        let lapsed = Change::lapse(&first).next(&first, false, at(61)).expect("a doubt");
        assert_eq!((lapsed.state, lapsed.reason.as_str()), (State::InDoubt, "LEASE_EXPIRED"));
        let second = lapsed.resent("b", at(62)).expect("allowed");
        let refused = Outcome::Rejected(Refusal { code: "E0008".into(), msg: String::new() });
        let nothing = Outcome::NotSent(Unsent::ConnectFailed);
        for outcome in [refused, nothing, Outcome::InDoubt(Doubt::Timeout)] {
            let late = Change::settle(&first, outcome.clone(), Duration::ZERO);
            assert_eq!(late.next(&second, false, at(63)), Some(second.clone()), "{outcome:?}");
            assert!(Change::lapse(&first).next(&second, false, at(63)).is_none());
            let own = Change::settle(&second, outcome, Duration::ZERO);
            let ended = own.next(&second, false, at(63)).expect("ended");
            // What the first one did is still not known.
            assert_eq!((ended.state, ended.reason.is_empty()), (State::InDoubt, false));
        }
        let late = Change::settle(&first, Outcome::Accepted(9), Duration::ZERO);
        let found = late.next(&second, false, at(63)).expect("evidence");
        assert_eq!((found.state, found.cid), (State::Accepted, Some(9)));
    }

    #[test]
    fn the_late_end_of_a_lapsed_send_is_evidence_only_where_it_exists() {
        let first = sent();
        let lapsed = Change::lapse(&first).next(&first, false, at(61)).expect("a doubt");
        let late = Change::settle(&first, Outcome::Accepted(9), Duration::ZERO);
        let found = late.next(&lapsed, false, at(63)).expect("evidence");
        assert_eq!((found.state, found.cid), (State::Accepted, Some(9)));
        let late = Change::settle(&first, Outcome::NotSent(Unsent::Expired), Duration::ZERO);
        assert_eq!(late.next(&lapsed, false, at(63)), Some(lapsed));
    }

    #[test]
    fn a_late_sign_of_life_of_a_closed_payout_is_never_dropped() {
        let first = sent();
        let doubt = Change::lapse(&first).next(&first, false, at(61)).expect("a doubt");
        let voided = doubt.voided(at(62)).expect("closed");
        let unsent = Change::unsend(first.send_time).next(&first, false, at(2)).expect("closed");
        let refusal = Refusal { code: "E0008".into(), msg: String::new() };
        let rejected = Change::settle(&first, Outcome::Rejected(refusal), Duration::ZERO);
        let rejected = rejected.next(&first, false, at(2)).expect("closed");
        let after = |closed: &Payout, outcome, taken| {
            let late = Change::settle(&first, outcome, Duration::ZERO);
            let next = late.next(closed, taken, at(63)).expect("a payout");
            assert_eq!(next.revision, closed.revision + 1);
            (next.state, next.cid, next.attention.join(" "))
        };
        for closed in [&voided, &unsent, &rejected] {
            let exists = "EXISTS_AFTER_CLOSE".to_owned();
            let accepted = after(closed, Outcome::Accepted(9), false);
            assert_eq!(accepted, (State::Accepted, Some(9), exists.clone()));
            for doubt in [Doubt::AcceptedNoCid, Doubt::ExistsUpstream] {
                let late = after(closed, Outcome::InDoubt(doubt), false);
                assert_eq!(late, (closed.state, None, exists.clone()));
            }
            let both = "DUPLICATE_CID EXISTS_AFTER_CLOSE".to_owned();
            assert_eq!(after(closed, Outcome::Accepted(9), true), (closed.state, None, both));
        }
        let doubled = after(&doubt, Outcome::Accepted(9), true);
        assert_eq!(doubled, (State::InDoubt, None, "DUPLICATE_CID".to_owned()));
    }

    #[test]
    fn a_record_that_failed_is_taken_back_and_no_other_of_the_same_payout() {
        let first = sent();
        let unsent = Change::unsend(at(1)).next(&first, false, at(2)).expect("taken back");
        let second = unsent.resent("b", at(3)).expect("allowed");
        assert!(Change::unsend(at(1)).next(&second, false, at(4)).is_none());
    }

    #[test]
    fn a_record_that_failed_is_taken_back_although_others_took_its_owner_for_gone() {
        let first = sent();
        let lapsed = Change::lapse(&first).next(&first, false, at(61)).expect("a doubt");
        let unsent = Change::unsend(at(1)).next(&lapsed, false, at(62)).expect("taken back");
        assert_eq!((unsent.state, unsent.reason.as_str()), (State::NotSent, "LEDGER_UNAVAILABLE"));
        // No other doubt, and none of another send.
        let crashed = Change::recover(&first).next(&first, false, at(61)).expect("a doubt");
        assert!(Change::unsend(at(1)).next(&crashed, false, at(62)).is_none());
        let second = lapsed.resent("b", at(62)).expect("allowed");
        let lapsed = Change::lapse(&second).next(&second, false, at(122)).expect("a doubt");
        assert!(Change::unsend(at(1)).next(&lapsed, false, at(123)).is_none());
        // What the first one did is still not known.
        let unsent = Change::unsend(at(62)).next(&lapsed, false, at(123)).expect("taken back");
        assert_eq!(unsent.state, State::InDoubt);
    }
}
