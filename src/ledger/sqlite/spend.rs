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

/// Counts a payout that has become `next`; `before` is what it was, None where it is new.
pub(super) fn account(
    db: &Connection,
    before: Option<&Payout>,
    next: &Payout,
) -> Result<(), Error> {
    let (was, is) = (before.and_then(Account::of), Account::of(next));
    if was == is {
        return Ok(());
    }
    let amount = &next.order.amount;
    if let Some(was) = was {
        was.set(db, &was.total(db)?.minus(amount))?;
    }
    if let Some(is) = is {
        is.set(db, &is.total(db)?.plus(amount))?;
    }
    Ok(())
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
