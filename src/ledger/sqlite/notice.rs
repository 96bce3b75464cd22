//! Notices of Cregis's and orders of operators: what was said, kept.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, micros};
use crate::ledger::{Due, Lead, Notice};

/// How many notices without a payout are kept.
const ORPHANS_MAX: i64 = 1_000;

/// Keeps `notice`, once. `lead` tells that Cregis is to be asked about its cid.
pub(in crate::ledger) fn keep(
    db: &Connection,
    notice: &Notice,
    lead: bool,
    now: SystemTime,
) -> Result<bool, Error> {
    let mut insert = db.prepare_cached(
        "INSERT INTO notice (digest, pid, third_party_id, cid, body, time, payout, due, tries)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0) ON CONFLICT (digest) DO NOTHING",
    )?;
    let new = insert.execute(params![
        notice.digest,
        notice.pid,
        notice.third_party_id,
        notice.cid,
        notice.body,
        micros(now),
        notice.payout,
        lead.then(|| micros(now)),
    ])? == 1;
    if new && lead {
        // One question answers them all, and the newest notice has the newest question.
        let mut merge = db.prepare_cached(
            "UPDATE notice SET due = NULL
             WHERE due IS NOT NULL AND payout = ?1 AND cid = ?2 AND id <> ?3",
        )?;
        merge.execute(params![notice.payout, notice.cid, db.last_insert_rowid()])?;
    }
    if new && notice.payout.is_none() {
        let mut forget = db.prepare_cached(
            "DELETE FROM notice WHERE payout IS NULL AND id <=
                 (SELECT id FROM notice WHERE payout IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        )?;
        forget.execute([ORPHANS_MAX])?;
    }
    Ok(new)
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
