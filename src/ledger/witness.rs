//! The witness: what remembers, outside of a ledger, how far the ledger had come when somebody was last
//! told something. A ledger that has not come so far is an old copy, and its callers' repeats would be
//! paid again.
//!
//! Its file is one record of fixed size, written over in place by one system call: a process that is
//! killed leaves the old one or the new one. It is not synced: after a power cut it may be older than
//! the ledger, which is no contradiction.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use super::OpenError;

/// The last moment that can be written with four digits for its year, in microseconds since 1970.
const YEAR_9999: u64 = 253_402_300_799_999_999;

/// How far a ledger has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Of its last commit (in PostgreSQL: event). It only grows; 0 before the first.
    pub number: i64,
    /// When that was, in microseconds since 1970.
    pub time: i64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = Duration::from_micros(self.time.unsigned_abs().min(YEAR_9999));
        let time = humantime::format_rfc3339_micros(UNIX_EPOCH + since);
        write!(f, "number {} of {time}", self.number)
    }
}

/// A ledger as its engine finds it.
#[derive(Debug)]
pub(super) struct Standing {
    /// Its random identity, 32 hexadecimal digits; a copy has the same.
    pub(super) ledger: String,
    /// How far it has come.
    pub(super) reached: Mark,
}

/// Remembers for one ledger, in this process and, where there is one, in a file.
#[derive(Debug)]
pub(super) struct Witness {
    ledger: String,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    mark: Mark,
    file: Option<File>,
    /// Whether the file could not be written the last time.
    failing: bool,
}

impl Witness {
    /// The witness of the ledger with the identity `ledger`, in the file at `path`, which is made where
    /// there is none; without a path it remembers for as long as it lives.
    ///
    /// # Errors
    /// The file cannot be used, is no witness, or is another ledger's.
    pub(super) fn open(path: Option<&Path>, ledger: &str) -> Result<Self, OpenError> {
        let (mut mark, mut file) = (Mark::default(), None);
        if let Some(path) = path {
            let (opened, text) = read(path).map_err(OpenError::Witness)?;
            // Empty: made, and never written.
            if !text.is_empty() {
                let (whose, acknowledged) = parse(&text).ok_or(OpenError::NoWitness)?;
                if whose != ledger {
                    return Err(OpenError::OtherLedger { acknowledged });
                }
                mark = acknowledged;
            }
            file = Some(opened);
        }
        let memory = Mutex::new(Memory { mark, file, failing: false });
        Ok(Self { ledger: ledger.to_owned(), memory })
    }

    /// The identity of its ledger.
    pub(super) fn ledger(&self) -> &str {
        &self.ledger
    }

    /// What it remembers; number 0 where that is nothing.
    pub(super) fn mark(&self) -> Mark {
        self.memory().mark
    }

    /// Compares a ledger with what was `acknowledged`, which is in it where it `holds` that; remembers
    /// how far it has come.
    ///
    /// # Errors
    /// It is another one, or has lost something. Nothing may be sent.
    pub(super) fn check(
        &self,
        Standing { ledger, reached }: &Standing,
        acknowledged: Mark,
        holds: bool,
    ) -> Result<(), OpenError> {
        if *ledger != self.ledger {
            return Err(OpenError::OtherLedger { acknowledged });
        }
        if !holds {
            return Err(OpenError::RolledBack { reached: *reached, acknowledged });
        }
        self.saw(*reached);
        Ok(())
    }

    /// Remembers that the ledger has come as far as `mark`. A file that cannot be written stops nobody:
    /// the witness falls behind, and not the ledger.
    pub(super) fn saw(&self, mark: Mark) {
        let mut memory = self.memory();
        if mark.number <= memory.mark.number {
            return;
        }
        memory.mark = mark;
        let Some(file) = &memory.file else { return };
        match file.write_all_at(record(&self.ledger, mark).as_bytes(), 0) {
            Ok(()) => memory.failing = false,
            Err(error) if !memory.failing => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "witness cannot be written: it falls behind");
                memory.failing = true;
            }
            Err(_) => {}
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file at `path`, made where there is none, and what is in it.
fn read(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let (file, mut text) = (options.open(path)?, Vec::new());
    // More is no witness of ours.
    (&file).take(1024).read_to_end(&mut text)?;
    Ok((file, text))
}

/// What the file holds, always as long: far less than a sector of a disk, so that it is never half written.
fn record(ledger: &str, mark: Mark) -> String {
    format!("payoutd witness {ledger} {:020} {:020}\n", mark.number, mark.time)
}

fn parse(text: &[u8]) -> Option<(String, Mark)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_whitespace().skip(2);
    let ledger = words.next()?;
    let mark = Mark { number: words.next()?.parse().ok()?, time: words.next()?.parse().ok()? };
    (record(ledger, mark) == text).then(|| (ledger.to_owned(), mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let mark = Mark { number: 7, time: 1_700_000_000_000_001 };
        let text = record(LEDGER, mark);
        assert_eq!(parse(text.as_bytes()), Some((LEDGER.to_owned(), mark)));
        assert_eq!(mark.to_string(), "number 7 of 2023-11-14T22:13:20.000001Z");
        let longest = record(LEDGER, Mark { number: i64::MAX, time: i64::MAX });
        assert_eq!(longest.len(), text.len());
        for cut in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..cut]), None, "{cut}");
        }
        assert_eq!(parse(format!("{text}{text}").as_bytes()), None);
        // Far beyond the years that have four digits, as a damaged ledger might say.
        assert!(Mark { number: 1, time: i64::MAX }.to_string().contains("9999-12-31"));
    }

    #[test]
    fn it_never_goes_back_and_outlives_its_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("witness");
        let witness = Witness::open(Some(&path), LEDGER).expect("made");
        assert_eq!(witness.mark(), Mark::default());
        for (number, highest) in [(3, 3), (2, 3), (5, 5)] {
            witness.saw(Mark { number, time: number });
            let again = Witness::open(Some(&path), LEDGER).expect("opened");
            assert_eq!(again.mark(), Mark { number: highest, time: highest });
        }
        let other = Witness::open(Some(&path), "another").expect_err("not its own");
        assert!(matches!(other, OpenError::OtherLedger { acknowledged: Mark { number: 5, .. } }));
        std::fs::write(&path, "payoutd witness").expect("written");
        assert!(matches!(Witness::open(Some(&path), LEDGER), Err(OpenError::NoWitness)));
    }
    #[test]
    fn a_file_that_cannot_be_written_stops_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("witness");
        let witness = Witness::open(Some(&path), LEDGER).expect("made");
        witness.memory().file = Some(File::open(&path).expect("for reading only"));
        for number in 1..3 {
            witness.saw(Mark { number, time: 1 });
            assert_eq!(witness.mark().number, number);
            assert!(witness.memory().failing);
        }
        witness.memory().file = Some(read(&path).expect("opened").0);
        witness.saw(Mark { number: 3, time: 1 });
        assert!(!witness.memory().failing);
        assert_eq!(Witness::open(Some(&path), LEDGER).expect("opened").mark().number, 3);
    }
}
