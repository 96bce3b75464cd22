//! What payoutd refuses to start with: doors open to everybody, and keys that everybody can read.

use std::path::Path;
use std::process::Output;

use crate::support::authority::{Leaf, Pki, SERVER, mode, private};
use crate::support::{payoutd, within};

/// `payoutd check` with a good project and `settings`: the same reading as `serve`, and it ends.
async fn check(settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = payoutd();
    command.arg("check").current_dir(folder.path()).envs([
        ("PAYOUTD_PROJECT__PID", "1"),
        ("PAYOUTD_PROJECT__BASE_URL", "http://127.0.0.1:9"),
        ("PAYOUTD_PROJECT__API_KEY", "canary"),
    ]);
    let output: Output =
        within(command.envs(settings.iter().copied()).output()).await.expect("ran");
    let words = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(words).expect("text"))
}

async fn mistakes(settings: &[(&str, &str)]) -> Vec<String> {
    let (code, words) = check(settings).await;
    match code {
        Some(64) => words.lines().map(|line| line.replacen("payoutd: ", "", 1)).collect(),
        // Nobody is at the project's address: whoever hears that has read all settings.
        _ => {
            assert!(words.contains("ok    settings"), "{words}");
            vec![]
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[tokio::test]
async fn an_open_door_off_loopback_is_refused_unless_a_mesh_is_said_to_guard_it() {
    let pki = Pki::new();
    let (cert, key, ca) = (pki.file("cert.pem"), pki.file("key.pem"), pki.file("clients.pem"));
    let cert = ("PAYOUTD_GRPC__TLS__CERT_FILE", text(&cert));
    let key = ("PAYOUTD_GRPC__TLS__KEY_FILE", text(&key));
    let ca = ("PAYOUTD_GRPC__TLS__CLIENT_CA_FILE", text(&ca));
    let mesh = ("PAYOUTD_GRPC__TRUST", "mesh");
    let refused = vec![
        "grpc.listen: off loopback, callers must be known: needs [grpc.tls] with client_ca_file, \
         or with [[caller]]s that have tokens, or trust = \"mesh\" where a mesh encrypts and authenticates"
            .to_owned(),
    ];
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "[::ffff:192.0.2.1]:1"] {
        let listen = ("PAYOUTD_GRPC__LISTEN", listen);
        assert_eq!(mistakes(&[listen]).await, refused, "{listen:?}");
        assert_eq!(mistakes(&[listen, ("PAYOUTD_GRPC__TRUST", "none")]).await, refused);
        assert_eq!(mistakes(&[listen, cert, key]).await, refused, "nobody is authenticated");
        assert!(mistakes(&[listen, cert, key, ca]).await.is_empty());
        assert!(mistakes(&[listen, mesh]).await.is_empty());
        assert!(mistakes(&[listen, mesh, cert, key, ca]).await.is_empty());
    }
    for listen in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        assert!(mistakes(&[("PAYOUTD_GRPC__LISTEN", listen)]).await.is_empty(), "{listen}");
    }
    // The way to Cregis leaves no room for plain text, either.
    for url in ["http://pay.example", "http://192.0.2.1:80", "http://0.0.0.0:1"] {
        let found = mistakes(&[("PAYOUTD_PROJECT__BASE_URL", url)]).await;
        assert!(found.len() == 1 && found[0].contains("plain http only to loopback"), "{found:?}");
    }
}

#[tokio::test]
async fn serve_refuses_an_open_door_too() {
    let mut command = payoutd();
    command.arg("serve").envs([
        ("PAYOUTD_GRPC__LISTEN", "0.0.0.0:0"),
        ("PAYOUTD_PROJECT__PID", "1"),
        ("PAYOUTD_PROJECT__BASE_URL", "http://127.0.0.1:9"),
        ("PAYOUTD_PROJECT__API_KEY", "canary"),
    ]);
    let output = within(command.output()).await.expect("ran");
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("grpc.listen: off loopback"));
}

#[tokio::test]
async fn a_key_that_everybody_can_read_is_refused_and_one_for_the_group_is_not() {
    let pki = Pki::new();
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    private(&secret, "canary");
    let (cert, key) = (pki.file("cert.pem"), pki.file("key.pem"));
    let file = format!(
        "[grpc.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n[[project]]\npid = 1\n\
         base_url = \"http://127.0.0.1:9\"\napi_key_file = {secret:?}\n"
    );
    let settings = folder.path().join("payoutd.toml");
    std::fs::write(&settings, file).expect("written");
    for (bits, good) in [
        (0o400, true),
        (0o600, true),
        (0o640, true),
        (0o440, true),
        (0o644, false),
        (0o444, false),
        (0o604, false),
        (0o602, false),
        (0o601, false),
    ] {
        mode(&key, bits);
        mode(&secret, bits);
        let mut command = payoutd();
        command.args(["check", "--config"]).arg(&settings).current_dir(folder.path());
        let output = within(command.output()).await.expect("ran");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = "payoutd: grpc.tls.key_file: the file is readable by everybody: chmod o= it\n\
                        payoutd: project.api_key_file: the file is readable by everybody: chmod o= it\n";
        assert_eq!(words, if good { "" } else { expected }, "{bits:o}");
        assert_eq!(output.status.code(), Some(if good { 1 } else { 64 }), "{bits:o}");
    }
}

#[tokio::test]
async fn files_that_do_not_do_are_all_named_and_none_is_shown() {
    let pki = Pki::new();
    let (cert, key, ca) = (pki.file("cert.pem"), pki.file("key.pem"), pki.file("clients.pem"));
    let with = async |cert: &Path, key: &Path, ca: &Path| {
        let found = mistakes(&[
            ("PAYOUTD_GRPC__TLS__CERT_FILE", text(cert)),
            ("PAYOUTD_GRPC__TLS__KEY_FILE", text(key)),
            ("PAYOUTD_GRPC__TLS__CLIENT_CA_FILE", text(ca)),
            ("PAYOUTD_GRPC__TLS__RELOAD", "1s"),
        ])
        .await;
        assert!(!found.concat().contains("canary"), "{found:?}");
        found
    };
    let none: [String; 0] = [];
    assert_eq!(with(&cert, &key, &ca).await, none);
    let missing = Path::new("/no/such");
    assert_eq!(
        with(missing, missing, missing).await,
        ["cert_file", "key_file", "client_ca_file"]
            .map(|name| format!("grpc.tls.{name}: the file cannot be read: entity not found"))
    );
    let junk = pki.write("junk", "canary");
    assert_eq!(
        with(&junk, &junk, &junk).await,
        [
            "grpc.tls.cert_file: the file holds no certificate in PEM",
            "grpc.tls.key_file: the file holds no private key in PEM",
            "grpc.tls.client_ca_file: the file holds no certificate in PEM",
        ]
    );
    let other = pki.servers.sign(Leaf::server(SERVER));
    let other = pki.write("other", &other.key);
    let found = with(&cert, &other, &ca).await;
    assert_eq!(found, ["grpc.tls.key_file: is not the key of cert_file's certificate"]);
    let marked = |name: &str| {
        let text = std::fs::read_to_string(pki.file(name)).expect("read");
        pki.write(&format!("marked-{name}"), &format!("\u{feff}{text}"))
    };
    let (cert_marked, key_marked) = (marked("cert.pem"), marked("key.pem"));
    let mark = "begins with a byte order mark: save it as UTF-8 without one";
    assert_eq!(
        with(&cert_marked, &key_marked, &marked("clients.pem")).await,
        ["cert_file", "key_file", "client_ca_file"].map(|name| format!("grpc.tls.{name}: {mark}"))
    );
    let own = std::fs::read_to_string(&cert).expect("read");
    let turned = pki.write("turned", &format!("{}{own}", pki.servers.pem()));
    let found = with(&turned, &key, &ca).await;
    let first = "the certificate of key_file must come first, before those that lead to its root";
    assert_eq!(found, [format!("grpc.tls.cert_file: {first}")]);
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nY2FuYXJ5\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let found = with(&cert, &pki.write("locked", locked), &ca).await;
    assert!(found.len() == 1 && found[0].contains("the private key is encrypted"), "{found:?}");
    let broken = "-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n";
    let broken = pki.write("broken", broken);
    let found = with(&cert, &key, &broken).await;
    assert_eq!(found, ["grpc.tls.client_ca_file: one of its certificates cannot be read"]);
    let found = with(&broken, &key, &ca).await;
    assert!(found.len() == 1 && found[0].starts_with("grpc.tls.cert_file: cannot be used"));

    let half = mistakes(&[("PAYOUTD_GRPC__TLS__CERT_FILE", text(&cert))]).await;
    assert_eq!(half, ["grpc.tls.key_file: is required"]);
    let wrong = [
        ("PAYOUTD_GRPC__TLS__RELOAD", "soon"),
        ("PAYOUTD_GRPC__TLS__CERT", "canary"),
        ("PAYOUTD_GRPC__TLS__KEY__FILE", "canary"),
        ("PAYOUTD_GRPC__TLS__CLIENT_CA_FILE", ""),
    ];
    let found = mistakes(&wrong).await;
    for expected in [
        "grpc.tls.cert_file: is required",
        "grpc.tls.key_file: is required",
        "grpc.tls.client_ca_file: must be the name of a file",
        "grpc.tls.reload: must be a duration",
        "grpc.tls.cert: unknown setting",
        "grpc.tls.key: unknown setting",
    ] {
        assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}: {found:?}");
    }
    assert_eq!(found.len(), 6, "{found:?}");
    let text = mistakes(&[("PAYOUTD_GRPC__TLS", "canary")]).await;
    assert_eq!(text, ["grpc.tls: must be a table"]);
}
