//! What callers have spent, day by day: kept with every change of a payout, and judged by.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, micros};
use crate::amount::Total;
use crate::order::Order;
use crate::payout::Payout;
use crate::policy::{Rule, Terms};

/// The microseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// Where a payout counts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Account<'a> {
    caller: &'a str,
    currency: &'a str,
    /// In UTC, counted from 1970.
    day: i64,
}

impl<'a> Account<'a> {
    /// Where `payout` counts: on the day of its last send, while its money may move.
    fn of(payout: &'a Payout) -> Option<Self> {
        let counts = payout.state.spends() && !payout.sender().is_empty();
        counts.then(|| Self::on(payout.sender(), &payout.order, payout.send_time))
    }

    fn on(caller: &'a str, order: &'a Order, time: SystemTime) -> Self {
        Self { caller, currency: order.currency.as_str(), day: micros(time) / DAY }
    }

    fn total(self, db: &Connection) -> Result<Total, Error> {
        let mut select = db.prepare_cached(
            "SELECT total FROM spend WHERE caller = ?1 AND currency = ?2 AND day = ?3",
        )?;
        let keys = params![self.caller, self.currency, self.day];
        let total: Option<String> = select.query_row(keys, |row| row.get(0)).optional()?;
        let Some(total) = total else { return Ok(Total::default()) };
        Total::parse(&total).ok_or_else(|| super::damaged("total"))
    }

    fn set(self, db: &Connection, total: &Total) -> Result<(), Error> {
        let mut upsert =
            db.prepare_cached("INSERT OR REPLACE INTO spend VALUES (?1, ?2, ?3, ?4)")?;
        upsert.execute(params![self.caller, self.currency, self.day, total.to_string()])?;
        Ok(())
    }
}

/// What a change of a payout adds to the totals, read before anything is written: a damaged one then fails the change
/// with nothing of it done.
pub(super) struct Postings<'a>(Vec<(Account<'a>, Total)>);

impl<'a> Postings<'a> {
    /// Those of a payout that becomes `next`; `before` is what it was, None where it is new.
    pub(super) fn of(
        db: &Connection,
        before: Option<&'a Payout>,
        next: &'a Payout,
    ) -> Result<Self, Error> {
        let (was, is) = (before.and_then(Account::of), Account::of(next));
        let mut postings = Vec::new();
        if was != is {
            let amount = &next.order.amount;
            for (account, less) in [(was, true), (is, false)] {
                let Some(account) = account else { continue };
                let total = account.total(db)?;
                let total = if less { total.minus(amount) } else { total.plus(amount) };
                postings.push((account, total));
            }
        }
        Ok(Self(postings))
    }

    pub(super) fn write(self, db: &Connection) -> Result<(), Error> {
        self.0.into_iter().try_for_each(|(account, total)| account.set(db, &total))
    }
}

/// The rule that speaks against sending `order` now; `known` is what it already stands for.
pub(in crate::ledger) fn judge(
    db: &Connection,
    order: &Order,
    terms: &Terms,
    known: Option<&Payout>,
    now: SystemTime,
) -> Result<Option<Rule>, Error> {
    if !terms.are_limited() {
        return Ok(None);
    }
    let today = Account::on(&terms.caller, order, now);
    let mut spent = today.total(db)?;
    // A doubt that is sent once more is not spent twice.
    if known.and_then(Account::of) == Some(today) {
        spent = spent.minus(&order.amount);
    }
    Ok(terms.judge(order, &spent))
}
