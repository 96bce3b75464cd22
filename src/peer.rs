//! Who is at the other end of a call, as far as its transport proves it.

use std::net::IpAddr;
use std::sync::Arc;

/// Whether a name is a URI such as a SPIFFE id. All others are DNS names: a CA, or a proxy, that vouches for one kind does
/// not vouch for the other.
pub(crate) fn is_uri(name: &str) -> bool {
    name.contains("://")
}

/// The other end of a call. The listener notes it among the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where the connection comes from; a proxy's own address where there is one.
    pub address: IpAddr,
    /// The names in its verified certificate, as written there: DNS names, and URIs such as
    /// `spiffe://cluster.local/ns/pay/sa/api`. Empty where nothing is proven.
    pub names: Arc<[String]>,
}
