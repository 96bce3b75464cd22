//! A database that has lost what was acknowledged: put back from a copy, or gone over to a standby that
//! was behind.

use std::path::Path;

use payoutd::config::{Config, Grpc, Ledger as Place};
use payoutd::ledger::{Ledger, OpenError};
use payoutd::metrics::Metrics;
use tempfile::TempDir;
use tokio::process::Command;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::lease::settings;
use crate::support::database::{Database, setting};
use crate::support::fleet::{Fleet, wired};
use crate::support::{Binary, Service, any_port, connect, order, reason, within};

/// Runs a program of PostgreSQL's over the tests' server.
async fn postgres(program: &str, arguments: &[&str]) {
    let program = Path::new(&setting("_BIN").expect("the programs")).join(program);
    let url = format!("--dbname={}", setting("").expect("a server"));
    let output = within(Command::new(program).arg(url).args(arguments).output()).await;
    let output = output.expect("ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A copy of the whole schema.
struct Copy {
    schema: String,
    file: String,
}

impl Copy {
    async fn of(database: &Database, folder: &TempDir) -> Self {
        let shared = database.shared();
        let options = shared.database.get_options().expect("a schema");
        let schema = options.split_once("search_path=").expect("a schema").1.to_owned();
        let file = folder.path().join("copy").display().to_string();
        postgres("pg_dump", &["--schema", &schema, "--file", &file]).await;
        Self { schema, file }
    }

    /// Puts it back in the place of what is there.
    async fn restore(&self) {
        let drop = format!("DROP SCHEMA {} CASCADE", self.schema);
        let quiet = ["--quiet", "--set=ON_ERROR_STOP=1"];
        postgres("psql", &[&quiet[..], &["--command", &drop]].concat()).await;
        postgres("psql", &[&quiet[..], &["--file", &self.file]].concat()).await;
    }
}

/// Settings of one more replica over `ledger`.
fn replica(fleet: &Fleet, mut ledger: Place, witness: Option<&Path>) -> Config {
    let mut config = fleet.services[0].config.clone();
    if let Place::Shared(shared) = &mut ledger {
        shared.witness = witness.map(Path::to_owned);
    }
    config.ledger = ledger;
    config.grpc = Grpc::at(any_port());
    config
}

async fn refused(config: &Config) -> OpenError {
    Ledger::of(&config.ledger, &Metrics::new([])).await.map(drop).expect_err("must not open")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_copy_put_back_is_refused_by_each_replica_that_had_seen_more_whatever_is_added_to_it() {
    let (fleet, folder) = (Fleet::start(1).await, TempDir::new().expect("a folder"));
    let witness = folder.path().join("witness");
    let config = replica(&fleet, fleet.database.ledger(), Some(&witness));
    let service = Service::start(config.clone()).await;
    fleet.create(0, order("a")).await.expect("OK");
    let copy = Copy::of(&fleet.database, &folder).await;
    // Another replica makes it; this one only hears.
    fleet.create(0, order("last")).await.expect("OK");
    let (shell, _driver) = fleet.database.shell().await;
    let last: i64 = shell.query_one("SELECT max(seq) FROM event", &[]).await.expect("read").get(0);
    within(async {
        let remembered = format!(" {last:020} ");
        while !std::fs::read_to_string(&witness).expect("a witness").contains(&remembered) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    service.stop().await;
    copy.restore().await;

    let error = refused(&config).await;
    let OpenError::RolledBack { reached, acknowledged } = &error else { panic!("{error:?}") };
    assert_eq!((reached.number, acknowledged.number), (last - 2, last));
    let words = error.to_string();
    for number in [last - 2, last] {
        assert!(words.contains(&format!("number {number} of 20")), "{words}");
    }

    // Somebody who has seen nothing adds more than was lost.
    let fresh = Service::start(replica(&fleet, fleet.database.ledger(), None)).await;
    for id in ["b", "c"] {
        let answer = fresh.client().await.create_payout(order(id)).await.expect("OK");
        assert!(answer.into_inner().cid > 0);
    }
    fresh.stop().await;
    let error = refused(&config).await;
    let OpenError::RolledBack { reached, acknowledged } = &error else { panic!("{error:?}") };
    assert_eq!((reached.number, acknowledged.number), (last + 2, last));
    assert_eq!(fleet.posts("last"), 1);

    std::fs::remove_file(&witness).expect("removed");
    let service = Service::start(config).await;
    let client = connect(service.addresses.grpc).await;
    assert!(within(client.clone().create_payout(order("d"))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_new_database_in_the_place_of_the_old_one_is_refused() {
    let (fleet, folder) = (Fleet::start(1).await, TempDir::new().expect("a folder"));
    let witness = folder.path().join("witness");
    fleet.create(0, order("a")).await.expect("OK");
    let config = replica(&fleet, fleet.database.ledger(), Some(&witness));
    Service::start(config).await.stop().await;
    let new = Database::new().await;
    let config = replica(&fleet, new.ledger(), Some(&witness));
    let error = refused(&config).await;
    assert!(matches!(error, OpenError::OtherLedger { acknowledged } if acknowledged.number > 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_running_replica_whose_database_went_back_does_not_send_any_more_and_says_why() {
    let (fleet, folder) = (Fleet::start(1).await, TempDir::new().expect("a folder"));
    let (proxy, _) = wired(&fleet.database).await;
    let settings = settings(&fleet.database, proxy.address.port());
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let binary = Binary::start_with(fleet.upstream.address, &folder, &settings).await;
    let client = binary.client().await;
    let create = async |id| within(client.clone().create_payout(order(id))).await;
    create("a").await.expect("OK");
    let copy = Copy::of(&fleet.database, &folder).await;
    create("last").await.expect("OK");
    copy.restore().await;
    proxy.cut().await;

    for id in ["last", "new"] {
        let status = create(id).await.expect_err("not sent");
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(reason(&status).1, "LEDGER_UNAVAILABLE");
    }
    let address = Endpoint::from_shared(format!("http://{}", binary.address));
    let mut health = HealthClient::new(address.expect("an address").connect_lazy());
    within(async {
        loop {
            let answer = health.check(HealthCheckRequest::default()).await.expect("OK");
            if answer.into_inner().status == 2 {
                return;
            }
        }
    })
    .await;
    within(async {
        let words = "the ledger has lost what was acknowledged: it ends with number ";
        while !std::fs::read_to_string(&binary.log).expect("a log").contains(words) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // It does not come round by itself, however often it looks.
    let looks = || {
        let log = std::fs::read_to_string(&binary.log).expect("a log");
        log.matches("connection to the ledger refused").count()
    };
    let before = looks();
    within(async {
        while looks() < before + 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    create("last").await.expect_err("not sent");
    assert_eq!((fleet.posts("last"), fleet.posts("new")), (1, 0));
}
