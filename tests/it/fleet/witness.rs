//! A database that has lost what was acknowledged: put back from a copy, or gone over to a standby that
//! was behind.

use std::path::Path;

use payoutd::config::{Config, Grpc, Ledger as Place};
use payoutd::ledger::{Id, Ledger, Notice, OpenError};
use payoutd::metrics::Metrics;
use payoutd::order::Key;
use payoutd::sandbox::PID;
use tempfile::TempDir;
use tokio::process::Command;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::lease::settings;
use super::opening;
use crate::support::database::{Database, setting};
use crate::support::fleet::{Fleet, wired};
use crate::support::{Binary, Service, Upstream, any_port, connect, order, reason, within};

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
    let (mut fleet, folder) = (Fleet::start(1).await, TempDir::new().expect("a folder"));
    let witness = folder.path().join("witness");
    let config = replica(&fleet, fleet.database.ledger(), Some(&witness));
    let bare = replica(&fleet, fleet.database.ledger(), None);
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

    // Somebody who has seen nothing, and finds nobody to ask, adds more than was lost.
    for service in fleet.services.drain(..) {
        service.stop().await;
    }
    let fresh = Service::start(bare).await;
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

/// Takes `rows` of a table away, as a failover does that has lost their commits alone.
async fn lose(fleet: &Fleet, table: &str, rows: &str) {
    let (shell, _driver) = fleet.database.shell().await;
    let lose = format!(
        "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM {table} WHERE {rows}; COMMIT"
    );
    shell.batch_execute(&lose).await.expect("lost");
}

/// What is acknowledged without a revision of a payout.
const UNNUMBERED: [&str; 3] = ["a pause", "an approval", "a notice"];

/// Has `what` acknowledged over `ledger`, for the payout "a".
async fn acknowledge(ledger: &Ledger, what: &str) {
    let key = Key { pid: PID, third_party_id: "a".to_owned() };
    let found = within(ledger.find(PID, Id::ThirdParty("a".to_owned()))).await.expect("read");
    let payout = found.expect("known");
    match what {
        "a pause" => {
            within(ledger.set_intake(vec![PID], true, "why".to_owned())).await.expect("paused");
        }
        "an approval" => {
            let cid = payout.cid.expect("accepted");
            assert!(within(ledger.approve(key, cid)).await.expect("written"));
        }
        _ => {
            let notice = Notice {
                pid: PID,
                third_party_id: key.third_party_id,
                cid: 5,
                status: 6,
                body: "{}".to_owned(),
                payout: Some(payout.row),
            };
            assert!(within(ledger.keep(notice, false)).await.expect("kept"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_pause_an_approval_and_a_kept_notice_that_the_database_has_lost_are_missed() {
    for what in UNNUMBERED {
        let (mut fleet, folder) = (Fleet::start(1).await, TempDir::new().expect("a folder"));
        let config = replica(&fleet, fleet.database.ledger(), Some(&folder.path().join("witness")));
        fleet.create(0, order("a")).await.expect("OK");
        for service in fleet.services.drain(..) {
            service.stop().await;
        }
        let copy = Copy::of(&fleet.database, &folder).await;
        let ledger = Ledger::of(&config.ledger, &Metrics::new([])).await.expect("opened");
        acknowledge(&ledger, what).await;
        drop(ledger);
        drop(Ledger::of(&config.ledger, &Metrics::new([])).await.expect("it is all there"));
        copy.restore().await;
        let error = refused(&config).await;
        assert!(matches!(error, OpenError::RolledBack { .. }), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_commit_that_was_lost_beside_a_later_number_is_missed_by_a_witness_and_by_who_runs() {
    let (mut fleet, folder) = (Fleet::start(2).await, TempDir::new().expect("a folder"));
    let witness = folder.path().join("witness");
    let config = replica(&fleet, fleet.database.ledger(), Some(&witness));
    let service = Service::start(config.clone()).await;
    fleet.create(0, order("crossed")).await.expect("OK");
    fleet.create(0, order("later")).await.expect("OK");
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
    lose(&fleet, "event", &format!("seq = {}", last - 2)).await;

    let error = refused(&config).await;
    let OpenError::RolledBack { reached, acknowledged } = &error else { panic!("{error:?}") };
    assert_eq!((reached.number, acknowledged.number), (last, last - 2));
    // The one that has made it, and the one that has only heard of it.
    for replica in 0..2 {
        let address = format!("http://{}", fleet.services[replica].addresses.grpc);
        let address = Endpoint::from_shared(address).expect("an address");
        let mut health = HealthClient::new(address.connect_lazy());
        within(async {
            loop {
                let answer = health.check(HealthCheckRequest::default()).await.expect("OK");
                if answer.into_inner().status == 2 {
                    return;
                }
            }
        })
        .await;
        let status = fleet.create(replica, order("new")).await.expect_err("not sent");
        assert_eq!(reason(&status).1, "LEDGER_UNAVAILABLE");
    }
    assert_eq!(fleet.posts("new"), 0);
    for service in fleet.services.drain(..) {
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_pause_that_the_database_has_lost_is_not_taken_for_its_end() {
    let fleet = Fleet::start(2).await;
    fleet.create(0, order("a")).await.expect("OK");
    fleet.set_intake(0, true).await;
    // The other one has it from the database.
    within(async { while fleet.create(1, order("paused")).await.is_ok() {} }).await;
    let status = fleet.create(1, order("paused")).await.expect_err("paused");
    assert_eq!(reason(&status).1, "PAUSED");
    lose(&fleet, "intake", "paused").await;
    lose(&fleet, "mark", "true").await;
    for replica in 0..2 {
        let mut unavailable = 0;
        within(async {
            // The pulse finds it, and it stays so.
            while unavailable < 3 {
                let status = fleet.create(replica, order("new")).await.expect_err("not sent");
                match reason(&status).1.as_str() {
                    "LEDGER_UNAVAILABLE" => unavailable += 1,
                    "PAUSED" => {}
                    reason => panic!("{reason}"),
                }
            }
        })
        .await;
    }
    assert_eq!(fleet.posts("new"), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_running_replicas_refuse_is_refused_by_check_and_by_a_replica_without_witness()
 {
    let (fleet, folder) = (Fleet::start(1).await, TempDir::new().expect("a folder"));
    let (proxy, ledger) = wired(&fleet.database).await;
    let running = Service::start(replica(&fleet, ledger, None)).await;
    let client = connect(running.addresses.grpc).await;
    let copy = Copy::of(&fleet.database, &folder).await;
    within(client.clone().create_payout(order("lost"))).await.expect("OK");
    let Fleet { services, upstream, database, .. } = fleet;
    for service in services {
        service.stop().await;
    }
    copy.restore().await;
    // As by a failover, it has to connect again.
    proxy.cut().await;
    let (shell, _driver) = database.shell().await;
    let listens = "SELECT count(*) FROM pg_locks
         WHERE classid = 1885436264 AND objid = (SELECT hashtext(identity)::oid FROM ledger)";
    within(async {
        while shell.query_one(listens, &[]).await.expect("read").get::<_, i64>(0) != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    for command in ["check", "serve"] {
        let url = database.url(None);
        let (code, words) = opening::said(command, &upstream, &[("LEDGER__URL", &url)]).await;
        assert_eq!(code, Some(1), "{command}: {words}");
        assert!(words.contains("the ledger has lost what was acknowledged"), "{command}: {words}");
    }
    assert_eq!(upstream.book.posts().len(), 1);
    // Once it is gone, nobody is left who knows.
    running.stop().await;
    let url = database.url(None);
    let (code, words) = opening::said("check", &upstream, &[("LEDGER__URL", &url)]).await;
    assert_eq!(code, Some(0), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_ledger_without_a_witness_is_said_at_every_start_and_by_check() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    let folder = TempDir::new().expect("a folder");
    let (url, words) = (database.url(None), "ledger.witness is not set");
    for start in 1..=2 {
        let settings = [("PAYOUTD_LEDGER__URL", url.as_str())];
        let mut binary = Binary::start_with(upstream.address, &folder, &settings).await;
        let log = std::fs::read_to_string(&binary.log).expect("a log");
        let said = log.lines().filter(|line| line.contains(words));
        assert_eq!(said.inspect(|line| assert!(line.contains("WARN"), "{line}")).count(), start);
        binary.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(binary.code().await, Some(0));
    }
    let (code, said) = opening::said("check", &upstream, &[("LEDGER__URL", &url)]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(words), "{said}");
    let witness = folder.path().join("witness").display().to_string();
    let settings = [("LEDGER__URL", url.as_str()), ("LEDGER__WITNESS", &witness)];
    let (code, said) = opening::said("check", &upstream, &settings).await;
    assert_eq!((code, said.contains(words)), (Some(0), false), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn an_approval_leaves_one_mark_however_often_it_is_asked_for() {
    let fleet = Fleet::start(1).await;
    let payout = fleet.create(0, order("asked")).await.expect("OK");
    let ledger = Ledger::of(&fleet.database.ledger(), &Metrics::new([])).await.expect("opened");
    let approve = async |cid| {
        let key = Key { pid: PID, third_party_id: "asked".to_owned() };
        within(ledger.approve(key, cid)).await.expect("answered")
    };
    // The same message at once, and again; then one for another order.
    let at_once = futures_util::future::join_all((0..8).map(|_| approve(payout.cid))).await;
    assert_eq!(at_once, [true; 8]);
    assert!(approve(payout.cid).await && !approve(payout.cid + 1).await);
    let (shell, _driver) = fleet.database.shell().await;
    let marks = shell.query_one("SELECT count(*) FROM mark", &[]).await.expect("read");
    assert_eq!(marks.get::<_, i64>(0), 1);
}

/// Before the look of each second has found it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn rows_that_are_taken_away_under_a_running_replica_are_missed_by_the_next_send() {
    for again in ["last", "another"] {
        let fleet = Fleet::start(1).await;
        fleet.create(0, order("first")).await.expect("OK");
        fleet.create(0, order("last")).await.expect("OK");
        let (shell, _driver) = fleet.database.shell().await;
        shell
            .batch_execute(
                "BEGIN; SET LOCAL session_replication_role = replica;
                 DELETE FROM event WHERE payout = (SELECT id FROM payout WHERE third_party_id = 'last');
                 DELETE FROM payout WHERE third_party_id = 'last'; COMMIT",
            )
            .await
            .expect("an older ledger");
        let status =
            fleet.create(0, order(again)).await.expect_err("nobody knows what else is lost");
        assert_eq!(reason(&status).1, "LEDGER_UNAVAILABLE");
        assert_eq!(fleet.upstream.book.posts().len(), 2);
    }
}
