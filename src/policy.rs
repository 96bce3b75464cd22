//! What a caller may have paid: its limits, and the rules that judge an order by them. Pure.
//!
//! The ledger asks, within the transaction that records: so what is judged is what is spent.

use std::sync::Arc;

use crate::amount::{Amount, Total};
use crate::coin::Currency;
use crate::order::Order;
use crate::payout::Payout;

/// On whose behalf payouts are made and looked at, and within which bounds.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The caller's name; empty for whoever is not told from others.
    pub caller: String,
    /// The projects it may use; empty: all.
    pub projects: Vec<i64>,
    /// Whether other callers' payouts do not exist for it.
    pub own_payouts_only: bool,
    /// Where not empty, a currency without a limit here is refused.
    pub limits: Vec<Limit>,
    /// Where not empty, the only recipients.
    pub addresses: Vec<String>,
    /// Says what it would refuse, and lets it through.
    pub report_only: bool,
}

/// How much of one currency a caller may spend. At least one of the two is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The coin, as callers must write it.
    pub currency: Currency,
    /// The most for one payout.
    pub per_payout: Option<Amount>,
    /// The most for all payouts that were sent on one UTC day.
    pub per_day: Option<Amount>,
}

/// The rule that refuses an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The caller has limits, and none for this currency.
    CurrencyNotAllowed,
    /// The recipient is not on the caller's list.
    AddressNotAllowed,
    /// More than one payout may be.
    PerPayoutLimit,
    /// More than is left of the day's limit.
    PerDayLimit,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 4] = [
        Self::CurrencyNotAllowed,
        Self::AddressNotAllowed,
        Self::PerPayoutLimit,
        Self::PerDayLimit,
    ];

    /// The name that callers see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CurrencyNotAllowed => "CURRENCY_NOT_ALLOWED",
            Self::AddressNotAllowed => "ADDRESS_NOT_ALLOWED",
            Self::PerPayoutLimit => "PER_PAYOUT_LIMIT",
            Self::PerDayLimit => "PER_DAY_LIMIT",
        }
    }
}

impl Terms {
    /// Without a name and without bounds.
    pub fn open() -> Arc<Self> {
        Arc::default()
    }

    /// Whether the caller may use the project, be there one or not.
    pub fn cover(&self, pid: i64) -> bool {
        self.projects.is_empty() || self.projects.contains(&pid)
    }

    /// Whether the payout exists for the caller.
    pub fn show(&self, payout: &Payout) -> bool {
        !self.own_payouts_only || payout.caller == self.caller
    }

    /// Whether orders are judged at all.
    pub fn are_limited(&self) -> bool {
        !self.limits.is_empty() || !self.addresses.is_empty()
    }

    /// The first rule that speaks against `order`, where `spent` has been spent today of its currency.
    pub fn judge(&self, order: &Order, spent: &Total) -> Option<Rule> {
        let limit = self.limits.iter().find(|limit| limit.currency == order.currency);
        if limit.is_none() && !self.limits.is_empty() {
            return Some(Rule::CurrencyNotAllowed);
        }
        if !self.addresses.is_empty() && !self.addresses.contains(&order.address) {
            return Some(Rule::AddressNotAllowed);
        }
        let limit = limit?;
        let exceeds = |total: Total, most: &Option<Amount>| {
            most.as_ref().is_some_and(|most| total.exceeds(most))
        };
        if exceeds(Total::from(&order.amount), &limit.per_payout) {
            return Some(Rule::PerPayoutLimit);
        }
        exceeds(spent.plus(&order.amount), &limit.per_day).then_some(Rule::PerDayLimit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Draft;
    use crate::sample::draft;

    fn order(currency: &str, address: &str, amount: &str) -> Order {
        let draft = Draft {
            currency: currency.into(),
            address: address.into(),
            amount: amount.into(),
            ..draft()
        };
        Order::check(draft, false).expect("good")
    }

    fn limit(currency: &str, per_payout: Option<&str>, per_day: Option<&str>) -> Limit {
        let amount = |text: Option<&str>| text.map(|text| Amount::parse(text).expect(text));
        Limit {
            currency: Currency::parse(currency).expect("a currency"),
            per_payout: amount(per_payout),
            per_day: amount(per_day),
        }
    }

    #[test]
    fn each_rule_refuses_one_unit_too_much_and_lets_the_limit_itself_through() {
        let terms = Terms {
            limits: vec![
                limit("7777@1", Some("10"), Some("100")),
                limit("7777@2", Some("0.5"), None),
                limit("7777@3", None, Some("1")),
            ],
            addresses: vec!["a".into(), "b".into()],
            ..Terms::default()
        };
        use Rule as R;
        for (currency, address, amount, spent, rule) in [
            ("7777@1", "a", "10", "0", None),
            ("7777@1", "b", "10.0", "90", None),
            ("7777@1", "a", "10.000000000000000000000000000000001", "0", Some(R::PerPayoutLimit)),
            ("7777@1", "a", "10", "90.000000000000000000000000001", Some(R::PerDayLimit)),
            ("7777@1", "a", "0.000000000000000000000000001", "100", Some(R::PerDayLimit)),
            ("7777@1", "A", "1", "0", Some(R::AddressNotAllowed)),
            ("7777@2", "a", "0.5", "999999999999", None),
            ("7777@2", "a", "0.51", "0", Some(R::PerPayoutLimit)),
            ("7777@3", "a", "1", "0", None),
            ("7777@3", "a", "1", "0.1", Some(R::PerDayLimit)),
            ("7777@4", "a", "1", "0", Some(R::CurrencyNotAllowed)),
            ("7777@4", "c", "1", "0", Some(R::CurrencyNotAllowed)),
        ] {
            let spent = Total::parse(spent).expect(spent);
            let judged = terms.judge(&order(currency, address, amount), &spent);
            assert_eq!(judged, rule, "{amount} {currency} to {address}, {spent} spent");
        }
    }

    #[test]
    fn what_is_not_limited_is_not_judged() {
        let huge = order("7777@1", "a", &"9".repeat(36));
        let spent = Total::parse(&"9".repeat(60)).expect("plain");
        assert_eq!(Terms::default().judge(&huge, &spent), None);
        assert!(!Terms::default().are_limited());
        let addresses = Terms { addresses: vec!["a".into()], ..Terms::default() };
        assert_eq!(addresses.judge(&huge, &spent), None);
        assert!(addresses.are_limited());
    }
}
