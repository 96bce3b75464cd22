//! What every test stands on: the production `App` over a real ledger and real sockets, with
//! the sandbox, or a few raw bytes, as its Cregis.

pub(crate) mod authority;
pub(crate) mod bouncer;
mod bound;
pub(crate) mod checker;
pub(crate) mod database;
pub(crate) mod fleet;
mod known;
mod life;
pub(crate) mod proxy;
mod raw;
pub(crate) mod server;
mod shell;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use payoutd::app::Addresses;
use payoutd::config::{Callback, Config, Grpc, Ledger, Log, Project, Telemetry};
use payoutd::pb;
use payoutd::pb::payout_service_client::PayoutServiceClient;
use payoutd::sandbox::book::Book;
use payoutd::sandbox::fault::Fault;
use payoutd::sandbox::{self, API_KEY, PID, Sandbox};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) use bound::steady_ports;
pub(crate) use database::{Database, kept_in};
pub(crate) use known::{bearing, by, caller, limit, metadata, token};
pub(crate) use life::{Seen, Watch, bad_fields, beside, ended, run, seen, told, watch, watch_from};
pub(crate) use raw::{next_payout, raw_upstream};
pub(crate) use shell::{Row, Shell, plain};

/// The address of the vendor's examples.
pub(crate) const ADDRESS: &str = "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS";
/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Client = PayoutServiceClient<Channel>;

/// Any port that is free.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Waits for `event`, but not for ever.
pub(crate) async fn within<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.expect("did not happen in time")
}

/// A request for the example payout under `id`.
pub(crate) fn order(id: &str) -> pb::CreatePayoutRequest {
    pb::CreatePayoutRequest {
        currency: "195@195".to_owned(),
        address: ADDRESS.to_owned(),
        amount: "1.1".to_owned(),
        third_party_id: id.to_owned(),
        ..pb::CreatePayoutRequest::default()
    }
}

/// The reason and the metadata of an error, which is all that programs look at.
pub(crate) fn reason(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let info = details.error_info().expect("every error carries ErrorInfo");
    assert_eq!(info.domain, "payout.v1");
    let retry = info.metadata.get("retry").expect("every error says how to go on").clone();
    (status.code(), info.reason.clone(), retry)
}

// === the fake Cregis ===

/// A sandbox that runs for as long as this lives.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) book: Arc<Book>,
    stop: CancellationToken,
    _task: JoinSet<()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let settings = sandbox::Settings {
            listen: any_port(),
            control: any_port(),
            pid: PID,
            api_key: API_KEY.into(),
            chaos: false,
            ..sandbox::Settings::default()
        };
        let sandbox = Sandbox::bind(settings).await.expect("bound");
        let (address, control) = (sandbox.address(), sandbox.control_address());
        let (book, stop) = (sandbox.book(), CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(sandbox.run(stop.clone()));
        Self {
            address: address.expect("an address"),
            control: control.expect("an address"),
            book,
            stop,
            _task: task,
        }
    }

    /// Scripts a fault, written as for the control port.
    pub(crate) fn fault(&self, json: &str) {
        self.book.add_fault(serde_json::from_str::<Fault>(json).expect("a fault"));
    }

    /// Waits until `count` requests have been read.
    pub(crate) async fn received(&self, count: usize) {
        let mut seen = self.book.count();
        within(seen.wait_for(|seen| *seen >= count)).await.expect("the sandbox lives");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

// === the service ===

/// Settings for a service under test.
pub(crate) fn config(upstream: SocketAddr, ledger: PathBuf) -> Config {
    Config {
        grpc: Grpc::at(any_port()),
        callback: Callback { listen: any_port(), public_url: String::new() },
        void_min_age: Duration::from_secs(24 * 60 * 60),
        admin: any_port(),
        ledger: Ledger::Embedded { path: ledger, min_free: 0, witness: None },
        projects: vec![project(upstream)],
        callers: vec![],
        log: Log { level: tracing::Level::TRACE, json: Some(true) },
        telemetry: Telemetry::default(),
        warnings: vec![],
    }
}

pub(crate) fn project(upstream: SocketAddr) -> Project {
    Project {
        pid: PID,
        base_url: format!("http://{upstream}").parse().expect("a URL"),
        api_key: SecretString::from(API_KEY),
        timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(3),
        max_in_flight: 256,
        poll_first: Duration::from_secs(30),
        verification: false,
        resend_in_doubt: false,
        strict_text: false,
    }
}

/// The service, in this process, as `payoutd serve` builds it.
pub(crate) struct Service {
    pub(crate) config: Config,
    pub(crate) addresses: Addresses,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Service {
    pub(crate) async fn start(config: Config) -> Self {
        let app = within(bound::bound(&config)).await;
        let (addresses, stop) = (app.addresses(), CancellationToken::new());
        let stopped = stop.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            app.run(stopped.cancelled_owned()).await.expect("ran");
        });
        Self { config, addresses, stop, task }
    }

    pub(crate) async fn client(&self) -> Client {
        connect(self.addresses.grpc).await
    }

    /// Begins the drain without waiting for its end.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Stops in good order and gives the settings back for another start.
    pub(crate) async fn stop(mut self) -> Config {
        self.begin_stop();
        within(self.task.join_next()).await.expect("one task").expect("no panic");
        self.config
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    PayoutServiceClient::new(endpoint.connect().await.expect("connected"))
}

/// A sandbox, a service over it, a client of that, and the folder of its ledger, where that is a file.
pub(crate) struct Whole {
    pub(crate) upstream: Upstream,
    pub(crate) service: Service,
    pub(crate) client: Client,
    pub(crate) folder: TempDir,
}

impl Whole {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let upstream = Upstream::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(upstream.address, ledger(&folder));
        config.ledger = kept_in(&folder).await;
        change(&mut config);
        let service = Service::start(config).await;
        let client = service.client().await;
        Self { upstream, service, client, folder }
    }

    /// Stops the service and starts it again on the same ledger.
    pub(crate) async fn restart(self) -> Self {
        let Self { upstream, service, client: _, folder } = self;
        let service = Service::start(service.stop().await).await;
        let client = service.client().await;
        Self { upstream, service, client, folder }
    }

    pub(crate) async fn create(
        &self,
        request: pb::CreatePayoutRequest,
    ) -> Result<pb::Payout, Status> {
        let answer = within(self.client.clone().create_payout(request)).await?.into_inner();
        let payout = answer.payout.expect("a payout");
        assert_eq!(answer.cid, payout.cid);
        Ok(payout)
    }

    pub(crate) async fn get(&self, id: &str) -> Result<pb::Payout, Status> {
        get(&self.client, id).await
    }

    /// Waits until the payout leaves SENDING, and returns it.
    pub(crate) async fn settled(&self, id: &str) -> pb::Payout {
        settled(&self.client, id).await
    }
}

pub(crate) async fn get(client: &Client, id: &str) -> Result<pb::Payout, Status> {
    let id = pb::get_payout_request::Id::ThirdPartyId(id.to_owned());
    let request = pb::GetPayoutRequest { pid: 0, id: Some(id) };
    let answer = within(client.clone().get_payout(request)).await?.into_inner();
    Ok(answer.payout.expect("a payout"))
}

/// Asks until the payout leaves SENDING: a repeat of the id would join it, a read never does.
pub(crate) async fn settled(client: &Client, id: &str) -> pb::Payout {
    within(async {
        loop {
            match get(client, id).await {
                Ok(payout) if payout.state() != pb::PayoutState::Sending => return payout,
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

// === the real binary ===

/// `payoutd serve` as a process of its own.
pub(crate) struct Binary {
    process: tokio::process::Child,
    pub(crate) address: SocketAddr,
    pub(crate) log: PathBuf,
}

impl Binary {
    /// Starts it over `upstream` with its ledger and its log in `folder`, and waits until it serves.
    pub(crate) async fn start(upstream: SocketAddr, folder: &TempDir) -> Self {
        Self::start_with(upstream, folder, &[]).await
    }

    pub(crate) async fn start_with(
        upstream: SocketAddr,
        folder: &TempDir,
        settings: &[(&str, &str)],
    ) -> Self {
        Self::start_as(payoutd().arg("serve"), upstream, folder, settings).await
    }

    /// With a settings file, for what the environment cannot say.
    pub(crate) async fn start_from(upstream: SocketAddr, folder: &TempDir, file: &str) -> Self {
        Self::start_as(payoutd().args(["serve", "--config", file]), upstream, folder, &[]).await
    }

    /// The same, with another way to start it.
    pub(crate) async fn start_as(
        command: &mut tokio::process::Command,
        upstream: SocketAddr,
        folder: &TempDir,
        settings: &[(&str, &str)],
    ) -> Self {
        let log = folder.path().join("log");
        let file = std::fs::File::options().append(true).create(true).open(&log).expect("a log");
        let before = file.metadata().expect("a log").len();
        let process = command
            .envs([
                ("PAYOUTD_GRPC__LISTEN", "127.0.0.1:0".to_owned()),
                ("PAYOUTD_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
                ("PAYOUTD_CALLBACK__LISTEN", "127.0.0.1:0".to_owned()),
                ("PAYOUTD_LEDGER__URL", format!("sqlite:{}", ledger(folder).display())),
                ("PAYOUTD_PROJECT__PID", PID.to_string()),
                ("PAYOUTD_PROJECT__BASE_URL", format!("http://{upstream}")),
                ("PAYOUTD_PROJECT__API_KEY", API_KEY.to_owned()),
                ("PAYOUTD_LOG__LEVEL", "trace".to_owned()),
            ])
            .envs(settings.iter().copied())
            .stderr(file)
            .spawn()
            .expect("started");
        // It picks the port and says which; another process could take one that we picked.
        let address = within(async {
            loop {
                if let Some(address) = serving_on(&log, before, "grpc") {
                    return address;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        Self { process, address, log }
    }

    pub(crate) async fn client(&self) -> Client {
        connect(self.address).await
    }

    /// Where its port of this name, grpc, callback or admin, is.
    pub(crate) fn port(&self, name: &str) -> SocketAddr {
        serving_on(&self.log, 0, name).expect("it serves")
    }

    /// Resident memory in KB.
    pub(crate) fn rss_kb(&self) -> i64 {
        let status = std::fs::read_to_string(self.proc().join("status")).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.split_whitespace().next().and_then(|kb| kb.parse().ok()).expect("KB")
    }

    /// Its place in /proc.
    pub(crate) fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.process.id().expect("running")))
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.expect("killed");
    }

    /// Sends a signal that can be handled.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.process.id().expect("running")).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signalled");
    }

    /// Waits for its end and returns the exit code.
    pub(crate) async fn code(&mut self) -> Option<i32> {
        let limit = Duration::from_secs(45);
        let ended = tokio::time::timeout(limit, self.process.wait()).await;
        ended.expect("ends in time").expect("waited for").code()
    }
}

/// Where the process that began to write `log` at `before` says that it serves, once it does.
fn serving_on(log: &std::path::Path, before: u64, port: &str) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(log).expect("a log");
    let text = text.get(usize::try_from(before).expect("fits")..)?;
    // Only whole lines: half a port is another port.
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let line = lines.find(|line| line.contains("\"message\":\"serving\""))?;
    line.split(&format!("\"{port}\":\"")).nth(1)?.split('"').next()?.parse().ok()
}

/// The binary, without any setting from the environment of the tests.
pub(crate) fn payoutd() -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_payoutd"));
    command.env_clear().kill_on_drop(true).stdin(std::process::Stdio::null());
    command
}

/// Where the file of a test's ledger lies.
pub(crate) fn ledger(folder: &TempDir) -> PathBuf {
    folder.path().join("payoutd.db")
}
