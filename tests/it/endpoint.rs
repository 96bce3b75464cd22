//! How payoutd's own commands reach a service: over TLS, with a certificate, with a token.

use std::process::Output;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::authority::{Leaf, Pki, SERVER, mode, private};
use crate::support::{any_port, order, payoutd, within};
use crate::tls::Secure;

async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output: Output = within(payoutd().args(arguments).output()).await.expect("ran");
    let words = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(words).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn health_payouts_and_reconcile_speak_mutual_tls() {
    let secure = Secure::start().await;
    let pki = &secure.pki;
    let caller = pki.callers.sign(Leaf::caller(&["operator.example"]));
    secure.client(&caller).await.create_payout(order("invoice-1")).await.expect("served");
    let ca = pki.write("ca", &pki.servers.pem()).display().to_string();
    let cert = pki.write("caller", &caller.cert).display().to_string();
    let key = pki.write("caller-key", &caller.key).display().to_string();
    let by_address = format!("https://{}", secure.service.addresses.grpc);
    let known = ["--addr", &by_address, "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    for (command, expected) in [
        (&["health"][..], "SERVING"),
        (&["payouts", "list", "--output", "csv"], "invoice-1"),
        (&["payouts", "show", "invoice-1"], "ACCEPTED"),
        (&["reconcile"], "0 payouts"),
    ] {
        // The certificate has the address in it, and the name.
        for name in [&[][..], &["--tls-name", SERVER]] {
            let (code, words) = run(&[command, &known, name].concat()).await;
            assert_eq!(code, Some(0), "{words}");
            assert!(words.contains(expected), "{words}");
        }
        let (code, words) = run(&[command, &known, &["--tls-name", "other"]].concat()).await;
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains("not valid for name"), "{words}");
        let (code, words) = run(&[command, &known[..4]].concat()).await;
        assert_eq!(code, Some(1), "no certificate: {words}");
        let (code, words) =
            run(&[command, &known[2..], &["--addr", "http://127.0.0.1:9"]].concat()).await;
        assert_eq!(code, Some(64), "certificates, but no TLS: {words}");
        assert!(words.contains("--tls-ca: needs an https address"), "{words}");
    }
}

#[tokio::test]
async fn arguments_that_do_not_fit_together_are_usage_and_show_no_secret() {
    let pki = Pki::new();
    let ca = pki.write("ca", &pki.servers.pem()).display().to_string();
    let open = pki.write("open", "canary");
    mode(&open, 0o644);
    let (open, empty) =
        (open.display().to_string(), pki.write("empty", "\n").display().to_string());
    let odd = pki.write("odd", "canary\u{1}").display().to_string();
    let https = ["health", "--addr", "https://127.0.0.1:9"];
    for (arguments, expected) in [
        (&[][..], "--tls-ca: is required with an https address"),
        (&["--tls-ca", "/no/such"], "the file cannot be read: entity not found"),
        (&["--tls-ca", &ca, "--tls-cert", &ca], "--tls-cert: and --tls-key belong together"),
        (&["--tls-ca", &ca, "--tls-key", &open], "the file is readable by everybody"),
        (&["--tls-ca", &ca, "--token-file", &open], "the file is readable by everybody"),
        (&["--tls-ca", &ca, "--token-file", &empty], "the file is empty"),
        (&["--tls-ca", &ca, "--token-file", &odd], "characters that cannot be sent"),
        (&["ftp"], "must be an http or https URL"),
    ] {
        let whole = match arguments {
            ["ftp"] => vec!["health", "--addr", "ftp://a"],
            more => [&https, more].concat(),
        };
        let (code, words) = run(&whole).await;
        assert_eq!(code, Some(64), "{arguments:?}: {words}");
        assert!(words.contains(expected) && !words.contains("canary"), "{arguments:?}: {words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_sent_as_a_bearer() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    private(&file, " secret-4711 \nand no more\n");
    let file = file.display().to_string();
    let listener = TcpListener::bind(any_port()).await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let mut commands = JoinSet::new();
    for command in [&["health"][..], &["payouts", "list"], &["reconcile"]] {
        let arguments = [command, &["--addr", &address, "--token-file", &file]].concat();
        let mut command = payoutd();
        command.args(arguments);
        commands.spawn(async move { command.output().await });
        let (stream, _) = within(listener.accept()).await.expect("accepted");
        let mut server = within(h2::server::handshake(stream)).await.expect("HTTP/2");
        let (request, mut respond) = within(server.accept()).await.expect("one").expect("a call");
        assert_eq!(request.headers()["authorization"], "Bearer secret-4711");
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        drop(server);
        let ended = within(commands.join_next()).await.expect("one").expect("no panic");
        let output = ended.expect("ran");
        let words = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&words).contains("4711"), "the token is shown");
        assert_eq!(output.status.code(), Some(1));
    }
}
