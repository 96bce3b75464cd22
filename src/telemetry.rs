//! Logs and traces.
//!
//! Logs go to standard error, text on a terminal and JSON elsewhere. payoutd's own lines follow the
//! setting; libraries speak from warn up only (h2, which has a warning for a frame, from error up), whatever the setting,
//! so that no level ever shows a header or a body. Traces go to an OTLP collector where one is configured: only the spans of
//! [`span`], and no event, so that a log line's fields never become part of a trace.

mod export;
pub mod lines;
pub mod span;

use std::io::{IsTerminal, stderr};
use std::thread;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::sync::oneshot;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level, Subscriber, dispatcher};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt};

use crate::causes::chain;
use crate::config;
use crate::config::Log;

/// The last spans get this long to leave; with the drain before it, a stop stays below 35 s.
const FLUSH: Duration = Duration::from_millis(450);

/// Keeps the way to the collector. What it still holds leaves with [`Traces::flush`].
#[derive(Debug)]
#[must_use = "spans that are not flushed are lost"]
pub struct Traces(Option<SdkTracerProvider>);

/// Starts logging and tracing for the process. A second call changes nothing. Needs a runtime, which
/// carries the traces.
pub fn init(log: Log, telemetry: &config::Telemetry) -> Traces {
    let (provider, broken) = match export::provider(telemetry) {
        Ok(provider) => (provider, None),
        Err(error) => (None, Some(error)),
    };
    // Tests start several services in one process; the first one's logs serve all.
    let first = dispatcher::set_global_default(dispatch(log, provider.as_ref())).is_ok();
    if let Some(error) = broken {
        tracing::error!(error = chain(&*error), "traces are off");
    }
    Traces(provider.filter(|_| first))
}

fn dispatch(log: Log, provider: Option<&SdkTracerProvider>) -> Dispatch {
    let logs = tracing_subscriber::registry().with(lines(log));
    match provider {
        Some(provider) => Dispatch::new(logs.with(spans(provider))),
        // Not an absent layer: that has no filter, so every line of every library would be made.
        None => Dispatch::new(logs),
    }
}

fn lines<S>(log: Log) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let json = log.json.unwrap_or_else(|| !stderr().is_terminal());
    let lines: Box<dyn Layer<S> + Send + Sync> = if json {
        let lines = fmt::layer().json().flatten_event(true).with_current_span(false);
        lines.with_span_list(false).with_writer(stderr).boxed()
    } else {
        fmt::layer()
            .with_target(false)
            .with_ansi(stderr().is_terminal())
            .with_writer(stderr)
            .boxed()
    };
    // Lines do without spans; where nobody traces, this is what makes them free.
    let targets = Targets::new()
        .with_default(Level::WARN)
        .with_target("payoutd", log.level)
        // What a peer's frames look like to it: a line for each of them.
        .with_target("h2", Level::ERROR)
        .with_target(span::TARGET, LevelFilter::OFF);
    lines.with_filter(targets)
}

fn spans<S>(provider: &SdkTracerProvider) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let plain = tracing_opentelemetry::layer().with_location(false).with_threads(false);
    let plain = plain.with_target(false).with_level(false).with_tracked_inactivity(false);
    let ours = filter_fn(|metadata| metadata.is_span() && metadata.target() == span::TARGET);
    plain.with_tracer(provider.tracer("payoutd")).with_filter(ours)
}

impl Traces {
    /// Sends what has not left yet, for half a second at most, and ends.
    pub async fn flush(self) {
        let Some(provider) = self.0 else { return };
        let (done, ended) = oneshot::channel();
        // It blocks, and its connection needs the runtime meanwhile.
        let flushing = thread::Builder::new().name("traces".into()).spawn(move || {
            let _ = provider.shutdown_with_timeout(FLUSH);
            let _ = done.send(());
        });
        if flushing.is_ok() {
            let _ = tokio::time::timeout(FLUSH, ended).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_collector_no_span_is_made_and_with_one_no_library_speaks_up() {
        let log = Log { level: Level::INFO, json: Some(true) };
        let provider = SdkTracerProvider::builder().build();
        for (provider, traced) in [(None, false), (Some(&provider), true)] {
            dispatcher::with_default(&dispatch(log, provider), || {
                assert_eq!(!span::validate().is_disabled(), traced);
                assert!(tracing::enabled!(target: "payoutd::engine", Level::INFO));
                assert!(!tracing::enabled!(target: "payoutd::engine", Level::DEBUG));
                assert!(!tracing::enabled!(target: "h2::codec", Level::WARN));
                assert!(tracing::enabled!(target: "hyper", Level::WARN));
                assert!(!tracing::enabled!(target: "hyper", Level::INFO));
                assert!(tracing::span!(target: "h2::codec", Level::TRACE, "theirs").is_disabled());
            });
        }
    }
}
