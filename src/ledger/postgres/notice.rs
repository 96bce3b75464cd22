//! Notices of Cregis's and orders of operators: what was said, kept.

use std::time::SystemTime;

use super::claim::{CLAIM, Kind};
use super::clock::micros;
use super::witness::look;
use super::{Error, Postgres};
use crate::ledger::witness::Mark;
use crate::ledger::{Due, Lead, Notice, Unavailable};

/// Keeps a notice, once. One question answers all that are open, and the newest has the newest question.
const KEEP: &str = "WITH new AS (
         INSERT INTO notice (digest, pid, third_party_id, cid, body, time, payout, due, tries)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)
         ON CONFLICT (digest) DO NOTHING RETURNING id),
     merged AS (
         UPDATE notice SET due = NULL FROM new
         WHERE notice.due IS NOT NULL AND notice.payout = $7 AND notice.cid = $4
             AND $8::bigint IS NOT NULL)
     INSERT INTO mark (time) SELECT $6 FROM new RETURNING seq";
/// The same for one without a payout. Of those a thousand are kept; then the oldest gives up its row, since the
/// role cannot delete any.
const KEEP_ORPHAN: &str = "WITH reused AS (
         UPDATE notice SET digest = $1, pid = $2, third_party_id = $3, cid = $4, body = $5, time = $6
         WHERE id = (SELECT id FROM notice WHERE payout IS NULL ORDER BY time LIMIT 1 FOR UPDATE)
             AND (SELECT count(*) FROM notice WHERE payout IS NULL) >= 1000
             AND NOT EXISTS (SELECT FROM notice WHERE digest = $1)
         RETURNING id),
     new AS (
         INSERT INTO notice (digest, pid, third_party_id, cid, body, time, payout, due, tries)
         SELECT $1, $2, $3, $4, $5, $6, $7::bigint, $8::bigint, 0 WHERE NOT EXISTS (SELECT FROM reused)
         ON CONFLICT (digest) DO NOTHING RETURNING id)
     INSERT INTO mark (time) SELECT $6 FROM (SELECT FROM new UNION ALL SELECT FROM reused) AS kept RETURNING seq";

impl Postgres {
    pub(in crate::ledger) async fn keep(
        &self,
        notice: &Notice,
        lead: bool,
    ) -> Result<bool, Unavailable> {
        let statement = if notice.payout.is_some() { KEEP } else { KEEP_ORPHAN };
        let now = micros(self.clock.now());
        let kept = self.ask(async |client| {
            let statement = client.prepare_cached(statement).await?;
            let row = client
                .query_opt(
                    &statement,
                    &[
                        &&notice.digest[..],
                        &notice.pid,
                        &notice.third_party_id,
                        &notice.cid,
                        &notice.body,
                        &now,
                        &notice.payout,
                        &lead.then_some(now),
                    ],
                )
                .await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        });
        let kept = kept.await.map_err(|error| self.failed(error))?;
        Ok(kept.is_some_and(|number| {
            self.marked(Mark { number, time: now });
            true
        }))
    }

    /// Takes what is to be asked about by `due.now`, for this process alone.
    pub(in crate::ledger) async fn leads(&self, due: &Due) -> Result<Vec<Lead>, Unavailable> {
        let claimed = self.ask(async |client| {
            let statement = client
                .prepare_cached(
                    "UPDATE notice SET due = $4 WHERE id = ANY (ARRAY(
                         SELECT id FROM notice WHERE pid = $1 AND due <= $2
                         ORDER BY due LIMIT $3 FOR UPDATE SKIP LOCKED))
                     RETURNING id, third_party_id, cid, tries",
                )
                .await?;
            let now = micros(due.now);
            let until = now + CLAIM;
            self.claims.keep(Kind::Notices, due.pid, until);
            let rows = client.query(&statement, &[&due.pid, &now, &due.limit, &until]).await?;
            let lead = |row: &tokio_postgres::Row| {
                Ok::<_, Error>(Lead {
                    notice: row.try_get(0)?,
                    third_party_id: row.try_get(1)?,
                    cid: row.try_get(2)?,
                    tries: row.try_get(3)?,
                })
            };
            rows.iter().map(lead).collect::<Result<_, Error>>()
        });
        claimed.await.map_err(|error| self.failed(error))
    }

    pub(in crate::ledger) async fn close(
        &self,
        notice: i64,
        due: Option<SystemTime>,
    ) -> Result<(), Unavailable> {
        let closed = self.ask(async |client| {
            let statement = client
                .prepare_cached(
                    "UPDATE notice SET due = $2, tries = tries + 1 WHERE id = $1 AND due IS NOT NULL",
                )
                .await?;
            client.execute(&statement, &[&notice, &due.map(micros)]).await?;
            Ok(())
        });
        closed.await.map_err(|error| self.failed(error))
    }

    pub(in crate::ledger) async fn set_intake(
        &self,
        pids: &[i64],
        paused: bool,
        note: &str,
    ) -> Result<(), Unavailable> {
        let now = micros(self.clock.now());
        let set = self.ask(async |client| {
            let statement = client
                .prepare_cached(
                    "WITH mark AS (INSERT INTO mark (time) VALUES ($4) RETURNING seq),
                     intake AS (
                         INSERT INTO intake (pid, paused, note, time, seq)
                         SELECT pid, $2, $3, $4, seq FROM unnest($1::bigint[]) AS project (pid), mark)
                     SELECT seq FROM mark",
                )
                .await?;
            let row = client.query_one(&statement, &[&pids, &paused, &note, &now]).await?;
            Ok(Mark { number: row.try_get(0)?, time: now })
        });
        let mark = set.await.map_err(|error| self.failed(error))?;
        for pid in pids {
            self.witness.saw_intake(*pid, mark);
        }
        self.marked(mark);
        Ok(())
    }

    pub(in crate::ledger) async fn is_paused(&self, pid: i64) -> Result<bool, Unavailable> {
        let asked = self.ask(async |client| {
            let select = "SELECT paused, coalesce(seq, 0), time FROM intake
                 WHERE pid = $1 ORDER BY id DESC LIMIT 1";
            let statement = client.prepare_cached(select).await?;
            let row = client.query_opt(&statement, &[&pid]).await?;
            let (paused, mark) = match row {
                Some(row) => {
                    (row.try_get(0)?, Mark { number: row.try_get(1)?, time: row.try_get(2)? })
                }
                None => (false, Mark::default()),
            };
            if self.witness.saw_intake(pid, mark) {
                return Ok(paused);
            }
            // Not a word about the project before somebody has settled what the database has lost.
            let lost = look(client, &self.witness).await?;
            Err(lost.map_or_else(
                |error| Error::Contradicted(error.into()),
                |()| Error::Damaged("intake"),
            ))
        });
        asked.await.map_err(|error| self.failed(error))
    }
}
