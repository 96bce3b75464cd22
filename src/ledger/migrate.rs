//! What is done to a ledger's tables before a service opens them.

use super::{OpenError, postgres, sqlite};
use crate::config::{Ledger, Shared};

/// From which version of its schema to which a ledger was brought. 0 stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// What was found.
    pub from: i64,
    /// What is there now.
    pub to: i64,
}

/// Why a role was not given its rights.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The database could not do it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is none of this name.
    #[error("there is no role {0}: CREATE ROLE it first, with LOGIN and nothing else")]
    Unknown(String),
    /// What is taken from it, it could give itself again.
    #[error(
        "the role {0} is the tables' owner, a member of it, or a superuser: serve needs a role of its own"
    )]
    Owner(String),
}

/// Makes the tables of the ledger, or brings them up to date. No payout is touched.
///
/// # Errors
/// As where a service starts on it.
pub async fn migrate(settings: &Ledger) -> Result<Migrated, OpenError> {
    match settings {
        Ledger::Embedded { path, witness, .. } => sqlite::migrate(path, witness.as_deref()),
        Ledger::Shared(settings) => postgres::migrate(settings).await,
    }
}

/// Gives `role` what `serve` needs in the database and takes everything else from it; returns what was done, as
/// SQL.
///
/// # Errors
/// Nothing is done.
pub async fn grant(settings: &Shared, role: &str) -> Result<Vec<String>, GrantError> {
    postgres::grant::grant(settings, role).await
}
