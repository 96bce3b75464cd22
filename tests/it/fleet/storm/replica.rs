//! A replica at a steady place, as a platform runs one: it is killed, and started again whenever it is gone.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use payoutd::caller::TokenHash;
use payoutd::sandbox::{API_KEY, PID};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::super::lease::settings;
use crate::support::fleet::wired;
use crate::support::proxy::Proxy;
use crate::support::{Client, Database, Upstream, payoutd, token};

/// One whose day is limited, so that its payouts are judged in transactions, and one without limits.
pub(super) const CALLERS: [&str; 2] = ["shop", "desk"];

pub(super) struct Replica {
    /// Between it and the database.
    pub(super) proxy: Proxy,
    /// Where Cregis tells it of payouts.
    pub(super) callback_url: String,
    pub(super) channel: Channel,
    pub(super) log: PathBuf,
    command: Command,
    process: Child,
}

impl Replica {
    /// Starts it over `database` with what it needs in `folder`; it listens at `ports`.
    pub(super) async fn start(
        upstream: &Upstream,
        database: &Database,
        folder: &TempDir,
        ports: &[u16],
    ) -> Self {
        let (proxy, _) = wired(database).await;
        let address = |port: u16| format!("127.0.0.1:{port}");
        let file = folder.path().join("payoutd.toml");
        std::fs::write(&file, callers()).expect("written");
        let mut command = payoutd();
        command.arg("serve").arg("--config").arg(file).stderr(Stdio::null());
        command.envs(settings(database, proxy.address.port())).envs([
            ("PAYOUTD_GRPC__LISTEN", address(ports[0])),
            ("PAYOUTD_CALLBACK__LISTEN", address(ports[1])),
            ("PAYOUTD_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
            ("PAYOUTD_PROJECT__PID", PID.to_string()),
            ("PAYOUTD_PROJECT__BASE_URL", format!("http://{}", upstream.address)),
            ("PAYOUTD_PROJECT__API_KEY", API_KEY.to_owned()),
            ("PAYOUTD_PROJECT__POLL_FIRST", "500ms".to_owned()),
            ("PAYOUTD_LOG__LEVEL", "warn".to_owned()),
        ]);
        let log = folder.path().join(format!("log-{}", ports[0]));
        let endpoint = Endpoint::from_shared(format!("http://{}", address(ports[0])));
        let endpoint = endpoint.expect("an address").connect_timeout(Duration::from_secs(1));
        let callback_url = format!("http://{}/callbacks/{PID}/payout", address(ports[1]));
        let process = spawn(&mut command, &log);
        Self { proxy, callback_url, channel: endpoint.connect_lazy(), log, command, process }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.channel.clone())
    }

    /// kill -9, and another process in its place.
    pub(super) async fn kill(&mut self) {
        self.process.kill().await.expect("killed");
        self.process = spawn(&mut self.command, &self.log);
    }

    /// Starts it again where it has ended by itself, as it does where there is no database at its start.
    pub(super) fn keep(&mut self) {
        if self.process.try_wait().expect("a child").is_some() {
            self.process = spawn(&mut self.command, &self.log);
        }
    }

    /// Names the process.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Whether it says that it serves.
    pub(super) async fn serves(&self) -> bool {
        let request = HealthCheckRequest::default();
        let answer = HealthClient::new(self.channel.clone()).check(request).await;
        answer.is_ok_and(|answer| answer.into_inner().status == ServingStatus::Serving as i32)
    }
}

fn spawn(command: &mut Command, log: &PathBuf) -> Child {
    let log = std::fs::File::options().append(true).create(true).open(log).expect("a log");
    command.stderr(log).spawn().expect("started")
}

fn callers() -> String {
    let [limited, free] = CALLERS.map(|name| {
        let hash = TokenHash::of(token(name).as_bytes()).to_hex();
        format!(
            "[[caller]]\nname = \"{name}\"\ntoken_sha256 = [\"{hash}\"]\nroles = [\"create\", \"read\"]\n"
        )
    });
    format!("{limited}[[caller.limit]]\ncurrency = \"195@195\"\nper_day = \"1000000\"\n{free}")
}
