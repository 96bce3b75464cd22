//! `payoutd dev`: the main job with nothing to set up.
//!
//! The real service over a real ledger in a temporary folder, with the sandbox as its Cregis; one
//! example payout goes through real gRPC.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::app::{Addresses, App};
use crate::config::{self, Callback, Config, Grpc, Log, Project, Telemetry};
use crate::pb;
use crate::pb::payout_service_client::PayoutServiceClient;
use crate::sandbox::{self, Sandbox};

/// The example has so long to reach its end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How `payoutd dev` is to run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Where the service listens.
    pub listen: SocketAddr,
    /// Where the sandbox takes orders about itself.
    pub control: SocketAddr,
    /// Whether the sandbox misbehaves a little.
    pub chaos: bool,
    /// End after the example.
    pub once: bool,
    /// Logs.
    pub log: Log,
}

/// Runs until `stop`, or until the example is done where `once` says so.
///
/// # Errors
/// Where something cannot start, or the example does not end with a `cid`.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let key = any_key()?;
    let sandbox = Sandbox::bind(sandbox::Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        control: settings.control,
        pid: sandbox::PID,
        api_key: key.clone(),
        chaos: settings.chaos,
        outcome: Some(6),
        outcome_after: Duration::from_secs(1),
        ..sandbox::Settings::default()
    })
    .await?;
    let control = sandbox.control_address()?;
    let ledger = folder.path().join("payoutd.db");
    let config = config(&settings, ledger, sandbox.address()?, key)?;
    let book = sandbox.book();
    let app = App::bind(&config).await?;
    let address = app.addresses().grpc;
    let Addresses { callback, admin, .. } = app.addresses();
    book.verify_at(Some(format!("http://{callback}/callbacks/{}/verification", sandbox::PID)));

    let (stop_app, stop_sandbox) = (CancellationToken::new(), CancellationToken::new());
    let example = async {
        let shown = example(address).await;
        match &shown {
            Ok(()) if !settings.once => {
                welcome(address, control, admin);
                stop.await;
            }
            Ok(()) | Err(_) => {}
        }
        stop_app.cancel();
        shown
    };
    let service = async {
        let served = app.run(stop_app.cancelled()).await;
        stop_sandbox.cancel();
        served
    };
    let (shown, served, ()) = tokio::join!(example, service, sandbox.run(stop_sandbox.clone()));
    served?;
    shown
}

/// The vendor's example key would do; a random one shows that nothing depends on it.
fn any_key() -> Result<SecretString, getrandom::Error> {
    let mut key = [0u8; 16];
    getrandom::fill(&mut key)?;
    Ok(SecretString::from(hex::encode(key)))
}

/// The service's settings.
fn config(
    settings: &Settings,
    ledger: PathBuf,
    cregis: SocketAddr,
    api_key: SecretString,
) -> Result<Config, url::ParseError> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(Config {
        grpc: Grpc::at(settings.listen),
        callback: Callback { listen: any, public_url: String::new() },
        void_min_age: Duration::from_secs(60),
        admin: any,
        ledger: config::Ledger::Embedded { path: ledger, min_free: 0, witness: None },
        projects: vec![Project {
            pid: sandbox::PID,
            base_url: Url::parse(&format!("http://{cregis}"))?,
            api_key,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(3),
            max_in_flight: 256,
            poll_first: Duration::from_millis(500),
            verification: true,
            resend_in_doubt: false,
            strict_text: false,
        }],
        callers: vec![],
        log: settings.log,
        telemetry: Telemetry::default(),
        warnings: vec![],
    })
}

/// Makes one payout as any caller would, and prints what came of it.
async fn example(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut client = PayoutServiceClient::connect(format!("http://{address}")).await?;
    let request = pb::CreatePayoutRequest {
        currency: "195@195".to_owned(),
        address: "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS".to_owned(),
        amount: "1.1".to_owned(),
        third_party_id: "example-1".to_owned(),
        remark: "payoutd dev".to_owned(),
        ..pb::CreatePayoutRequest::default()
    };
    println!("CreatePayout  {} {} to {}", request.amount, request.currency, request.address);
    let created = client.create_payout(request.clone()).await?.into_inner();
    show("created", created.payout.as_ref());
    let repeated = client.create_payout(request.clone()).await?.into_inner();
    show("repeated", repeated.payout.as_ref());
    let seen = repeated.payout.as_ref().map_or(0, |payout| payout.revision);
    let id = pb::watch_payout_request::Id::ThirdPartyId(request.third_party_id);
    let watch = pb::WatchPayoutRequest { pid: 0, id: Some(id), after_revision: seen };
    let mut news = client.watch_payout(watch).await?.into_inner();
    let mut last = repeated.payout;
    // With --chaos it may take its time.
    let end = timeout(PATIENCE, async {
        while let Some(heard) = news.message().await? {
            let Some(payout) = heard.payout else { continue };
            show("then", Some(&payout));
            last = Some(payout);
        }
        Ok::<_, tonic::Status>(())
    });
    if let Ok(ended) = end.await {
        ended?;
    }
    match last {
        Some(payout) if payout.cid > 0 => Ok(()),
        Some(_) | None => Err("the example payout has no cid".into()),
    }
}

fn show(what: &str, payout: Option<&pb::Payout>) {
    let Some(payout) = payout else { return println!("{what:<13} no payout in the answer") };
    let state = payout.state().as_str_name().trim_start_matches("PAYOUT_STATE_");
    println!(
        "{what:<13} cid {}  {state}{}{}  revision {}{}",
        payout.cid,
        if payout.reason.is_empty() { "" } else { " " },
        payout.reason,
        payout.revision,
        payout.cregis_status.map_or_else(String::new, |s| format!("  Cregis status {s}")),
    );
}

fn welcome(address: SocketAddr, control: SocketAddr, admin: SocketAddr) {
    println!(
        "\nserving on {address}; sandbox control on http://{control} (docs/sandbox.md). Try:\n\n  \
         grpcurl -plaintext -d '{{\"third_party_id\":\"mine-1\",\"currency\":\"195@195\",\
         \"address\":\"TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS\",\"amount\":\"1.1\"}}' {address} \
         payout.v1.PayoutService/CreatePayout\n  curl http://{admin}/metrics\n\nCtrl-C ends it."
    );
}
