//! Certificates that change, and callers that lose their rights, while the service runs.

use payoutd::pb;
use tokio_rustls::rustls::AlertDescription;
use tonic::{Code, Status};

use super::Secure;
use crate::support::authority::{Authority, Leaf, SERVER, Signed, der};
use crate::support::{Binary, Client, Upstream, get, order, reason, told, watch, within};

async fn ask(client: &Client) -> Result<pb::Payout, Status> {
    get(client, "a").await
}

/// Asks on an open connection until the caller is unknown.
async fn until_unknown(client: &Client) -> Status {
    within(async {
        loop {
            match ask(client).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(status) => return status,
            }
        }
    })
    .await
}

async fn until_known(client: &Client) {
    within(async {
        while ask(client).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn caller(authority: &Authority) -> Signed {
    authority.sign(Leaf::caller(&["a.example"]))
}

fn unknown() -> (Code, String, String) {
    (Code::Unauthenticated, "UNAUTHENTICATED".to_owned(), "fix".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_an_authority_revokes_its_callers_also_on_open_connections() {
    let quick = std::time::Duration::from_millis(100);
    let secure = Secure::with(|config| config.projects[0].poll_first = quick).await;
    let (first, second) = (&secure.pki.callers, Authority::new("second"));
    let both = format!("{}{}", first.pem(), second.pem());
    secure.pki.write("clients.pem", &both);
    let (old, new) = (caller(first), caller(&second));
    within(async { while secure.alert(Some(&new)).await.is_some() {} }).await;
    let (old_client, new_client) = (secure.client(&old).await, secure.client(&new).await);
    old_client.clone().create_payout(order("a")).await.expect("served");
    ask(&new_client).await.expect("served");
    let mut news = watch(&old_client, "a").await.expect("OK");
    told(&mut news).await.expect("served").expect("the payout as it stands");

    secure.pki.write("clients.pem", &second.pem());
    assert_eq!(reason(&until_unknown(&old_client).await), unknown());
    let refused = old_client.clone().create_payout(order("b")).await.expect_err("unknown");
    assert_eq!(reason(&refused), unknown());
    let cid = ask(&new_client).await.expect("another's are untouched").cid;
    assert_eq!(secure.alert(Some(&old)).await, Some(AlertDescription::UnknownCA));
    // The open stream hears nothing that happens from now on.
    secure.upstream.book.set_status(cid, 1, false);
    let end = within(async {
        loop {
            match told(&mut news).await {
                Ok(Some(payout)) => assert_eq!(payout.cregis_status, Some(0), "told too much"),
                Ok(None) => panic!("no reason given"),
                Err(status) => return status,
            }
        }
    })
    .await;
    assert_eq!(reason(&end), unknown());
    get(&new_client, "b").await.expect_err("nothing was recorded");

    secure.pki.write("clients.pem", &both);
    until_known(&old_client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_on_an_open_connection_is_worth_nothing_from_then_on() {
    let secure = Secure::start().await;
    let leaf = Leaf::caller(&["a.example"]).valid(-60, 4);
    let client = secure.client(&secure.pki.callers.sign(leaf)).await;
    client.clone().create_payout(order("a")).await.expect("served");
    assert_eq!(reason(&until_unknown(&client).await), unknown());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_certificate_is_used_without_a_restart_and_cuts_nobody_off() {
    let secure = Secure::start().await;
    let caller = caller(&secure.pki.callers);
    let client = secure.client(&caller).await;
    client.clone().create_payout(order("a")).await.expect("served");
    let fresh = secure.pki.servers.sign(Leaf::server(SERVER));
    secure.pki.install(&fresh);
    within(async {
        loop {
            let config = secure.pki.rustls(Some(&caller));
            let stream = secure.shake_hands(config, SERVER).await.expect("good all the time");
            let shown = stream.get_ref().1.peer_certificates().expect("shown");
            if shown[0] == der(&fresh.cert) {
                return;
            }
        }
    })
    .await;
    ask(&client).await.expect("the open connection goes on");
}

/// Lines of the log with this message.
fn lines(log: &std::path::Path, message: &str) -> usize {
    let text = std::fs::read_to_string(log).expect("a log");
    text.lines().filter(|line| line.contains(&format!("\"message\":\"{message}\""))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_new_files_leave_the_old_in_force_and_are_told_once() {
    const BROKEN: &str = "new certificates are broken, the old stay in force";
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let pki = crate::support::authority::Pki::new();
    let path = |name: &str| pki.file(name).display().to_string();
    let settings = [
        ("PAYOUTD_GRPC__TLS__CERT_FILE", path("cert.pem")),
        ("PAYOUTD_GRPC__TLS__KEY_FILE", path("key.pem")),
        ("PAYOUTD_GRPC__TLS__CLIENT_CA_FILE", path("clients.pem")),
        ("PAYOUTD_GRPC__TLS__RELOAD", "20ms".to_owned()),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let binary = Binary::start_with(upstream.address, &folder, &settings).await;
    let caller = caller(&pki.callers);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", binary.address));
    let endpoint =
        endpoint.expect("an address").tls_config(pki.client(Some(&caller))).expect("TLS");
    let good = pki.servers.sign(Leaf::server(SERVER));
    let breakages: [(&str, &dyn Fn()); 5] = [
        ("holds no private key", &|| drop(pki.write("key.pem", "canary"))),
        ("is not the key of", &|| drop(pki.write("key.pem", &good.key))),
        ("holds no certificate", &|| drop(pki.write("clients.pem", "canary"))),
        ("cannot be read", &|| std::fs::remove_file(pki.file("cert.pem")).expect("removed")),
        ("readable by everybody", &|| {
            crate::support::authority::mode(&pki.file("key.pem"), 0o644);
        }),
    ];
    for (told, (what, break_it)) in breakages.into_iter().enumerate() {
        assert_eq!(lines(&binary.log, BROKEN), told, "each is told once");
        break_it();
        within(async {
            while lines(&binary.log, BROKEN) == told {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let log = std::fs::read_to_string(&binary.log).expect("a log");
        let last = log.lines().rfind(|line| line.contains(BROKEN)).expect("told");
        assert!(last.contains(what) && !log.contains("canary"), "{what}: {last}");
        endpoint.connect().await.expect("the old certificates serve");
    }
    pki.write("clients.pem", &pki.callers.pem());
    pki.install(&good);
    within(async {
        while lines(&binary.log, "new certificates in force") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    endpoint.connect().await.expect("and so do the new ones");
}
