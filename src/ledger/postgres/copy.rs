//! The database as the target of a copy: filled in one transaction, and read again.

use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, IsolationLevel, RowStream, Transaction};

use super::connection::{self, Connector};
use super::schema::{bring_up, driven};
use crate::config::Shared;
use crate::ledger::copy::CopyError;
use crate::ledger::rows::{Kind, Row, TABLES, Table, Value};
use crate::ledger::witness::{Mark, Standing};
use crate::ledger::{OpenError, sqlite};

/// So many bytes are handed over at once.
const CHUNK: usize = 256 * 1024;
/// What only this engine keeps of a payout, and what it is where nobody sends.
const OWN: (&str, &[u8]) = (", owner, attempt, lease_until", b"\t\t\t0");

/// Connections of replicas that have stopped are gone so soon.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often they are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a database says about the copy of a file into it.
pub(in crate::ledger) struct Begun {
    /// The file, as it was when the copy began.
    pub(in crate::ledger) from: Standing,
    /// What finishes it; None where it has ended.
    pub(in crate::ledger) command: Option<String>,
}

/// A database in a transaction.
pub(in crate::ledger) struct Database<'a>(Transaction<'a>);

/// Makes the tables where there are none.
///
/// # Errors
/// As where a service starts on it.
pub(in crate::ledger) async fn prepare(settings: &Shared) -> Result<(), OpenError> {
    bring_up(&Connector::new(settings)?.patient()).await?;
    Ok(())
}

/// Does `work` over a connection that may take its time.
///
/// # Errors
/// Where there is none, and those of `work`.
pub(in crate::ledger) async fn connected<T>(
    settings: &Shared,
    work: impl AsyncFnOnce(&mut Client) -> Result<T, CopyError>,
) -> Result<T, CopyError> {
    let connector = Connector::new(settings)?.patient();
    let connected = connector.connect().await;
    let (mut client, driver) = connected.map_err(OpenError::from_postgres)?;
    driven(driver, work(&mut client)).await
}

/// Has no replica connect for as long as this connection lives.
///
/// # Errors
/// [`CopyError::InUse`] where one is connected.
pub(in crate::ledger) async fn enter_alone(client: &Client) -> Result<(), CopyError> {
    let entered = async {
        // One that has just stopped may still be there.
        while !connection::enter_alone(client).await? {
            sleep(LOOK_AGAIN).await;
        }
        Ok::<_, CopyError>(())
    };
    timeout(PATIENCE, entered).await.unwrap_or(Err(CopyError::InUse))
}

impl<'a> Database<'a> {
    /// Begins a transaction beside which nobody else can write.
    pub(in crate::ledger) async fn take(client: &'a mut Client) -> Result<Self, CopyError> {
        let tx = client.transaction().await?;
        // Else it would be refused at the end, by the sequences.
        let owner =
            "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'payout'::regclass";
        if !tx.query_one(owner, &[]).await?.try_get::<_, bool>(0)? {
            return Err(CopyError::NotOwner);
        }
        let names = TABLES.map(|table| table.name).join(", ");
        tx.batch_execute(&format!("LOCK TABLE {names} IN EXCLUSIVE MODE")).await?;
        Ok(Self(tx))
    }

    /// Begins a transaction that sees one moment and changes nothing.
    pub(in crate::ledger) async fn look(
        client: &'a mut Client,
    ) -> Result<Self, tokio_postgres::Error> {
        let moment = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        Ok(Self(moment.read_only(true).start().await?))
    }

    /// The first table that has any rows.
    pub(in crate::ledger) async fn first_rows(
        &self,
    ) -> Result<Option<&'static str>, tokio_postgres::Error> {
        for Table { name, .. } in &TABLES {
            let select = format!("SELECT EXISTS (SELECT FROM {name})");
            if self.0.query_one(&select, &[]).await?.try_get(0)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// The last copy into it, whether it has ended or not.
    pub(in crate::ledger) async fn begun(&self) -> Result<Option<Begun>, tokio_postgres::Error> {
        let select = "SELECT copy_of, copy_commits, copy_command FROM ledger";
        let row = self.0.query_one(select, &[]).await?;
        let (of, commits): (Option<String>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let Some((ledger, number)) = of.zip(commits) else { return Ok(None) };
        let from = Standing { ledger, reached: Mark { number, time: 0 } };
        Ok(Some(Begun { from, command: row.try_get(2)? }))
    }

    /// Says that a copy of the ledger that stands as `from` has begun, which `command` finishes.
    pub(in crate::ledger) async fn begin(
        &self,
        from: &Standing,
        command: &str,
    ) -> Result<(), tokio_postgres::Error> {
        let begin = "UPDATE ledger SET copy_of = $1, copy_commits = $2, copy_command = $3";
        self.0.execute(begin, &[&from.ledger, &from.reached.number, &command]).await?;
        Ok(())
    }

    /// Puts the rows that `next` gives into `table`.
    pub(in crate::ledger) async fn fill(
        &self,
        table: &Table,
        mut next: impl FnMut() -> Result<Option<Row>, sqlite::Error>,
    ) -> Result<(), CopyError> {
        let (own, own_values) = if table.name == "payout" { OWN } else { ("", &b""[..]) };
        let copy = format!("COPY {} ({}{own}) FROM STDIN", table.name, table.names());
        let mut sink = pin!(self.0.copy_in::<_, Bytes>(&copy).await?);
        let mut buffer = BytesMut::new();
        while let Some(row) = next()? {
            encode(&row, &mut buffer);
            buffer.put_slice(own_values);
            buffer.put_u8(b'\n');
            if buffer.len() >= CHUNK {
                sink.send(buffer.split().freeze()).await?;
            }
        }
        sink.send(buffer.freeze()).await?;
        sink.finish().await?;
        Ok(())
    }

    /// Has new rows come after those that were put in, the planner know of them, and services start on them.
    pub(in crate::ledger) async fn finish(&self) -> Result<(), tokio_postgres::Error> {
        for name in ["payout", "notice", "intake"] {
            let set = format!(
                "SELECT setval(pg_get_serial_sequence('{name}', 'id'), max(id)) FROM {name}"
            );
            self.0.query_one(&set, &[]).await?;
        }
        let names = TABLES.map(|table| table.name).join(", ");
        let end = format!("UPDATE ledger SET copy_command = NULL; ANALYZE {names}");
        self.0.batch_execute(&end).await
    }

    /// All rows of `table`, in the order of its key as SQLite sees it.
    pub(in crate::ledger) async fn rows(
        &self,
        table: &Table,
    ) -> Result<RowStream, tokio_postgres::Error> {
        let column = |(name, kind): &(&str, Kind)| match kind {
            Kind::Integer => format!("{name}::bigint"),
            Kind::Flag => format!("{name}::int::bigint"),
            Kind::Text | Kind::Bytes => (*name).to_owned(),
            Kind::Total => format!("trim_scale({name})::text"),
        };
        let key = |(name, kind): &(&str, Kind)| match kind {
            Kind::Text => format!("{name} COLLATE \"C\""),
            Kind::Integer | Kind::Flag | Kind::Bytes | Kind::Total => (*name).to_owned(),
        };
        let columns: Vec<_> = table.columns.iter().map(column).collect();
        let key: Vec<_> = table.key().iter().map(key).collect();
        let (columns, key) = (columns.join(", "), key.join(", "));
        let select = format!("SELECT {columns} FROM {} ORDER BY {key}", table.name);
        self.0.query_raw(&select, std::iter::empty::<&str>()).await
    }

    pub(in crate::ledger) async fn commit(self) -> Result<(), tokio_postgres::Error> {
        self.0.commit().await
    }
}

/// A row that [`Database::rows`] has found.
pub(in crate::ledger) fn read(
    table: &Table,
    row: &tokio_postgres::Row,
) -> Result<Row, tokio_postgres::Error> {
    let column = |(number, (_, kind)): (usize, &(&str, Kind))| {
        let value = match kind {
            Kind::Integer | Kind::Flag => {
                row.try_get::<_, Option<i64>>(number)?.map(Value::Integer)
            }
            Kind::Text | Kind::Total => row.try_get::<_, Option<String>>(number)?.map(Value::Text),
            Kind::Bytes => row.try_get::<_, Option<Vec<u8>>>(number)?.map(Value::Bytes),
        };
        Ok(value.unwrap_or(Value::Null))
    };
    table.columns.iter().enumerate().map(column).collect()
}

/// A row in the text format of COPY, without its end.
fn encode(row: &Row, buffer: &mut BytesMut) {
    for (number, value) in row.iter().enumerate() {
        if number > 0 {
            buffer.put_u8(b'\t');
        }
        match value {
            Value::Null => buffer.put_slice(b"\\N"),
            Value::Integer(value) => buffer.put_slice(value.to_string().as_bytes()),
            Value::Bytes(value) => {
                buffer.put_slice(b"\\\\x");
                buffer.put_slice(hex::encode(value).as_bytes());
            }
            Value::Text(value) => {
                for byte in value.bytes() {
                    match byte {
                        b'\\' => buffer.put_slice(b"\\\\"),
                        b'\t' => buffer.put_slice(b"\\t"),
                        b'\n' => buffer.put_slice(b"\\n"),
                        b'\r' => buffer.put_slice(b"\\r"),
                        byte => buffer.put_u8(byte),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copy_takes_for_signs_is_escaped() {
        let row = vec![
            Value::Null,
            Value::Integer(-1),
            Value::Text("a\tb\\N\nc\r\u{e9}".to_owned()),
            Value::Text(String::new()),
            Value::Bytes(vec![0, 255]),
        ];
        let mut buffer = BytesMut::new();
        encode(&row, &mut buffer);
        assert_eq!(&buffer[..], "\\N\t-1\ta\\tb\\\\N\\nc\\r\u{e9}\t\t\\\\x00ff".as_bytes());
    }
}
