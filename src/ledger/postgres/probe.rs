//! Whether the database takes what a payout needs: rows, and commits.

use deadpool_postgres::Client;

use super::{ANSWER, Error, Postgres};
use crate::causes::chain;
use crate::ledger::Unavailable;

/// A payout and its event, each too long for the room that is left in any page, so that new ones are needed. The texts
/// are random, since others would be compressed.
const INSERT: &str = "WITH long AS (
         SELECT string_agg(md5(random()::text), '') AS text FROM generate_series(1, 512)),
     free AS (UPDATE payout SET due = due WHERE false),
     payout AS (
         INSERT INTO payout (pid, third_party_id, currency, address, amount, remark, memo, callback_url,
             create_time, revision, update_time, state, reason, refusal_msg, txid, block_height, attention,
             send_time, state_time, polls, caller, owner, attempt, lease_until)
         SELECT 0, 'probe ' || gen_random_uuid(), '', '', '', text, '', '', 0, 1, 0, '', '', '', '', 0, '', 0, 0,
             0, '', '', '', 0 FROM long RETURNING id)
     INSERT INTO event (payout, revision, time, cause, evidence, state, state_time, reason, refusal_msg, txid,
         block_height, attention)
     SELECT id, 1, 0, '', text, '', 0, '', '', '', 0, '' FROM payout, long";
/// A commit that changes nothing.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'payoutd', 'can write')";

/// Adds rows, and takes them back.
pub(super) async fn insert(client: &mut Client) -> Result<(), Error> {
    let tx = client.transaction().await?;
    tx.execute(INSERT, &[]).await?;
    tx.rollback().await?;
    Ok(())
}

/// Makes a commit like any other.
pub(super) async fn commit(client: &mut Client) -> Result<(), Error> {
    client.execute(&client.prepare_cached(COMMIT).await?, &[]).await?;
    Ok(())
}

/// The least of the server's, the database's and the role's bounds; -1 stands for none.
const ROOM: &str = "SELECT least(
         current_setting('max_connections')::bigint
             - current_setting('superuser_reserved_connections')::bigint,
         (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
         (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user))";

impl Postgres {
    /// Tries what a payout needs, and says what of it does not come back in time, or fails.
    pub(in crate::ledger) async fn try_out(&self) -> Result<(), String> {
        let inserted = self.ask(async |client| insert(client).await).await;
        inserted.map_err(|error| why("an insert", &error))?;
        let committed = self.ask(async |client| commit(client).await).await;
        committed.map_err(|error| why("a commit", &error))
    }
}

impl Postgres {
    /// How many connections the server has for this role, where those are fewer than this process may want.
    pub(in crate::ledger) async fn too_few(&self, wanted: i64) -> Result<Option<i64>, Unavailable> {
        let room = self.ask(async |client| {
            let row = client.query_one(ROOM, &[]).await?;
            Ok(row.try_get::<_, i64>(0)?)
        });
        let room = room.await.map_err(|error| self.failed(error))?;
        Ok((room < wanted).then_some(room))
    }
}

fn why(what: &str, error: &Error) -> String {
    if matches!(error, Error::Unanswered(_)) {
        format!("{what} did not come back within {} s", ANSWER.as_secs())
    } else {
        format!("{what} failed: {}", chain(error))
    }
}
