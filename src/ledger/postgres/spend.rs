//! What callers have spent, day by day: kept with every change of a payout, and judged by.

use std::time::SystemTime;

use deadpool_postgres::GenericClient;

use super::clock::micros;
use super::{Error, Postgres};
use crate::amount::Total;
use crate::order::Order;
use crate::payout::Payout;
use crate::policy::{Rule, Terms};

/// The microseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// Where a payout counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    caller: String,
    currency: String,
    /// In UTC, counted from 1970.
    day: i64,
}

impl Account {
    /// Where `payout` counts: on the day of its last send, while its money may move.
    pub(super) fn of(payout: &Payout) -> Option<Self> {
        let counts = payout.state.spends() && !payout.sender().is_empty();
        counts.then(|| Self::on(payout.sender(), &payout.order, payout.send_time))
    }

    pub(super) fn on(caller: &str, order: &Order, time: SystemTime) -> Self {
        let currency = order.currency.as_str().to_owned();
        Self { caller: caller.to_owned(), currency, day: micros(time) / DAY }
    }

    /// What is spent there. With `lock`, nobody else changes it before the transaction ends.
    pub(super) async fn total(&self, db: &impl GenericClient, lock: bool) -> Result<Total, Error> {
        let lock = if lock { " FOR UPDATE" } else { "" };
        let select = format!(
            "SELECT total::text FROM spend WHERE caller = $1 AND currency = $2 AND day = $3{lock}"
        );
        let statement = db.prepare_cached(&select).await?;
        let found = db.query_opt(&statement, &[&self.caller, &self.currency, &self.day]).await?;
        let Some(found) = found else { return Ok(Total::default()) };
        Total::parse(found.try_get(0)?).ok_or(Error::Damaged("total"))
    }
}

/// What a change does to the accounts: the columns of a statement's arrays.
#[derive(Debug, Default)]
pub(super) struct Postings {
    pub(super) callers: Vec<String>,
    pub(super) currencies: Vec<String>,
    pub(super) days: Vec<i64>,
    /// Decimal text; with a sign where it is taken away.
    pub(super) amounts: Vec<String>,
}

impl Postings {
    /// Those of a payout that has become `next`; `before` is what it was, None where it is new.
    pub(super) fn of(before: Option<&Payout>, next: &Payout) -> Self {
        let (was, is) = (before.and_then(Account::of), Account::of(next));
        let mut postings = Self::default();
        if was != is {
            let amount = next.order.amount.as_str();
            postings.add(was, format!("-{amount}"));
            postings.add(is, amount.to_owned());
        }
        postings
    }

    fn add(&mut self, account: Option<Account>, amount: String) {
        let Some(Account { caller, currency, day }) = account else { return };
        self.callers.push(caller);
        self.currencies.push(currency);
        self.days.push(day);
        self.amounts.push(amount);
    }
}

impl Postgres {
    pub(in crate::ledger) async fn judge(
        &self,
        order: &Order,
        terms: &Terms,
    ) -> Result<Option<Rule>, crate::ledger::Unavailable> {
        if !terms.are_limited() {
            return Ok(None);
        }
        let today = Account::on(&terms.caller, order, self.clock.now());
        let total = self.ask(async |client| today.total(client, false).await);
        let spent = total.await.map_err(|error| self.failed(error))?;
        Ok(terms.judge(order, &spent))
    }
}
