//! Errors in words.

use std::error::Error;

/// An error and its causes on one line, none of them twice: some say their cause themselves. Logs show only the first of
/// an error that is handed to them whole.
pub fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}
