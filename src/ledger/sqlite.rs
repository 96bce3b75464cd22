//! The embedded ledger's SQL, and the only place that holds any: the file here, its rows in the
//! modules below.

pub(super) mod change;
pub(super) mod copy;
pub(super) mod file;
pub(super) mod notice;
pub(super) mod read;
pub(super) mod spend;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, params};
use url::Url;

use super::OpenError;
use super::faults::{Damage, Found};
use super::migrate::Migrated;
use super::witness::{Mark, Standing, Witness};
use file::Lock;

/// The schema this build writes. A file with a newer one is left alone, as it is not known here.
const SCHEMA: i64 = 5;
/// The oldest schema that is brought up to date; 1 was never released.
const OLDEST: i64 = 2;
/// Marks the file as a ledger of ours: "payo" in ASCII.
const APPLICATION: i64 = 0x7061_796f;
/// Marks one whose payouts have gone elsewhere: "paye". To older builds it is a file of somebody else.
const RETIRED: i64 = 0x7061_7965;
/// How long a foreign writer, such as a person with a shell, may hold the file.
const BUSY: Duration = Duration::from_secs(2);

/// Why a statement could not do its work.
pub(super) type Error = rusqlite::Error;

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
    if application == RETIRED {
        return Err(retirement(&db)?.into());
    }
    if tables > 0 && (application != APPLICATION || version < OLDEST) {
        return Err(OpenError::Foreign);
    }

    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    let journal: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let synchronous: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    if journal != "wal" || synchronous != 2 {
        return Err(OpenError::NotDurable { journal, synchronous });
    }
    // 4 MiB of pages. More is slower: after some splits of index pages SQLite walks through its whole cache at
    // the commit (a page is moved by way of the number of the locking page), while a page that is not there
    // is in the system's cache. The checkpoint runs inside a commit, so let it be rare.
    db.pragma_update(None, "cache_size", -4_096)?;
    db.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    db.pragma_update(None, "foreign_keys", false)?;
    db.set_prepared_statement_cache_capacity(32);

    if tables == 0 || version < SCHEMA {
        let tx = db.transaction()?;
        if tables == 0 {
            tx.execute_batch(include_str!("schema.sql"))?;
        } else {
            if version < 3 {
                tx.execute_batch(include_str!("schema_2_to_3.sql"))?;
            }
            if version < 4 {
                tx.execute_batch(include_str!("schema_3_to_4.sql"))?;
            }
            tx.execute_batch(include_str!("schema_4_to_5.sql"))?;
        }
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", SCHEMA)?;
        tx.commit()?;
    }
    db.execute("INSERT OR REPLACE INTO probe VALUES (1, ?1)", [micros(SystemTime::now())])?;
    Ok(db)
}

/// Brings everything in the log into the database's file, durably, and empties the log. After a sync that
/// failed, the kernel may have dropped what it was to write of the log: later commits behind such a gap
/// would be lost with the power.
pub(super) fn empty_log(db: &Connection) -> Result<(), OpenError> {
    let busy: bool = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy { Err(OpenError::LogInUse) } else { Ok(()) }
}

/// Has the log stay as it is when `db` is closed, even as the last connection.
pub(super) fn keep_log(db: &Connection) -> Result<(), Error> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// Which ledger it is, and how far it has come.
pub(super) fn standing(db: &Connection) -> Result<Standing, Error> {
    db.query_row("SELECT identity, commits, time FROM ledger", [], |row| {
        let reached = Mark { number: row.get(1)?, time: row.get(2)? };
        Ok(Standing { ledger: row.get(0)?, reached })
    })
}

/// Which ledger the database's file at `path` holds by itself, without its log, and how far that has come; nothing
/// where it cannot be read.
fn stored(path: &Path) -> Standing {
    let nothing = Standing { ledger: String::new(), reached: Mark::default() };
    let Ok(mut url) = Url::from_file_path(path) else { return nothing };
    url.set_query(Some("immutable=1"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let read = || {
        let db = Connection::open_with_flags(url.as_str(), flags)?;
        // A checkpoint that was cut off may have left fewer pages than the first one counts.
        db.pragma_update(None, "writable_schema", true)?;
        standing(&db)
    };
    read().unwrap_or(nothing)
}

/// Compares what the database's file at `path` holds by itself with what `witness` saw there.
///
/// # Errors
/// As of [`Witness::check_stored`].
pub(super) fn check_stored(path: &Path, witness: &Witness) -> Result<(), OpenError> {
    witness.check_stored(&stored(path))
}

/// The same with the witness in the file `given`, or else beside the ledger; before the ledger is opened, which
/// may bring the log into the file.
///
/// # Errors
/// As of [`check_stored`], and where there is a witness that cannot be read.
pub(super) fn check_closed(ledger: &Path, given: Option<&Path>) -> Result<(), OpenError> {
    let beside = file::beside(ledger, ".witness");
    let witness = Witness::found(given.unwrap_or(&beside))?;
    witness.map_or(Ok(()), |witness| check_stored(ledger, &witness))
}

/// The witness of the ledger in the file `ledger`, which stands as `standing`: in the file `given`, or else beside it.
///
/// # Errors
/// As of [`Witness::open`], and where the ledger does not hold what its witness remembers.
pub(super) fn witness(
    ledger: &Path,
    given: Option<&Path>,
    standing: &Standing,
) -> Result<Witness, OpenError> {
    let beside = file::beside(ledger, ".witness");
    let witness = Witness::open(Some(given.unwrap_or(&beside)), &standing.ledger)?;
    let commits = standing.reached.number;
    if witness.mark().number == 0 && commits > 0 {
        tracing::warn!(
            commits,
            "ledger has no witness: whether it is an old copy, or lacks its log, cannot be told"
        );
    }
    check(standing, &witness)?;
    Ok(witness)
}

/// Compares it with what `witness` remembers.
pub(super) fn check(standing: &Standing, witness: &Witness) -> Result<(), OpenError> {
    let acknowledged = witness.mark();
    witness.check(standing, acknowledged, acknowledged.number <= standing.reached.number)
}

/// Counts a commit that is about to be made at `now`, the next one that `witness` will see.
///
/// # Errors
/// The ledger is not where `witness` saw it last: its rows were replaced under the process, as by a backup that was put
/// back into the open file.
pub(super) fn count(db: &Connection, witness: &Witness, now: SystemTime) -> Result<Mark, Error> {
    let (time, last) = (micros(now), witness.mark().number);
    let mut update = db.prepare_cached(
        "UPDATE ledger SET commits = commits + 1, time = ?1 WHERE commits = ?2 AND identity = ?3",
    )?;
    match update.execute(params![time, last, witness.ledger()])? {
        1 => Ok(Mark { number: last + 1, time }),
        rows => Err(Error::StatementChangedRows(rows)),
    }
}

/// Makes the tables, or brings them up to date.
pub(super) fn migrate(path: &Path, witness: Option<&Path>) -> Result<Migrated, OpenError> {
    let lock = Lock::claim(path)?;
    check_closed(lock.path(), witness)?;
    let user_version = "PRAGMA user_version";
    let from = open_reader(lock.path())?.query_row(user_version, [], |row| row.get(0))?;
    open_writer(lock.path())?;
    Ok(Migrated { from, to: SCHEMA })
}

/// Where the payouts of a retired file have gone, and, unless they are known to be there, the command that ends the
/// copy.
struct Retirement {
    target: String,
    unfinished: Option<String>,
}

impl From<Retirement> for OpenError {
    fn from(Retirement { target, unfinished }: Retirement) -> Self {
        match unfinished {
            Some(command) => Self::Moving { target, command },
            None => Self::Retired(target),
        }
    }
}

fn retirement(db: &Connection) -> Result<Retirement, Error> {
    let select = "SELECT target FROM retired ORDER BY time DESC LIMIT 1";
    let target = db.query_row(select, [], |row| row.get(0))?;
    let marked = "SELECT count(*) FROM sqlite_schema WHERE name = 'unfinished'";
    let unfinished = match db.query_row(marked, [], |row| row.get::<_, i64>(0))? {
        0 => None,
        _ => Some(db.query_row("SELECT command FROM unfinished", [], |row| row.get(0))?),
    };
    Ok(Retirement { target, unfinished })
}

/// Opens the file for reading only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    keep_log(&db)?;
    // SQLite opens the log with the first question: it must not be another one by then.
    db.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    Ok(db)
}

/// The present, as exactly as the ledger keeps it: what is told at once must equal what is read later.
pub(super) fn now() -> SystemTime {
    time(micros(SystemTime::now()))
}

pub(super) fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs())
}

/// Text that our own checks would not have let in: a damaged file.
fn damaged(column: &str) -> Error {
    Error::FromSqlConversionFailure(0, Type::Text, format!("{column} is not a legal value").into())
}

/// What `parse` makes of a row of `table`, whose number is its `id`.
///
/// # Errors
/// The row is damaged; or, where not even its number can be read, the file is.
fn read<T>(
    table: &'static str,
    row: &Row<'_>,
    parse: impl FnOnce(&Row<'_>) -> Result<T, Error>,
) -> Result<Found<T>, Error> {
    let number = row.get("id")?;
    Ok(parse(row).map_err(|error| {
        // Its own words hold the value, where there is one of a wrong type.
        let why = if let Error::FromSqlConversionFailure(_, _, why) = &error {
            why.to_string()
        } else {
            "a value of a wrong type".to_owned()
        };
        Damage { table, row: number, why }
    }))
}

/// The damage that an operation has met, where that is why it failed.
pub(super) fn damage(error: &Error) -> Option<&Damage> {
    let Error::FromSqlConversionFailure(_, _, why) = error else { return None };
    why.downcast_ref()
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Self::FromSqlConversionFailure(0, Type::Text, damage.into())
    }
}

/// Tells whether only the operation that met `error` has failed, and nothing of the file's.
pub(super) fn is_own(error: &Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig
        ),
        // Rows that do not hold what they must, and values that cannot be kept.
        None => matches!(
            error,
            Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::Utf8Error(..)
                | Error::ToSqlConversionFailure(_)
                | Error::QueryReturnedNoRows
        ),
    }
}
