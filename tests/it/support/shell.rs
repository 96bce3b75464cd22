//! Another connection to the ledger, as a person's shell would open one: the same words for both engines.

use std::path::Path;

use payoutd::config::Ledger;
use rusqlite::types::Value;
use tokio::runtime::Handle;
use tokio::task::{JoinSet, block_in_place};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{Whole, database};

/// A row, every column as text; None for NULL.
pub(crate) type Row = Vec<Option<String>>;

/// Blocks, so it needs a runtime of several threads.
pub(crate) enum Shell {
    File(rusqlite::Connection),
    /// With what drives the connection.
    Server(Client, #[expect(dead_code, reason = "held for its task")] JoinSet<()>),
}

/// Keeps everybody else from writing for as long as it lives.
pub(crate) struct Hold(Shell);

impl Whole {
    pub(crate) fn shell(&self) -> Shell {
        Shell::of(&self.service.config.ledger)
    }

    /// Keeps the service from writing.
    pub(crate) fn hold(&self) -> Hold {
        let shell = self.shell();
        shell.execute(match &shell {
            Shell::File(_) => "BEGIN IMMEDIATE",
            Shell::Server(..) => {
                "BEGIN; LOCK TABLE payout, event, notice, intake, spend IN EXCLUSIVE MODE"
            }
        });
        Hold(shell)
    }
}

impl Shell {
    pub(crate) fn of(ledger: &Ledger) -> Self {
        match ledger {
            Ledger::Embedded { path, .. } => Self::file(path),
            Ledger::Shared(shared) => {
                let (client, driver) = wait(database::connect(&shared.database));
                Self::Server(client, driver)
            }
        }
    }

    pub(crate) fn file(path: &Path) -> Self {
        Self::File(rusqlite::Connection::open(path).expect("the ledger's file"))
    }

    /// Does the statements of `sql`, and tells how many rows the last one changed.
    pub(crate) fn execute(&self, sql: &str) -> u64 {
        self.attempt(sql).unwrap_or_else(|error| panic!("{error}: {sql}"))
    }

    /// The same, and why it could not be done.
    pub(crate) fn attempt(&self, sql: &str) -> Result<u64, String> {
        match self {
            Self::File(file) => {
                file.execute_batch(sql).map_err(|error| error.to_string())?;
                Ok(file.changes())
            }
            Self::Server(client, _) => {
                let told = wait(client.simple_query(sql)).map_err(|error| format!("{error:?}"))?;
                let changed = told.iter().rev().find_map(|message| {
                    let SimpleQueryMessage::CommandComplete(rows) = message else { return None };
                    Some(*rows)
                });
                Ok(changed.unwrap_or_default())
            }
        }
    }

    pub(crate) fn rows(&self, sql: &str) -> Vec<Row> {
        match self {
            Self::File(file) => {
                let mut select = file.prepare(sql).expect(sql);
                let width = select.column_count();
                let row = |row: &rusqlite::Row<'_>| (0..width).map(|at| row.get(at)).collect();
                let rows = select.query_map([], row).expect(sql);
                let rows: Vec<Vec<Value>> = rows.collect::<Result<_, _>>().expect(sql);
                rows.into_iter().map(|row| row.into_iter().map(text).collect()).collect()
            }
            Self::Server(client, _) => {
                let told = wait(client.simple_query(sql)).expect(sql);
                let rows = told.iter().filter_map(|message| {
                    let SimpleQueryMessage::Row(row) = message else { return None };
                    Some(row)
                });
                rows.map(|row| (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
                    .collect()
            }
        }
    }

    /// The one number that `sql` asks for.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql);
        let number = rows.first().and_then(|row| row[0].as_ref()).expect(sql);
        number.parse().expect("a number")
    }

    /// What a payout's row says of a lease that never ends, beside what is the same in both engines: more
    /// columns and their values.
    pub(crate) fn lease(&self) -> (&'static str, &'static str) {
        match self {
            Self::File(_) => ("", ""),
            Self::Server(..) => {
                (", owner, attempt, lease_until", ", 'test', 'test', 9000000000000000")
            }
        }
    }

    /// Leaves the send of `id` as a process does that dies between record and answer, and tells what the
    /// next one says of it.
    pub(crate) fn orphan(&self, id: &str) -> &'static str {
        // Another process may still be at it for as long as its lease lasts.
        let (lease, reason) = match self {
            Self::File(_) => ("", "CRASH"),
            Self::Server(..) => (", lease_until = 1", "LEASE_EXPIRED"),
        };
        let orphan = format!(
            "UPDATE payout SET state = 'SENDING', cid = NULL{lease} WHERE third_party_id = '{id}'"
        );
        assert_eq!(self.execute(&orphan), 1);
        reason
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.execute("ROLLBACK");
    }
}

/// A decimal number without the zeros that one engine leaves at its end.
pub(crate) fn plain(total: &str) -> String {
    if !total.contains('.') {
        return total.to_owned();
    }
    total.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn wait<T>(answer: impl Future<Output = T>) -> T {
    block_in_place(|| Handle::current().block_on(answer))
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Integer(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Text(text) => Some(text),
        Value::Blob(bytes) => Some(hex::encode(bytes)),
    }
}
