//! What the ledger is asked.

use std::sync::Arc;

use super::faults::Faults;
use super::{Due, Filter, Id, Lead, Ledger, Stock, Store, Unavailable, aside, sqlite};
use crate::order::Order;
use crate::payout::Payout;
use crate::policy::{Rule, Terms};

impl Ledger {
    /// Finds one payout.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn find(&self, pid: i64, id: Id) -> Result<Option<Payout>, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => {
                embedded.read(move |db| sqlite::read::find(db, pid, &id)).await
            }
            Store::Shared(shared) => aside(shared.find(pid, &id)).await,
        }
    }

    /// The rule that speaks against sending `order` now, for the first time or after it was not sent.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn judge(
        &self,
        order: Order,
        terms: Arc<Terms>,
    ) -> Result<Option<Rule>, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => {
                let now = sqlite::now();
                embedded.read(move |db| sqlite::spend::judge(db, &order, &terms, None, now)).await
            }
            Store::Shared(shared) => shared.judge(&order, &terms).await,
        }
    }

    /// One page of the payouts that fit `filter`, in the order in which they were recorded.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn list(&self, mut filter: Filter) -> Result<Vec<Payout>, Unavailable> {
        let mut page = Vec::new();
        loop {
            let (asked, from) = (filter.limit, filter.clone());
            let found = match &self.0.store {
                Store::Embedded(embedded) => {
                    embedded.list(move |db| sqlite::read::list(db, &from)).await?
                }
                Store::Shared(shared) => shared.list(&from).await?,
            };
            let more = found.len() as i64 == asked;
            let last = found.last().map(|found| match found {
                Ok(payout) => payout.row,
                Err(damage) => damage.row,
            });
            page.extend(self.faults().whole(found).into_iter().inspect(|_| filter.limit -= 1));
            // What is left out does not end the list.
            match last {
                Some(last) if more && filter.limit > 0 => filter.after_row = last,
                Some(_) | None => return Ok(page),
            }
        }
    }

    fn faults(&self) -> &Faults {
        match &self.0.store {
            Store::Embedded(embedded) => embedded.faults(),
            Store::Shared(shared) => shared.faults(),
        }
    }

    /// The next revisions of `latest` after `revision`, in order; not all at once where there are many.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn history(&self, latest: Payout, revision: i64) -> Result<Vec<Payout>, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => {
                embedded.read(move |db| sqlite::read::history(db, &latest, revision)).await
            }
            Store::Shared(shared) => shared.history(&latest, revision).await,
        }
    }

    /// Payouts that are to be looked at. In a shared ledger they are this replica's to look at, for a
    /// while.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn due(&self, due: Due) -> Result<Vec<Payout>, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => {
                let found = embedded.read(move |db| sqlite::read::due(db, &due)).await?;
                Ok(embedded.faults().whole(found))
            }
            Store::Shared(shared) => shared.due(&due).await,
        }
    }

    /// Notices that Cregis is to be asked about; shared as in [`Ledger::due`].
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn leads(&self, due: Due) -> Result<Vec<Lead>, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => {
                embedded.read(move |db| sqlite::notice::leads(db, &due)).await
            }
            Store::Shared(shared) => shared.leads(&due).await,
        }
    }

    /// Whether an operator has paused the project.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn is_paused(&self, pid: i64) -> Result<bool, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => {
                embedded.read(move |db| sqlite::notice::is_paused(db, pid)).await
            }
            Store::Shared(shared) => shared.is_paused(pid).await,
        }
    }

    /// Counts what is followed. Costs what is open, and nothing for what has ended.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn stock(&self) -> Result<Stock, Unavailable> {
        match &self.0.store {
            Store::Embedded(embedded) => embedded.read(sqlite::read::stock).await,
            Store::Shared(shared) => shared.stock().await,
        }
    }
}
