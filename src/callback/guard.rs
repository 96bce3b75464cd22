//! Turns away addresses that have sent nothing but forgeries for a while.
//!
//! It spares us the hashing, and the log the lines; it is not what keeps forgeries out. Behind one
//! proxy all of Cregis has one address, so the limit is generous and soon forgotten: what is lost
//! meanwhile, the follower finds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More refusals than this within [`WINDOW`] shut an address out for the rest of it.
const REFUSALS_MAX: u32 = 60;
/// How long refusals are remembered.
const WINDOW: Duration = Duration::from_secs(60);
/// The most addresses that are remembered.
const ADDRESSES_MAX: usize = 4_096;

/// Refusals by address: when the first of the window was, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Guard(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Guard {
    /// Whether the address is shut out now.
    pub(super) fn is_shut(&self, address: IpAddr) -> bool {
        let refusals = self.refusals();
        let known = refusals.get(&address);
        known.is_some_and(|(since, count)| since.elapsed() < WINDOW && *count > REFUSALS_MAX)
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, address: IpAddr) {
        let mut refusals = self.refusals();
        if refusals.len() >= ADDRESSES_MAX {
            refusals.retain(|_, (since, _)| since.elapsed() < WINDOW);
            if refusals.len() >= ADDRESSES_MAX {
                refusals.clear();
            }
        }
        let (since, count) = refusals.entry(address).or_insert_with(|| (Instant::now(), 0));
        if since.elapsed() >= WINDOW {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
    }

    fn refusals(&self) -> MutexGuard<'_, HashMap<IpAddr, (Instant, u32)>> {
        // Every change to the map is one call; a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_is_shut_out_after_60_refusals_and_others_are_not() {
        let guard = Guard::default();
        let (forger, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..REFUSALS_MAX {
            guard.refused(forger);
            assert!(!guard.is_shut(forger));
        }
        guard.refused(forger);
        assert!(guard.is_shut(forger) && !guard.is_shut(other));
    }

    #[test]
    fn the_memory_is_bounded() {
        let guard = Guard::default();
        for number in 0..3 * ADDRESSES_MAX as u32 {
            guard.refused(IpAddr::V4(Ipv4Addr::from(number)));
        }
        assert!(guard.refusals().len() <= ADDRESSES_MAX);
    }
}
