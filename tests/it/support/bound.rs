//! A start beside tests that start processes.

use payoutd::app::{App, Error};
use payoutd::config::Config;
use payoutd::ledger::OpenError;

/// Binds the service. A process that another test has just started holds a copy of every lock until
/// it becomes another program, so that a restart may find the ledger locked for a moment.
pub(super) async fn bound(config: &Config) -> App {
    loop {
        let bound = App::bind(config).await;
        if !matches!(&bound, Err(Error::Ledger { source: OpenError::Locked, .. })) {
            return bound.expect("bound");
        }
        tokio::task::yield_now().await;
    }
}
