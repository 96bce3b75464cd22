//! The database's clock, kept by this process's monotonic one: replicas agree on the time without
//! agreeing on theirs.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, as the database counts them.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    /// The database's time at `origin`.
    then: AtomicI64,
}

impl Clock {
    /// A clock that still has to be set.
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), then: AtomicI64::new(0) }
    }

    /// Sets it: the database answered `time` when it was asked at `asked`, or a little later.
    pub(super) fn set(&self, time: i64, asked: Instant) {
        self.then.store(time - whole(asked - self.origin), Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> SystemTime {
        time(self.then.load(Ordering::Relaxed) + whole(self.origin.elapsed()))
    }
}

pub(super) fn micros(time: SystemTime) -> i64 {
    whole(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs())
}

pub(super) fn whole(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
