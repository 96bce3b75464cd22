//! Exact sums of what payouts come to.

use std::collections::BTreeMap;

use crate::amount::{Amount, Total};
use crate::pb;

/// How many payouts there are, and what they come to in each currency.
#[derive(Default)]
pub(super) struct Totals {
    /// All payouts.
    pub(super) count: usize,
    /// The sum in each currency.
    pub(super) by_currency: BTreeMap<String, Total>,
    /// Payouts whose amount is no decimal text; they are in no sum.
    pub(super) unreadable: usize,
}

impl Totals {
    pub(super) fn of(payouts: &[pb::Payout]) -> Self {
        let mut totals = Self { count: payouts.len(), ..Self::default() };
        for payout in payouts {
            let Ok(amount) = Amount::parse(&payout.amount) else {
                totals.unreadable += 1;
                continue;
            };
            let sum = totals.by_currency.entry(payout.currency.clone()).or_default();
            *sum = sum.plus(&amount);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_that_cannot_be_read_is_counted_and_not_summed() {
        let payout = |amount: &str, currency: &str| pb::Payout {
            amount: amount.to_owned(),
            currency: currency.to_owned(),
            ..pb::Payout::default()
        };
        let payouts = [payout("1", "a"), payout("1e3", "a"), payout("2", "b"), payout("0.5", "a")];
        let totals = Totals::of(&payouts);
        assert_eq!((totals.count, totals.unreadable), (4, 1));
        let sums: Vec<_> =
            totals.by_currency.iter().map(|(c, sum)| (c.clone(), sum.to_string())).collect();
        assert_eq!(sums, [("a".to_owned(), "1.5".to_owned()), ("b".to_owned(), "2".to_owned())]);
    }
}
