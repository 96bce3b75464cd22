//! Log lines that somebody outside can cause, and so are written only so often.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets a kind of line be written `most` times within each `window`; a count stands for those that are left out.
#[derive(Debug)]
pub struct Lines {
    most: u32,
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// `most` lines within each `window`.
    pub fn new(most: u32, window: Duration) -> Self {
        Self { most, window, state: Mutex::default() }
    }

    /// Whether a line may be written now: how many were left out since the last one; none where this one is left
    /// out, too.
    pub fn admit(&self) -> Option<u64> {
        // Every field is whole after each change.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| since.elapsed() >= self.window) {
            (state.since, state.written) = (Some(Instant::now()), 0);
        }
        if state.written >= self.most {
            state.left_out += 1;
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_lines_are_written_in_a_window_and_the_next_one_tells_how_many_were_not() {
        let lines = Lines::new(2, Duration::from_secs(60));
        assert_eq!([(); 5].map(|()| lines.admit()), [Some(0), Some(0), None, None, None]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([(); 3].map(|()| lines.admit()), [Some(3), Some(0), None]);
    }
}
