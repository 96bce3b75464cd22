//! Changing payouts: each change is one row of `payout` and one of `event`.

use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::read::{find, sending};
use super::spend::{account, judge};
use super::{Error, damage, micros};
use crate::ledger::change::Change;
use crate::ledger::faults::Faults;
use crate::ledger::{Begun, Cause, Id, Resend};
use crate::order::{Key, Order};
use crate::payout::Payout;
use crate::policy::{Rule, Terms};
use crate::state::State;

/// Records `order` as SENDING, or claims its row for one more send where `resend` allows it; both only
/// within the caller's `terms`. Tells, too, which rule has only been reported on.
pub(in crate::ledger) fn begin(
    db: &Connection,
    order: &Arc<Order>,
    terms: &Terms,
    resend: Resend,
    now: SystemTime,
) -> Result<(Begun, Option<Rule>), Error> {
    let denied = |rule: Option<Rule>| rule.filter(|_| !terms.report_only).map(Begun::Denied);
    // Looked up first only where a rule could speak against a new row: none is ever taken back.
    let mut known = None;
    if terms.are_limited() {
        known = find(db, order.key.pid, &Id::ThirdParty(order.key.third_party_id.clone()))?;
    }
    if known.is_none() {
        let rule = judge(db, order, terms, None, now)?;
        if let Some(denied) = denied(rule) {
            return Ok((denied, None));
        }
        if let Some(payout) = insert(db, order, &terms.caller, now)? {
            return Ok((Begun::Send(payout), rule));
        }
    }
    let known = match known {
        Some(known) => known,
        None => self::known(db, &order.key)?,
    };
    let allowed = terms.show(&known) && resend.would_send(&known, order);
    let (true, Ok(next)) = (allowed, known.resent(&terms.caller, now)) else {
        return Ok((Begun::Known(known), None));
    };
    let rule = judge(db, order, terms, Some(&known), now)?;
    match denied(rule) {
        // Somebody may have been paid: that is the answer, whatever the rules say by now.
        Some(_) if known.state == State::InDoubt => return Ok((Begun::Known(known), None)),
        Some(denied) => return Ok((denied, None)),
        None => {}
    }
    store(db, &known, &next, &Cause::Resend)?;
    Ok((Begun::Send(next), rule))
}

/// The new payout; None where the id is known.
fn insert(
    db: &Connection,
    order: &Arc<Order>,
    caller: &str,
    now: SystemTime,
) -> Result<Option<Payout>, Error> {
    let first = Payout::first(Arc::clone(order), caller, now);
    let mut insert = db.prepare_cached(
        "INSERT INTO payout (pid, third_party_id, currency, address, amount, remark, memo,
             callback_url, create_time, revision, update_time, state, reason, refusal_msg, txid,
             block_height, attention, send_time, state_time, due, polls, caller)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, ?9, ?10, '', '', '', 0, '', ?9, ?9, ?9, 0, ?11)
         ON CONFLICT (pid, third_party_id) DO NOTHING",
    )?;
    let inserted = insert.execute(params![
        order.key.pid,
        order.key.third_party_id,
        order.currency.as_str(),
        order.address,
        order.amount.as_str(),
        order.remark,
        order.memo,
        order.callback_url,
        micros(now),
        first.state.as_str(),
        first.caller,
    ])?;
    if inserted == 0 {
        return Ok(None);
    }
    let payout = Payout { row: db.last_insert_rowid(), ..first };
    append_event(db, &payout, &Cause::Recorded)?;
    account(db, None, &payout)?;
    Ok(Some(payout))
}

/// Does `change` to the payout that stood as `before`, or, where that has moved since, as it now stands;
/// None where it is not to be done to it. Where it adds nothing, as when it is a repetition, the payout
/// is returned as it is.
pub(in crate::ledger) fn apply(
    db: &Connection,
    mut before: Payout,
    change: &Change,
    now: SystemTime,
) -> Result<Option<Payout>, Error> {
    let mut taken = false;
    loop {
        let Some(next) = change.next(&before, taken, now) else { return Ok(None) };
        match store(db, &before, &next, &change.cause) {
            Ok(true) => return Ok(Some(next)),
            Ok(false) => before = known(db, &before.order.key)?,
            Err(error) if is_taken_cid(&error) => taken = true,
            Err(error) => return Err(error),
        }
    }
}

/// Approves `cid` as the one that may be paid for the payout: true for it and for no other, ever.
pub(in crate::ledger) fn approve(db: &Connection, key: &Key, cid: i64) -> Result<bool, Error> {
    let mut update = db.prepare_cached(
        "UPDATE payout SET approved_cid = ?3
         WHERE pid = ?1 AND third_party_id = ?2 AND cid = ?3 AND state = 'ACCEPTED'
             AND (approved_cid IS NULL OR approved_cid = ?3)",
    )?;
    Ok(update.execute(params![key.pid, key.third_party_id, cid])? == 1)
}

/// Puts off the next look at the payout, where nothing else has moved it since.
pub(in crate::ledger) fn postpone(
    db: &Connection,
    payout: &Payout,
    due: SystemTime,
) -> Result<(), Error> {
    let mut update = db.prepare_cached(
        "UPDATE payout SET due = ?3, polls = polls + 1
         WHERE id = ?1 AND revision = ?2 AND due IS NOT NULL",
    )?;
    update.execute(params![payout.row, payout.revision, micros(due)])?;
    Ok(())
}

/// Takes back the send that began at `send_time`, if its record exists at all; no other of the payout. A row that is
/// damaged is left to a person.
pub(in crate::ledger) fn unsend(
    db: &Connection,
    key: &Key,
    send_time: SystemTime,
    now: SystemTime,
) -> Result<Option<Payout>, Error> {
    match find(db, key.pid, &Id::ThirdParty(key.third_party_id.clone())) {
        Ok(Some(payout)) => apply(db, payout, &Change::unsend(send_time), now),
        Ok(None) => Ok(None),
        Err(error) if damage(&error).is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Turns every send of a dead process into a doubt. Sends nothing.
pub(in crate::ledger) fn recover(
    db: &Connection,
    faults: &Faults,
    now: SystemTime,
) -> Result<Vec<Payout>, Error> {
    let end = |orphan: Payout| {
        let change = Change::recover(&orphan);
        apply(db, orphan, &change, now).transpose()
    };
    faults.whole(sending(db)?).into_iter().filter_map(end).collect()
}

fn known(db: &Connection, key: &Key) -> Result<Payout, Error> {
    let found = find(db, key.pid, &Id::ThirdParty(key.third_party_id.clone()))?;
    found.ok_or(Error::QueryReturnedNoRows)
}

/// Replaces `before` by `next` and appends the event; false where the row is not `before` any more.
/// Writes nothing where nothing changed.
fn store(db: &Connection, before: &Payout, next: &Payout, cause: &Cause) -> Result<bool, Error> {
    if next.revision == before.revision {
        return Ok(true);
    }
    let mut update = db.prepare_cached(
        "UPDATE payout SET revision = ?3, update_time = ?4, state = ?5, reason = ?6,
             refusal_msg = ?7, cid = ?8, cregis_status = ?9, txid = ?10, block_height = ?11,
             block_time = ?12, attention = ?13, earlier_doubt = ?14, send_time = ?15,
             state_time = ?16, due = ?17, polls = ?18, sender = ?19
         WHERE id = ?1 AND revision = ?2",
    )?;
    let progress = next.progress.as_deref();
    let updated = update.execute(params![
        before.row,
        before.revision,
        next.revision,
        micros(next.update_time),
        next.state.as_str(),
        next.reason,
        next.refusal_msg,
        next.cid,
        progress.map(|p| p.status),
        progress.map_or("", |p| &p.txid),
        progress.map_or(0, |p| p.block_height),
        progress.and_then(|p| p.block_time).map(micros),
        next.attention.join(","),
        next.earlier_doubt,
        micros(next.send_time),
        micros(next.state_time),
        next.due.map(micros),
        next.polls,
        next.sender,
    ])?;
    if updated == 1 {
        append_event(db, next, cause)?;
        account(db, Some(before), next)?;
    }
    Ok(updated == 1)
}

fn append_event(db: &Connection, payout: &Payout, cause: &Cause) -> Result<(), Error> {
    let mut insert = db.prepare_cached(
        "INSERT INTO event (payout, revision, time, cause, evidence, state, state_time, reason,
             refusal_msg, cid, cregis_status, txid, block_height, block_time, attention)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    let progress = payout.progress.as_deref();
    insert.execute(params![
        payout.row,
        payout.revision,
        micros(payout.update_time),
        cause.as_str(),
        cause.evidence(),
        payout.state.as_str(),
        micros(payout.state_time),
        payout.reason,
        payout.refusal_msg,
        payout.cid,
        progress.map(|p| p.status),
        progress.map_or("", |p| &p.txid),
        progress.map_or(0, |p| p.block_height),
        progress.and_then(|p| p.block_time).map(micros),
        payout.attention.join(","),
    ])?;
    Ok(())
}

/// The only unique constraint that an UPDATE of a payout can break is the one on its cid.
fn is_taken_cid(error: &Error) -> bool {
    const UNIQUE: i32 = rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE;
    matches!(error, Error::SqliteFailure(failure, _) if failure.extended_code == UNIQUE)
}
