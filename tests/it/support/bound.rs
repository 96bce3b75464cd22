//! Starts beside tests that start processes, and places for those that start again.

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

/// So many ports below those that the system gives out, so that they are still free after a kill.
pub(crate) fn steady_ports(count: usize) -> Vec<u16> {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let first = 20_000 + (std::process::id() % 8_000) as u16;
    let ports: Vec<_> = (first..30_000).filter(free).take(count).collect();
    assert_eq!(ports.len(), count, "not enough ports");
    ports
}
