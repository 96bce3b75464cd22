//! What is said and counted when a payout has changed.

use super::Engine;
use crate::attention::Attention;
use crate::payout::Payout;
use crate::state::State;
use crate::telemetry::span;

impl Engine {
    /// Says what evidence has changed, where it has changed anything.
    pub(super) fn news(&self, before: &Payout, after: &Payout) {
        if after.revision != before.revision {
            self.tell(before, after, "");
        }
    }

    /// Says what a payout has come to; an attention that is new is an alarm.
    pub(super) fn tell(&self, before: &Payout, after: &Payout, request_id: &str) {
        log_change(after, before.state, request_id);
        for attention in after.attention.iter().filter(|known| !before.attention.contains(known)) {
            if let Some(attention) = Attention::parse(attention) {
                self.metrics().money.attention.at(attention).inc();
            }
            tracing::error!(
                pid = after.order.key.pid,
                third_party_id = after.order.key.third_party_id,
                cid = after.cid,
                attention,
                "payout needs a person"
            );
        }
    }
}

/// The one line per state change. No address, no amount.
pub(super) fn log_change(payout: &Payout, from: State, request_id: &str) {
    tracing::info!(
        request.id = request_id,
        trace.id = span::trace_id(),
        pid = payout.order.key.pid,
        third_party_id = payout.order.key.third_party_id,
        cid = payout.cid,
        from = from.as_str(),
        state = payout.state.as_str(),
        reason = payout.reason,
        revision = payout.revision,
        "payout"
    );
}
