//! The rows that both engines keep, named once for whoever handles whole tables. What only PostgreSQL
//! has, such as leases, is not among them: it means nothing once nobody sends.

/// One row: its columns in the order of [`Table::columns`].
pub(super) type Row = Vec<Value>;

/// What stands in a column, told the same by both engines. The order of variants is of no meaning; within
/// one it is the order of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// How a column is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Integer,
    /// 0 or 1; a boolean in PostgreSQL.
    Flag,
    Text,
    Bytes,
    /// Canonical decimal text; a numeric in PostgreSQL.
    Total,
}

/// A table, and how its rows are told from each other.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Those of its key come first.
    pub(super) columns: &'static [(&'static str, Kind)],
    /// How many columns are its key.
    pub(super) key: usize,
}

/// All tables, each after those that it refers to.
pub(super) const TABLES: [Table; 5] = [
    PAYOUTS,
    Table { name: "event", columns: &EVENT, key: 2 },
    Table { name: "notice", columns: &NOTICE, key: 1 },
    Table { name: "intake", columns: &INTAKE, key: 1 },
    Table { name: "spend", columns: &SPEND, key: 3 },
];

pub(super) const PAYOUTS: Table = Table { name: "payout", columns: &PAYOUT, key: 1 };

const PAYOUT: [(&str, Kind); 29] = [
    ("id", Kind::Integer),
    ("pid", Kind::Integer),
    ("third_party_id", Kind::Text),
    ("currency", Kind::Text),
    ("address", Kind::Text),
    ("amount", Kind::Text),
    ("remark", Kind::Text),
    ("memo", Kind::Text),
    ("callback_url", Kind::Text),
    ("create_time", Kind::Integer),
    ("revision", Kind::Integer),
    ("update_time", Kind::Integer),
    ("state", Kind::Text),
    ("reason", Kind::Text),
    ("refusal_msg", Kind::Text),
    ("cid", Kind::Integer),
    ("cregis_status", Kind::Integer),
    ("txid", Kind::Text),
    ("block_height", Kind::Integer),
    ("block_time", Kind::Integer),
    ("attention", Kind::Text),
    ("earlier_doubt", Kind::Text),
    ("approved_cid", Kind::Integer),
    ("send_time", Kind::Integer),
    ("state_time", Kind::Integer),
    ("due", Kind::Integer),
    ("polls", Kind::Integer),
    ("caller", Kind::Text),
    ("sender", Kind::Text),
];

const EVENT: [(&str, Kind); 15] = [
    ("payout", Kind::Integer),
    ("revision", Kind::Integer),
    ("time", Kind::Integer),
    ("cause", Kind::Text),
    ("evidence", Kind::Text),
    ("state", Kind::Text),
    ("state_time", Kind::Integer),
    ("reason", Kind::Text),
    ("refusal_msg", Kind::Text),
    ("cid", Kind::Integer),
    ("cregis_status", Kind::Integer),
    ("txid", Kind::Text),
    ("block_height", Kind::Integer),
    ("block_time", Kind::Integer),
    ("attention", Kind::Text),
];

const NOTICE: [(&str, Kind); 10] = [
    ("id", Kind::Integer),
    ("digest", Kind::Bytes),
    ("pid", Kind::Integer),
    ("third_party_id", Kind::Text),
    ("cid", Kind::Integer),
    ("body", Kind::Text),
    ("time", Kind::Integer),
    ("payout", Kind::Integer),
    ("due", Kind::Integer),
    ("tries", Kind::Integer),
];

const INTAKE: [(&str, Kind); 5] = [
    ("id", Kind::Integer),
    ("pid", Kind::Integer),
    ("paused", Kind::Flag),
    ("note", Kind::Text),
    ("time", Kind::Integer),
];

const SPEND: [(&str, Kind); 4] = [
    ("caller", Kind::Text),
    ("currency", Kind::Text),
    ("day", Kind::Integer),
    ("total", Kind::Total),
];

impl Table {
    /// The columns of its key.
    pub(super) fn key(&self) -> &'static [(&'static str, Kind)] {
        self.columns.get(..self.key).unwrap_or_default()
    }

    /// The names of its columns, with commas in between.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// Where a row of the file and the row of the database in the same place differ; None where they do not.
    pub(super) fn difference(&self, file: Option<&Row>, database: Option<&Row>) -> Option<String> {
        let (row, what) = match (file, database) {
            (None, None) => return None,
            (Some(row), None) => (row, "is only in the file".to_owned()),
            (None, Some(row)) => (row, "is only in the database".to_owned()),
            (Some(file), Some(database)) if file == database => return None,
            (Some(file), Some(database)) => {
                let unequal = file.iter().zip(database).position(|(one, other)| one != other)?;
                if unequal >= self.key {
                    let (column, _) = self.columns.get(unequal)?;
                    (file, format!("{column} differs"))
                } else if file < database {
                    (file, "is only in the file".to_owned())
                } else {
                    (database, "is only in the database".to_owned())
                }
            }
        };
        let key = self.key().iter().zip(row);
        let key: Vec<_> = key.map(|((name, _), value)| format!("{name} {value}")).collect();
        Some(format!("{} with {}: {what}", self.name, key.join(", ")))
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Bytes(value) => f.write_str(&hex::encode(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake(id: i64, note: &str) -> Row {
        let (one, zero) = (Value::Integer(1), Value::Integer(0));
        vec![Value::Integer(id), one.clone(), zero, Value::Text(note.to_owned()), one]
    }

    #[test]
    fn the_first_difference_is_named_by_the_rows_key_and_never_by_what_stands_there() {
        let table = &TABLES[3];
        let (one, two, other) = (intake(1, "a"), intake(2, "a"), intake(1, "secret"));
        for (file, database, expected) in [
            (None, None, None),
            (Some(&one), Some(&one), None),
            (Some(&one), Some(&other), Some("intake with id 1: note differs")),
            (Some(&one), Some(&two), Some("intake with id 1: is only in the file")),
            (Some(&two), Some(&one), Some("intake with id 1: is only in the database")),
            (Some(&two), None, Some("intake with id 2: is only in the file")),
            (None, Some(&two), Some("intake with id 2: is only in the database")),
        ] {
            assert_eq!(table.difference(file, database).as_deref(), expected);
        }
    }
}
