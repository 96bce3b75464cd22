//! TLS on the callers' port: whose certificate gets in, for how long, and what changes without a
//! restart.

mod reload;

use std::io;
use std::sync::Arc;

use payoutd::pb::payout_service_client::PayoutServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error};
use tonic::transport::Endpoint;

use crate::support::authority::{Authority, Leaf, Pki, SERVER, Signed};
use crate::support::{Client, Service, Upstream, config, get, order, within};

/// A service over TLS that demands certificates, and its PKI.
pub(crate) struct Secure {
    pub(crate) pki: Pki,
    pub(crate) service: Service,
    pub(crate) upstream: Upstream,
    _folder: tempfile::TempDir,
}

impl Secure {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut payoutd::config::Config)) -> Self {
        let (pki, upstream) = (Pki::new(), Upstream::start().await);
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(upstream.address, folder.path().join("payoutd.db"));
        pki.demand(&mut config);
        change(&mut config);
        let service = Service::start(config).await;
        Self { pki, service, upstream, _folder: folder }
    }

    /// A connection as `caller`, once one can be made.
    pub(crate) async fn client(&self, caller: &Signed) -> Client {
        let channel = self.endpoint(Some(caller)).connect().await.expect("connected");
        PayoutServiceClient::new(channel)
    }

    pub(crate) fn endpoint(&self, caller: Option<&Signed>) -> Endpoint {
        let endpoint = Endpoint::from_shared(format!("https://{}", self.service.addresses.grpc));
        endpoint.expect("an address").tls_config(self.pki.client(caller)).expect("TLS")
    }

    pub(crate) async fn shake_hands(
        &self,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.service.addresses.grpc).await.expect("connected");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(config).connect(name, stream).await
    }

    /// What the service says to a caller that shows `caller`: none, if it serves.
    pub(crate) async fn alert(&self, caller: Option<&Signed>) -> Option<AlertDescription> {
        let mut stream = self.shake_hands(self.pki.rustls(caller), SERVER).await.expect("its side");
        // TLS 1.3 tells only after the client thinks that all is well.
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .expect("sent");
        let error = within(stream.read_u8()).await.err()?;
        let Ok(Error::AlertReceived(alert)) = error.downcast::<Error>() else {
            panic!("no alert");
        };
        Some(alert)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_certificate_gets_past_the_handshake() {
    use AlertDescription as A;
    let secure = Secure::start().await;
    let (callers, caller) = (&secure.pki.callers, Leaf::caller(&["a.example"]));
    let stranger = Authority::new("callers");
    for (what, shown, expected) in [
        ("good", Some(callers.sign(caller.clone())), None),
        ("none", None, Some(A::CertificateRequired)),
        (
            "expired",
            Some(callers.sign(caller.clone().valid(-90, -30))),
            Some(A::CertificateExpired),
        ),
        ("early", Some(callers.sign(caller.clone().valid(60, 90))), Some(A::CertificateExpired)),
        // The name of the authority is right, the key is not: its signature does not verify.
        ("forged", Some(stranger.sign(caller.clone())), Some(A::DecryptError)),
        ("foreign", Some(Authority::new("x").sign(caller.clone())), Some(A::UnknownCA)),
        ("self-signed", Some(caller.clone().self_signed()), Some(A::UnknownCA)),
        ("a server's", Some(callers.sign(Leaf::server("a"))), Some(A::UnsupportedCertificate)),
    ] {
        assert_eq!(secure.alert(shown.as_ref()).await, expected, "{what}");
    }
    let mut client = secure.client(&callers.sign(caller)).await;
    assert!(client.create_payout(order("a")).await.expect("served").into_inner().cid > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_can_tell_that_the_service_is_not_who_it_should_be() {
    let secure = Secure::start().await;
    let caller = secure.pki.callers.sign(Leaf::caller(&["a.example"]));
    let config = secure.pki.rustls(Some(&caller));
    let error = secure.shake_hands(config, "other.test").await.expect_err("another name");
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let other = Pki::new();
    let error = secure.shake_hands(other.rustls(Some(&caller)), SERVER).await.expect_err("unknown");
    assert!(error.to_string().contains("BadSignature"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_http2_is_agreed_upon_and_plain_http2_gets_nowhere() {
    let secure = Secure::start().await;
    let caller = secure.pki.callers.sign(Leaf::caller(&["a.example"]));
    let mut config = Arc::unwrap_or_clone(secure.pki.rustls(Some(&caller)));
    let stream = secure.shake_hands(Arc::new(config.clone()), SERVER).await.expect("h2");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let error = secure.shake_hands(Arc::new(config), SERVER).await.expect_err("no h2");
    let error = error.downcast::<Error>().expect("TLS's own");
    assert_eq!(error, Error::AlertReceived(AlertDescription::NoApplicationProtocol));

    let mut plain = TcpStream::connect(secure.service.addresses.grpc).await.expect("connected");
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    let _ = within(plain.read_to_end(&mut answer)).await;
    assert!(answer.len() < 16, "an alert at most: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_client_ca_file_tls_asks_for_no_certificate() {
    let secure = Secure::with(|config| {
        let tls = config.grpc.tls.as_mut().expect("TLS");
        tls.client_ca_file = None;
    })
    .await;
    assert_eq!(secure.alert(None).await, None);
    let channel = secure.endpoint(None).connect().await.expect("connected");
    PayoutServiceClient::new(channel).create_payout(order("a")).await.expect("served");
}

/// A thousand peers that begin a handshake and fall silent. Good callers pass meanwhile, and the
/// silent ones are cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_half_handshakes_stop_nobody_and_are_cut_off() {
    let secure = Secure::start().await;
    let caller = secure.pki.callers.sign(Leaf::caller(&["a.example"]));
    let mut halves = Vec::new();
    for number in 0..1_000 {
        let mut half = TcpStream::connect(secure.service.addresses.grpc).await.expect("connected");
        // The head of a record with a ClientHello of 512 bytes, and no more of it.
        half.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").await.expect("written");
        halves.push(half);
        if number % 250 == 249 {
            let client = secure.client(&caller).await;
            let status = within(get(&client, "none")).await.expect_err("not recorded");
            assert_eq!(status.code(), tonic::Code::NotFound);
        }
    }
    let begun = std::time::Instant::now();
    for mut half in halves {
        let mut rest = Vec::new();
        let _ = within(half.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "nothing was promised");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(9), "{:?}", begun.elapsed());
    let mut client = secure.client(&caller).await;
    client.create_payout(order("after")).await.expect("served");
}

#[test]
fn a_certificate_that_has_ended_or_ends_soon_is_said() {
    let pki = Pki::new();
    let mut config = config(([127, 0, 0, 1], 9).into(), "payoutd.db".into());
    pki.demand(&mut config);
    let day = 24 * 60 * 60;
    for (from, to, said) in [
        (-2 * day, -day, Some("the certificate ended 20")),
        (-80 * day, 10 * day, Some("the certificate ends 20")),
        (-day, 3600, Some("the certificate ends 20")),
        (-70 * day, 20 * day, None),
        (-3600, day, None),
    ] {
        pki.install(&pki.servers.sign(Leaf::server(SERVER).valid(from, to)));
        let warnings = payoutd::doctor::warnings(&config).join("; ");
        assert_eq!(warnings.contains("grpc.tls.cert_file"), said.is_some(), "{warnings}");
        assert!(warnings.contains(said.unwrap_or_default()), "{warnings}");
    }
}
