//! A caller's certificate, for as long as its connection lasts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::{Certificates, Material};
use crate::peer::is_uri;

/// The certificate that a caller showed when it connected.
#[derive(Debug)]
pub struct Certificate {
    /// The caller's own, and those that lead to a root.
    chain: Vec<CertificateDer<'static>>,
    names: Arc<[String]>,
    certificates: Arc<Certificates>,
    judged: Mutex<Option<Judgement>>,
}

#[derive(Debug)]
struct Judgement {
    /// The reading that it was judged by.
    digest: [u8; 32],
    at: Instant,
    stands: bool,
}

impl Certificate {
    /// Keeps `chain`, as the handshake has verified it.
    pub fn new(chain: &[CertificateDer<'_>], certificates: &Arc<Certificates>) -> Self {
        Self {
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            names: names(chain),
            certificates: Arc::clone(certificates),
            judged: Mutex::new(None),
        }
    }

    /// The names that it proves: DNS names and URIs. Worth nothing once it no longer [stands].
    ///
    /// [stands]: Self::stands
    pub fn names(&self) -> Arc<[String]> {
        Arc::clone(&self.names)
    }

    /// Whether the roots and the clock of now still vouch for it. Asked at every request, it looks
    /// anew when the roots have changed, and every `grpc.tls.reload` for the clock's sake.
    pub fn stands(&self) -> bool {
        let material = self.certificates.current.load();
        // The judgement is replaced whole; a panic elsewhere leaves it so.
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let reload = self.certificates.settings.reload;
        match &*judged {
            Some(known) if known.digest == material.digest && known.at.elapsed() < reload => {
                known.stands
            }
            Some(_) | None => {
                let stands = self.verify(&material);
                let at = Instant::now();
                *judged = Some(Judgement { digest: material.digest, at, stands });
                stands
            }
        }
    }

    fn verify(&self, material: &Material) -> bool {
        let (Some(verifier), Some((own, others))) = (&material.verifier, self.chain.split_first())
        else {
            return false;
        };
        verifier.verify_client_cert(own, others, UnixTime::now()).is_ok()
    }
}

/// The DNS names and the URIs of the first certificate, each of its own kind.
fn names(chain: &[CertificateDer<'_>]) -> Arc<[String]> {
    let Some(Ok(own)) = chain.first().map(EndEntityCert::try_from) else { return Arc::new([]) };
    let names = own.valid_dns_names().filter(|name| !is_uri(name));
    let uris = own.valid_uri_names().filter(|name| is_uri(name));
    names.chain(uris).map(str::to_owned).collect()
}

/// From when to when a certificate serves, in seconds since 1970: what its judge says at the beginning and at the end of
/// time.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(u64, u64)> {
    let leaf = EndEntityCert::try_from(certificate).ok()?;
    let judged = |seconds| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let usage = KeyUsage::server_auth();
        leaf.verify_for_usage(&[], &[], &[], time, usage, None, None).err()
    };
    match (judged(0)?, judged(u64::MAX)?) {
        (
            webpki::Error::CertNotValidYet { not_before, .. },
            webpki::Error::CertExpired { not_after, .. },
        ) => Some((not_before.as_secs(), not_after.as_secs())),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn dns_names_and_uris_are_read_and_nothing_else() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        let text = |text: &str| text.try_into().expect("ASCII");
        params.subject_alt_names.extend([
            SanType::URI(text("spiffe://cluster.local/ns/pay/sa/api")),
            SanType::URI(text("c.example")),
            SanType::Rfc822Name(text("mail@example.com")),
            SanType::IpAddress([192, 0, 2, 1].into()),
            SanType::DnsName(text("b.example")),
        ]);
        let signed = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed");
        let found = names(std::slice::from_ref(signed.der()));
        assert_eq!(*found, ["a.example", "b.example", "spiffe://cluster.local/ns/pay/sa/api"]);
        let nameless = CertificateParams::default();
        let signed = nameless.self_signed(&KeyPair::generate().expect("a key")).expect("signed");
        assert!(names(std::slice::from_ref(signed.der())).is_empty(), "a common name is no name");
        assert!(names(&[]).is_empty() && names(&[vec![1, 2].into()]).is_empty());
    }
}
