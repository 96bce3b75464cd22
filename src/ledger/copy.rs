//! From one box to a fleet: the embedded ledger copied into an empty PostgreSQL database, and the proof
//! that both hold the same.
//!
//! Two ledgers in use would pay twice, so at no moment can both be opened. The file is locked while it is
//! read. Before the database commits, the file is retired: it stays where it is, says where its payouts have
//! gone, and no payoutd opens it again. (Renamed, it would be missed, and a new, empty one be made in its place.)
//! Whatever ends this early, the same command once more finishes it.

use std::path::Path;
use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::Client;

use super::rows::TABLES;
use super::{OpenError, postgres, sqlite};
use crate::config::Shared;
use postgres::copy::Database;
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

/// Copies the embedded ledger in `file` into the empty database of `settings`, proves the copy, and retires the
/// file: it then names `target`, and is copied to nowhere else. The database has all of it or nothing.
///
/// # Errors
/// The database is as it was, except after [`CopyError::Unconfirmed`].
pub async fn copy(file: &Path, settings: &Shared, target: &str) -> Result<Vec<Equal>, CopyError> {
    let source = Source::to_retire(file, target)?;
    match source.sends_under_way()? {
        0 => {}
        count => return Err(CopyError::UnderWay(count)),
    }
    postgres::copy::prepare(settings).await?;
    let work = async |client: &mut Client| {
        let database = Database::take(client).await?;
        if let Some(table) = database.first_rows().await? {
            // It came to the end before, and only its answer was lost.
            let again = source.is_retired();
            return if again {
                prove(&source, &database).await
            } else {
                Err(CopyError::NotEmpty(table))
            };
        }
        for table in &TABLES {
            let mut select = source.select(table)?;
            let mut rows = select.query([])?;
            database.fill(table, || sqlite::copy::next(table, &mut rows)).await?;
        }
        database.finish().await?;
        let equal = prove(&source, &database).await?;
        source.retire(target)?;
        database.commit().await.map_err(CopyError::Unconfirmed)?;
        Ok(equal)
    };
    postgres::copy::connected(settings, work).await
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
