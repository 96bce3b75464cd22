//! Whether the database still holds what was acknowledged: looked at when the process starts, on each new
//! connection and with each pulse. A failover to a standby that was behind is found by the first of them.
//!
//! What is remembered is an event, and it is looked for itself: a number is soon reached again by others,
//! since a standby's sequence is ahead of its rows. Every replica remembers the newest event that it has
//! seen or heard of, whoever made it, so that all of them notice what one of them has told.

use std::path::Path;
use std::sync::Arc;

use tokio_postgres::Client;

use super::Postgres;
use super::connection::Connector;
use super::schema::driven;
use crate::ledger::OpenError;
use crate::ledger::witness::{Mark, Standing, Witness};

/// The ledger's last event, and whether the remembered one is there.
const LOOK: &str = "SELECT identity, coalesce(last.seq, 0), coalesce(last.time, 0),
         $1::bigint = 0 OR EXISTS (SELECT FROM event WHERE seq = $1::bigint AND time = $2::bigint)
     FROM ledger LEFT JOIN LATERAL (SELECT seq, time FROM event ORDER BY seq DESC LIMIT 1) AS last ON true";

/// The witness of the database, in the file at `path` if there is one; the database is what it has seen.
pub(super) async fn open(
    connector: &Connector,
    path: Option<&Path>,
) -> Result<Arc<Witness>, OpenError> {
    let failed = |error: tokio_postgres::Error| OpenError::Postgres(error.into());
    let connected = connector.connect().await;
    let (client, driver) = connected.map_err(|error| OpenError::Postgres(error.into()))?;
    driven(driver, async {
        let row = client.query_one("SELECT identity FROM ledger", &[]).await.map_err(failed)?;
        let witness = Witness::open(path, row.try_get(0).map_err(failed)?)?;
        look(&client, &witness).await.map_err(failed)??;
        Ok(Arc::new(witness))
    })
    .await
}

/// Whether what `witness` remembers is in the database; has it remember the last event.
///
/// # Errors
/// The database does not answer.
pub(super) async fn look(
    client: &Client,
    witness: &Witness,
) -> Result<Result<(), OpenError>, tokio_postgres::Error> {
    // Before the question: what is acknowledged meanwhile need not be in its snapshot.
    let acknowledged = witness.mark();
    let row = client.query_one(LOOK, &[&acknowledged.number, &acknowledged.time]).await?;
    let reached = Mark { number: row.try_get(1)?, time: row.try_get(2)? };
    let standing = Standing { ledger: row.try_get(0)?, reached };
    Ok(witness.check(&standing, acknowledged, row.try_get(3)?))
}

impl Postgres {
    /// Which ledger it is and how far it has come, for the other replicas.
    pub(super) fn mark(&self) -> String {
        let Mark { number, time } = self.witness.mark();
        format!("{} {number}@{time}", self.witness.ledger())
    }

    /// Remembers what another replica has said so.
    pub(super) fn told(&self, mark: &str) {
        let parsed = mark.split_once('@').and_then(|(number, time)| {
            Some(Mark { number: number.parse().ok()?, time: time.parse().ok()? })
        });
        parsed.into_iter().for_each(|mark| self.witness.saw(mark));
    }
}
