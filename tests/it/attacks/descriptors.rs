//! Attacks with connections alone: silent ones, and more than there are descriptors.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Besieged;
use crate::support::{payoutd, within};

/// Descriptors that the process has open.
fn open(besieged: &Besieged) -> usize {
    std::fs::read_dir(besieged.binary.proc().join("fd")).expect("fd").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_silent_connections_are_cut_off() {
    let besieged = Besieged::start().await;
    let before = open(&besieged);
    let attack = async {
        let mut silent = Vec::new();
        for _ in 0..1_000 {
            silent.push(within(TcpStream::connect(besieged.binary.address)).await.expect("taken"));
        }
        let mut most = 0;
        for mut stream in silent {
            let mut heard = Vec::new();
            let _ = within(stream.read_to_end(&mut heard)).await;
            assert!(heard.is_empty());
            most = most.max(open(&besieged));
        }
        // Those that gave way are closed a little later.
        assert!(most < before + 500, "{most} open at once: the oldest did not give way");
    };
    besieged.under(attack).await;
    besieged.stands(Duration::from_secs(5)).await;
    within(async {
        while open(&besieged) > before + 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Half of the descriptors are the callers'. With so few that even this is too many, accepting fails,
/// and is tried again without spinning.
#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_descriptors_neither_spins_nor_ends_the_listening() {
    let needed = open(&Besieged::start().await);
    for (limit, fails) in [(2 * needed + 20, false), (needed + 8, true)] {
        let mut command = tokio::process::Command::new("/bin/sh");
        command.env_clear().kill_on_drop(true).stdin(std::process::Stdio::null());
        let binary = payoutd().as_std().get_program().to_owned();
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" serve")]).arg(binary);
        let besieged = Besieged::start_as(&mut command, &[]).await;
        let attack = async {
            let mut held = Vec::new();
            for _ in 0..300 {
                let stream = TcpStream::connect(besieged.binary.address);
                match tokio::time::timeout(Duration::from_secs(1), stream).await {
                    Ok(Ok(stream)) => held.push(stream),
                    // The backlog is full.
                    Ok(Err(_)) | Err(_) => break,
                }
            }
            // The first is cut off after 10 s: long enough for a spinning loop to be seen.
            if let Some(first) = held.first_mut() {
                let _ = within(first.read_u8()).await;
            }
            held.len()
        };
        let held = besieged.under(attack).await;
        assert!(held > limit, "the attack did not get far");
        besieged.stands(Duration::from_secs(3)).await;
        let log = std::fs::read_to_string(&besieged.binary.log).expect("a log");
        let told = log.matches("connections cannot be accepted; trying on").count();
        assert_eq!(told, usize::from(fails), "told once at most in a minute:\n{log}");
    }
}

/// A page of the admin port: its status line.
async fn page(address: std::net::SocketAddr, path: &str) -> String {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut heard = [0; 15];
        stream.read_exact(&mut heard).await.expect("answered");
        String::from_utf8_lossy(&heard).into_owned()
    };
    tokio::time::timeout(Duration::from_secs(1), asked).await.expect("answered within a second")
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_to_any_port_keep_neither_the_platform_nor_callers_out() {
    let mut command = tokio::process::Command::new("/bin/sh");
    command.env_clear().kill_on_drop(true).stdin(std::process::Stdio::null());
    let binary = payoutd().as_std().get_program().to_owned();
    command.args(["-c", "ulimit -n 256; exec \"$0\" serve"]).arg(binary);
    let besieged = Besieged::start_as(&mut command, &[]).await;
    let attack = async {
        let mut held = Vec::new();
        for port in ["admin", "callback", "grpc"] {
            for _ in 0..300 {
                let stream = TcpStream::connect(besieged.binary.port(port));
                if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), stream).await {
                    held.push(stream);
                }
            }
            for path in ["/livez", "/readyz", "/metrics"] {
                let line = page(besieged.binary.port("admin"), path).await;
                assert_eq!(line, "HTTP/1.1 200 OK", "{path} while {port} is held");
            }
        }
        held.len()
    };
    let held = besieged.under(attack).await;
    assert!(held > 500, "the attack did not get far: {held}");
    besieged.stands(Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_to_the_admin_port_is_closed_in_time() {
    let besieged = Besieged::start().await;
    for said in ["", "GET /livez HTTP/1.1\r\n", "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream =
            TcpStream::connect(besieged.binary.port("admin")).await.expect("connected");
        stream.write_all(said.as_bytes()).await.expect("sent");
        let mut heard = Vec::new();
        within(stream.read_to_end(&mut heard)).await.expect("closed");
    }
}
