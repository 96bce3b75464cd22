//! The two statements that write payouts: each with its event and what its caller has spent.

use std::time::Duration;

use deadpool_postgres::GenericClient;

use super::Error;
use super::clock::{micros, whole};
use super::spend::Postings;
use crate::ledger::Cause;
use crate::ledger::witness::Mark;
use crate::payout::Payout;

/// The right to send, as it stands in a row: whose it is, and for how long.
pub(super) struct Claim<'a> {
    pub(super) owner: &'a str,
    pub(super) attempt: &'a str,
    pub(super) lease: Duration,
    /// The newest that was acknowledged: where that is gone, nobody may send. Number 0: nothing was.
    pub(super) acknowledged: Mark,
}

/// Whether the project takes payouts, and the new payout's row and event; None where the id is known.
///
/// # Errors
/// As of any statement; and the ledger may have lost the id, as it has lost what was acknowledged.
pub(super) async fn insert(
    db: &impl GenericClient,
    first: &Payout,
    claim: &Claim<'_>,
) -> Result<(bool, Option<(i64, i64)>), Error> {
    let statement = db
        .prepare_cached(
            "WITH intake AS (
                 SELECT NOT coalesce((SELECT paused FROM intake WHERE pid = $1
                     ORDER BY id DESC LIMIT 1), false) AS open,
                     $20::bigint = 0
                     OR EXISTS (SELECT FROM event WHERE event.seq = $20 AND event.time = $21)
                     OR EXISTS (SELECT FROM mark WHERE mark.seq = $20 AND mark.time = $21) AS whole),
             payout AS (
                 INSERT INTO payout (pid, third_party_id, currency, address, amount, remark, memo,
                     callback_url, create_time, revision, update_time, state, reason, refusal_msg, txid,
                     block_height, attention, send_time, state_time, due, polls, caller, owner, attempt,
                     lease_until)
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $9, $10, '', '', '', 0, '', $9, $9, $9, 0,
                     $11, $12, $13, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $14
                 FROM intake WHERE open AND whole
                 ON CONFLICT (pid, third_party_id) DO NOTHING RETURNING id),
             event AS (
                 INSERT INTO event (payout, revision, time, cause, state, state_time, reason,
                     refusal_msg, txid, block_height, attention)
                 SELECT id, 1, $9, $15, $10, $9, '', '', '', 0, '' FROM payout RETURNING payout, seq),
             spend AS (
                 INSERT INTO spend (caller, currency, day, total)
                 SELECT caller, currency, day, amount::numeric FROM payout,
                     unnest($16::text[], $17::text[], $18::bigint[], $19::text[])
                         AS posting (caller, currency, day, amount)
                 ON CONFLICT (caller, currency, day)
                     DO UPDATE SET total = spend.total + excluded.total)
             SELECT open, event.payout, seq, whole FROM intake LEFT JOIN event ON true",
        )
        .await?;
    let order = &first.order;
    let postings = Postings::of(None, first);
    let row = db
        .query_one(
            &statement,
            &[
                &order.key.pid,
                &order.key.third_party_id,
                &order.currency.as_str(),
                &order.address,
                &order.amount.as_str(),
                &order.remark,
                &order.memo,
                &order.callback_url,
                &micros(first.create_time),
                &first.state.as_str(),
                &first.caller,
                &claim.owner,
                &claim.attempt,
                &whole(claim.lease),
                &Cause::Recorded.as_str(),
                &postings.callers,
                &postings.currencies,
                &postings.days,
                &postings.amounts,
                &claim.acknowledged.number,
                &claim.acknowledged.time,
            ],
        )
        .await?;
    if !row.try_get::<_, bool>(3)? {
        return Err(Error::Gone(claim.acknowledged));
    }
    let (new, seq): (Option<i64>, Option<i64>) = (row.try_get(1)?, row.try_get(2)?);
    Ok((row.try_get(0)?, new.zip(seq)))
}

/// Replaces `before` by `next` and appends the event, whose number it returns; None where the row is not
/// `before` any more.
pub(super) async fn store(
    db: &impl GenericClient,
    before: &Payout,
    next: &Payout,
    cause: &Cause,
    claim: Option<&Claim<'_>>,
) -> Result<Option<i64>, Error> {
    let statement = db
        .prepare_cached(
            "WITH payout AS (
                 UPDATE payout SET revision = $3, update_time = $4, state = $5, reason = $6,
                     refusal_msg = $7, cid = $8, cregis_status = $9, txid = $10, block_height = $11,
                     block_time = $12, attention = $13, earlier_doubt = $14, send_time = $15,
                     state_time = $16, due = $17, polls = $18, sender = $19,
                     owner = coalesce($20, owner), attempt = coalesce($21, attempt),
                     lease_until = coalesce(
                         (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $22, lease_until)
                 WHERE id = $1 AND revision = $2 RETURNING id),
             event AS (
                 INSERT INTO event (payout, revision, time, cause, evidence, state, state_time, reason,
                     refusal_msg, cid, cregis_status, txid, block_height, block_time, attention)
                 SELECT id, $3, $4, $23, $24, $5, $16, $6, $7, $8, $9, $10, $11, $12, $13 FROM payout
                 RETURNING seq),
             spend AS (
                 INSERT INTO spend (caller, currency, day, total)
                 SELECT caller, currency, day, amount::numeric FROM payout,
                     unnest($25::text[], $26::text[], $27::bigint[], $28::text[])
                         AS posting (caller, currency, day, amount)
                 ON CONFLICT (caller, currency, day)
                     DO UPDATE SET total = spend.total + excluded.total)
             SELECT seq FROM event",
        )
        .await?;
    let progress = next.progress.as_deref();
    let postings = Postings::of(Some(before), next);
    let row = db
        .query_opt(
            &statement,
            &[
                &before.row,
                &before.revision,
                &next.revision,
                &micros(next.update_time),
                &next.state.as_str(),
                &next.reason,
                &next.refusal_msg,
                &next.cid,
                &progress.map(|p| p.status),
                &progress.map_or("", |p| &p.txid),
                &progress.map_or(0, |p| p.block_height),
                &progress.and_then(|p| p.block_time).map(micros),
                &next.attention.join(","),
                &next.earlier_doubt,
                &micros(next.send_time),
                &micros(next.state_time),
                &next.due.map(micros),
                &next.polls,
                &next.sender,
                &claim.map(|claim| claim.owner),
                &claim.map(|claim| claim.attempt),
                &claim.map(|claim| whole(claim.lease)),
                &cause.as_str(),
                &cause.evidence(),
                &postings.callers,
                &postings.currencies,
                &postings.days,
                &postings.amounts,
            ],
        )
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}
