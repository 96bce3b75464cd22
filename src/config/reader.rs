//! Reads typed settings out of a TOML table and keeps every mistake instead of stopping at the first.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, StatVfsMountFlags};
use toml::{Table, Value};

/// Everything that is wrong with the settings. No entry ever holds a value, since a value in the
/// wrong place may be a secret.
#[derive(Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>, pub(super) Warnings);

/// What a person should know about settings that are taken all the same.
pub(super) type Warnings = Vec<String>;

impl Mistakes {
    /// Notes what is wrong at `place`.
    pub fn add(&mut self, place: impl Display, what: impl Display) {
        self.0.push(format!("{place}: {what}"));
    }
}

/// Every setting that is a secret and may stand in the settings themselves.
const SECRETS: [&str; 3] = ["api_key", "api_key_previous", "password"];
/// The most bytes of a file with a secret.
const SMALL: u64 = 64 * 1024;

/// The settings of one table. What nobody has taken by the end is an unknown setting.
pub(super) struct Section<'a> {
    table: Table,
    path: String,
    mistakes: &'a mut Mistakes,
}

/// The tables of the list `[[name]]` at `path`, each with its own path.
pub(super) fn tables(
    value: Option<Value>,
    path: &str,
    name: &str,
    mistakes: &mut Mistakes,
) -> Vec<(String, Table)> {
    let list = match value {
        None => return vec![],
        Some(Value::Array(list)) => list,
        Some(_) => {
            mistakes.add(path, format_args!("must be written [[{name}]]"));
            return vec![];
        }
    };
    let one = list.len() == 1;
    let mut tables = Vec::new();
    for (number, value) in list.into_iter().enumerate() {
        let path = if one { path.to_owned() } else { format!("{path}[{number}]") };
        let Value::Table(table) = value else {
            mistakes.add(path, "must be a table");
            continue;
        };
        tables.push((path, table));
    }
    tables
}

/// How a value of a kind is read, and what a person is told that it must be.
pub(super) type Parse<T> = fn(&Value) -> Result<T, &'static str>;

impl<'a> Section<'a> {
    pub(super) fn new(table: Table, path: impl Into<String>, mistakes: &'a mut Mistakes) -> Self {
        Self { table, path: path.into(), mistakes }
    }

    /// The setting `name`, or `default` where it is not given or wrong.
    pub(super) fn get<T>(&mut self, name: &str, default: T, parse: Parse<T>) -> T {
        self.optional(name, parse).unwrap_or(default)
    }

    /// The setting `name`; a mistake where it is not given.
    pub(super) fn require<T>(&mut self, name: &str, parse: Parse<T>) -> Option<T> {
        if !self.table.contains_key(name) {
            self.mistake(name, "is required");
        }
        self.optional(name, parse)
    }

    pub(super) fn optional<T>(&mut self, name: &str, parse: Parse<T>) -> Option<T> {
        match parse(&self.table.remove(name)?) {
            Ok(value) => Some(value),
            Err(must) => {
                self.mistake(name, format_args!("must be {must}"));
                None
            }
        }
    }

    /// The secret `name`, or the first line of the file that `name_file` names.
    pub(super) fn secret(&mut self, name: &str) -> Option<String> {
        let file = format!("{name}_file");
        if !self.table.contains_key(name) && !self.table.contains_key(&file) {
            self.mistake(&file, format_args!("is required (or {name})"));
        }
        self.optional_secret(name)
    }

    /// As [`Section::secret`], where there need not be one.
    pub(super) fn optional_secret(&mut self, name: &str) -> Option<String> {
        debug_assert!(SECRETS.contains(&name), "{name}");
        let file = format!("{name}_file");
        match (self.optional(name, text), self.optional(&file, text)) {
            (Some(secret), None) if !secret.is_empty() => {
                printable(&secret).map_err(|mistake| self.mistake(name, mistake)).ok()
            }
            (None, Some(path)) => self.secret_file(&file, &path),
            (Some(_), Some(_)) => {
                self.mistake(name, format_args!("must not be given beside {file}"));
                None
            }
            (Some(_), None) => {
                self.mistake(name, "must not be empty");
                None
            }
            (None, None) => None,
        }
    }

    /// The text at `name`, which is left to be taken.
    pub(super) fn peek(&self, name: &str) -> Option<&str> {
        self.table.get(name)?.as_str()
    }

    fn secret_file(&mut self, name: &str, path: &str) -> Option<String> {
        let path = Path::new(path);
        match secret_in(path) {
            Ok(secret) => {
                self.warn_if_open(name, path);
                Some(secret)
            }
            Err(mistake) => {
                self.mistake(name, mistake);
                None
            }
        }
    }

    /// Warns of a file with a secret that everybody can read, and that is taken since nobody can change that.
    pub(super) fn warn_if_open(&mut self, name: &str, path: &Path) {
        let open = File::open(path).and_then(|file| is_open(&file));
        if open.is_ok_and(|open| open) {
            let warning = format!(
                "{}.{name}: the file is readable by everybody, on a file system where that cannot be changed",
                self.path
            );
            self.mistakes.1.push(warning);
        }
    }

    /// The table `name` inside this one, if it is given.
    pub(super) fn table(&mut self, name: &str) -> Option<Section<'_>> {
        let table = self.optional(name, |value| value.as_table().cloned().ok_or("a table"))?;
        Some(Section::new(table, format!("{}.{name}", self.path), self.mistakes))
    }

    pub(super) fn mistake(&mut self, name: &str, what: impl Display) {
        self.mistakes.add(format_args!("{}.{name}", self.path), what);
    }

    /// Reports what is left as unknown.
    pub(super) fn end(self) {
        for name in self.table.keys() {
            self.mistakes.add(format_args!("{}.{name}", self.path), "unknown setting");
        }
    }
}

/// The text of a file that holds a secret: a small ordinary file, which nobody but its owner and its group may touch,
/// unless it lies on a file system where nobody can change that.
///
/// # Errors
/// What is wrong, for a person; never the text.
pub(crate) fn private_file(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("the file cannot be read: {}", error.kind());
    // What is no file could keep us waiting for ever.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is no ordinary file".to_owned());
    }
    if metadata.len() > SMALL {
        return Err("the file is larger than 64 KiB".to_owned());
    }
    if is_open(&file).map_err(unreadable)? && !is_fixed(&file).map_err(unreadable)? {
        return Err("the file is readable by everybody: chmod o= it".to_owned());
    }
    let mut text = String::new();
    file.take(SMALL).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Whether others than its owner and its group may touch the file.
fn is_open(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.mode() & 0o007 != 0)
}

/// Whether it lies on a file system that is mounted for reading only.
fn is_fixed(file: &File) -> io::Result<bool> {
    Ok(rustix::fs::fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Reads the settings file; a secret in one that everybody can read is a mistake, as it is in a file of its own.
pub(super) fn settings_file(path: &Path, mistakes: &mut Mistakes) -> Table {
    let read = || -> io::Result<(String, bool, bool)> {
        let mut file = File::open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok((text, is_open(&file)?, is_fixed(&file)?))
    };
    let (text, open, fixed) = match read() {
        Ok(read) => read,
        Err(error) => {
            mistakes.add(path.display(), format_args!("cannot be read: {}", error.kind()));
            return Table::new();
        }
    };
    let table: Table = text.parse().unwrap_or_else(|error: toml::de::Error| {
        // The error's own Display quotes the line, which may hold a secret.
        let before = error.span().map_or(0, |span| span.start);
        let line = text.get(..before).unwrap_or_default().lines().count().max(1);
        mistakes.add(path.display(), format_args!("line {line}: not TOML"));
        Table::new()
    });
    for place in secrets(&table).into_iter().filter(|_| open) {
        let what = "the settings file is readable by everybody";
        if fixed {
            let fixed = "on a file system where that cannot be changed";
            mistakes.1.push(format!("{place}: {what}, {fixed}"));
        } else {
            mistakes.add(place, format_args!("{what}: chmod o= it"));
        }
    }
    table
}

/// Where secrets stand in a table.
fn secrets(table: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in table {
        let inside = |table, place: &str| {
            secrets(table)
                .into_iter()
                .map(move |inner| format!("{place}.{inner}"))
                .collect::<Vec<_>>()
        };
        match value {
            Value::Table(table) => found.extend(inside(table, name)),
            Value::Array(list) => {
                let one = list.len() == 1;
                for (number, table) in list.iter().enumerate() {
                    let place = if one { name.clone() } else { format!("{name}[{number}]") };
                    found.extend(
                        table.as_table().into_iter().flat_map(|table| inside(table, &place)),
                    );
                }
            }
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => {
                found.extend(SECRETS.contains(&name.as_str()).then(|| name.clone()));
            }
        }
    }
    found
}

/// A secret is typed or pasted: what cannot be seen in it is a mistake.
fn printable(secret: &str) -> Result<String, String> {
    if secret.chars().any(char::is_control) {
        return Err("must not hold control characters".to_owned());
    }
    Ok(secret.to_owned())
}

/// The secret in a file: its first line.
///
/// # Errors
/// What is wrong with the file; never what is in it.
pub(crate) fn secret_in(path: &Path) -> Result<String, String> {
    match private_file(path)?.lines().next().map(str::trim) {
        Some(secret) if !secret.is_empty() => printable(secret),
        Some(_) | None => Err("the file is empty".to_owned()),
    }
}

pub(super) fn text(value: &Value) -> Result<String, &'static str> {
    match value.as_str() {
        Some(text) if text.contains('\0') => Err("a text without NUL"),
        Some(text) => Ok(text.to_owned()),
        None => Err("a text"),
    }
}

/// The environment has only texts, so a text that reads as the kind is taken, too.
pub(super) fn boolean(value: &Value) -> Result<bool, &'static str> {
    let read = value.as_bool().or_else(|| value.as_str()?.parse().ok());
    read.ok_or("true or false")
}

/// Bytes, written as "256MiB": whole KiB, MiB, GiB or TiB, or a plain number of bytes.
pub(super) fn size(value: &Value) -> Result<u64, &'static str> {
    const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let must = "a size such as 256MiB";
    let text = value.as_integer().map_or_else(|| text(value), |bytes| Ok(bytes.to_string()));
    let text = text.map_err(|_| must)?;
    let split = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = split.unwrap_or((&text, 0));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(must);
    }
    let count: u64 = digits.parse().map_err(|_| must)?;
    count.checked_mul(1 << shift).ok_or(must)
}

pub(super) fn integer(value: &Value) -> Option<i64> {
    value.as_integer().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_whole_bytes_or_binary_units() {
        let read = |text: &str| size(&Value::String(text.to_owned()));
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("1KiB", 1 << 10), ("256MiB", 256 << 20), ("2TiB", 2 << 40)]
        {
            assert_eq!(read(text), Ok(bytes), "{text}");
        }
        assert_eq!(size(&Value::Integer(7)), Ok(7));
        for bad in ["", "MiB", "1MB", "1 MiB", "1mib", "-1", "+1", "1.5GiB", "99999999TiB"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(size(&Value::Integer(-1)).is_err() && size(&Value::Boolean(true)).is_err());
    }
}
