//! What this replica looks after at the moment. With its claim a row's next look is put off, so that no
//! other replica takes it up; whoever has looked says when the next one is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Postgres;
use super::clock::micros;
use crate::ledger::Unavailable;

/// What is claimed is nobody else's for so long, in microseconds: of a replica that dies the others take it
/// over then.
pub(super) const CLAIM: i64 = 60_000_000;

/// Where there is something to look after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Payouts,
    Notices,
}

/// The last claim of each kind for each project: the due time that its rows were given.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<(Kind, i64), i64>>);

impl Claims {
    /// Remembers a claim. The one before it is settled by now, since whoever looks takes one after the other;
    /// or, where Cregis was too slow for all of it, what is left of it waits until the claim is over.
    pub(super) fn keep(&self, kind: Kind, pid: i64, due: i64) {
        self.claims().insert((kind, pid), due);
    }

    fn take(&self) -> HashMap<(Kind, i64), i64> {
        std::mem::take(&mut self.claims())
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<(Kind, i64), i64>> {
        // Every change to the map is one call; a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Postgres {
    /// Gives back what is claimed and not settled: it is due at once.
    pub(in crate::ledger) async fn release(&self) -> Result<(), Unavailable> {
        let now = micros(self.clock.now());
        let released = self.ask(async |client| {
            for ((kind, pid), due) in self.claims.take() {
                // Whatever was settled has another time by now.
                let update = match kind {
                    Kind::Payouts => "UPDATE payout SET due = $3 WHERE pid = $1 AND due = $2",
                    Kind::Notices => "UPDATE notice SET due = $3 WHERE pid = $1 AND due = $2",
                };
                client.execute(update, &[&pid, &due, &now]).await?;
            }
            Ok(())
        });
        released.await.map_err(|error| self.failed(error))
    }
}
