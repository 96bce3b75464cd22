//! Logs: to standard error, text on a terminal and JSON elsewhere.
//!
//! payoutd's own lines follow the setting; libraries speak from warn up only, whatever the setting,
//! so that no level ever shows a header or a body.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::Log;

/// Starts logging for the process. A second call changes nothing.
pub fn init(log: Log) {
    let targets = Targets::new().with_default(Level::WARN).with_target("payoutd", log.level);
    let json = log.json.unwrap_or_else(|| !stderr().is_terminal());
    let lines: Box<dyn Layer<_> + Send + Sync> = if json {
        let lines = fmt::layer().json().flatten_event(true).with_current_span(false);
        lines.with_span_list(false).with_writer(stderr).boxed()
    } else {
        fmt::layer()
            .with_target(false)
            .with_ansi(stderr().is_terminal())
            .with_writer(stderr)
            .boxed()
    };
    // Tests start several services in one process; the first one's logs serve all.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
}
