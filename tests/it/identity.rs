//! Who a caller is: only what its transport proves, and a header only from a proxy that is trusted.

use payoutd::caller::ROLES;
use payoutd::config::{self, Config, Trust};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::authority::Leaf;
use crate::support::{Client, Whole, caller, order, reason, within};
use crate::tls::Secure;

const HEADER: &str = "x-forwarded-client-cert";
const GOOD: &str = "By=spiffe://us;Hash=00ff;Subject=\"\";URI=spiffe://cluster.local/ns/pay/sa/api";

/// Creates a payout with these lines of the header; on refusal nothing may be recorded.
async fn create(client: &Client, id: &str, lines: &[&str]) -> Result<(), Status> {
    let mut request = Request::new(order(id));
    let metadata: &mut MetadataMap = request.metadata_mut();
    for line in lines {
        metadata.append(HEADER, line.parse().expect("ASCII"));
    }
    within(client.clone().create_payout(request)).await.map(drop)
}

fn unknown(refused: Result<(), Status>) -> bool {
    let (code, reason, retry) = reason(&refused.expect_err("unknown"));
    (code, reason.as_str(), retry.as_str()) == (Code::Unauthenticated, "UNAUTHENTICATED", "fix")
}

fn mesh(config: &mut Config) {
    config.grpc.trust = Trust::Mesh;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_mesh_the_proxys_word_is_needed_and_is_enough() {
    let whole = Whole::with(mesh).await;
    create(&whole.client, "good", &[GOOD]).await.expect("known");
    create(&whole.client, "dns", &["DNS=a.example"]).await.expect("known");
    create(&whole.client, "lines", &["URI=spiffe://other", GOOD]).await.expect("known");
    for (number, lines) in [
        &[][..],
        &[""],
        &["By=spiffe://us;Hash=00ff"],
        &["URI="],
        &["spiffe://cluster.local/ns/pay/sa/api"],
        &["URI=\"spiffe://open"],
        &[GOOD, "By=spiffe://us"],
        &[GOOD, ""],
        // Two lines are one list, and this one is broken.
        &["nobody", GOOD],
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("bad-{number}");
        assert!(unknown(create(&whole.client, &id, lines).await), "{lines:?}");
        assert_eq!(whole.upstream.book.posts().len(), 3, "nothing was sent");
    }
    // Health is for everybody.
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", whole.service.addresses.grpc));
    let channel = channel.expect("an address").connect().await.expect("connected");
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    assert_eq!(answer.expect("OK").into_inner().status, ServingStatus::Serving as i32);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_of_a_proxy_that_is_not_trusted_proves_nothing() {
    let whole = Whole::with(|config| {
        mesh(config);
        config.grpc.trusted_proxies = vec!["127.0.0.2/32".parse().expect("a network")];
    })
    .await;
    assert!(unknown(create(&whole.client, "a", &[GOOD]).await));
    assert!(whole.upstream.book.posts().is_empty());
    let whole = Whole::with(|config| {
        mesh(config);
        config.grpc.trusted_proxies = vec!["127.0.0.0/24".parse().expect("a network")];
    })
    .await;
    create(&whole.client, "a", &[GOOD]).await.expect("known");
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_a_mesh_the_header_is_worth_nothing() {
    let secure = Secure::start().await;
    let nameless = secure.client(&secure.pki.callers.sign(Leaf::caller(&[]))).await;
    assert!(unknown(create(&nameless, "spoofed", &[GOOD]).await), "verified, but without a name");
    assert!(unknown(create(&nameless, "silent", &[]).await));
    let uri = ["spiffe://cluster.local/ns/pay/sa/api"];
    let named = secure.client(&secure.pki.callers.sign(Leaf::caller(&uri))).await;
    create(&named, "a", &["broken"]).await.expect("the certificate alone counts");
    assert_eq!(secure.upstream.book.posts().len(), 1);
}

/// TLS in a mesh says who may be the proxy; the names are still the header's alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_a_certificate_is_not_taken_for_its_callers() {
    let secure = Secure::with(mesh).await;
    let proxy = secure.pki.callers.sign(Leaf::caller(&["proxy.example"]));
    let client = secure.client(&proxy).await;
    assert!(unknown(create(&client, "a", &[]).await), "not the proxy itself");
    create(&client, "a", &[GOOD]).await.expect("known");
    // A proxy that loses its certificate's authority loses its word.
    let other = crate::support::authority::Authority::new("other");
    secure.pki.write("clients.pem", &other.pem());
    within(async { while create(&client, "a", &[GOOD]).await.is_ok() {} }).await;
    assert!(unknown(create(&client, "a", &[GOOD]).await));
}

/// A CA, or a proxy, that lets teams choose one kind of names freely proves nothing about the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_uri_is_no_dns_name_and_a_dns_name_is_no_uri() {
    let named = |config: &mut Config| {
        let identities = vec!["rd.internal".to_owned(), "spiffe://a/ns/pay/sa/api".to_owned()];
        config.callers = vec![config::Caller { identities, ..caller("rd", &ROLES) }];
    };
    let whole = Whole::with(|config| {
        mesh(config);
        named(config);
    })
    .await;
    for (number, (line, known)) in [
        ("DNS=rd.internal", true),
        ("URI=spiffe://a/ns/pay/sa/api", true),
        ("URI=spiffe://b;DNS=rd.internal", true),
        ("URI=rd.internal", false),
        ("DNS=spiffe://a/ns/pay/sa/api", false),
        ("URI=rd.internal;DNS=spiffe://a/ns/pay/sa/api", false),
    ]
    .into_iter()
    .enumerate()
    {
        let created = create(&whole.client, &format!("{number}"), &[line]).await;
        assert!(if known { created.is_ok() } else { unknown(created) }, "{line}");
    }
    let secure = Secure::with(named).await;
    for (names, known) in [
        (&["rd.internal"][..], true),
        (&["spiffe://a/ns/pay/sa/api"], true),
        (&["uri:rd.internal"], false),
    ] {
        let signed = secure.pki.callers.sign(Leaf::caller(names));
        let client = secure.client(&signed).await;
        let created = create(&client, &format!("tls-{}", names[0].len()), &[]).await;
        assert!(if known { created.is_ok() } else { unknown(created) }, "{names:?}");
    }
}
