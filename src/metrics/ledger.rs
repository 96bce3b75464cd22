//! Meters of the ledger's file or database.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::family::{Histogram, Known, SECONDS};

/// Bounds for the operations that share one.
const BATCH: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// The ledger's file.
#[derive(Clone, Debug)]
pub struct Disk {
    /// How long commits took, from the first operation to the end of the sync.
    pub commit: Histogram,
    /// How many operations shared one.
    pub batch: Histogram,
    /// 1 while the last attempt to write succeeded.
    pub writable: Gauge,
    /// Bytes that are free for the ledger on its file system. Unknown where nobody can tell.
    pub free: Known,
    /// Rows that were found and could not be read.
    pub damaged: Rows,
    /// Connections to a shared ledger's database that are open. Unknown of a file, as the next two.
    pub connections: Known,
    /// How many of them are in use.
    pub connections_busy: Known,
    /// Operations that wait for one.
    pub connections_awaited: Known,
}

impl Disk {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let disk = Self {
            commit: Histogram::of_seconds(SECONDS),
            batch: Histogram::of_counts(BATCH),
            writable: Gauge::default(),
            free: Known::default(),
            damaged: Rows::default(),
            connections: Known::default(),
            connections_busy: Known::default(),
            connections_awaited: Known::default(),
        };
        let all = disk.clone();
        registry.register("ledger_commit_duration_seconds", "How long commits took", all.commit);
        let help = "Operations that shared a commit";
        registry.register("ledger_batch_operations", help, all.batch);
        let help = "1 while the ledger can be written";
        registry.register("ledger_writable", help, all.writable);
        registry.register("ledger_free_bytes", "Bytes free for the ledger", all.free);
        let help = "Rows of the ledger that cannot be read";
        registry.register("ledger_damaged_rows", help, all.damaged.count);
        let help = "Connections to the ledger's database";
        registry.register("ledger_connections", help, all.connections);
        let help = "Connections to the ledger's database that are in use";
        registry.register("ledger_connections_busy", help, all.connections_busy);
        let help = "Operations that wait for a connection to the ledger's database";
        registry.register("ledger_connections_awaited", help, all.connections_awaited);
        disk
    }
}

/// Rows of tables, each counted once.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    known: Arc<Mutex<BTreeSet<(&'static str, i64)>>>,
    count: Gauge,
}

impl Rows {
    /// Counts the row `number` of `table`; false where it is counted already.
    pub fn add(&self, table: &'static str, number: i64) -> bool {
        // A set is whole whatever panics elsewhere.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = known.insert((table, number));
        self.count.set(i64::try_from(known.len()).unwrap_or(i64::MAX));
        new
    }
}
