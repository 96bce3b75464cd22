//! The command line: one function per command, and what each ending means.
//!
//! Exit codes: 0 fine, 64 bad settings or usage, 1 anything else.

mod ledger;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::app::App;
use crate::caller::{self, TokenHash};
use crate::causes::chain;
use crate::config::{Config, Log, Mistakes, Telemetry};
use crate::doctor::Verdict;
use crate::endpoint::Endpoint;
use crate::sandbox::{self, Sandbox};
use crate::{dev, doctor, operator, probe, telemetry};

/// A gRPC gateway for Cregis payouts that pays each id at most once.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve(Settings),
    /// Run the service against its own sandbox, with one example payout.
    Dev(DevArgs),
    /// Run the fake Cregis alone.
    Sandbox(SandboxArgs),
    /// Check settings, ledger, clock and the standing at Cregis.
    Check(Settings),
    /// Ask a running service whether it is SERVING.
    Health(HealthArgs),
    /// Look at payouts, settle doubts, pause and resume.
    Payouts(operator::args::Payouts),
    /// Look after the ledger itself: migrate, copy, compare.
    #[command(subcommand)]
    Ledger(ledger::Verb),
    /// Make a token for a caller, and its hash for the settings.
    Token,
    /// Report what a person must settle.
    Reconcile(operator::args::Reconcile),
}

#[derive(Debug, Args)]
struct Settings {
    /// TOML file; without it, the environment alone.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DevArgs {
    /// End after the example payout.
    #[arg(long)]
    once: bool,
    /// Where to listen [default: 127.0.0.1:50051; with --once any free port].
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Where the sandbox takes orders about itself.
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Let the sandbox misbehave a little.
    #[arg(long)]
    chaos: bool,
    /// A collector that takes traces, such as http://127.0.0.1:4317.
    #[arg(long)]
    otlp_endpoint: Option<Url>,
}

#[derive(Debug, Args)]
struct SandboxArgs {
    /// Where to stand in for Cregis.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Where to take orders about the sandbox itself.
    #[arg(long, default_value = "127.0.0.1:8091")]
    control: SocketAddr,
    /// The project it knows.
    #[arg(long, default_value_t = sandbox::PID)]
    pid: i64,
    /// The project's key, a made-up one.
    #[arg(long, default_value = sandbox::API_KEY)]
    api_key: SecretString,
    /// Misbehave a little all the time.
    #[arg(long)]
    chaos: bool,
    /// Have each order end by itself, with this status: 6 is success.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..=7))]
    outcome: Option<i32>,
    /// How long that takes.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    outcome_after: Duration,
    /// Ask here whether each order may be paid.
    #[arg(long)]
    verification_url: Option<String>,
    /// Take a repeated id for a new order.
    #[arg(long)]
    no_duplicate_check: bool,
}

#[derive(Debug, Args)]
struct HealthArgs {
    #[command(flatten)]
    endpoint: Endpoint,
    /// "" for the whole service, payout.v1.PayoutService, or cregis.
    #[arg(long, default_value = "")]
    service: String,
}

/// How a command can fail.
enum Failure {
    Settings(Mistakes),
    Other(Box<dyn std::error::Error>),
    /// Already told.
    Silent,
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Runs the command that the process was started with.
pub async fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version come this way, too, and are fine.
            let _ = usage.print();
            return if usage.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    let ran = match cli.command {
        Command::Serve(settings) => serve(settings).await,
        Command::Dev(args) => run_dev(args).await,
        Command::Sandbox(args) => run_sandbox(args).await,
        Command::Check(settings) => check(settings).await,
        Command::Health(args) => health(args).await,
        Command::Payouts(args) => payouts(args).await,
        Command::Ledger(verb) => ledger::run(verb).await,
        Command::Token => token(),
        Command::Reconcile(args) => reconcile(args).await,
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Settings(mistakes)) => {
            for mistake in mistakes.0 {
                eprintln!("payoutd: {mistake}");
            }
            ExitCode::from(64)
        }
        Err(Failure::Other(error)) => {
            eprintln!("payoutd: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
        Err(Failure::Silent) => ExitCode::FAILURE,
    }
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    let sealed = seal_memory();
    let config = load(settings)?;
    let traces = telemetry::init(config.log, &config.telemetry);
    for warning in doctor::warnings(&config) {
        tracing::warn!("{warning}");
    }
    if let Err(error) = sealed {
        tracing::warn!(error = chain(&error), "memory may be read or dumped");
    }
    let mut signals = Signals::new()?;
    let app = App::bind(&config).await?;
    let stop = CancellationToken::new();
    let ran = signals.guard(&stop, app.run(stop.cancelled())).await;
    traces.flush().await;
    ran.map_err(Into::into)
}

/// Keys are in this process's memory: no core of it is written, and no other process of its user reads it.
fn seal_memory() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

async fn run_dev(args: DevArgs) -> Result<(), Failure> {
    let log = Log { level: tracing::Level::WARN, json: None };
    let telemetry = Telemetry { otlp_endpoint: args.otlp_endpoint, ..Telemetry::default() };
    let traces = telemetry::init(log, &telemetry);
    let port = if args.once { 0 } else { 50051 };
    let listen = args.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)));
    let settings =
        dev::Settings { listen, control: args.control, chaos: args.chaos, once: args.once, log };
    let stop = CancellationToken::new();
    let run = dev::run(settings, stop.cancelled());
    let ran = Signals::new()?.guard(&stop, run).await;
    traces.flush().await;
    ran.map_err(Failure::Other)
}

async fn run_sandbox(args: SandboxArgs) -> Result<(), Failure> {
    let log = Log { level: tracing::Level::INFO, json: None };
    let _no_traces = telemetry::init(log, &Telemetry::default());
    let pid = args.pid;
    let settings = sandbox::Settings {
        listen: args.listen,
        control: args.control,
        pid,
        api_key: args.api_key,
        chaos: args.chaos,
        outcome: args.outcome,
        outcome_after: args.outcome_after,
        verification_url: args.verification_url,
        no_duplicate_check: args.no_duplicate_check,
    };
    let sandbox = Sandbox::bind(settings).await?;
    println!(
        "sandbox for pid {pid} on http://{}; control on http://{} (docs/sandbox.md)",
        sandbox.address()?,
        sandbox.control_address()?
    );
    let stop = CancellationToken::new();
    Signals::new()?.guard(&stop, sandbox.run(stop.clone())).await;
    Ok(())
}

async fn check(settings: Settings) -> Result<(), Failure> {
    let config = load(settings)?;
    let findings = doctor::examine(&config).await;
    println!("ok    settings");
    for finding in &findings {
        println!("{finding}");
    }
    if findings.iter().all(|finding| finding.verdict != Verdict::Bad) {
        Ok(())
    } else {
        Err(Failure::Silent)
    }
}

async fn health(args: HealthArgs) -> Result<(), Failure> {
    args.endpoint.check().map_err(Failure::Settings)?;
    probe::check(&args.endpoint, args.service).await?;
    println!("SERVING");
    Ok(())
}

fn token() -> Result<(), Failure> {
    let token = caller::new_token()?;
    println!("token         {token}");
    println!("token_sha256  {}", TokenHash::of(token.as_bytes()).to_hex());
    Ok(())
}

async fn payouts(args: operator::args::Payouts) -> Result<(), Failure> {
    args.endpoint().check().map_err(Failure::Settings)?;
    Ok(operator::payouts(args).await?)
}

async fn reconcile(args: operator::args::Reconcile) -> Result<(), Failure> {
    args.endpoint().check().map_err(Failure::Settings)?;
    let fail_on_findings = args.fail_on_findings;
    let findings = operator::reconcile(args).await?;
    if fail_on_findings && findings { Err(Failure::Silent) } else { Ok(()) }
}

fn load(settings: Settings) -> Result<Config, Failure> {
    // The one look at the environment. A variable that is not Unicode cannot be one of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::load(settings.config.as_deref(), environment).map_err(Failure::Settings)
}

/// SIGINT and SIGTERM, which mean the same: the first stops in good order, the second at once.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs `work`; tells it to stop at the first signal, and does not wait for it at the second.
    async fn guard<T>(&mut self, stop: &CancellationToken, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = self.next() => stop.cancel(),
        }
        tokio::select! {
            done = &mut work => done,
            () = self.next() => std::process::exit(1),
        }
    }
}
