//! `[grpc]`: the listener for callers.

use std::net::SocketAddr;
use std::time::Duration;

use toml::Table;

use super::reader::{Mistakes, Section, boolean, text};
use super::{address, count};

/// Leaves sends under way the time that they need within the 35 s of a stop.
const DRAIN_DELAY_MAX: Duration = Duration::from_secs(20);

/// `[grpc]`
#[derive(Clone, Debug)]
pub struct Grpc {
    /// `listen`, default 127.0.0.1:50051.
    pub listen: SocketAddr,
    /// `reflection`, default true.
    pub reflection: bool,
    /// `max_calls`, default 10000: `CreatePayout` calls waiting at once, repeats included.
    pub max_calls: usize,
    /// `max_reads`, default 1000: `GetPayout` and `ListPayouts` calls under way at once.
    pub max_reads: usize,
    /// `max_watches`, default 10000: `WatchPayout` streams open at once.
    pub max_watches: usize,
    /// `drain_delay`, default 0 s, at most 20 s: how long a stop goes on taking calls after health
    /// has turned NOT_SERVING, so that those who check it can turn elsewhere first.
    pub drain_delay: Duration,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            reflection: true,
            max_calls: 10_000,
            max_reads: 1_000,
            max_watches: 10_000,
            drain_delay: Duration::ZERO,
        }
    }
}

impl Grpc {
    pub(super) fn read(table: Table, mistakes: &mut Mistakes) -> Self {
        let mut section = Section::new(table, "grpc", mistakes);
        let default = Self::default();
        let read = Self {
            listen: section.get("listen", default.listen, address),
            reflection: section.get("reflection", default.reflection, boolean),
            max_calls: section.get("max_calls", default.max_calls, count),
            max_reads: section.get("max_reads", default.max_reads, count),
            max_watches: section.get("max_watches", default.max_watches, count),
            drain_delay: section.get("drain_delay", default.drain_delay, |value| {
                let delay = humantime::parse_duration(&text(value)?).ok();
                delay.filter(|delay| *delay <= DRAIN_DELAY_MAX).ok_or("0s to 20s")
            }),
        };
        section.end();
        read
    }
}
