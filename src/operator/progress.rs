//! How far a long listing has come, on one line that is written over and then wiped away.

use std::io::{self, IsTerminal, Stderr, Write};
use std::time::{Duration, Instant};

use super::args::Output;

/// At most four times a second.
const PAUSE: Duration = Duration::from_millis(250);
/// Back to the line's start, and clear it.
const WIPE: &str = "\r\x1b[K";

/// Tells a terminal how many rows have come; silent without one.
pub(super) struct Progress<W: Write> {
    out: Option<W>,
    begun: Instant,
    told: Option<Instant>,
}

impl Progress<Stderr> {
    /// Speaks where standard error is a terminal on which no rows appear meanwhile.
    pub(super) fn new(output: Output) -> Self {
        let quiet = match output {
            Output::Table => false,
            Output::Json | Output::Csv => io::stdout().is_terminal(),
        };
        let stderr = io::stderr();
        let out = (stderr.is_terminal() && !quiet).then_some(stderr);
        Self { out, begun: Instant::now(), told: None }
    }
}

impl<W: Write> Progress<W> {
    /// Says that `rows` have come by `now`; only what runs long enough is worth a line.
    pub(super) fn rows(&mut self, rows: u64, now: Instant) {
        let Some(out) = &mut self.out else { return };
        if now.duration_since(self.told.unwrap_or(self.begun)) < PAUSE {
            return;
        }
        self.told = Some(now);
        // A terminal that cannot be written to is no reason to stop.
        let _ = write!(out, "{WIPE}{rows} payouts fetched").and_then(|()| out.flush());
    }

    /// Wipes the line away.
    pub(super) fn end(&mut self) {
        if let (Some(out), Some(_)) = (&mut self.out, self.told.take()) {
            let _ = write!(out, "{WIPE}").and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_at_most_four_times_a_second_and_leaves_nothing_behind() {
        let begun = Instant::now();
        let mut progress = Progress { out: Some(Vec::new()), begun, told: None };
        for step in 0..100u64 {
            progress.rows(step, begun + Duration::from_millis(10 * step));
        }
        progress.end();
        let told = String::from_utf8(progress.out.unwrap()).unwrap();
        assert_eq!(
            told,
            "\r\x1b[K25 payouts fetched\r\x1b[K50 payouts fetched\r\x1b[K75 payouts fetched\r\x1b[K"
        );
    }

    #[test]
    fn a_short_listing_says_nothing() {
        let begun = Instant::now();
        let mut progress = Progress { out: Some(Vec::new()), begun, told: None };
        progress.rows(7, begun);
        progress.end();
        assert_eq!(progress.out.unwrap(), Vec::<u8>::new());
    }
}
