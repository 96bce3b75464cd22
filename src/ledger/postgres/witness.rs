//! Whether the database still holds what was acknowledged: looked at when the process starts, on each new
//! connection and with each pulse. A failover to a standby that was behind is found by the first of them.
//!
//! What is remembered are events and marks (what is acknowledged and is no event), and they are looked for
//! themselves: a number is soon reached again by others, since a standby's sequence is ahead of its rows. Every replica
//! remembers the last that it has made or heard of, whoever made them, so that all of them notice what one of
//! them has told.
//!
//! Why the last are enough: what a failover loses is the end of the order of commits. So if anything that was
//! acknowledged is lost, what was committed last is, too, and behind its acknowledgement come only those of commits
//! that were under way beside it: at most one for each connection.

use std::path::Path;
use std::sync::Arc;

use tokio_postgres::Client;

use super::connection::{Connector, enter};
use super::schema::driven;
use super::{Postgres, hear};
use crate::ledger::OpenError;
use crate::ledger::witness::{Mark, Standing, Witness};

/// The ledger, the command that ends a copy into it, its last event or mark, and the newest of those given that is
/// not there.
const LOOK: &str = "SELECT identity, copy_command, coalesce(last.seq, 0), coalesce(last.time, 0), lost.seq, lost.time
     FROM ledger
     LEFT JOIN LATERAL (SELECT seq, time FROM (
         (SELECT seq, time FROM event ORDER BY seq DESC LIMIT 1) UNION ALL
         (SELECT seq, time FROM mark ORDER BY seq DESC LIMIT 1)) AS either ORDER BY seq DESC LIMIT 1) AS last ON true
     LEFT JOIN LATERAL (SELECT seq, time FROM unnest($1::bigint[], $2::bigint[]) AS acknowledged (seq, time)
         WHERE NOT EXISTS (SELECT FROM event
                 WHERE event.seq = acknowledged.seq AND event.time = acknowledged.time)
             AND NOT EXISTS (SELECT FROM mark
                 WHERE mark.seq = acknowledged.seq AND mark.time = acknowledged.time)
         ORDER BY seq DESC LIMIT 1) AS lost ON true";

/// The witness of the database, in the file at `path` if there is one, and with what the replicas that run have seen;
/// the database is what it has seen.
pub(super) async fn open(
    connector: &Connector,
    path: Option<&Path>,
) -> Result<Arc<Witness>, OpenError> {
    let (client, driver) = connector.connect().await.map_err(OpenError::from_postgres)?;
    let witness = driven(driver, async {
        let row = client.query_one("SELECT identity FROM ledger", &[]).await;
        let row = row.map_err(OpenError::from_postgres)?;
        let identity = row.try_get(0).map_err(OpenError::from_postgres)?;
        let witness = Arc::new(Witness::shared(path, identity)?);
        look(&client, &witness).await.map_err(OpenError::from_postgres)??;
        // It says so itself where it would have no connection.
        let entered = enter(&client).await.map_err(OpenError::from_postgres)?;
        if entered { Ok(witness) } else { Err(OpenError::CopyUnderWay) }
    })
    .await?;
    let (client, driver) = connector.connect().await.map_err(OpenError::from_postgres)?;
    hear::learn(&client, driver, &witness).await.map_err(OpenError::from_postgres)??;
    Ok(witness)
}

/// Whether what `witness` remembers is in the database, and the database is whole; has it remember the last event.
///
/// # Errors
/// The database does not answer.
pub(super) async fn look(
    client: &Client,
    witness: &Witness,
) -> Result<Result<(), OpenError>, tokio_postgres::Error> {
    // Before the question: what is acknowledged meanwhile need not be in its snapshot.
    let (newest, marks) = (witness.mark(), witness.marks());
    let numbers: Vec<_> = marks.iter().map(|mark| mark.number).collect();
    let times: Vec<_> = marks.iter().map(|mark| mark.time).collect();
    let row = client.query_one(LOOK, &[&numbers, &times]).await?;
    if let Some(command) = row.try_get(1)? {
        return Ok(Err(OpenError::HalfCopied(command)));
    }
    let reached = Mark { number: row.try_get(2)?, time: row.try_get(3)? };
    let standing = Standing { ledger: row.try_get(0)?, reached };
    let lost: Option<i64> = row.try_get(4)?;
    let acknowledged = match (lost, row.try_get(5)?) {
        (Some(number), Some(time)) => Mark { number, time },
        (Some(_) | None, Some(_) | None) => newest,
    };
    Ok(witness.check(&standing, acknowledged, lost.is_none()))
}

impl Postgres {
    /// Remembers what was acknowledged here and is no event, and has the others remember it.
    pub(super) fn marked(&self, mark: Mark) {
        self.witness.saw(mark);
        // Nobody attends any more: the others ask.
        let _ = self.news.send((mark, None));
    }
}

/// A mark in the words of replicas.
pub(super) fn spell(Mark { number, time }: Mark) -> String {
    format!("{number}@{time}")
}

/// What [`spell`] has written.
pub(super) fn parse(word: &str) -> Option<Mark> {
    let (number, time) = word.split_once('@')?;
    Some(Mark { number: number.parse().ok()?, time: time.parse().ok()? })
}
