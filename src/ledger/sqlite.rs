//! The embedded ledger's SQL: the only file that holds any.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use super::{Begun, Id, OpenError};
use crate::amount::Amount;
use crate::coin::Currency;
use crate::order::{Key, Order};
use crate::outcome::Outcome;
use crate::payout::{Payout, State};

/// The schema this build writes. A file with a newer one is left alone.
const SCHEMA: i64 = 1;
/// Marks the file as a ledger of ours: "payo" in ASCII.
const APPLICATION: i64 = 0x7061_796f;
/// How long a foreign writer, such as a person with a shell, may hold the file.
const BUSY: Duration = Duration::from_secs(2);

/// Why a statement could not do its work.
pub(super) type Error = rusqlite::Error;

/// Keeps a second process away for as long as it lives.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

/// Takes the lock beside the ledger at `path` and creates the file, readable by its owner only.
pub(super) fn claim(path: &Path) -> Result<Lock, OpenError> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let private = |path: &Path| {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
    };
    let file = private(&PathBuf::from(lock)).map_err(OpenError::Io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::Locked),
        Err(TryLockError::Error(error)) => return Err(OpenError::Io(error)),
    }
    // SQLite gives the log and its index the mode of this file.
    private(path).map_err(OpenError::Io)?;
    Ok(Lock(file))
}

/// Opens the file for writing, brings the schema up to date and proves that commits are durable.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    // Before anything is changed: a file that is not ours, or newer than us, stays as it is.
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let application: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if version > SCHEMA {
        return Err(OpenError::Newer { found: version, known: SCHEMA });
    }
    if application != APPLICATION && tables > 0 {
        return Err(OpenError::Foreign);
    }

    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    let journal: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let synchronous: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    if journal != "wal" || synchronous != 2 {
        return Err(OpenError::NotDurable { journal, synchronous });
    }
    // 16 MiB of pages; the checkpoint runs inside a commit, so let it be rare.
    db.pragma_update(None, "cache_size", -16_384)?;
    db.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    db.pragma_update(None, "foreign_keys", false)?;
    db.set_prepared_statement_cache_capacity(32);

    if tables == 0 {
        let tx = db.transaction()?;
        tx.execute_batch(include_str!("schema.sql"))?;
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", SCHEMA)?;
        tx.commit()?;
    }
    db.execute("INSERT OR REPLACE INTO probe VALUES (1, ?1)", [micros(SystemTime::now())])?;
    Ok(db)
}

/// Opens the file for reading only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    Ok(db)
}

/// Records `order` as SENDING, or claims its row for one more send where `resend` allows it.
pub(super) fn begin(
    db: &Connection,
    order: &Arc<Order>,
    resend: impl FnOnce(&Payout) -> bool,
    now: SystemTime,
) -> Result<Begun, Error> {
    let first = Payout::first(0, Arc::clone(order), now);
    let mut insert = db.prepare_cached(
        "INSERT INTO payout (pid, third_party_id, state, reason, refusal_msg, currency, address,
             amount, remark, memo, callback_url, send_time, create_time, update_time, revision,
             attention)
         VALUES (?1, ?2, ?3, '', '', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?10, 1, '')
         ON CONFLICT (pid, third_party_id) DO NOTHING",
    )?;
    let inserted = insert.execute(params![
        order.key.pid,
        order.key.third_party_id,
        first.state.as_str(),
        order.currency.as_str(),
        order.address,
        order.amount.as_str(),
        order.remark,
        order.memo,
        order.callback_url,
        micros(now),
    ])?;
    if inserted == 1 {
        let payout = Payout { row: db.last_insert_rowid(), ..first };
        append_event(db, &payout, "RECORDED")?;
        return Ok(Begun::Send(payout));
    }

    let known = find(db, order.key.pid, &Id::ThirdParty(order.key.third_party_id.clone()))?
        .ok_or(Error::QueryReturnedNoRows)?;
    let same = known.order.differences(order).is_empty();
    match known.resent(now) {
        Ok(next) if same && resend(&known) => {
            store(db, &known, &next, "RESEND")?;
            Ok(Begun::Send(next))
        }
        Ok(_) | Err(_) => Ok(Begun::Known(known)),
    }
}

/// Writes what the send of `payout` came to.
///
/// Where something else has moved the row since, the outcome is weighed against the row as it now
/// stands; where it adds nothing to that, as when this is a repetition, the row is returned as is.
pub(super) fn settle(
    db: &Connection,
    payout: &Payout,
    outcome: &Outcome,
    cause: &str,
    now: SystemTime,
) -> Result<Payout, Error> {
    let next = match payout.settled(outcome, now) {
        Ok(next) => next,
        Err(contradiction) => {
            let Key { pid, third_party_id } = &payout.order.key;
            tracing::warn!(pid, third_party_id, ?outcome, %contradiction, "outcome not applied");
            return Ok(payout.clone());
        }
    };
    match store(db, payout, &next, cause) {
        Ok(true) => Ok(next),
        Ok(false) => {
            let Key { pid, third_party_id } = payout.order.key.clone();
            let found = find(db, pid, &Id::ThirdParty(third_party_id))?;
            settle(db, &found.ok_or(Error::QueryReturnedNoRows)?, outcome, cause, now)
        }
        Err(error) if is_taken_cid(&error) => settle(db, payout, &Outcome::CidTaken, cause, now),
        Err(error) => Err(error),
    }
}

/// Takes back a send that was recorded but never begun, if its record exists at all.
pub(super) fn unsend(
    db: &Connection,
    key: &Key,
    outcome: &Outcome,
    now: SystemTime,
) -> Result<Option<Payout>, Error> {
    let found = find(db, key.pid, &Id::ThirdParty(key.third_party_id.clone()))?;
    match found {
        Some(payout) if payout.state == State::Sending => {
            settle(db, &payout, outcome, "UNSENT", now).map(Some)
        }
        Some(_) | None => Ok(None),
    }
}

/// Turns every send of a dead process into `outcome`. Sends nothing.
pub(super) fn recover(
    db: &Connection,
    outcome: &Outcome,
    now: SystemTime,
) -> Result<Vec<Payout>, Error> {
    let orphans = {
        let mut select = db.prepare(
            "SELECT * FROM payout INDEXED BY payout_sending WHERE state = 'SENDING' ORDER BY id",
        )?;
        select.query_map([], read)?.collect::<Result<Vec<_>, _>>()?
    };
    orphans.iter().map(|orphan| settle(db, orphan, outcome, "RECOVERY", now)).collect()
}

/// The payout that `id` names within the project.
pub(super) fn find(db: &Connection, pid: i64, id: &Id) -> Result<Option<Payout>, Error> {
    match id {
        Id::ThirdParty(id) => db
            .prepare_cached("SELECT * FROM payout WHERE pid = ?1 AND third_party_id = ?2")?
            .query_row(params![pid, id], read)
            .optional(),
        Id::Cid(cid) => db
            .prepare_cached("SELECT * FROM payout WHERE pid = ?1 AND cid = ?2")?
            .query_row(params![pid, cid], read)
            .optional(),
    }
}

/// Replaces `before` by `next` and appends the event; false where the row is not `before` any more.
fn store(db: &Connection, before: &Payout, next: &Payout, cause: &str) -> Result<bool, Error> {
    let mut update = db.prepare_cached(
        "UPDATE payout SET cid = ?3, state = ?4, reason = ?5, refusal_msg = ?6, earlier_doubt = ?7,
             send_time = ?8, update_time = ?9, revision = ?10, attention = ?11
         WHERE id = ?1 AND revision = ?2",
    )?;
    let updated = update.execute(params![
        before.row,
        before.revision,
        next.cid,
        next.state.as_str(),
        next.reason,
        next.refusal_msg,
        next.earlier_doubt,
        micros(next.send_time),
        micros(next.update_time),
        next.revision,
        next.attention.join(","),
    ])?;
    if updated == 1 {
        append_event(db, next, cause)?;
    }
    Ok(updated == 1)
}

fn append_event(db: &Connection, payout: &Payout, cause: &str) -> Result<(), Error> {
    let mut insert =
        db.prepare_cached(
        "INSERT INTO event (payout, revision, time, cause, state, reason, refusal_msg, cid, attention)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    insert.execute(params![
        payout.row,
        payout.revision,
        micros(payout.update_time),
        cause,
        payout.state.as_str(),
        payout.reason,
        payout.refusal_msg,
        payout.cid,
        payout.attention.join(","),
    ])?;
    Ok(())
}

/// A payout's row. Text that our own checks would not have let in means a damaged file.
fn read(row: &Row<'_>) -> Result<Payout, Error> {
    let damaged = |column: &str| Error::InvalidColumnName(format!("{column}: not a legal value"));
    let state: String = row.get("state")?;
    let currency: String = row.get("currency")?;
    let amount: String = row.get("amount")?;
    let attention: String = row.get("attention")?;
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
        cid: row.get("cid")?,
        state: State::parse(&state).ok_or_else(|| damaged("state"))?,
        reason: row.get("reason")?,
        refusal_msg: row.get("refusal_msg")?,
        earlier_doubt: row.get("earlier_doubt")?,
        send_time: time(row.get("send_time")?),
        create_time: time(row.get("create_time")?),
        update_time: time(row.get("update_time")?),
        revision: row.get("revision")?,
        attention: attention.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect(),
    })
}

/// The only unique constraint that an UPDATE of a payout can break is the one on its cid.
fn is_taken_cid(error: &Error) -> bool {
    const UNIQUE: i32 = rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE;
    matches!(error, Error::SqliteFailure(failure, _) if failure.extended_code == UNIQUE)
}

/// The present, as exactly as the ledger keeps it: what is told at once must equal what is read later.
pub(super) fn now() -> SystemTime {
    time(micros(SystemTime::now()))
}

fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs())
}
