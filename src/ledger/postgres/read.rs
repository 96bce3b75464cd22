//! Looking payouts up.

use std::sync::{Arc, LazyLock};

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::claim::{CLAIM, Kind};
use super::clock::{micros, time};
use super::{Error, Postgres};
use crate::amount::Amount;
use crate::coin::Currency;
use crate::ledger::faults::{Damage, Found};
use crate::ledger::rows::PAYOUTS;
use crate::ledger::{Due, Filter, Id, Open, Stock, Unavailable};
use crate::order::{Key, Order};
use crate::payout::{Payout, Progress};
use crate::state::State;

/// The most revisions that are read at once; whoever wants more asks again.
const HISTORY_MAX: i64 = 64;
/// What [`payout`] reads of a row, by name: a migration that adds a column must not break the statements that
/// older replicas have prepared.
pub(super) static COLUMNS: LazyLock<String> =
    LazyLock::new(|| format!("payout.{}", PAYOUTS.names().replace(", ", ", payout.")));

impl Postgres {
    pub(in crate::ledger) async fn find(
        &self,
        pid: i64,
        id: &Id,
    ) -> Result<Option<Payout>, Unavailable> {
        let found = self.ask(async |client| find(client, pid, id).await);
        found.await.map_err(|error| self.failed(error))
    }

    pub(in crate::ledger) async fn list(
        &self,
        filter: &Filter,
    ) -> Result<Vec<Found<Payout>>, Unavailable> {
        let listed = self.ask(async |client| {
            let not_after = filter.not_after.map(micros);
            let states: Vec<_> = filter.states.iter().map(|state| state.as_str()).collect();
            let mut values: Vec<&(dyn ToSql + Sync)> =
                vec![&filter.pid, &filter.after_row, &filter.limit];
            if !states.is_empty() {
                values.push(&states);
            }
            if let Some(caller) = &filter.caller {
                values.push(caller);
            }
            if let Some(not_after) = &not_after {
                values.push(not_after);
            }
            let select = listing(filter);
            let statement = client.prepare_cached(&select).await?;
            payouts(&client.query(&statement, &values).await?)
        });
        listed.await.map_err(|error| self.failed(error))
    }

    pub(in crate::ledger) async fn history(
        &self,
        latest: &Payout,
        revision: i64,
    ) -> Result<Vec<Payout>, Unavailable> {
        let read = self.ask(async |client| {
            let statement = client
                .prepare_cached(
                    "SELECT revision, time, state, state_time, reason, refusal_msg, cid, cregis_status,
                         txid, block_height, block_time, attention
                     FROM event WHERE payout = $1 AND revision > $2 AND revision <= $3
                     ORDER BY revision LIMIT $4",
                )
                .await?;
            let between = (&latest.row, &revision, &latest.revision, &HISTORY_MAX);
            let rows =
                client.query(&statement, &[between.0, between.1, between.2, between.3]).await?;
            rows.iter().map(|row| then(latest, row)).collect::<Result<_, Error>>()
        });
        read.await.map_err(|error| self.failed(error))
    }

    /// Takes what is to be looked at by `due.now`, the longest overdue first, for this process alone:
    /// with whatever it finds it puts off the next look, and where it dies the others look later.
    pub(in crate::ledger) async fn due(&self, due: &Due) -> Result<Vec<Payout>, Unavailable> {
        let claimed = self.ask(async |client| {
            let statement = client
                .prepare_cached(&format!(
                    "UPDATE payout SET due = $4 WHERE id = ANY (ARRAY(
                             SELECT id FROM payout
                             WHERE pid = $1 AND due <= $2 AND state IN ('ACCEPTED', 'IN_DOUBT')
                             ORDER BY due LIMIT $3 FOR UPDATE SKIP LOCKED))
                         RETURNING {}",
                    *COLUMNS
                ))
                .await?;
            let now = micros(due.now);
            let until = now + CLAIM;
            self.claims.keep(Kind::Payouts, due.pid, until);
            payouts(&client.query(&statement, &[&due.pid, &now, &due.limit, &until]).await?)
        });
        let claimed = claimed.await.map_err(|error| self.failed(error))?;
        Ok(self.faults().whole(claimed))
    }

    pub(in crate::ledger) async fn stock(&self) -> Result<Stock, Unavailable> {
        let counted = self.ask(async |client| {
            let statement = client
                .prepare_cached(
                    "SELECT pid, state, reason, count(*), min(state_time), min(due)
                     FROM payout WHERE due IS NOT NULL GROUP BY pid, state, reason",
                )
                .await?;
            let open = client.query(&statement, &[]).await?;
            let statement =
                client.prepare_cached("SELECT count(*) FROM payout WHERE attention <> ''").await?;
            let with_attention = client.query_one(&statement, &[]).await?.try_get(0)?;
            Ok(Stock {
                open: open.iter().map(counted_alike).collect::<Result<_, _>>()?,
                with_attention,
            })
        });
        counted.await.map_err(|error| self.failed(error))
    }
}

/// The statement that finds a page, with its parameters in the order of the filter's: pid, after_row, limit;
/// then those that are given of states, caller and not_after.
///
/// What an index has in order is asked for as a range of that index. Told no more than what is wanted, the
/// planner would walk by id through all that has ended, since what is open came last.
fn listing(filter: &Filter) -> String {
    let mut number = 3;
    let mut next = |given: bool| {
        number += i32::from(given);
        number
    };
    let (states, caller) = (next(!filter.states.is_empty()), next(filter.caller.is_some()));
    let mut rest = String::new();
    if filter.not_after.is_some() {
        rest.push_str(&format!(" AND state_time <= ${}", next(true)));
    }
    let columns = &*COLUMNS;
    let by_id = "pid = $1 AND id > $2";
    let of_states = format!(" AND state = ANY(${states})");
    let of_states = if filter.states.is_empty() { "" } else { &of_states };
    match (filter.attention_only, &filter.caller) {
        (true, given) => {
            let own = format!(" AND caller = ${caller}");
            let own = if given.is_some() { &own } else { "" };
            format!(
                "SELECT {columns} FROM payout WHERE {by_id} AND attention <> ''{own}{of_states}{rest}
                 ORDER BY id LIMIT $3"
            )
        }
        (false, Some(_)) => format!(
            "SELECT {columns} FROM payout
             WHERE (caller, id) > (${caller}, $2) AND (caller, id) <= (${caller}, {MAX}) AND caller <> ''
                 AND pid = $1{of_states}{rest}
             ORDER BY caller, id LIMIT $3",
            MAX = i64::MAX
        ),
        (false, None) if filter.states.is_empty() => {
            format!("SELECT {columns} FROM payout WHERE {by_id}{rest} ORDER BY id LIMIT $3")
        }
        // A page of each state, and the first page of these.
        (false, None) => format!(
            "SELECT page.* FROM unnest(${states}::text[]) AS wanted (state) CROSS JOIN LATERAL (
                 SELECT {columns} FROM payout
                 WHERE (payout.state, pid, id) > (wanted.state, $1, $2)
                     AND (payout.state, pid, id) <= (wanted.state, $1, {MAX}){rest}
                 ORDER BY payout.state, pid, id LIMIT $3) AS page
             ORDER BY id LIMIT $3",
            MAX = i64::MAX
        ),
    }
}

/// The payout that `id` names within the project.
pub(super) async fn find(
    db: &impl GenericClient,
    pid: i64,
    id: &Id,
) -> Result<Option<Payout>, Error> {
    let row = match id {
        Id::ThirdParty(id) => {
            let select =
                format!("SELECT {} FROM payout WHERE pid = $1 AND third_party_id = $2", *COLUMNS);
            db.query_opt(&db.prepare_cached(&select).await?, &[&pid, id]).await?
        }
        Id::Cid(cid) => {
            let select = format!("SELECT {} FROM payout WHERE pid = $1 AND cid = $2", *COLUMNS);
            db.query_opt(&db.prepare_cached(&select).await?, &[&pid, cid]).await?
        }
    };
    row.as_ref().map(payout).transpose()
}

/// The latest revisions of the payouts in `rows`.
pub(super) async fn revisions(
    db: &impl GenericClient,
    rows: &[i64],
) -> Result<Vec<(i64, i64)>, Error> {
    let select = "SELECT id, revision FROM payout WHERE id = ANY($1)";
    let rows = db.query(&db.prepare_cached(select).await?, &[&rows]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

pub(super) fn payouts(rows: &[Row]) -> Result<Vec<Found<Payout>>, Error> {
    let found = |row| match payout(row) {
        Ok(payout) => Ok(Ok(payout)),
        Err(Error::Row(damage)) => Ok(Err(damage)),
        Err(error) => Err(error),
    };
    rows.iter().map(found).collect()
}

/// A payout's row. Text that our own checks would not have let in means a damaged database.
pub(super) fn payout(row: &Row) -> Result<Payout, Error> {
    let number = row.try_get("id")?;
    let damage = |why: Error| Damage { table: "payout", row: number, why: why.to_string() };
    Ok(parse(row).map_err(damage)?)
}

fn parse(row: &Row) -> Result<Payout, Error> {
    let order = Order {
        key: Key { pid: row.try_get("pid")?, third_party_id: row.try_get("third_party_id")? },
        currency: Currency::parse(row.try_get("currency")?).ok_or(Error::Damaged("currency"))?,
        address: row.try_get("address")?,
        amount: Amount::parse(row.try_get("amount")?).map_err(|_| Error::Damaged("amount"))?,
        remark: row.try_get("remark")?,
        memo: row.try_get("memo")?,
        callback_url: row.try_get("callback_url")?,
    };
    let moment = |column| Ok::<_, Error>(time(row.try_get(column)?));
    Ok(Payout {
        row: row.try_get("id")?,
        order: Arc::new(order),
        caller: row.try_get("caller")?,
        sender: row.try_get("sender")?,
        cid: row.try_get("cid")?,
        state: state(row)?,
        reason: row.try_get("reason")?,
        refusal_msg: row.try_get("refusal_msg")?,
        earlier_doubt: row.try_get("earlier_doubt")?,
        progress: progress(row)?,
        approved_cid: row.try_get("approved_cid")?,
        send_time: moment("send_time")?,
        create_time: moment("create_time")?,
        state_time: moment("state_time")?,
        update_time: moment("update_time")?,
        due: row.try_get::<_, Option<i64>>("due")?.map(time),
        polls: row.try_get("polls")?,
        revision: row.try_get("revision")?,
        attention: attention(row)?,
    })
}

/// A revision of `latest`, from its event.
fn then(latest: &Payout, row: &Row) -> Result<Payout, Error> {
    Ok(Payout {
        revision: row.try_get("revision")?,
        update_time: time(row.try_get("time")?),
        state: state(row)?,
        state_time: time(row.try_get("state_time")?),
        reason: row.try_get("reason")?,
        refusal_msg: row.try_get("refusal_msg")?,
        cid: row.try_get("cid")?,
        progress: progress(row)?,
        attention: attention(row)?,
        ..latest.clone()
    })
}

fn counted_alike(row: &Row) -> Result<Open, Error> {
    Ok(Open {
        pid: row.try_get("pid")?,
        state: state(row)?,
        reason: row.try_get("reason")?,
        count: row.try_get(3)?,
        since: time(row.try_get(4)?),
        due: time(row.try_get(5)?),
    })
}

fn state(row: &Row) -> Result<State, Error> {
    State::parse(row.try_get("state")?).ok_or(Error::Damaged("state"))
}

/// A confirmed status goes with the cid that it was confirmed for.
fn progress(row: &Row) -> Result<Option<Box<Progress>>, Error> {
    let (cid, status) = (row.try_get("cid")?, row.try_get("cregis_status")?);
    let (Some(cid), Some(status)) = (cid, status) else { return Ok(None) };
    Ok(Some(Box::new(Progress {
        cid,
        status,
        txid: row.try_get("txid")?,
        block_height: row.try_get("block_height")?,
        block_time: row.try_get::<_, Option<i64>>("block_time")?.map(time),
    })))
}

fn attention(row: &Row) -> Result<Vec<String>, Error> {
    let attention: &str = row.try_get("attention")?;
    Ok(attention.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect())
}
