//! The environment's part of the settings: `PAYOUTD_` and the path, with `__` between its levels.

use toml::{Table, Value};

use super::reader::Mistakes;

const PREFIX: &str = "PAYOUTD_";

/// Puts every variable that is ours over what the file said.
pub(super) fn overlay(
    root: &mut Table,
    variables: impl IntoIterator<Item = (String, String)>,
    mistakes: &mut Mistakes,
) {
    for (variable, value) in variables {
        let Some(path) = variable.strip_prefix(PREFIX) else { continue };
        if let Err(what) = put(root, &path.to_ascii_lowercase(), value) {
            mistakes.add(variable, what);
        }
    }
}

fn put(root: &mut Table, path: &str, value: String) -> Result<(), &'static str> {
    let (section, rest) = path.split_once("__").ok_or("unknown setting")?;
    let mut table = match section {
        "caller" => return Err("callers stand in the file"),
        "project" => the_only(root, section)?,
        _ => inner(root, section),
    };
    let (tables, name) = rest.rsplit_once("__").map_or((None, rest), |(t, n)| (Some(t), n));
    for level in tables.into_iter().flat_map(|tables| tables.split("__")) {
        table = table.and_then(|table| inner(table, level));
    }
    // What is no table is reported where the section is read.
    if let Some(table) = table {
        table.insert(name.to_owned(), Value::String(value));
    }
    Ok(())
}

fn inner<'a>(table: &'a mut Table, name: &str) -> Option<&'a mut Table> {
    table.entry(name).or_insert_with(|| Value::Table(Table::new())).as_table_mut()
}

/// The one table of the list `name`, which the environment can speak about only where it is alone.
fn the_only<'a>(root: &'a mut Table, name: &str) -> Result<Option<&'a mut Table>, &'static str> {
    let list = root.entry(name).or_insert_with(|| Value::Array(vec![]));
    let Value::Array(list) = list else {
        return Err("needs [[project]] in the file, or none");
    };
    if list.is_empty() {
        list.push(Value::Table(Table::new()));
    }
    match list.as_mut_slice() {
        [one] => Ok(one.as_table_mut()),
        _ => Err("is ambiguous: the file has several projects"),
    }
}
