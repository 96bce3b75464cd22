//! Exact sums of decimal texts, of any length: digit by digit, as on paper.

use std::collections::BTreeMap;

use crate::amount::Amount;
use crate::pb;

/// How many payouts there are, and what they come to in each currency.
#[derive(Default)]
pub(super) struct Totals {
    /// All payouts.
    pub(super) count: usize,
    /// Canonical decimal text by currency.
    pub(super) by_currency: BTreeMap<String, String>,
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
            let sum = totals.by_currency.entry(payout.currency.clone());
            let sum = sum.or_insert_with(|| "0".to_owned());
            *sum = add(sum, amount.as_str());
        }
        totals
    }
}

/// The sum of two plain decimal texts, as canonical text.
fn add(a: &str, b: &str) -> String {
    let (a_whole, a_part) = a.split_once('.').unwrap_or((a, ""));
    let (b_whole, b_part) = b.split_once('.').unwrap_or((b, ""));
    let (width, scale) = (a_whole.len().max(b_whole.len()), a_part.len().max(b_part.len()));
    let a = format!("{a_whole:0>width$}{a_part:0<scale$}");
    let b = format!("{b_whole:0>width$}{b_part:0<scale$}");
    let mut carry = 0;
    let mut digits = Vec::with_capacity(width + scale + 1);
    for (x, y) in a.bytes().rev().zip(b.bytes().rev()) {
        let digit = (x - b'0') + (y - b'0') + carry;
        digits.push(char::from(b'0' + digit % 10));
        carry = digit / 10;
    }
    if carry > 0 {
        digits.push('1');
    }
    let sum: String = digits.into_iter().rev().collect();
    let (whole, part) = sum.split_at(sum.len() - scale);
    match part.trim_end_matches('0') {
        "" => whole.to_owned(),
        part => format!("{whole}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_canonical_and_of_any_length() {
        let long = format!("{}.{}", "9".repeat(40), "9".repeat(40));
        for (a, b, sum) in [
            ("0.1", "0.2", "0.3"),
            ("0", "0.3", "0.3"),
            ("0.5", "0.5", "1"),
            ("99", "1", "100"),
            ("1", "0.000000000000000001", "1.000000000000000001"),
            ("9007199254740993", "0.1", "9007199254740993.1"),
            (&long, &format!("0.{}1", "0".repeat(39)), &format!("1{}", "0".repeat(40))),
        ] {
            assert_eq!(add(a, b), sum, "{a} + {b}");
            assert_eq!(add(b, a), sum, "{b} + {a}");
        }
    }

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
        let sums: Vec<_> = totals.by_currency.into_iter().collect();
        assert_eq!(sums, [("a".to_owned(), "1.5".to_owned()), ("b".to_owned(), "2".to_owned())]);
    }
}
