//! The Envoy that is shipped in `deploy/mesh/envoy`: mTLS on both sides, and names that go through.

use std::path::Path;

use nix::sys::signal::Signal;
use payoutd::pb::PayoutState;
use payoutd::pb::payout_service_client::PayoutServiceClient;
use tempfile::TempDir;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::envoy::Envoy;
use super::{Instance, Load, create, orders};
use crate::support::authority::{Authority, Leaf, Signed, private};
use crate::support::{Binary, Client, Upstream, ledger, order, reason, told, watch, within};

const BILLING: &str = "spiffe://example.org/ns/pay/sa/billing";
const AUDIT: &str = "spiffe://example.org/ns/pay/sa/audit";

/// The shipped files with certificates of their own, for any ports.
struct Edge {
    folder: TempDir,
    callers: Authority,
    edges: Authority,
}

impl Edge {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (callers, edges) = (Authority::new("callers"), Authority::new("edges"));
        let services = Authority::new("services");
        let tls = folder.path().join("tls");
        std::fs::create_dir(&tls).expect("a folder");
        let edge = edges.sign(Leaf::peer(&["edge.test", "spiffe://example.org/edge"]));
        let payoutd = services.sign(Leaf::peer(&["payoutd", "spiffe://example.org/payoutd"]));
        for (name, text) in [
            ("callers-ca.crt", callers.pem()),
            ("payoutd-ca.crt", services.pem()),
            ("edge-ca.crt", edges.pem()),
            ("edge.crt", edge.cert),
            ("edge.key", edge.key),
            ("payoutd.crt", payoutd.cert),
            ("payoutd.key", payoutd.key),
        ] {
            private(&tls.join(name), &text);
        }
        Self { folder, callers, edges }
    }

    /// What payoutd is told: only the Envoy may connect, and what it says about callers is true.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let file = |name: &str| self.folder.path().join("tls").join(name).display().to_string();
        vec![
            ("PAYOUTD_GRPC__TRUST", "mesh".to_owned()),
            ("PAYOUTD_GRPC__TLS__CERT_FILE", file("payoutd.crt")),
            ("PAYOUTD_GRPC__TLS__KEY_FILE", file("payoutd.key")),
            ("PAYOUTD_GRPC__TLS__CLIENT_CA_FILE", file("edge-ca.crt")),
            ("PAYOUTD_GRPC__DRAIN_DELAY", "4s".to_owned()),
        ]
    }

    /// The shipped bootstrap before the services at `ports`, after `change`.
    async fn envoy(&self, ports: &[u16], change: impl Fn(String) -> String) -> Envoy {
        let home = self.folder.path().to_str().expect("a text");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/mesh/envoy");
        let read = |name: &str| {
            let text = std::fs::read_to_string(shipped.join(name)).expect(name);
            text.replace("/etc/envoy", home)
        };
        for name in ["edge.yaml", "callers.yaml", "payoutd.yaml"] {
            std::fs::write(self.folder.path().join(name), read(name)).expect("written");
        }
        let endpoints = read("endpoints.yaml");
        let (head, one) = endpoints.split_at(endpoints.find("          - endpoint:").expect("one"));
        let all = ports.iter().map(|port| one.replace("50051", &port.to_string()));
        let endpoints = format!("{head}{}", all.collect::<String>());
        std::fs::write(self.folder.path().join("endpoints.yaml"), endpoints).expect("written");
        let any_port = read("envoy.yaml").replace("port_value: 8443", "port_value: 0");
        let envoy =
            Envoy::start(&change(any_port.replace("port_value: 9901", "port_value: 0"))).await;
        envoy.uses(ports).await;
        envoy
    }

    /// A caller's way in through `envoy`, with a certificate for `name`.
    async fn client(&self, envoy: &Envoy, name: &str) -> Client {
        let caller = self.callers.sign(Leaf::caller(&[name]));
        connect(&format!("https://{}", envoy.address), &self.edges, "edge.test", &caller).await
    }
}

async fn connect(to: &str, authority: &Authority, name: &str, caller: &Signed) -> Client {
    let tls = ClientTlsConfig::new()
        .domain_name(name)
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .identity(Identity::from_pem(&caller.cert, &caller.key));
    let endpoint = Endpoint::from_shared(to.to_owned()).expect("an address");
    let channel = endpoint.tls_config(tls).expect("TLS").connect().await.expect("connected");
    PayoutServiceClient::new(channel)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: .ci/tools"]
async fn names_of_callers_go_through_mtls_on_both_sides_and_cannot_be_claimed() {
    let (upstream, edge) = (Upstream::start().await, Edge::new());
    let folder = tempfile::tempdir().expect("a folder");
    let mut file = String::from("[grpc]\ntrust = \"mesh\"\n[grpc.tls]\n");
    for (name, value) in &edge.settings()[1..4] {
        let name = name.rsplit("__").next().expect("a name").to_lowercase();
        file.push_str(&format!("{name} = \"{value}\"\n"));
    }
    for (name, identity, role) in [("billing", BILLING, "create"), ("audit", AUDIT, "read")] {
        file.push_str(&format!(
            "[[caller]]\nname = \"{name}\"\nidentities = [\"{identity}\"]\nroles = [\"{role}\"]\n"
        ));
    }
    let path = folder.path().join("payoutd.toml");
    std::fs::write(&path, file).expect("written");
    let binary = Binary::start_from(upstream.address, &folder, path.to_str().expect("text")).await;
    let envoy = edge.envoy(&[binary.address.port()], |shipped| shipped).await;

    let billing = edge.client(&envoy, BILLING).await;
    assert_eq!(create(&billing, "a").await, Ok(PayoutState::Accepted));
    let owner = rusqlite::Connection::open(ledger(&folder)).expect("a ledger");
    let owner = owner.query_row("SELECT caller FROM payout", [], |row| row.get::<_, String>(0));
    assert_eq!(owner.expect("one row"), "billing");
    // Another certificate with the other's name in the header that Envoy is to overwrite.
    let claim = format!("URI={BILLING}");
    for (name, expected) in [
        (AUDIT, (Code::PermissionDenied, "PERMISSION_DENIED")),
        ("spiffe://example.org/nobody", (Code::Unauthenticated, "UNAUTHENTICATED")),
    ] {
        let mut request = Request::new(order("b"));
        let claim: MetadataValue<_> = claim.parse().expect("ASCII");
        request.metadata_mut().insert("x-forwarded-client-cert", claim);
        let mut client = edge.client(&envoy, name).await;
        let refused = within(client.create_payout(request)).await.expect_err("refused");
        let (code, why, _) = reason(&refused);
        assert_eq!((code, why.as_str()), expected, "{name}");
    }
    // Past Envoy there is no way in: a caller's certificate is none of an Envoy's.
    let caller = edge.callers.sign(Leaf::caller(&[BILLING]));
    let direct = Endpoint::from_shared(format!("https://{}", binary.address)).expect("an address");
    let tls = ClientTlsConfig::new()
        .domain_name("payoutd")
        .ca_certificate(Certificate::from_pem(
            std::fs::read(edge.folder.path().join("tls/payoutd-ca.crt")).expect("a file"),
        ))
        .identity(Identity::from_pem(&caller.cert, &caller.key));
    let direct = direct.tls_config(tls).expect("TLS").connect_lazy();
    let past = within(PayoutServiceClient::new(direct).create_payout(order("c"))).await;
    past.expect_err("turned away by the handshake");
    assert_eq!(upstream.book.orders().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: .ci/tools"]
async fn a_rolling_restart_under_load_fails_no_call() {
    let (upstream, edge) = (Upstream::start().await, Edge::new());
    let first = Instance::start(upstream.address, edge.settings()).await;
    let second = Instance::start(upstream.address, edge.settings()).await;
    let (a, b) = (first.port(), second.port());
    let envoy = edge.envoy(&[a, b], |shipped| shipped).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(edge.client(&envoy, BILLING).await);
    }
    let load = Load::begin(clients);

    let _first = first.roll(&envoy, b).await;
    let _second = second.roll(&envoy, a).await;
    // Both work again, and still under load.
    let sent = upstream.book.orders().len();
    upstream.received(sent + 200).await;

    let calls = load.end().await;
    let failed: Vec<_> =
        calls.iter().filter(|(_, answer)| *answer != Ok(PayoutState::Accepted)).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), calls.len());
    assert_eq!(orders(&upstream).len(), calls.len());
    println!("{} calls, none failed", calls.len());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: .ci/tools"]
async fn a_watch_outlives_envoys_default_time_out_with_the_shipped_settings() {
    let (upstream, edge) = (Upstream::start().await, Edge::new());
    let mut settings = edge.settings();
    settings.push(("PAYOUTD_PROJECT__POLL_FIRST", "100ms".to_owned()));
    let mut instance = Instance::start(upstream.address, settings).await;
    let shipped = edge.envoy(&[instance.port()], |shipped| shipped).await;
    let default = edge
        .envoy(&[instance.port()], |shipped| {
            let lines = shipped.lines().filter(|line| line.trim() != "timeout: 0s");
            let plain = lines.collect::<Vec<_>>().join("\n");
            assert_ne!(plain, shipped.trim_end());
            plain
        })
        .await;
    let (client, cut_off) =
        (edge.client(&shipped, BILLING).await, edge.client(&default, BILLING).await);
    assert_eq!(create(&client, "a").await, Ok(PayoutState::Accepted));
    let mut lasting = watch(&client, "a").await.expect("a stream");
    let mut cut = watch(&cut_off, "a").await.expect("a stream");
    told(&mut lasting).await.expect("OK").expect("as it stands");
    told(&mut cut).await.expect("OK").expect("as it stands");
    // Envoy's own 15 s.
    let end = loop {
        match told(&mut cut).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended in good order"),
            Err(status) => break status,
        }
    };
    assert!(end.get_error_details().error_info().is_none(), "Envoy's own word: {end:?}");
    let cid = upstream.book.orders()[0].cid;
    upstream.book.set_status(cid, 6, false);
    let mut last = None;
    while let Some(payout) = told(&mut lasting).await.expect("still open") {
        last = Some(payout.state());
    }
    assert_eq!(last, Some(PayoutState::Succeeded));
    instance.binary.signal(Signal::SIGTERM);
    assert_eq!(instance.binary.code().await, Some(0));
}
