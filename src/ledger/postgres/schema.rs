//! The tables: made, brought up to date and recognised.

use std::pin::pin;

use futures_util::future::{Either, select};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connection::{Connector, Driver, unsafe_because};
use crate::ledger::OpenError;
use crate::ledger::migrate::Migrated;

/// The schema this build works with. A database with a newer one is left alone, as it is not known here.
const SCHEMA: i64 = 2;
/// Whoever changes the schema holds this advisory lock: "payo" in ASCII.
const LOCK: i64 = 0x7061_796f;

/// Brings the schema up to date where the role may; proves first that commits are durable.
pub(super) async fn bring_up(connector: &Connector) -> Result<Migrated, OpenError> {
    let (mut client, driver) = connector.connect().await.map_err(OpenError::from_postgres)?;
    driven(driver, async {
        if let Some(why) = unsafe_because(&client).await.map_err(OpenError::from_postgres)? {
            return Err(OpenError::NotSafe(why));
        }
        let encoding = "SELECT current_setting('server_encoding')";
        let row = client.query_one(encoding, &[]).await.map_err(OpenError::from_postgres)?;
        let encoding: String = row.try_get(0).map_err(OpenError::from_postgres)?;
        if encoding != "UTF8" {
            return Err(OpenError::Encoding(encoding));
        }
        migrate(&mut client).await
    })
    .await
}

/// Does `work`, which needs `driver` to move its bytes.
pub(super) async fn driven<T, E: From<OpenError>>(
    driver: Driver,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match select(pin!(work), pin!(driver)).await {
        Either::Left((done, _)) => done,
        Either::Right((Err(error), _)) => Err(OpenError::from_postgres(error).into()),
        // It has ended in good order, so whatever was asked has its answer.
        Either::Right((Ok(()), work)) => work.await,
    }
}

async fn migrate(client: &mut Client) -> Result<Migrated, OpenError> {
    let tx = client.transaction().await.map_err(OpenError::from_postgres)?;
    // Held to the end of the transaction: replicas that start together take turns.
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await
        .map_err(OpenError::from_postgres)?;
    let known =
        "SELECT to_regclass('payoutd_schema') IS NOT NULL, to_regclass('payout') IS NOT NULL";
    let row = tx.query_one(known, &[]).await.map_err(OpenError::from_postgres)?;
    let (marked, taken): (bool, bool) = (
        row.try_get(0).map_err(OpenError::from_postgres)?,
        row.try_get(1).map_err(OpenError::from_postgres)?,
    );
    let found: i64 = if marked {
        let row = tx.query_one("SELECT max(version) FROM payoutd_schema", &[]).await;
        row.and_then(|row| row.try_get(0)).map_err(OpenError::from_postgres)?
    } else if taken {
        return Err(OpenError::Foreign);
    } else {
        0
    };
    match found {
        SCHEMA => return Ok(Migrated { from: found, to: SCHEMA }),
        newer if newer > SCHEMA => return Err(OpenError::Newer { found, known: SCHEMA }),
        _ => {}
    }
    let steps = if found == 0 {
        concat!(
            "CREATE TABLE payoutd_schema (version bigint PRIMARY KEY, time timestamptz NOT NULL DEFAULT now());",
            include_str!("schema.sql")
        )
    } else {
        include_str!("schema_1_to_2.sql")
    };
    let mark = format!("{steps} INSERT INTO payoutd_schema (version) VALUES ({SCHEMA});");
    match tx.batch_execute(&mark).await {
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            return Err(OpenError::Older { found, wanted: SCHEMA });
        }
        made => made.map_err(OpenError::from_postgres)?,
    }
    tx.commit().await.map_err(OpenError::from_postgres)?;
    tracing::info!(from = found, to = SCHEMA, "ledger schema brought up to date");
    Ok(Migrated { from: found, to: SCHEMA })
}
