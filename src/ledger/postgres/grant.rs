//! What the role of a running service may do, and no more.

use tokio_postgres::Client;

use super::connection::Connector;
use super::schema::driven;
use crate::config::Shared;
use crate::ledger::OpenError;
use crate::ledger::migrate::GrantError;

/// Who reads the tables, adds to them, and changes what changes. Nothing is ever deleted, and the ids are made by
/// the tables themselves.
const NEEDED: [(&str, &str); 8] = [
    ("ledger", "SELECT"),
    ("payoutd_schema", "SELECT"),
    ("payout", "SELECT, INSERT, UPDATE"),
    ("event", "SELECT, INSERT"),
    ("mark", "SELECT, INSERT"),
    ("notice", "SELECT, INSERT, UPDATE"),
    ("intake", "SELECT, INSERT"),
    ("spend", "SELECT, INSERT, UPDATE"),
];

/// Gives `role` what `serve` needs and takes everything else from it; returns what was done, as SQL.
///
/// # Errors
/// Nothing is done.
pub(in crate::ledger) async fn grant(
    settings: &Shared,
    role: &str,
) -> Result<Vec<String>, GrantError> {
    let connector = Connector::new(settings)?;
    let (mut client, driver) = connector.connect().await.map_err(OpenError::from_postgres)?;
    driven(driver, apply(&mut client, role)).await
}

async fn apply(client: &mut Client, role: &str) -> Result<Vec<String>, GrantError> {
    let select = "SELECT relnamespace::regnamespace::text, quote_ident(rolname),
             pg_has_role(pg_roles.oid, relowner, 'MEMBER')
         FROM pg_class, pg_roles WHERE pg_class.oid = 'payout'::regclass AND rolname = $1";
    let found = client.query_opt(select, &[&role]).await.map_err(OpenError::from_postgres)?;
    let found = found.ok_or_else(|| GrantError::Unknown(role.to_owned()))?;
    let get = |column| found.try_get::<_, String>(column).map_err(OpenError::from_postgres);
    let (schema, name) = (get(0)?, get(1)?);
    if found.try_get(2).map_err(OpenError::from_postgres)? {
        return Err(GrantError::Owner(role.to_owned()));
    }
    let mut statements = vec![
        format!("REVOKE CREATE ON SCHEMA {schema} FROM {name}"),
        format!("GRANT USAGE ON SCHEMA {schema} TO {name}"),
    ];
    for (table, rights) in NEEDED {
        statements.push(format!("REVOKE ALL ON {schema}.{table} FROM {name}"));
        statements.push(format!("GRANT {rights} ON {schema}.{table} TO {name}"));
    }
    // Marks are numbered with the events; to read the next number is all that this allows.
    statements.push(format!("GRANT USAGE ON SEQUENCE {schema}.event_seq_seq TO {name}"));
    let tx = client.transaction().await.map_err(OpenError::from_postgres)?;
    for statement in &statements {
        tx.batch_execute(statement).await.map_err(OpenError::from_postgres)?;
    }
    tx.commit().await.map_err(OpenError::from_postgres)?;
    Ok(statements)
}
