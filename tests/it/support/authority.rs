//! Certificates made on the spot: an authority, what it signs, and how they are used.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use payoutd::config::{Config, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType, date_time_ymd,
};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The name in the service's certificate.
pub(crate) const SERVER: &str = "payoutd.test";

/// Something that signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// What is to be signed.
#[derive(Clone)]
pub(crate) struct Leaf {
    names: Vec<SanType>,
    usages: Vec<ExtendedKeyUsagePurpose>,
    from: SystemTime,
    to: SystemTime,
}

impl Leaf {
    /// A caller with these names, of which those with a colon are URIs; `uri:` before a name makes it one, too.
    pub(crate) fn caller(names: &[&str]) -> Self {
        let name = |name: &&str| match name.contains(':') {
            true => {
                let uri = name.strip_prefix("uri:").unwrap_or(name);
                SanType::URI(uri.try_into().expect("ASCII"))
            }
            false => SanType::DnsName((*name).try_into().expect("ASCII")),
        };
        let hour = Duration::from_secs(3600);
        let now = SystemTime::now();
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let names = names.iter().map(name).collect();
        Self { names, usages, from: now - hour, to: now + hour }
    }

    pub(crate) fn server(name: &str) -> Self {
        let loopback = SanType::IpAddress([127, 0, 0, 1].into());
        let mut leaf = Self::caller(&[name]);
        leaf.names.push(loopback);
        Self { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..leaf }
    }

    /// For both sides, as a mesh's certificates are.
    pub(crate) fn peer(names: &[&str]) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self { usages, ..Self::caller(names) }
    }

    /// From and to so many seconds from now.
    pub(crate) fn valid(self, from: i64, to: i64) -> Self {
        let at = |seconds: i64| {
            let by = Duration::from_secs(seconds.unsigned_abs());
            let now = SystemTime::now();
            if seconds < 0 { now - by } else { now + by }
        };
        Self { from: at(from), to: at(to), ..self }
    }

    fn params(self) -> CertificateParams {
        let time = |at: SystemTime| {
            date_time_ymd(1970, 1, 1) + at.duration_since(UNIX_EPOCH).expect("after 1970")
        };
        let mut params = CertificateParams::default();
        params.subject_alt_names = self.names;
        params.extended_key_usages = self.usages;
        (params.not_before, params.not_after) = (time(self.from), time(self.to));
        params
    }

    pub(crate) fn self_signed(self) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let cert = self.params().self_signed(&key).expect("signed");
        Signed { cert: cert.pem(), key: key.serialize_pem() }
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn sign(&self, leaf: Leaf) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let cert = leaf.params().signed_by(&key, &self.0).expect("signed");
        Signed { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// A service's certificates in files, and the authorities behind them.
pub(crate) struct Pki {
    folder: TempDir,
    pub(crate) servers: Authority,
    pub(crate) callers: Authority,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (servers, callers) = (Authority::new("servers"), Authority::new("callers"));
        let pki = Self { folder, servers, callers };
        pki.install(&pki.servers.sign(Leaf::server(SERVER)));
        pki.write("clients.pem", &pki.callers.pem());
        pki
    }

    /// Puts the service's certificate in place.
    pub(crate) fn install(&self, server: &Signed) {
        self.write("key.pem", &server.key);
        self.write("cert.pem", &server.cert);
    }

    /// Replaces a file whole, as a secret's volume does.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, fresh) = (self.file(name), self.file("fresh"));
        private(&fresh, text);
        std::fs::rename(fresh, &path).expect("in place");
        path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The settings for these files, read again very often; callers need certificates.
    pub(crate) fn settings(&self) -> Tls {
        Tls {
            cert_file: self.file("cert.pem"),
            key_file: self.file("key.pem"),
            client_ca_file: Some(self.file("clients.pem")),
            reload: Duration::from_millis(50),
        }
    }

    pub(crate) fn demand(&self, config: &mut Config) {
        config.grpc.tls = Some(self.settings());
    }

    /// How a gRPC client reaches the service as `caller`.
    pub(crate) fn client(&self, caller: Option<&Signed>) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new().domain_name(SERVER);
        let tls = tls.ca_certificate(Certificate::from_pem(self.servers.pem()));
        match caller {
            Some(caller) => tls.identity(Identity::from_pem(&caller.cert, &caller.key)),
            None => tls,
        }
    }

    /// The same for bare TLS.
    pub(crate) fn rustls(&self, caller: Option<&Signed>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.servers.pem())).expect("a root");
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().expect("versions");
        let config = config.with_root_certificates(roots);
        let mut config = match caller {
            Some(caller) => {
                let key = PrivateKeyDer::from_pem_slice(caller.key.as_bytes()).expect("a key");
                config.with_client_auth_cert(vec![der(&caller.cert)], key).expect("fits")
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

pub(crate) fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// Writes a file that is its owner's alone.
pub(crate) fn private(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    mode(path, 0o600);
}

pub(crate) fn mode(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("its mode");
}
