//! `[grpc]`: the listener for callers, and whom it believes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use toml::{Table, Value};

use super::reader::{Mistakes, Section, boolean, text};
use super::tls::Tls;
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
    /// `max_connections`, default 2000: one more is closed at once.
    pub max_connections: usize,
    /// `[grpc.tls]`; without it, connections are plain.
    pub tls: Option<Tls>,
    /// `trust`, default "none": who says who a caller is.
    pub trust: Trust,
    /// `trusted_proxies`, default 127.0.0.0/8 and `::1`: where the mesh's proxies connect from.
    pub trusted_proxies: Vec<IpNet>,
}

/// Who says who a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only the caller's own certificate.
    None,
    /// The mesh's proxy, in `x-forwarded-client-cert`.
    Mesh,
}

// === impl Grpc ===

impl Grpc {
    /// The defaults, listening at `listen`.
    pub fn at(listen: SocketAddr) -> Self {
        let loopback = [
            IpNet::new_assert(IpAddr::from([127, 0, 0, 0]), 8),
            IpNet::new_assert(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128),
        ];
        Self {
            listen,
            reflection: true,
            max_calls: 10_000,
            max_reads: 1_000,
            max_watches: 10_000,
            drain_delay: Duration::ZERO,
            max_connections: 2_000,
            tls: None,
            trust: Trust::None,
            trusted_proxies: loopback.to_vec(),
        }
    }

    /// Whether a caller must show by its transport who it is.
    pub fn authenticates(&self) -> bool {
        let certificates = self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        certificates || self.trust == Trust::Mesh
    }

    pub(super) fn read(table: Table, mistakes: &mut Mistakes) -> Self {
        let default = Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)));
        let mut section = Section::new(table, "grpc", mistakes);
        let tls = section.table("tls").and_then(Tls::read);
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
            max_connections: section.get("max_connections", default.max_connections, count),
            tls,
            trust: section.get("trust", default.trust, trust),
            trusted_proxies: section.get("trusted_proxies", default.trusted_proxies, networks),
        };
        section.end();
        read
    }

    /// Refuses an open door: off loopback, callers must be known. `callers` says whether any are listed:
    /// they may show who they are by tokens, which only TLS keeps to themselves.
    pub(super) fn refuse_exposure(&self, callers: bool, mistakes: &mut Mistakes) {
        let loopback = self.listen.ip().to_canonical().is_loopback();
        let known = self.authenticates() || (callers && self.tls.is_some());
        if !loopback && !known {
            let what = "off loopback, callers must be known: needs [grpc.tls] with client_ca_file, \
                        or with [[caller]]s that have tokens, or trust = \"mesh\" where a mesh \
                        encrypts and authenticates";
            mistakes.add("grpc.listen", what);
        }
    }
}

fn trust(value: &Value) -> Result<Trust, &'static str> {
    match text(value)?.as_str() {
        "none" => Ok(Trust::None),
        "mesh" => Ok(Trust::Mesh),
        _ => Err("none or mesh"),
    }
}

/// A list of texts; from the environment, one text with commas.
fn networks(value: &Value) -> Result<Vec<IpNet>, &'static str> {
    let must = "a list of addresses or networks, such as 10.0.0.7 and 10.1.0.0/16";
    let listed: Option<Vec<&str>> = match (value.as_array(), value.as_str()) {
        (Some(list), _) => list.iter().map(Value::as_str).collect(),
        (None, Some("")) => Some(vec![]),
        (None, text) => text.map(|text| text.split(',').collect()),
    };
    let read = |text: &str| text.parse().or_else(|_| text.parse().map(IpAddr::into)).ok();
    listed.ok_or(must)?.into_iter().map(|text| read(text.trim()).ok_or(must)).collect()
}
