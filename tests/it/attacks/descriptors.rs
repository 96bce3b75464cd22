//! Attacks with connections alone: silent ones, and more than there are descriptors.

use std::time::Duration;

use tokio::io::AsyncReadExt;
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
        for mut stream in silent {
            let mut heard = Vec::new();
            let _ = within(stream.read_to_end(&mut heard)).await;
            assert!(heard.is_empty());
        }
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
                // Beyond the backlog nobody answers: that is not the point here.
                let stream = TcpStream::connect(besieged.binary.address);
                if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), stream).await {
                    held.push(stream);
                }
            }
            // Long enough for a spinning loop to be seen.
            for stream in &mut held {
                let _ = within(stream.read_u8()).await;
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
