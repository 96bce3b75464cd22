//! Domain to proto, and back where a request names something of the domain's.

use std::sync::Arc;
use std::time::SystemTime;

use crate::payout::Payout;
use crate::pb;
use crate::state::State;

impl From<Payout> for pb::Payout {
    fn from(payout: Payout) -> Self {
        let order = Arc::unwrap_or_clone(payout.order);
        let progress = payout.progress.as_deref();
        Self {
            pid: order.key.pid,
            third_party_id: order.key.third_party_id,
            cid: payout.cid.unwrap_or_default(),
            state: pb::PayoutState::from(payout.state).into(),
            reason: payout.reason,
            currency: order.currency.to_string(),
            address: order.address,
            amount: order.amount.to_string(),
            remark: order.remark,
            memo: order.memo,
            callback_url: order.callback_url,
            cregis_status: progress.map(|p| p.status),
            txid: progress.map_or_else(String::new, |p| p.txid.clone()),
            block_height: progress.map_or(0, |p| p.block_height),
            block_time: progress.and_then(|p| p.block_time).map(timestamp),
            create_time: Some(timestamp(payout.create_time)),
            update_time: Some(timestamp(payout.update_time)),
            revision: payout.revision,
            attention: payout.attention,
            state_time: Some(timestamp(payout.state_time)),
        }
    }
}

impl From<State> for pb::PayoutState {
    fn from(state: State) -> Self {
        match state {
            State::Sending => Self::Sending,
            State::NotSent => Self::NotSent,
            State::InDoubt => Self::InDoubt,
            State::Accepted => Self::Accepted,
            State::Rejected => Self::Rejected,
            State::Voided => Self::Voided,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Denied => Self::Denied,
        }
    }
}

/// The state that a request names; None where it names none.
pub(super) fn state(named: pb::PayoutState) -> Option<State> {
    match named {
        pb::PayoutState::Unspecified => None,
        pb::PayoutState::Sending => Some(State::Sending),
        pb::PayoutState::NotSent => Some(State::NotSent),
        pb::PayoutState::InDoubt => Some(State::InDoubt),
        pb::PayoutState::Accepted => Some(State::Accepted),
        pb::PayoutState::Rejected => Some(State::Rejected),
        pb::PayoutState::Voided => Some(State::Voided),
        pb::PayoutState::Succeeded => Some(State::Succeeded),
        pb::PayoutState::Failed => Some(State::Failed),
        pb::PayoutState::Denied => Some(State::Denied),
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}
