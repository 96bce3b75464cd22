//! What strangers and refused callers send costs no line each.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use payoutd::pb;
use payoutd::sandbox::PID;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use super::wire::{ACK, Attacker, PING, frame};
use crate::support::{Binary, Upstream, bearing, order, payoutd, within};

/// Far fewer than what is sent; what else a process says at its start is among them.
const LINES_MAX: usize = 100;

/// A service whose only caller may do nothing but read.
const SETTINGS: &str = "[[caller]]
name = \"reader\"
token_sha256 = [\"d74ff0ee8da3b9806b18c877dbf29bbde50b5bd8e4dad7a3a725000feb82e8f1\"]
roles = [\"read\"]
";

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_pings_of_refused_calls_and_of_forgeries_write_few_lines() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("payoutd.toml");
    std::fs::write(&file, SETTINGS).expect("written");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("its mode");
    let file = file.to_str().expect("text");
    let info = [("PAYOUTD_LOG__LEVEL", "info")];
    let mut serve = payoutd();
    serve.args(["serve", "--config", file]);
    let binary = Binary::start_as(&mut serve, upstream.address, &folder, &info).await;
    let lines = || std::fs::read_to_string(&binary.log).expect("a log").lines().count();
    let before = lines();

    let mut attacker = Attacker::connect(binary.address).await;
    let pongs = frame(PING, ACK, 0, &[0; 8]).repeat(1_000);
    for _ in 0..20 {
        assert!(attacker.send(&pongs).await);
    }
    let mut client = binary.client().await;
    for number in 0..1_000 {
        let message = order("a");
        // Nobody's token, and that of somebody who may not do it.
        let (token, code) = match number % 2 {
            0 => ("Bearer x", Code::Unauthenticated),
            _ => ("Bearer pass", Code::PermissionDenied),
        };
        let refused = within(client.create_payout(bearing(token, message))).await;
        assert_eq!(refused.expect_err("refused").code(), code);
        let unknown = pb::ListPayoutsRequest { pid: 7, ..pb::ListPayoutsRequest::default() };
        within(client.list_payouts(bearing(token, unknown))).await.expect_err("refused");
    }
    for _ in 0..500 {
        let mut stream = TcpStream::connect(binary.port("callback")).await.expect("connected");
        let path = format!("/callbacks/{}/payout", PID);
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut heard = Vec::new();
        within(stream.read_to_end(&mut heard)).await.expect("answered");
        assert!(heard.starts_with(b"HTTP/1.1 401 "));
    }
    let written = lines() - before;
    assert!(written < LINES_MAX, "{written} lines");
    let log = std::fs::read_to_string(&binary.log).expect("a log");
    for said in ["call refused", "forged or malformed message refused"] {
        assert!(log.contains(said), "{said}");
    }
}
