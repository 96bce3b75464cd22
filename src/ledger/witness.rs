//! The witness: what remembers, outside of a ledger, how far the ledger had come when somebody was last
//! told something. A ledger that has not come so far is an old copy, and its callers' repeats would be
//! paid again.
//!
//! An embedded ledger numbers its commits, so the newest number says all. In a shared one commits end in another
//! order than their numbers were given, and what a failover loses is the end of that order: the witness keeps
//! the last that were acknowledged, in the order of the acknowledgements, and each of them is looked for.
//!
//! Its file has records of fixed size, each written over in place by one system call: a process that is
//! killed leaves the old one or the new one. It is not synced: after a power cut it may be older than
//! the ledger, which is no contradiction.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use super::OpenError;
use crate::causes::chain;

/// The last moment that can be written with four digits for its year, in microseconds since 1970.
const YEAR_9999: u64 = 253_402_300_799_999_999;
/// So many marks of a shared ledger are kept: more than are on their way to all replicas at any moment.
const WINDOW: usize = 256;
/// What is older than the last mark by more than this, in microseconds, has certainly not crossed it: no statement
/// takes so long. It may have been archived.
const CROSSING: i64 = 60_000_000;
/// From one record of the file to the next. None lies across two pages, which a kill could part.
const STRIDE: usize = 128;
/// No file of ours is as long.
const LONGEST: u64 = 64 * 1024;

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
    /// Of its file, where there is one.
    path: Option<PathBuf>,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    /// How many marks are kept.
    window: usize,
    /// The last that were acknowledged; the oldest first.
    marks: VecDeque<Mark>,
    /// Those of the projects' present intakes, whatever their age.
    intakes: HashMap<i64, Mark>,
    /// How far the database's file of an embedded ledger had come by itself, without its log.
    stored: Mark,
    file: Option<File>,
    /// Where the next record goes, counted in records.
    slot: usize,
    /// Whether the file could not be written the last time.
    failing: bool,
}

impl Witness {
    /// The witness of the embedded ledger with the identity `ledger`, in the file at `path`, which is made where
    /// there is none; without a path it remembers for as long as it lives.
    ///
    /// # Errors
    /// The file cannot be used, is no witness, or is another ledger's.
    pub(super) fn open(path: Option<&Path>, ledger: &str) -> Result<Self, OpenError> {
        Self::with_window(path, ledger, 1)
    }

    /// The same for a shared ledger.
    ///
    /// # Errors
    /// As of [`Witness::open`].
    pub(super) fn shared(path: Option<&Path>, ledger: &str) -> Result<Self, OpenError> {
        Self::with_window(path, ledger, WINDOW)
    }

    /// The witness in the file at `path`, of whatever embedded ledger; None where nothing was remembered there.
    ///
    /// # Errors
    /// The file cannot be read, or is no witness.
    pub(super) fn found(path: &Path) -> Result<Option<Self>, OpenError> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(OpenError::Witness)?,
        };
        let records = parse(&text).ok_or(OpenError::NoWitness)?;
        let ledger = records.first().map(|record| record.ledger.as_str());
        ledger.map(|ledger| Self::open(Some(path), ledger)).transpose()
    }

    fn with_window(path: Option<&Path>, ledger: &str, window: usize) -> Result<Self, OpenError> {
        let (mut marks, mut slot, mut file) = (VecDeque::new(), 0, None);
        let mut stored = Mark::default();
        if let Some(path) = path {
            let (opened, text) = read(path).map_err(OpenError::Witness)?;
            let records = parse(&text).ok_or(OpenError::NoWitness)?;
            let other = records.iter().find(|record| record.ledger != ledger);
            if let Some(Record { mark, .. }) = other {
                return Err(OpenError::OtherLedger { acknowledged: *mark });
            }
            let (in_file, mut records): (Vec<_>, Vec<_>) =
                records.into_iter().partition(|record| record.kind == Kind::Stored);
            stored = in_file.first().map(|record| record.mark).unwrap_or_default();
            records.sort_by_key(|record| record.mark.time);
            // Behind the last one while there is room, then over the oldest.
            slot = match records.first() {
                Some(oldest) if records.len() >= window => oldest.place,
                Some(_) | None => records.len() % window,
            };
            marks = records.into_iter().map(|record| record.mark).collect();
            file = Some(opened);
        }
        let intakes = HashMap::new();
        let memory = Memory { window, marks, intakes, stored, file, slot, failing: false };
        let path = path.map(Path::to_owned);
        Ok(Self { ledger: ledger.to_owned(), path, memory: Mutex::new(memory) })
    }

    /// The identity of its ledger.
    pub(super) fn ledger(&self) -> &str {
        &self.ledger
    }

    /// The newest that it remembers; number 0 where that is nothing.
    pub(super) fn mark(&self) -> Mark {
        self.memory().newest()
    }

    /// All that must be in a shared ledger.
    pub(super) fn marks(&self) -> Vec<Mark> {
        let memory = self.memory();
        // By the last one's time: a clock that was wrong for a while must not hide what came after.
        let (last, newest) = (memory.marks.back().copied().unwrap_or_default(), memory.newest());
        let recent =
            |mark: &&Mark| mark.time >= last.time.saturating_sub(CROSSING) || **mark == newest;
        memory.intakes.values().chain(memory.marks.iter().filter(recent)).copied().collect()
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

    /// Compares what the database's file of an embedded ledger holds by itself, without its log, with what was seen
    /// there before; remembers how far that has come. An older file beside the log of what it replaced has the newest
    /// commit, but not all that lies between.
    ///
    /// # Errors
    /// It is another one, or an older one.
    pub(super) fn check_stored(&self, found: &Standing) -> Result<(), OpenError> {
        let mut memory = self.memory();
        let (reached, acknowledged) = (found.reached, memory.stored);
        if acknowledged.number > 0 && found.ledger != self.ledger {
            return Err(OpenError::OtherLedger { acknowledged });
        }
        if reached.number < acknowledged.number {
            return Err(OpenError::RolledBack { reached, acknowledged });
        }
        if reached.number > acknowledged.number && found.ledger == self.ledger {
            memory.stored = reached;
            let place = memory.window;
            memory.write(place, &record(Kind::Stored, &self.ledger, reached));
        }
        Ok(())
    }

    /// Remembers that the ledger has come as far as `mark`. A file that cannot be written stops nobody:
    /// the witness falls behind, and not the ledger.
    pub(super) fn saw(&self, mark: Mark) {
        let mut memory = self.memory();
        let known = match memory.window {
            1 => mark.number <= memory.newest().number,
            _ => mark.number <= 0 || memory.marks.contains(&mark),
        };
        if known {
            return;
        }
        while memory.marks.len() >= memory.window {
            memory.marks.pop_front();
        }
        memory.marks.push_back(mark);
        let slot = memory.slot;
        if memory.write(slot, &record(Kind::Acknowledged, &self.ledger, mark)) {
            memory.slot = (memory.slot + 1) % memory.window;
        }
    }

    /// Remembers the present intake of the project `pid`, for as long as this process lives. False where it knows of a
    /// later one: then the ledger has lost that.
    pub(super) fn saw_intake(&self, pid: i64, mark: Mark) -> bool {
        let mut memory = self.memory();
        let known = memory.intakes.get(&pid).copied().unwrap_or_default();
        if mark.number > known.number {
            memory.intakes.insert(pid, mark);
        }
        mark.number >= known.number
    }

    /// Makes its file anew where that was removed, as together with the ledger: an empty ledger in the place of
    /// this one is refused by what it remembers. A file that is there is left alone, and none is kept open, which
    /// might keep a file system mounted in the place of the right one.
    pub(super) fn restore(&self) {
        let Some(path) = &self.path else { return };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let text = record(Kind::Acknowledged, &self.ledger, self.mark());
        match made.and_then(|file| file.write_all_at(text.as_bytes(), 0)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "witness cannot be made anew");
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn newest(&self) -> Mark {
        self.marks.iter().copied().max_by_key(|mark| mark.number).unwrap_or_default()
    }

    /// Writes a record to its place in the file; whether it is there.
    fn write(&mut self, place: usize, record: &str) -> bool {
        let Some(file) = &self.file else { return true };
        let offset = u64::try_from(place * STRIDE).unwrap_or(u64::MAX);
        let written = file.write_all_at(record.as_bytes(), offset);
        if let Err(error) = &written
            && !self.failing
        {
            let error = chain(error);
            tracing::error!(error, "witness cannot be written: it falls behind");
        }
        self.failing = written.is_err();
        written.is_ok()
    }
}

/// What a record of the file remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// How far the ledger had come when somebody was told something.
    Acknowledged,
    /// How far the database's file had come by itself.
    Stored,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Acknowledged => "witness",
            Self::Stored => "stored ",
        }
    }
}

/// A record of the file.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    /// Where it stands, counted in records.
    place: usize,
    kind: Kind,
    ledger: String,
    mark: Mark,
}

/// The file at `path`, made where there is none, and what is in it.
fn read(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let (file, mut text) = (options.open(path)?, Vec::new());
    // More is no witness of ours.
    (&file).take(LONGEST).read_to_end(&mut text)?;
    Ok((file, text))
}

/// A record of the file, always as long: far less than a sector of a disk, so that it is never half written.
fn record(kind: Kind, ledger: &str, mark: Mark) -> String {
    format!("payoutd {} {ledger} {:020} {:020}\n", kind.word(), mark.number, mark.time)
}

/// The records of the file. None where it holds anything else. An empty one was made, and never written.
fn parse(text: &[u8]) -> Option<Vec<Record>> {
    let records = text.chunks(STRIDE).enumerate();
    records.map(|(place, text)| parse_record(place, text)).collect()
}

fn parse_record(place: usize, text: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(text).ok()?;
    // Between records nothing was ever written.
    let text = text.trim_end_matches('\0');
    let mut words = text.split_whitespace().skip(2);
    let ledger = words.next()?;
    let mark = Mark { number: words.next()?.parse().ok()?, time: words.next()?.parse().ok()? };
    let is_kind = |kind: &Kind| record(*kind, ledger, mark) == text;
    let kind = [Kind::Acknowledged, Kind::Stored].into_iter().find(is_kind)?;
    (place < WINDOW).then(|| Record { place, kind, ledger: ledger.to_owned(), mark })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let mark = Mark { number: 7, time: 1_700_000_000_000_001 };
        let text = record(Kind::Acknowledged, LEDGER, mark);
        let ledger = LEDGER.to_owned();
        let read = Record { place: 0, kind: Kind::Acknowledged, ledger, mark };
        assert_eq!(parse(text.as_bytes()), Some(vec![read]));
        assert_eq!(mark.to_string(), "number 7 of 2023-11-14T22:13:20.000001Z");
        let longest = Mark { number: i64::MAX, time: i64::MAX };
        for kind in [Kind::Acknowledged, Kind::Stored] {
            assert_eq!(record(kind, LEDGER, longest).len(), text.len());
        }
        for cut in 1..text.len() {
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
    fn a_shared_ledgers_keeps_the_last_that_were_acknowledged_in_whatever_order_they_are_numbered()
    {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("witness");
        let witness = Witness::shared(Some(&path), LEDGER).expect("made");
        let of = |number| Mark { number, time: 1_000_000 + number };
        for number in (1..=400).filter(|number| *number != 7) {
            witness.saw(of(number));
        }
        // The last acknowledgement is that of an early number.
        witness.saw(of(7));
        witness.saw(of(7));
        let again = Witness::shared(Some(&path), LEDGER).expect("opened");
        for witness in [&witness, &again] {
            let mut numbers: Vec<_> = witness.marks().iter().map(|mark| mark.number).collect();
            numbers.sort_unstable();
            let last = std::iter::once(7).chain(146..=400).collect::<Vec<_>>();
            assert_eq!(numbers, last);
            assert_eq!(witness.mark(), of(400));
        }
        // What cannot have crossed the last need not be there any more.
        let later = Mark { number: 401, time: of(400).time + CROSSING };
        for witness in [&witness, &again] {
            witness.saw(later);
            assert_eq!(witness.marks(), [of(400), later]);
        }
        // But for an intake, which is never archived.
        assert!(witness.saw_intake(1, of(3)) && witness.saw_intake(1, of(3)));
        assert!(!witness.saw_intake(1, of(2)), "an older one is what is left of a ledger");
        assert_eq!(witness.marks(), [of(3), of(400), later]);
    }

    #[test]
    fn a_databases_file_that_holds_less_than_before_or_another_ledger_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("witness");
        assert!(Witness::found(&path).expect("none").is_none());
        let witness = Witness::open(Some(&path), LEDGER).expect("made");
        let of = |ledger: &str, number| {
            let reached = Mark { number, time: number };
            witness.check_stored(&Standing { ledger: ledger.to_owned(), reached })
        };
        // Nothing was seen there yet.
        of("", 0).expect("empty");
        for number in [3, 3, 5] {
            of(LEDGER, number).expect("as far, or further");
        }
        witness.saw(Mark { number: 9, time: 9 });
        assert!(matches!(of(LEDGER, 4), Err(OpenError::RolledBack { .. })));
        assert!(matches!(of("", 0), Err(OpenError::OtherLedger { .. })));
        assert!(matches!(of("another", 6), Err(OpenError::OtherLedger { .. })));
        let again = Witness::found(&path).expect("opened").expect("remembered");
        assert_eq!((again.ledger(), again.mark().number), (LEDGER, 9));
        assert_eq!(again.memory().stored.number, 5);
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
