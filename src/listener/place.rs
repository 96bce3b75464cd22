//! Places for connections: so many in all, and so many for each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::metrics::family::Known;

/// One address may hold a quarter of all places. Proxies, which many callers share, may hold all.
const SHARE: usize = 4;

/// The places of a listener.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    proxies: Vec<IpNet>,
    taken: Mutex<Taken>,
    /// Tells the platform how many are taken.
    open: Known,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    whose: IpAddr,
}

impl Places {
    pub(crate) fn new(most: usize, proxies: Vec<IpNet>, open: Known) -> Arc<Self> {
        open.set(0);
        Arc::new(Self { most, proxies, taken: Mutex::default(), open })
    }

    /// A place for a connection from `address`, if there is one left for it.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let share = match self.proxies.iter().any(|proxy| proxy.contains(&address)) {
            true => self.most,
            false => self.most.div_ceil(SHARE),
        };
        let whose = neighbourhood(address);
        let mut taken = self.taken();
        let own = taken.each.get(&whose).copied().unwrap_or_default();
        if taken.all >= self.most || own >= share {
            return None;
        }
        taken.all += 1;
        taken.each.insert(whose, own + 1);
        self.open.set(i64::try_from(taken.all).unwrap_or(i64::MAX));
        drop(taken);
        Some(Place { places: Arc::clone(self), whose })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Both counts change under one lock, and nothing between the changes can panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        self.places.open.set(i64::try_from(taken.all).unwrap_or(i64::MAX));
        if let Some(own) = taken.each.get_mut(&self.whose) {
            *own -= 1;
            if *own == 0 {
                taken.each.remove(&self.whose);
            }
        }
    }
}

/// One IPv6 host has a whole /64 to itself.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_gets_a_quarter_a_proxy_gets_all_and_what_is_dropped_is_free_again() {
        let proxy = "10.0.0.0/8".parse().expect("a network");
        let places = Places::new(8, vec![proxy], Known::default());
        let mut held: Vec<_> = (0..3).map(|_| places.take(ip("192.0.2.1"))).collect();
        assert!(held[1].is_some() && held[2].is_none(), "a quarter");
        held.extend([places.take(ip("2001:db8::1")), places.take(ip("2001:db8::2"))]);
        assert!(places.take(ip("2001:db8::3")).is_none(), "one /64 is one host");
        held.extend((0..4).map(|_| places.take(ip("10.1.1.1"))));
        assert!(held.last().is_some_and(Option::is_some), "a proxy may take what is left");
        assert!(places.take(ip("192.0.2.9")).is_none() && places.take(ip("10.1.1.1")).is_none());
        held.clear();
        assert!(places.taken().each.is_empty() && places.taken().all == 0);
        assert!(places.take(ip("192.0.2.1")).is_some());
    }
}
