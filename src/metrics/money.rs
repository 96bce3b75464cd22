//! Meters of payouts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::family::Table;
use super::label::Answer;
use crate::attention::Attention;
use crate::outcome::Doubt;
use crate::state::State;

/// What has become of payouts.
#[derive(Clone, Debug)]
pub struct Money {
    /// What sends came to.
    pub outcomes: Table<Answer, Counter>,
    /// Payouts that came into a state, counted when that was durable.
    pub transitions: Table<State, Counter>,
    /// Payouts that are followed, by state.
    pub payouts: Table<State, Gauge>,
    /// Payouts in doubt, by reason.
    pub doubts: Table<Doubt, Gauge>,
    /// How long the oldest of them has been in doubt, in seconds; 0 without any.
    pub oldest_doubt: Gauge,
    /// Attentions that were raised.
    pub attention: Table<Attention, Counter>,
    /// Payouts that have one.
    pub with_attention: Gauge,
}

impl Money {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let money = Self {
            outcomes: Table::of(Answer::of_a_send, Counter::default),
            transitions: Table::new(),
            payouts: Table::of(State::is_followed, Gauge::default),
            doubts: Table::new(),
            oldest_doubt: Gauge::default(),
            attention: Table::new(),
            with_attention: Gauge::default(),
        };
        let all = money.clone();
        registry.register("outcomes", "What sends came to", all.outcomes);
        registry.register("transitions", "Payouts that came into the state", all.transitions);
        registry.register("payouts", "Payouts that are followed, by state", all.payouts);
        registry.register("doubts", "Payouts in doubt, by reason", all.doubts);
        let help = "How long the oldest doubt has lasted";
        registry.register("oldest_doubt_age_seconds", help, all.oldest_doubt);
        registry.register("attention", "Attentions that were raised", all.attention);
        let help = "Payouts that have an attention, ended ones included";
        registry.register("payouts_with_attention", help, all.with_attention);
        money
    }
}
