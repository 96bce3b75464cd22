//! Looking payouts up.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::{Error, damaged, micros, read, time};
use crate::amount::Amount;
use crate::coin::Currency;
use crate::ledger::faults::Found;
use crate::ledger::{Due, Filter, Id, Open, Stock};
use crate::order::{Key, Order};
use crate::payout::{Payout, Progress};
use crate::state::State;

/// The payout that `id` names within the project.
pub(in crate::ledger) fn find(db: &Connection, pid: i64, id: &Id) -> Result<Option<Payout>, Error> {
    let found = match id {
        Id::ThirdParty(id) => db
            .prepare_cached("SELECT * FROM payout WHERE pid = ?1 AND third_party_id = ?2")?
            .query_row(params![pid, id], payout)
            .optional(),
        Id::Cid(cid) => db
            .prepare_cached("SELECT * FROM payout WHERE pid = ?1 AND cid = ?2")?
            .query_row(params![pid, cid], payout)
            .optional(),
    }?;
    found.transpose().map_err(Error::from)
}

/// One page of the payouts that fit `filter`, in the order of their rows.
pub(in crate::ledger) fn list(
    db: &Connection,
    filter: &Filter,
) -> Result<Vec<Found<Payout>>, Error> {
    let not_after = filter.not_after.map(micros);
    let mut select = db.prepare_cached(&listing(filter))?;
    let mut parameters: Vec<(&str, &dyn ToSql)> =
        vec![(":pid", &filter.pid), (":after", &filter.after_row), (":limit", &filter.limit)];
    if let Some(not_after) = &not_after {
        parameters.push((":not_after", not_after));
    }
    if let Some(caller) = &filter.caller {
        parameters.push((":caller", caller));
    }
    select.query_map(parameters.as_slice(), payout)?.collect()
}

/// The statement that finds a page.
fn listing(filter: &Filter) -> String {
    // What has a due time is in one of these states, and in an index of its own.
    let open = !filter.states.is_empty() && filter.states.iter().all(|state| state.is_followed());
    let mut sql = match (open, filter.attention_only, &filter.caller) {
        (true, _, _) => "SELECT * FROM payout INDEXED BY payout_by_due WHERE due IS NOT NULL",
        (false, true, _) => "SELECT * FROM payout INDEXED BY payout_with_attention WHERE TRUE",
        (false, false, Some(_)) => "SELECT * FROM payout INDEXED BY payout_by_caller WHERE TRUE",
        (false, false, None) => "SELECT * FROM payout WHERE TRUE",
    }
    .to_owned();
    // The plus keeps SQLite from sorting all of a project by way of the index of its ids.
    sql.push_str(" AND +pid = :pid AND id > :after");
    if filter.caller.is_some() {
        // The second half is what lets the index be used.
        sql.push_str(" AND caller = :caller AND caller <> ''");
    }
    if !filter.states.is_empty() {
        let states: Vec<_> = filter.states.iter().map(|s| format!("'{}'", s.as_str())).collect();
        sql.push_str(&format!(" AND state IN ({})", states.join(", ")));
    }
    if filter.attention_only {
        sql.push_str(" AND attention <> ''");
    }
    if filter.not_after.is_some() {
        sql.push_str(" AND state_time <= :not_after");
    }
    sql.push_str(" ORDER BY id LIMIT :limit");
    sql
}

/// The most revisions that are read at once; whoever wants more asks again.
const HISTORY_MAX: i64 = 64;

/// The next revisions of `latest` after `revision`, up to its own, in order.
pub(in crate::ledger) fn history(
    db: &Connection,
    latest: &Payout,
    revision: i64,
) -> Result<Vec<Payout>, Error> {
    let mut select = db.prepare_cached(
        "SELECT revision, time, state, state_time, reason, refusal_msg, cid, cregis_status, txid, block_height,
             block_time, attention
         FROM event WHERE payout = ?1 AND revision > ?2 AND revision <= ?3 ORDER BY revision
         LIMIT ?4",
    )?;
    let then = |row: &Row<'_>| {
        Ok(Payout {
            revision: row.get("revision")?,
            update_time: time(row.get("time")?),
            state: state(row)?,
            state_time: time(row.get("state_time")?),
            reason: row.get("reason")?,
            refusal_msg: row.get("refusal_msg")?,
            cid: row.get("cid")?,
            progress: progress(row)?,
            attention: attention(row)?,
            ..latest.clone()
        })
    };
    select.query_map(params![latest.row, revision, latest.revision, HISTORY_MAX], then)?.collect()
}

/// What is to be looked at by `due.now`, the longest overdue first: accepted payouts and doubts.
pub(in crate::ledger) fn due(db: &Connection, due: &Due) -> Result<Vec<Found<Payout>>, Error> {
    let mut select = db.prepare_cached(
        "SELECT * FROM payout
         WHERE due IS NOT NULL AND due <= ?2 AND +pid = ?1 AND state IN ('ACCEPTED', 'IN_DOUBT')
         ORDER BY due LIMIT ?3",
    )?;
    select.query_map(params![due.pid, micros(due.now), due.limit], payout)?.collect()
}

/// Payouts that are followed, counted.
const OPEN: &str = "SELECT pid, state, reason, count(*), min(state_time), min(due)
     FROM payout INDEXED BY payout_by_due WHERE due IS NOT NULL GROUP BY pid, state, reason";

/// What is followed, and what has an attention, counted.
pub(in crate::ledger) fn stock(db: &Connection) -> Result<Stock, Error> {
    let open = |row: &Row<'_>| {
        Ok(Open {
            pid: row.get("pid")?,
            state: state(row)?,
            reason: row.get("reason")?,
            count: row.get(3)?,
            since: time(row.get(4)?),
            due: time(row.get(5)?),
        })
    };
    let open = db.prepare_cached(OPEN)?.query_map([], open)?.collect::<Result<_, _>>()?;
    let with_attention = db
        .prepare_cached(
            "SELECT count(*) FROM payout INDEXED BY payout_with_attention WHERE attention <> ''",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(Stock { open, with_attention })
}

/// Every send that was under way.
pub(super) fn sending(db: &Connection) -> Result<Vec<Found<Payout>>, Error> {
    let mut select =
        db.prepare("SELECT * FROM payout WHERE due IS NOT NULL AND state = 'SENDING' ORDER BY id")?;
    select.query_map([], payout)?.collect()
}

/// A payout's row. Text that our own checks would not have let in means a damaged file.
fn payout(row: &Row<'_>) -> Result<Found<Payout>, Error> {
    read("payout", row, parse)
}

fn parse(row: &Row<'_>) -> Result<Payout, Error> {
    let currency: String = row.get("currency")?;
    let amount: String = row.get("amount")?;
    let order = Order {
        key: Key { pid: row.get("pid")?, third_party_id: row.get("third_party_id")? },
        currency: Currency::parse(&currency).ok_or_else(|| damaged("currency"))?,
        address: row.get("address")?,
        amount: Amount::parse(&amount).map_err(|_| damaged("amount"))?,
        remark: row.get("remark")?,
        memo: row.get("memo")?,
        callback_url: row.get("callback_url")?,
    };
    Ok(Payout {
        row: row.get("id")?,
        order: Arc::new(order),
        caller: row.get("caller")?,
        sender: row.get("sender")?,
        cid: row.get("cid")?,
        state: state(row)?,
        reason: row.get("reason")?,
        refusal_msg: row.get("refusal_msg")?,
        earlier_doubt: row.get("earlier_doubt")?,
        progress: progress(row)?,
        approved_cid: row.get("approved_cid")?,
        send_time: time(row.get("send_time")?),
        create_time: time(row.get("create_time")?),
        state_time: time(row.get("state_time")?),
        update_time: time(row.get("update_time")?),
        due: row.get::<_, Option<i64>>("due")?.map(time),
        polls: row.get("polls")?,
        revision: row.get("revision")?,
        attention: attention(row)?,
    })
}

fn state(row: &Row<'_>) -> Result<State, Error> {
    let state: String = row.get("state")?;
    State::parse(&state).ok_or_else(|| damaged("state"))
}

/// A confirmed status goes with the cid that it was confirmed for.
fn progress(row: &Row<'_>) -> Result<Option<Box<Progress>>, Error> {
    let (cid, status) = (row.get("cid")?, row.get("cregis_status")?);
    let (Some(cid), Some(status)) = (cid, status) else { return Ok(None) };
    Ok(Some(Box::new(Progress {
        cid,
        status,
        txid: row.get("txid")?,
        block_height: row.get("block_height")?,
        block_time: row.get::<_, Option<i64>>("block_time")?.map(time),
    })))
}

fn attention(row: &Row<'_>) -> Result<Vec<String>, Error> {
    let attention: String = row.get("attention")?;
    Ok(attention.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How SQLite would find a page.
    fn plan(states: &[State], attention_only: bool, caller: Option<&str>) -> String {
        let db = Connection::open_in_memory().expect("SQLite");
        db.execute_batch(include_str!("../schema.sql")).expect("the schema");
        let filter = Filter {
            pid: 1,
            states: states.to_vec(),
            attention_only,
            caller: caller.map(str::to_owned),
            not_after: None,
            after_row: 0,
            limit: 1,
        };
        let explain = format!("EXPLAIN QUERY PLAN {}", listing(&filter));
        let mut select = db.prepare(&explain).expect("SQL");
        let any = rusqlite::params_from_iter(vec![1; select.parameter_count()]);
        let steps = select.query_map(any, |row| row.get(3)).expect("a plan");
        steps.collect::<Result<Vec<String>, _>>().expect("a plan").join("; ")
    }

    #[test]
    fn pages_are_found_by_the_index_that_is_meant_and_not_by_sorting_everything() {
        let by_row = "SEARCH payout USING INTEGER PRIMARY KEY (rowid>?)";
        assert_eq!(plan(&[], false, None), by_row);
        assert_eq!(plan(&[State::Succeeded, State::InDoubt], false, None), by_row);
        let own = plan(&[State::Succeeded], false, Some("a"));
        assert_eq!(own, "SEARCH payout USING INDEX payout_by_caller (caller=? AND rowid>?)");
        let attention = plan(&[], true, Some("a"));
        assert!(attention.contains("INDEX payout_with_attention (id>?)"), "{attention}");
        assert!(!attention.contains("TEMP B-TREE"), "{attention}");
        // Sorted, but only what is open.
        for attention_only in [false, true] {
            let open = plan(&[State::InDoubt], attention_only, Some("a"));
            assert!(open.contains("INDEX payout_by_due (due>?)"), "{open}");
        }
    }
}
