//! Certificates: the listener's own, and the roots that callers' certificates must come from.
//!
//! Both are read again while the service runs. What is broken never replaces what works, and a
//! caller's certificate is judged by the roots of now, also on a connection of yesterday.

mod certificate;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig};

use crate::config::{self, private_file};
use crate::metrics::family::Known;

pub use certificate::Certificate;

/// The certificates in use.
pub struct Certificates {
    settings: config::Tls,
    current: ArcSwap<Material>,
    /// Tells the platform when the listener's certificate ends.
    expiry: Known,
}

/// What one reading of the files gave.
struct Material {
    /// Of the files' contents: tells one reading from another.
    digest: [u8; 32],
    server: Arc<ServerConfig>,
    /// From when to when the listener's certificate serves, in seconds since 1970, where it can be told.
    validity: Option<(u64, u64)>,
    /// Judges callers' certificates; none: none are asked for.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The setting of `[grpc.tls]` that names the file.
    pub setting: &'static str,
    /// What is wrong; never the file's contents.
    pub what: String,
}

/// A certificate that ends within this is worth a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

const CERT: &str = "cert_file";
const KEY: &str = "key_file";
const CLIENT_CA: &str = "client_ca_file";

// === impl Certificates ===

impl Certificates {
    /// Reads the files for the first time; tells `expiry` when the listener's certificate ends.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(settings: &config::Tls, expiry: &Known) -> Result<Self, Vec<Broken>> {
        let material = Files::read(settings)?.material()?;
        let settings = settings.clone();
        let first = ArcSwap::from_pointee(material);
        let certificates = Self { settings, current: first, expiry: expiry.clone() };
        certificates.tell_expiry();
        Ok(certificates)
    }

    fn tell_expiry(&self) {
        if let Some((_, not_after)) = self.current.load().validity {
            self.expiry.set(i64::try_from(not_after).unwrap_or(i64::MAX));
        }
    }

    /// What is to be said of the listener's certificate where it has ended, or ends soon: in the last fifth of its life,
    /// but not before the last two weeks.
    pub fn warning(&self) -> Option<String> {
        let (not_before, not_after) = self.current.load().validity?;
        let soon = Duration::from_secs(not_after.saturating_sub(not_before) / 5).min(SOON);
        let end = UNIX_EPOCH.checked_add(Duration::from_secs(not_after))?;
        let time = humantime::format_rfc3339_seconds(end);
        match end.duration_since(SystemTime::now()) {
            Err(_) => Some(format!(
                "grpc.tls.cert_file: the certificate ended {time}, and every caller refuses it: put a new one into the file"
            )),
            Ok(left) if left < soon => Some(format!(
                "grpc.tls.cert_file: the certificate ends {time}: put a new one into the file before"
            )),
            Ok(_) => None,
        }
    }

    /// Accepts connections with the certificates of now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().server))
    }

    /// Reads the files again and again, for as long as it is polled. What has changed and is good
    /// comes into force; what is broken is reported once, and the old stays in force.
    pub async fn follow(&self) {
        let mut clock = tokio::time::interval(self.settings.reload);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut doubtful = Doubtful::default();
        loop {
            clock.tick().await;
            let settings = self.settings.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || Files::read(&settings)).await else {
                continue;
            };
            let digest = read.as_ref().map(Files::digest).map_err(Vec::clone);
            if digest == Ok(self.current.load().digest) {
                doubtful = Doubtful::default();
                continue;
            }
            match read.and_then(|files| files.material()) {
                Ok(material) => {
                    self.current.store(Arc::new(material));
                    self.tell_expiry();
                    tracing::info!("new certificates in force");
                    if let Some(warning) = self.warning() {
                        tracing::warn!("{warning}");
                    }
                    doubtful = Doubtful::default();
                }
                Err(broken) if doubtful.seen_again(digest) => {
                    let broken: Vec<_> = broken.iter().map(Broken::to_string).collect();
                    let broken = broken.join("; ");
                    tracing::error!(broken, "new certificates are broken, the old stay in force");
                }
                Err(_) => {}
            }
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grpc.tls.{}: {}", self.setting, self.what)
    }
}

/// A broken reading. Files are often replaced one after the other, so that a broken set is worth a
/// word only if the next reading finds it unchanged.
#[derive(Default)]
struct Doubtful {
    digest: Option<Result<[u8; 32], Vec<Broken>>>,
    times: u32,
}

impl Doubtful {
    /// Whether this is the second reading in a row of the same broken files.
    fn seen_again(&mut self, digest: Result<[u8; 32], Vec<Broken>>) -> bool {
        let digest = Some(digest);
        self.times = if self.digest == digest { self.times.saturating_add(1) } else { 1 };
        self.digest = digest;
        self.times == 2
    }
}

// === files ===

struct Files {
    cert: String,
    key: secrecy::SecretString,
    client_ca: Option<String>,
}

impl Files {
    fn read(settings: &config::Tls) -> Result<Self, Vec<Broken>> {
        let read = |setting, path: &Path| {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Broken::new(setting, format!("the file cannot be read: {}", error.kind()))
            })?;
            without_mark(setting, text)
        };
        let cert = read(CERT, &settings.cert_file);
        let key = private_file(&settings.key_file).map_err(|what| Broken::new(KEY, what));
        let key = key.and_then(|key| without_mark(KEY, key));
        let client_ca = settings.client_ca_file.as_deref().map(|path| read(CLIENT_CA, path));
        match (cert, key, client_ca.transpose()) {
            (Ok(cert), Ok(key), Ok(client_ca)) => Ok(Self { cert, key: key.into(), client_ca }),
            (cert, key, client_ca) => {
                Err([cert.err(), key.err(), client_ca.err()].into_iter().flatten().collect())
            }
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for file in [Some(self.cert.as_str()), Some(self.key()), self.client_ca.as_deref()] {
            hash.update(file.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
            hash.update(file.unwrap_or_default());
        }
        hash.finalize().into()
    }

    fn key(&self) -> &str {
        use secrecy::ExposeSecret;
        self.key.expose_secret()
    }

    fn material(&self) -> Result<Material, Vec<Broken>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(CERT, &self.cert);
        let key = PrivateKeyDer::from_pem_slice(self.key().as_bytes()).map_err(|_| {
            Broken::new(
                KEY,
                if self.key().contains("ENCRYPTED") {
                    "the private key is encrypted: give it without a passphrase, in a file that only payoutd reads"
                } else {
                    "the file holds no private key in PEM"
                },
            )
        });
        let client_ca = self.client_ca.as_deref();
        let verifier = client_ca.map(|pem| verifier(pem, &provider)).transpose();
        let (chain, key, verifier) = match (chain, key, verifier) {
            (Ok(chain), Ok(key), Ok(verifier)) => (chain, key, verifier),
            (chain, key, verifier) => {
                let broken = [chain.err(), key.err(), verifier.err()];
                return Err(broken.into_iter().flatten().collect());
            }
        };
        let asking = verifier.clone().unwrap_or_else(WebPkiClientVerifier::no_client_auth);
        let validity = chain.first().and_then(certificate::validity);
        let versions = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| vec![Broken::new(CERT, error)])?;
        let later = chain.iter().skip(1).any(|certificate| belongs(certificate, &key));
        let server = versions.with_client_cert_verifier(asking).with_single_cert(chain, key);
        let mut server = server.map_err(|error| vec![unusable(&error, later)])?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would bring back a certificate that nobody has judged today.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Material { digest: self.digest(), server: Arc::new(server), validity, verifier })
    }
}

impl Broken {
    fn new(setting: &'static str, what: impl ToString) -> Self {
        Self { setting, what: what.to_string() }
    }
}

/// The text of a PEM file.
///
/// # Errors
/// Where an editor has put a byte order mark before it: the first block would be skipped without a word.
fn without_mark(setting: &'static str, text: String) -> Result<String, Broken> {
    if text.starts_with('\u{feff}') {
        let what = "begins with a byte order mark: save it as UTF-8 without one";
        return Err(Broken::new(setting, what));
    }
    Ok(text)
}

/// Whether `key` is that of `certificate`.
fn belongs(certificate: &CertificateDer<'static>, key: &PrivateKeyDer<'static>) -> bool {
    let alone = vec![certificate.clone()];
    let signed = CertifiedKey::from_der(alone, key.clone_key(), &aws_lc_rs::default_provider());
    signed.is_ok_and(|signed| signed.keys_match().is_ok())
}

/// `later`: the key is that of a certificate that does not come first.
fn unusable(error: &Error, later: bool) -> Broken {
    if matches!(error, Error::InconsistentKeys(_)) {
        if later {
            let what =
                "the certificate of key_file must come first, before those that lead to its root";
            return Broken::new(CERT, what);
        }
        return Broken::new(KEY, "is not the key of cert_file's certificate");
    }
    Broken::new(CERT, format!("cannot be used with key_file: {error}"))
}

fn certificates(setting: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Broken> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let none = || Broken::new(setting, "the file holds no certificate in PEM");
    read.ok().filter(|chain| !chain.is_empty()).ok_or_else(none)
}

fn verifier(
    pem: &str,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Broken> {
    let roots = Arc::new(root_store(CLIENT_CA, pem)?);
    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| Broken::new(CLIENT_CA, error))
}

fn root_store(setting: &'static str, pem: &str) -> Result<RootCertStore, Broken> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, pem)? {
        let no_root = |_| Broken::new(setting, "one of its certificates cannot be read");
        roots.add(certificate).map_err(no_root)?;
    }
    Ok(roots)
}

/// The roots in the PEM file at `path`, for connections that we open.
///
/// # Errors
/// What is wrong with it, for a person.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, String> {
    let pem = std::fs::read_to_string(path);
    let pem = pem.map_err(|error| format!("the file cannot be read: {}", error.kind()))?;
    root_store("tls_ca_file", &pem).map_err(|broken| broken.what)
}
