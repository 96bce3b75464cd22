//! From one box to a fleet: the embedded ledger copied into an empty PostgreSQL database, and the proof
//! that both hold the same.
//!
//! Two ledgers in use would pay twice, and so would an empty one in the place of the file: at no moment can both be
//! opened, and never the database before it has all rows. Four commits, each durable before the next begins:
//!
//! 1. the database: a copy of this file has begun, and the command that ends it. From here on no service starts on it.
//! 2. the file: retired. It stays where it is, says where its payouts have gone, and no payoutd opens it again.
//!    (Renamed, it would be missed, and a new, empty one be made in its place.)
//! 3. the database: all rows, and that the copy has ended.
//! 4. the file: that its payouts have arrived.
//!
//! Whatever ends this early, the same command once more finishes it. Replicas that serve the empty database already are
//! no danger: the copy begins only where no replica is connected, and none can connect before it ends.

use std::path::Path;
use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::Client;

use super::rows::TABLES;
use super::{OpenError, postgres, sqlite};
use crate::config::Shared;
use postgres::copy::{Begun, Database};
use sqlite::copy::Source;

/// A table that is the same in both ledgers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equal {
    /// Its name.
    pub table: &'static str,
    /// How many rows it has.
    pub rows: u64,
}

/// Why a ledger was not copied, or two of them are not equal.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of them cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A process died under its sends, and nobody has said so.
    #[error(
        "stop payoutd first; {0} sends are still recorded as under way: start it once so that they become doubts"
    )]
    UnderWay(i64),
    /// The role could not number what comes after the copied rows.
    #[error("the tables belong to another role: copy as their owner")]
    NotOwner,
    /// A replica serves it, or another copy is being made.
    #[error(
        "payoutd is connected to the database: stop its replicas, or wait for the copy that is being made"
    )]
    InUse,
    /// Another file's copy has to end first.
    #[error("the copy of another ledger into the database was begun and has not ended: `{0}`")]
    OtherCopy(String),
    /// The file is an older copy of the one whose copy was begun.
    #[error(
        "the copy into the database was begun from a file that had come further: this one is an old copy of it. Finish it with `{0}`"
    )]
    OldFile(String),
    /// The database has payouts of its own.
    #[error("the database is not empty: there are rows in {0}")]
    NotEmpty(&'static str),
    /// The first difference, without what stands there.
    #[error("not equal: {0}")]
    Differs(String),
    /// SQLite could not go on.
    #[error("the ledger's file cannot be read")]
    File(#[from] rusqlite::Error),
    /// PostgreSQL could not go on.
    #[error("PostgreSQL could not do it")]
    Database(#[from] tokio_postgres::Error),
    /// The file is retired, but the database may have nothing.
    #[error("the database has not confirmed its commit: run the same command again")]
    Unconfirmed(#[source] tokio_postgres::Error),
}

/// Where a copy goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// How to reach the database.
    pub settings: &'a Shared,
    /// The database's URL, as the operator has written it.
    pub url: &'a str,
    /// What an operator types to make this copy, or to finish it.
    pub command: &'a str,
}

/// Copies the embedded ledger in `file` into the empty database of `target`, proves the copy, and retires the
/// file: it then names the database's URL, and is copied to nowhere else. The database has all of it or nothing. A file
/// that is behind its `witness` (None: the one beside it) is not copied.
///
/// # Errors
/// Neither can be served by mistake: what has begun says so, until it is finished.
pub async fn copy(
    file: &Path,
    witness: Option<&Path>,
    target: &Target<'_>,
) -> Result<Vec<Equal>, CopyError> {
    let source = Source::to_retire(file, witness, target.url)?;
    match source.sends_under_way()? {
        0 => {}
        count => return Err(CopyError::UnderWay(count)),
    }
    postgres::copy::prepare(target.settings).await?;
    let work = async |client: &mut Client| {
        postgres::copy::enter_alone(client).await?;
        begin_or_prove(source, client, target).await
    };
    postgres::copy::connected(target.settings, work).await
}

async fn begin_or_prove(
    source: Source,
    client: &mut Client,
    target: &Target<'_>,
) -> Result<Vec<Equal>, CopyError> {
    let from = source.standing()?;
    let database = Database::take(client).await?;
    let begun = database.begun().await?;
    if let Some(Begun { command: Some(command), from: other }) = &begun {
        if other.ledger != from.ledger {
            return Err(CopyError::OtherCopy(command.clone()));
        }
        if other.reached.number > from.reached.number {
            return Err(CopyError::OldFile(command.clone()));
        }
    }
    let unfinished = begun.as_ref().is_some_and(|begun| begun.command.is_some());
    if let Some(table) = database.first_rows().await? {
        if unfinished || !source.is_retired() {
            return Err(CopyError::NotEmpty(table));
        }
        // It came to the end before, and only its answer was lost. Payouts may have been made there since.
        if begun.is_some_and(|begun| begun.from.ledger == from.ledger) {
            source.finish()?;
        }
        return prove(&source, &database).await;
    }
    database.begin(&from, target.command).await?;
    database.commit().await?;

    let database = Database::take(client).await?;
    if let Some(table) = database.first_rows().await? {
        return Err(CopyError::NotEmpty(table));
    }
    source.retire(target.url, target.command)?;
    for table in &TABLES {
        let mut select = source.select(table)?;
        let mut rows = select.query([])?;
        database.fill(table, || sqlite::copy::next(table, &mut rows)).await?;
    }
    database.finish().await?;
    let equal = prove(&source, &database).await?;
    database.commit().await.map_err(CopyError::Unconfirmed)?;
    source.finish()?;
    Ok(equal)
}

/// Proves that the embedded ledger in `file`, retired or not, and the database of `settings` are equal: both are
/// read in the order of their keys, and every column of every row is compared.
///
/// # Errors
/// [`CopyError::Differs`] where they are not.
pub async fn compare(file: &Path, settings: &Shared) -> Result<Vec<Equal>, CopyError> {
    let source = Source::to_read(file)?;
    let work = async |client: &mut Client| prove(&source, &Database::look(client).await?).await;
    postgres::copy::connected(settings, work).await
}

async fn prove(source: &Source, database: &Database<'_>) -> Result<Vec<Equal>, CopyError> {
    let mut equal = Vec::new();
    for table in &TABLES {
        let mut select = source.select(table)?;
        let mut rows = select.query([])?;
        let mut others = pin!(database.rows(table).await?);
        let mut count = 0;
        loop {
            let row = sqlite::copy::next(table, &mut rows)?;
            let other = others.try_next().await?;
            let other = other.map(|row| postgres::copy::read(table, &row)).transpose()?;
            if let Some(difference) = table.difference(row.as_ref(), other.as_ref()) {
                return Err(CopyError::Differs(difference));
            }
            if row.is_none() {
                break;
            }
            count += 1;
        }
        equal.push(Equal { table: table.name, rows: count });
    }
    Ok(equal)
}
