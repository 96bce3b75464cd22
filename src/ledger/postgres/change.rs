//! Changing payouts: each change is one statement, for the payout, its event and what its caller has
//! spent together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use deadpool_postgres::{Client, GenericClient};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;

use super::clock::micros;
use super::read::{COLUMNS, find, payout, payouts};
use super::spend::Account;
use super::store::{Claim, insert, store};
use super::{Error, Postgres, SEND_WITHIN};
use crate::ledger::change::Change;
use crate::ledger::witness::Mark;
use crate::ledger::{Begun, Cause, Id, Resend, Unavailable, Unrecorded};
use crate::order::{Key, Order};
use crate::payout::Payout;
use crate::policy::{Rule, Terms};
use crate::state::State;

/// Pause between two looks for a record whose commit was not answered.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So many looks that find nothing are enough. The database may still be at what it was asked over the
/// connection that broke, and what nobody finds nobody sends: it would end as a doubt.
const LOOKS: u32 = 5;
/// The most sends of dead processes that are ended at once.
const SWEEP: i64 = 64;

/// What recording came to, and the number of the event that is new; None where nothing is.
type Recorded = (Begun, Option<i64>);

/// The records that callers may have under way at once: half of the connections for each. Those of one caller wait for
/// each other in its totals, and would do so in all connections there are.
#[derive(Debug)]
pub(super) struct Turns {
    each: usize,
    callers: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Turns {
    pub(super) fn new(connections: usize) -> Self {
        Self { each: (connections / 2).max(1), callers: Mutex::default() }
    }

    /// The right to record for `caller`; none is needed without a name, which has no totals.
    async fn wait(&self, caller: &str) -> Result<Option<OwnedSemaphorePermit>, Error> {
        if caller.is_empty() {
            return Ok(None);
        }
        let turns = {
            // Every change to the map is one call.
            let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(self.each));
            Arc::clone(callers.entry(caller.to_owned()).or_insert_with(new))
        };
        let turn = timeout(SEND_WITHIN, turns.acquire_owned()).await.map_err(|_| Error::Busy)?;
        Ok(turn.ok())
    }
}

impl Postgres {
    pub(in crate::ledger) async fn begin(
        &self,
        order: &Arc<Order>,
        terms: &Terms,
        resend: Resend,
    ) -> Result<(Begun, Option<Rule>), Unrecorded> {
        let start = Instant::now();
        let turn = self.turns.wait(&terms.caller).await;
        let _turn = turn.map_err(|error| self.failed(error))?;
        let send_time = self.clock.now();
        let mut attempt = [0u8; 16];
        getrandom::fill(&mut attempt).map_err(|error| self.failed(error.into()))?;
        let attempt = hex::encode(attempt);
        let acknowledged = self.witness.mark();
        let claim =
            Claim { owner: &self.owner, attempt: &attempt, lease: self.lease, acknowledged };
        let ((begun, seq), rule) =
            match self.attempt(order, terms, (resend, send_time), &claim).await {
                Ok(begun) => begun,
                Err(error) => {
                    let over = error.pending().cloned();
                    let unavailable = self.failed(error);
                    let over = over.ok_or(unavailable)?;
                    // Recorded or not: the row tells, once it can be read.
                    let found = self.attempted(&order.key, &attempt, start + SEND_WITHIN).await;
                    let unrecorded = |_| Unrecorded { send_time: Some(send_time), over };
                    (found.map_err(unrecorded)?, None)
                }
            };
        if let (Begun::Send(payout), Some(seq)) = (&begun, seq) {
            self.changed(payout, seq, start);
        }
        Ok((begun, rule))
    }

    /// Records it in a transaction of its own only where limits have to be judged in the same one.
    async fn attempt(
        &self,
        order: &Arc<Order>,
        terms: &Terms,
        (resend, now): (Resend, SystemTime),
        claim: &Claim<'_>,
    ) -> Result<(Recorded, Option<Rule>), Error> {
        if !terms.are_limited() {
            let record = async |client: &mut Client| {
                record(client, order, terms, (resend, now), claim).await
            };
            return Ok((self.ask(record).await?, None));
        }
        self.ask(async |client| {
            let tx = client.transaction().await?;
            // Known before anything is written: a doubt is an answer, whatever the limits say by now.
            let id = Id::ThirdParty(order.key.third_party_id.clone());
            let known = find(&tx, order.key.pid, &id).await?;
            let recorded = record(&tx, order, terms, (resend, now), claim).await?;
            let Begun::Send(payout) = &recorded.0 else { return Ok((recorded, None)) };
            // It counts already, and nobody else's does before the commit.
            let today = Account::on(&terms.caller, order, payout.send_time);
            let spent = today.total(&tx, true).await?.minus(&order.amount);
            let rule = terms.judge(order, &spent);
            match (rule.filter(|_| !terms.report_only), known) {
                (Some(_), Some(known)) if known.state == State::InDoubt => {
                    Ok(((Begun::Known(known), None), None))
                }
                (Some(denied), _) => Ok(((Begun::Denied(denied), None), None)),
                (None, _) => {
                    tx.commit().await?;
                    Ok((recorded, rule))
                }
            }
        })
        .await
    }

    /// The payout that `attempt` has recorded after all.
    ///
    /// # Errors
    /// None is seen, or nothing can be seen before `until`. It may still come: then its lease ends it.
    async fn attempted(
        &self,
        key: &Key,
        attempt: &str,
        until: Instant,
    ) -> Result<Recorded, Unavailable> {
        let select = format!(
            "SELECT {}, seq FROM payout
             JOIN event ON event.payout = payout.id AND event.revision = payout.revision
             WHERE pid = $1 AND third_party_id = $2 AND attempt = $3 AND payout.state = 'SENDING'",
            *COLUMNS
        );
        let mut missed = 0;
        while let Some(left) = until.checked_duration_since(Instant::now())
            && missed < LOOKS
        {
            let look = self.ask(async |client| {
                let statement = client.prepare_cached(&select).await?;
                let row = client
                    .query_opt(&statement, &[&key.pid, &key.third_party_id, &attempt])
                    .await?;
                let Some(row) = row else { return Ok(None) };
                Ok(Some((Begun::Send(payout(&row)?), row.try_get("seq")?)))
            });
            match timeout(left, look).await {
                Ok(Ok(Some(found))) => return Ok(found),
                Ok(Ok(None)) => missed += 1,
                Ok(Err(_)) | Err(_) => {}
            }
            sleep(LOOK_AGAIN).await;
        }
        Err(Unavailable)
    }

    /// Does `change` to the payout that stood as `before`, or, where that has moved since, as it now
    /// stands; None where it is not to be done to it.
    pub(in crate::ledger) async fn apply(
        &self,
        mut before: Payout,
        change: &Change,
    ) -> Result<Option<Payout>, Unavailable> {
        let mut taken = false;
        loop {
            let start = Instant::now();
            let Some(next) = change.next(&before, taken, self.clock.now()) else { return Ok(None) };
            if next.revision == before.revision {
                return Ok(Some(next));
            }
            let stored = self.ask(async |client| {
                match store(client, &before, &next, &change.cause, None).await? {
                    Some(seq) => Ok(Ok(seq)),
                    None => known(client, &before.order.key).await.map(Err),
                }
            });
            match stored.await {
                Ok(Ok(seq)) => {
                    self.changed(&next, seq, start);
                    return Ok(Some(next));
                }
                Ok(Err(moved)) => before = moved,
                Err(error) if !taken && is_taken_cid(&error) => taken = true,
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    pub(in crate::ledger) async fn unsend(
        &self,
        key: &Key,
        send_time: SystemTime,
        over: bool,
    ) -> Result<Option<Payout>, Unavailable> {
        let select = format!(
            "SELECT {} FROM payout WHERE pid = $1 AND third_party_id = $2 AND owner = $3",
            *COLUMNS
        );
        let found = self.ask(async |client| {
            let statement = client.prepare_cached(&select).await?;
            let row =
                client.query_opt(&statement, &[&key.pid, &key.third_party_id, &self.owner]).await?;
            row.as_ref().map(payout).transpose()
        });
        match found.await {
            Ok(Some(own)) if own.send_time == send_time => {
                self.apply(own, &Change::unsend(send_time)).await
            }
            // A commit that waits for a standby is made, and no read sees it: what is seen may be the row before.
            Ok(Some(_) | None) if over => Ok(None),
            Ok(Some(_) | None) => Err(Unavailable),
            // Left to a person.
            Err(Error::Row(damage)) => {
                self.faults().damaged(&damage);
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Turns sends whose lease is over into doubts.
    pub(in crate::ledger) async fn sweep(&self) -> Result<Vec<Payout>, Unavailable> {
        let select = format!(
            "SELECT {} FROM payout WHERE state = 'SENDING'
                 AND lease_until < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
             ORDER BY lease_until LIMIT $1",
            *COLUMNS
        );
        let lapsed = self.ask(async |client| {
            let statement = client.prepare_cached(&select).await?;
            payouts(&client.query(&statement, &[&SWEEP]).await?)
        });
        let mut ended = Vec::new();
        let lapsed = lapsed.await.map_err(|error| self.failed(error))?;
        for sent in self.faults().whole(lapsed) {
            let change = Change::lapse(&sent);
            ended.extend(self.apply(sent, &change).await?);
        }
        Ok(ended)
    }

    pub(in crate::ledger) async fn approve(
        &self,
        key: &Key,
        cid: i64,
    ) -> Result<bool, Unavailable> {
        let now = micros(self.clock.now());
        let approved = self.ask(async |client| {
            let statement = client
                .prepare_cached(
                    // Locked first: the same message may be here twice at once, and leaves one mark however often it
                    // comes.
                    "WITH found AS (
                         SELECT id, approved_cid FROM payout
                         WHERE pid = $1 AND third_party_id = $2 AND cid = $3 AND state = 'ACCEPTED'
                             AND (approved_cid IS NULL OR approved_cid = $3) FOR UPDATE),
                     approved AS (
                         UPDATE payout SET approved_cid = $3 FROM found
                         WHERE payout.id = found.id AND found.approved_cid IS NULL RETURNING payout.id),
                     mark AS (INSERT INTO mark (time) SELECT $4 FROM approved RETURNING seq)
                     SELECT EXISTS (SELECT FROM found), (SELECT seq FROM mark)",
                )
                .await?;
            let row =
                client.query_one(&statement, &[&key.pid, &key.third_party_id, &cid, &now]).await?;
            Ok((row.try_get(0)?, row.try_get::<_, Option<i64>>(1)?))
        });
        let (approved, mark) = approved.await.map_err(|error| self.failed(error))?;
        mark.into_iter().for_each(|number| self.marked(Mark { number, time: now }));
        Ok(approved)
    }

    pub(in crate::ledger) async fn postpone(
        &self,
        payout: &Payout,
        due: SystemTime,
    ) -> Result<(), Unavailable> {
        let postponed = self.ask(async |client| {
            let statement = client
                .prepare_cached(
                    "UPDATE payout SET due = $3, polls = polls + 1
                     WHERE id = $1 AND revision = $2 AND due IS NOT NULL",
                )
                .await?;
            client.execute(&statement, &[&payout.row, &payout.revision, &micros(due)]).await?;
            Ok(())
        });
        postponed.await.map_err(|error| self.failed(error))
    }
}

/// Records `order` as SENDING, or claims its row for one more send where `resend` allows it.
async fn record(
    db: &impl GenericClient,
    order: &Arc<Order>,
    terms: &Terms,
    (resend, now): (Resend, SystemTime),
    claim: &Claim<'_>,
) -> Result<Recorded, Error> {
    let first = Payout::first(Arc::clone(order), &terms.caller, now);
    let (open, new) = insert(db, &first, claim).await?;
    if let Some((row, seq)) = new {
        return Ok((Begun::Send(Payout { row, ..first }), Some(seq)));
    }
    let id = Id::ThirdParty(order.key.third_party_id.clone());
    let Some(known) = find(db, order.key.pid, &id).await? else {
        return Ok((Begun::Paused, None));
    };
    let allowed = terms.show(&known) && resend.would_send(&known, order);
    let (true, Ok(next)) = (allowed, known.resent(&terms.caller, now)) else {
        return Ok((Begun::Known(known), None));
    };
    if !open {
        return Ok((Begun::Paused, None));
    }
    let seq = store(db, &known, &next, &Cause::Resend, Some(claim)).await?;
    if seq.is_some() {
        return Ok((Begun::Send(next), seq));
    }
    // Somebody else was faster, and their send is the answer.
    Ok((Begun::Known(self::known(db, &order.key).await?), None))
}

async fn known(db: &impl GenericClient, key: &Key) -> Result<Payout, Error> {
    let found = find(db, key.pid, &Id::ThirdParty(key.third_party_id.clone())).await?;
    found.ok_or(Error::Damaged("a payout that was there"))
}

/// Tells whether the cid belongs to another payout.
fn is_taken_cid(error: &Error) -> bool {
    match error {
        Error::Database(error) => error.as_db_error().is_some_and(|answer| {
            *answer.code() == SqlState::UNIQUE_VIOLATION
                && answer.constraint() == Some("payout_by_cid")
        }),
        Error::Pool(_)
        | Error::Unreachable(_)
        | Error::Busy
        | Error::Silent
        | Error::Unanswered(_)
        | Error::Lost(..)
        | Error::NotSafe(_)
        | Error::Refused(_)
        | Error::Contradicted(_)
        | Error::Gone(_)
        | Error::Damaged(_)
        | Error::Row(_)
        | Error::Random(_) => false,
    }
}
