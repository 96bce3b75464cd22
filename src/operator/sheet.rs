//! Payouts on standard output. JSON and CSV go out page by page, however many there are; a table
//! waits for its widest row.

use std::io::{self, BufWriter, Stdout, Write};
use std::time::SystemTime;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::args::Output;
use super::record::{COLUMNS, FIELDS, Record, columns, fields, plain};
use crate::pb;

/// A list of payouts that is being printed.
pub(super) enum Sheet<W: Write> {
    /// For people.
    Table { out: W, table: Box<Table>, now: SystemTime },
    /// One JSON array.
    Json { out: W, rows: u64 },
    /// A head and rows.
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Sheet<W> {
    pub(super) fn begin(output: Output, mut out: W, now: SystemTime) -> io::Result<Self> {
        Ok(match output {
            Output::Table => Self::Table { out, table: Box::new(table(&COLUMNS)), now },
            Output::Json => {
                write!(out, "[")?;
                Self::Json { out, rows: 0 }
            }
            Output::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(FIELDS)?;
                Self::Csv(Box::new(csv))
            }
        })
    }

    pub(super) fn add(&mut self, payout: &pb::Payout) -> io::Result<()> {
        match self {
            Self::Table { table, now, .. } => {
                table.add_row(columns(payout, *now));
            }
            Self::Json { out, rows } => {
                write!(out, "{}", if *rows == 0 { "\n  " } else { ",\n  " })?;
                serde_json::to_writer(&mut *out, &Record::from(payout))?;
                *rows += 1;
            }
            Self::Csv(csv) => csv.write_record(fields(payout).map(for_spreadsheets))?,
        }
        Ok(())
    }

    /// Ends it; `is_cut` tells that there is more than the limit allowed.
    pub(super) fn end(self, is_cut: bool) -> io::Result<()> {
        match self {
            Self::Table { mut out, table, .. } => {
                let count = table.row_count();
                if count > 0 {
                    writeln!(out, "{}", table.trim_fmt())?;
                }
                let more = if is_cut { "; there are more than --limit" } else { "" };
                writeln!(out, "{}{more}", counted(count))?;
                out.flush()
            }
            Self::Json { mut out, rows } => {
                writeln!(out, "{}]", if rows == 0 { "" } else { "\n" })?;
                out.flush()
            }
            Self::Csv(mut csv) => csv.flush(),
        }
    }
}

/// Standard output, written in large pieces.
pub(super) fn stdout() -> BufWriter<Stdout> {
    BufWriter::new(io::stdout())
}

/// Prints one payout whole. People are told its age and what to do next, too.
pub(super) fn show(
    output: Output,
    payout: &pb::Payout,
    notes: &[(&str, String)],
) -> io::Result<()> {
    let mut out = stdout();
    match output {
        Output::Table => {
            let texts = FIELDS.into_iter().zip(fields(payout));
            let notes = notes.iter().map(|(name, text)| (*name, text.clone()));
            for (name, text) in texts.chain(notes) {
                let text = if text.is_empty() { "-".to_owned() } else { plain(&text) };
                writeln!(out, "{name:<16}{text}")?;
            }
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &Record::from(payout))?;
            writeln!(out)?;
        }
        Output::Csv => {
            let mut sheet = Sheet::begin(output, out, SystemTime::UNIX_EPOCH)?;
            sheet.add(payout)?;
            return sheet.end(false);
        }
    }
    out.flush()
}

/// A table without lines, so that it can be searched and cut, with `head` on top.
pub(super) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.to_vec());
    for (column, name) in table.column_iter_mut().zip(head) {
        column.set_padding((0, 2));
        if matches!(*name, "AGE" | "CID" | "AMOUNT") {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

pub(super) fn counted(count: usize) -> String {
    if count == 1 { "1 payout".to_owned() } else { format!("{count} payouts") }
}

/// A callers' text that a spreadsheet would take for a formula gets an apostrophe in front.
pub(super) fn for_spreadsheets(text: String) -> String {
    match text.as_bytes().first() {
        Some(b'=' | b'+' | b'@' | b'\t' | b'\r') => format!("'{text}"),
        // A payout's id may begin with a dash; only what goes on like a formula is one.
        Some(b'-') if text.contains(['(', '|', '!', '+', '*', '/', ' ']) => format!("'{text}"),
        Some(_) | None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_a_spreadsheet_would_run_is_defused_and_others_are_left_alone() {
        for (text, written) in [
            ("=HYPERLINK(\"http://x\")", "'=HYPERLINK(\"http://x\")"),
            ("+1", "'+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-2+3|x", "'-2+3|x"),
            ("-a_b-1", "-a_b-1"),
            ("1.1", "1.1"),
            ("", ""),
        ] {
            assert_eq!(for_spreadsheets(text.to_owned()), written);
        }
    }
}
