//! Notices of Cregis's and orders of operators: what was said, kept.

use std::time::SystemTime;

use super::claim::{CLAIM, Kind};
use super::clock::micros;
use super::witness::look;
use super::{Error, Postgres};
use crate::ledger::terms::{ASK_AGAIN, Kept, NOTICES_MAX, ORPHANS_MAX};
use crate::ledger::witness::Mark;
use crate::ledger::{Due, Lead, Notice, Unavailable};

/// Keeps a notice among the at most `most` that `of` describes, once, or has it asked about again. Where there are as many,
/// the oldest without a question gives up its row, since the role cannot delete any. One question answers all that are open
/// about a cid, and the newest has the newest question.
fn keep(of: &str, most: i64) -> String {
    let again = ASK_AGAIN.as_micros();
    format!(
        "WITH room AS (
             SELECT EXISTS (SELECT FROM notice WHERE digest = $1) AS known,
                 (SELECT count(*) FROM notice WHERE {of}) < {most} AS free),
         reused AS (
             UPDATE notice SET digest = $1, pid = $2, third_party_id = $3, cid = $4, body = $5, time = $6,
                 due = $8, tries = 0
             WHERE id = (SELECT id FROM notice WHERE {of} AND due IS NULL ORDER BY time LIMIT 1
                     FOR UPDATE SKIP LOCKED)
                 AND (SELECT NOT known AND NOT free FROM room)
             RETURNING id),
         new AS (
             INSERT INTO notice (digest, pid, third_party_id, cid, body, time, payout, due, tries)
             SELECT $1, $2, $3, $4, $5, $6, $7::bigint, $8::bigint, 0 FROM room WHERE known OR free
             ON CONFLICT (digest) DO UPDATE SET body = $5, time = $6, due = $8, tries = 0
                 WHERE $8 IS NOT NULL AND notice.due IS NULL
                     AND (notice.tries = 0 OR notice.time <= $6 - {again})
             RETURNING id),
         kept AS (SELECT id FROM new UNION ALL SELECT id FROM reused),
         merged AS (
             UPDATE notice SET due = NULL, tries = greatest(tries, 1) FROM kept
             WHERE notice.payout = $7 AND notice.due IS NOT NULL AND notice.cid = $4 AND $8 IS NOT NULL)
         INSERT INTO mark (time) SELECT $6 FROM kept RETURNING seq"
    )
}

impl Postgres {
    pub(in crate::ledger) async fn keep(
        &self,
        notice: &Notice,
        lead: bool,
    ) -> Result<Kept, Unavailable> {
        let statement = &match notice.payout {
            Some(_) => keep("payout = $7", NOTICES_MAX),
            None => keep("payout IS NULL AND pid = $2", ORPHANS_MAX),
        };
        let (key, now) = (notice.key(), micros(self.clock.now()));
        let kept = self.ask(async |client| {
            let statement = client.prepare_cached(statement).await?;
            let row = client
                .query_opt(
                    &statement,
                    &[
                        &&key[..],
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
            if let Some(row) = row {
                return Ok(Ok(row.try_get(0)?));
            }
            let known = client.prepare_cached("SELECT FROM notice WHERE digest = $1").await?;
            let known = client.query_opt(&known, &[&&key[..]]).await?;
            Ok(Err(if known.is_some() { Kept::Known } else { Kept::Full }))
        });
        let kept = kept.await.map_err(|error| self.failed(error))?;
        Ok(match kept {
            Ok(number) => {
                self.marked(Mark { number, time: now });
                Kept::New
            }
            Err(kept) => kept,
        })
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
