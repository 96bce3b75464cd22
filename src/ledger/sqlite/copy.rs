//! The file as the source of a copy: read whole, and retired when its payouts have gone elsewhere.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags, Rows, Statement, params};

use super::file::Lock;
use super::{
    APPLICATION, BUSY, Error, RETIRED, Retirement, SCHEMA, count, damaged, micros, retirement,
    standing,
};
use crate::amount::Total;
use crate::ledger::OpenError;
use crate::ledger::rows::{Kind, Row, Table, Value};
use crate::ledger::witness::{Standing, Witness};

/// A ledger's file that nobody else has open, as it is at one moment.
pub(in crate::ledger) struct Source {
    /// In a transaction, to the end.
    db: Connection,
    /// Where its payouts have gone.
    retired: Option<Retirement>,
    /// What was acknowledged from it; none where it is only read.
    witness: Option<Witness>,
    /// The last field: closed after the connection.
    lock: Lock,
}

impl Source {
    /// Opens the file at `path` so that nobody else can write to it, not even a person's shell.
    ///
    /// # Errors
    /// Where it is in use, not there, not of this schema, or has gone to another place than `target`.
    pub(in crate::ledger) fn to_retire(
        path: &Path,
        witness: Option<&Path>,
        target: &str,
    ) -> Result<Self, OpenError> {
        let lock = Self::claim(path)?;
        super::check_closed(lock.path(), witness)?;
        let mut source = Self::open(lock, OpenFlags::SQLITE_OPEN_READ_WRITE, "BEGIN IMMEDIATE")?;
        let found = standing(&source.db)?;
        source.witness = Some(super::witness(source.lock.path(), witness, &found)?);
        match source.retired {
            Some(to) if to.target != target => Err(to.into()),
            Some(_) | None => Ok(source),
        }
    }

    /// Opens the file at `path` to look at it.
    ///
    /// # Errors
    /// Where it is in use, not there, or not of this schema.
    pub(in crate::ledger) fn to_read(path: &Path) -> Result<Self, OpenError> {
        Self::open(Self::claim(path)?, OpenFlags::SQLITE_OPEN_READ_ONLY, "BEGIN")
    }

    fn claim(path: &Path) -> Result<Lock, OpenError> {
        // The lock would make a file where there is none.
        if path.is_file() {
            Lock::claim(path)
        } else {
            Err(OpenError::Io(io::ErrorKind::NotFound.into()))
        }
    }

    fn open(lock: Lock, flags: OpenFlags, begin: &str) -> Result<Self, OpenError> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(lock.path(), flags)?;
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "synchronous", "full")?;
        db.execute_batch(begin)?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let application: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        if version > SCHEMA {
            return Err(OpenError::Newer { found: version, known: SCHEMA });
        }
        let retired = match application {
            APPLICATION if version < SCHEMA => {
                return Err(OpenError::Older { found: version, wanted: SCHEMA });
            }
            APPLICATION => None,
            RETIRED => Some(retirement(&db)?),
            _ => return Err(OpenError::Foreign),
        };
        Ok(Self { db, retired, witness: None, lock })
    }

    pub(in crate::ledger) fn is_retired(&self) -> bool {
        self.retired.is_some()
    }

    /// Which ledger it is, and how far it has come.
    pub(in crate::ledger) fn standing(&self) -> Result<Standing, Error> {
        standing(&self.db)
    }

    /// How many payouts a dead process has left as SENDING.
    pub(in crate::ledger) fn sends_under_way(&self) -> Result<i64, Error> {
        let select = "SELECT count(*) FROM payout WHERE state = 'SENDING'";
        self.db.query_row(select, [], |row| row.get(0))
    }

    /// All rows of `table`, in the order of its key.
    pub(in crate::ledger) fn select(&self, table: &Table) -> Result<Statement<'_>, Error> {
        let key: Vec<_> = table.key().iter().map(|(name, _)| *name).collect();
        let (names, name, key) = (table.names(), table.name, key.join(", "));
        self.db.prepare(&format!("SELECT {names} FROM {name} ORDER BY {key}"))
    }

    /// Sees to it that no payoutd opens the file again, of whatever version: its payouts are at `target`, once
    /// `command` has ended.
    pub(in crate::ledger) fn retire(&self, target: &str, command: &str) -> Result<(), Error> {
        if self.is_retired() {
            return Ok(());
        }
        self.db.execute_batch(
            "CREATE TABLE IF NOT EXISTS retired (target TEXT NOT NULL, time INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS unfinished (command TEXT NOT NULL) STRICT;
             DELETE FROM unfinished",
        )?;
        let insert = "INSERT INTO retired (target, time) VALUES (?1, ?2)";
        self.db.execute(insert, params![target, micros(SystemTime::now())])?;
        self.db.execute("INSERT INTO unfinished (command) VALUES (?1)", [command])?;
        self.db.pragma_update(None, "application_id", RETIRED)?;
        // A copy of the file from before this one is behind what its witness knows from now on.
        let witness = self.witness.as_ref();
        let now = SystemTime::now();
        let mark = witness.map(|witness| count(&self.db, witness, now)).transpose()?;
        self.db.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
        witness.zip(mark).into_iter().for_each(|(witness, mark)| witness.saw(mark));
        Ok(())
    }

    /// Says in the retired file that its payouts have arrived.
    pub(in crate::ledger) fn finish(&self) -> Result<(), Error> {
        self.db.execute_batch("DROP TABLE IF EXISTS unfinished; COMMIT")
    }
}

/// The next row of `table`; None at the end.
pub(in crate::ledger) fn next(table: &Table, rows: &mut Rows<'_>) -> Result<Option<Row>, Error> {
    let Some(row) = rows.next()? else { return Ok(None) };
    let column = |(number, (name, kind)): (usize, &(&str, Kind))| {
        let value = match kind {
            Kind::Integer | Kind::Flag => row.get::<_, Option<i64>>(number)?.map(Value::Integer),
            Kind::Text => row.get::<_, Option<String>>(number)?.map(Value::Text),
            Kind::Bytes => row.get::<_, Option<Vec<u8>>>(number)?.map(Value::Bytes),
            Kind::Total => {
                let text: String = row.get(number)?;
                let total = Total::parse(&text).ok_or_else(|| damaged(name))?;
                Some(Value::Text(total.to_string()))
            }
        };
        Ok(value.unwrap_or(Value::Null))
    };
    table.columns.iter().enumerate().map(column).collect::<Result<_, Error>>().map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ledger::rows::TABLES;

    /// But for what says which ledger it is: the copy is another.
    #[test]
    fn every_column_of_every_table_is_copied() {
        let db = Connection::open_in_memory().expect("opened");
        db.execute_batch(include_str!("../schema.sql")).expect("made");
        let mut select = db
            .prepare(
                "SELECT s.name, c.name FROM sqlite_schema s, pragma_table_info(s.name) c
                 WHERE s.type = 'table' AND s.name NOT IN ('probe', 'ledger')",
            )
            .expect("SQL");
        let kept: BTreeSet<(String, String)> = select
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .expect("columns");
        let column = |table: &Table| {
            let names = table.columns.iter().map(|(name, _)| (*name).to_owned());
            names.map(|column| (table.name.to_owned(), column)).collect::<Vec<_>>()
        };
        let copied: BTreeSet<_> = TABLES.iter().flat_map(column).collect();
        assert_eq!(copied, kept);
    }
}
