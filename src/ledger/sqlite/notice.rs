//! Notices of Cregis's and orders of operators: what was said, kept.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, micros};
use crate::ledger::terms::{ASK_AGAIN, Kept, NOTICES_MAX, ORPHANS_MAX};
use crate::ledger::{Due, Lead, Notice};

/// Keeps `notice`, once. `lead` tells that Cregis is to be asked about its cid.
pub(in crate::ledger) fn keep(
    db: &Connection,
    notice: &Notice,
    lead: bool,
    now: SystemTime,
) -> Result<Kept, Error> {
    let due = lead.then(|| micros(now));
    let mut renew = db.prepare_cached(
        "UPDATE notice SET body = ?2, time = ?3, due = ?4, tries = 0
         WHERE digest = ?1 AND due IS NULL AND ?4 IS NOT NULL AND (tries = 0 OR time <= ?5)
         RETURNING id",
    )?;
    let before = micros(now.checked_sub(ASK_AGAIN).unwrap_or(now));
    let renewed = params![notice.key(), notice.body, micros(now), due, before];
    let renewed: Option<i64> = renew.query_row(renewed, |row| row.get(0)).optional()?;
    let id = match renewed {
        Some(id) => id,
        None => match insert(db, notice, due, now)? {
            Ok(id) => id,
            Err(kept) => return Ok(kept),
        },
    };
    if lead {
        // One question answers them all, and the newest notice has the newest question.
        let mut merge = db.prepare_cached(
            "UPDATE notice SET due = NULL, tries = max(tries, 1)
             WHERE payout = ?1 AND due IS NOT NULL AND cid = ?2 AND id <> ?3",
        )?;
        merge.execute(params![notice.payout, notice.cid, id])?;
    }
    Ok(Kept::New)
}

/// Keeps a new notice in the place of older ones, and returns its row; or why it is not kept.
fn insert(
    db: &Connection,
    notice: &Notice,
    due: Option<i64>,
    now: SystemTime,
) -> Result<Result<i64, Kept>, Error> {
    let mut known = db.prepare_cached("SELECT 1 FROM notice WHERE digest = ?1")?;
    if known.exists([notice.key()])? {
        return Ok(Err(Kept::Known));
    }
    let (of, whose, most) = match notice.payout {
        Some(payout) => ("payout = ?1", payout, NOTICES_MAX),
        None => ("payout IS NULL AND pid = ?1", notice.pid, ORPHANS_MAX),
    };
    let mut count = db.prepare_cached(&format!("SELECT count(*) FROM notice WHERE {of}"))?;
    let count: i64 = count.query_row([whose], |row| row.get(0))?;
    if count >= most {
        let mut forget = db.prepare_cached(&format!(
            "DELETE FROM notice WHERE id IN (
                 SELECT id FROM notice WHERE {of} AND due IS NULL ORDER BY time, id LIMIT ?2)"
        ))?;
        if forget.execute([whose, count - most + 1])? == 0 {
            return Ok(Err(Kept::Full));
        }
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO notice (digest, pid, third_party_id, cid, body, time, payout, due, tries)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0)",
    )?;
    insert.execute(params![
        notice.key(),
        notice.pid,
        notice.third_party_id,
        notice.cid,
        notice.body,
        micros(now),
        notice.payout,
        due,
    ])?;
    Ok(Ok(db.last_insert_rowid()))
}

/// Notices whose cid Cregis is to be asked about by `due.now`.
pub(in crate::ledger) fn leads(db: &Connection, due: &Due) -> Result<Vec<Lead>, Error> {
    let mut select = db.prepare_cached(
        "SELECT id, third_party_id, cid, tries FROM notice
         WHERE due IS NOT NULL AND due <= ?2 AND +pid = ?1 ORDER BY due LIMIT ?3",
    )?;
    let lead = |row: &rusqlite::Row<'_>| {
        Ok(Lead {
            notice: row.get(0)?,
            third_party_id: row.get(1)?,
            cid: row.get(2)?,
            tries: row.get(3)?,
        })
    };
    select.query_map(params![due.pid, micros(due.now), due.limit], lead)?.collect()
}

/// Puts the question about a notice off until `due`, or closes it.
pub(in crate::ledger) fn postpone(
    db: &Connection,
    notice: i64,
    due: Option<SystemTime>,
) -> Result<(), Error> {
    let mut update = db.prepare_cached(
        "UPDATE notice SET due = ?2, tries = tries + 1 WHERE id = ?1 AND due IS NOT NULL",
    )?;
    update.execute(params![notice, due.map(micros)])?;
    Ok(())
}

/// Notes that an operator has paused or resumed a project.
pub(in crate::ledger) fn set_intake(
    db: &Connection,
    pid: i64,
    paused: bool,
    note: &str,
    now: SystemTime,
) -> Result<(), Error> {
    let insert = "INSERT INTO intake (pid, paused, note, time) VALUES (?1, ?2, ?3, ?4)";
    db.execute(insert, params![pid, paused, note, micros(now)])?;
    Ok(())
}

/// Whether an operator has paused the project.
pub(in crate::ledger) fn is_paused(db: &Connection, pid: i64) -> Result<bool, Error> {
    let select = "SELECT paused FROM intake WHERE pid = ?1 ORDER BY id DESC LIMIT 1";
    let paused = db.query_row(select, [pid], |row| row.get(0)).optional()?;
    Ok(paused.unwrap_or(false))
}
