//! A copy that ends early, at each step: neither side is served by mistake, and the same command finishes it.

use std::process::Stdio;

use payoutd::config::Ledger as Place;
use payoutd::ledger::{Ledger, OpenError};
use payoutd::metrics::Metrics;
use payoutd::pb::PayoutState;
use payoutd::sandbox::{API_KEY, PID};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::copy::{run, said};
use super::opening;
use crate::support::authority::Authority;
use crate::support::fleet::Fleet;
use crate::support::server::Server;
use crate::support::{Database, Service, Upstream, config, get, ledger, order, payoutd, within};

/// What holds a copy up, until the test lets it go on.
const GATE: &str = "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN PERFORM pg_advisory_xact_lock(4711, hashtext(TG_TABLE_SCHEMA)); RETURN NEW; END $$";
/// Each test has one of its own.
const CLOSE: &str = "SELECT pg_advisory_lock(4711, hashtext(current_schema()))";
const UNLOCK: &str = "SELECT pg_advisory_unlock(4711, hashtext(current_schema()))";
/// At the commit that says that it has begun, and, unless that is past, at the one that brings the rows.
const AT_COMMIT: &str = "CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON ledger
     DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION gate()";
const OPEN_COMMIT: &str = "DROP TRIGGER gate ON ledger";
/// While rows come in.
const AT_ROWS: &str =
    "CREATE TRIGGER gate BEFORE INSERT ON payout FOR EACH ROW EXECUTE FUNCTION gate()";
/// At the commit that brings the rows.
const AT_END: &str = "CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON payout
     DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION gate()";
const OPEN: &str = "DROP TRIGGER gate ON payout";

/// A stopped service's file with one payout, which was sent.
struct File {
    upstream: Upstream,
    folder: TempDir,
}

impl File {
    async fn new() -> Self {
        let (upstream, folder) = (Upstream::start().await, TempDir::new().expect("a folder"));
        let file = Self { upstream, folder };
        file.serve().await;
        file
    }

    fn url(&self) -> String {
        format!("sqlite:{}", ledger(&self.folder).display())
    }

    /// Starts a service on it, which knows its payout or sends it for the first time.
    async fn serve(&self) {
        let service = Service::start(config(self.upstream.address, ledger(&self.folder))).await;
        let answer = within(service.client().await.create_payout(order("paid"))).await;
        assert!(answer.expect("OK").into_inner().cid > 0);
        service.stop().await;
        assert_eq!(self.upstream.book.posts().len(), 1);
    }

    /// The command that copies it into the database at `url`.
    fn copy(&self, url: &str) -> Child {
        let mut command = payoutd();
        command.args(["ledger", "copy", "--to", url]);
        command.envs(environment(&self.url())).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("started")
    }

    /// What `serve` and `check` say of the ledger at `url`, which both refuse: the command that finishes the copy.
    async fn refused(&self, url: &str) -> String {
        let mut commands = Vec::new();
        for command in ["serve", "check"] {
            let (code, text) =
                opening::said(command, &self.upstream, &[("LEDGER__URL", url)]).await;
            assert_eq!(code, Some(1), "{command}: {text}");
            let (_, rest) = text.split_once("Finish the copy with `").expect(&text);
            commands.push(rest.split_once('`').expect(&text).0.replace("\\\"", "\""));
        }
        assert_eq!(commands[0], commands[1]);
        commands.swap_remove(0)
    }

    /// Types `command` into a shell.
    async fn typed(&self, command: &str) {
        let bin = self.folder.path().join("bin");
        std::fs::create_dir_all(&bin).expect("a folder");
        let link = bin.join("payoutd");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_payoutd"), &link).expect("a link");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).env_clear().envs(environment("sqlite:nothing.db"));
        shell.env("PATH", &bin).kill_on_drop(true);
        let (code, words) = said(&within(shell.output()).await.expect("ran"));
        assert_eq!(code, Some(0), "{words}");
    }

    /// A service over the database at `url` knows the payout, and does not send it again.
    async fn knows(&self, place: Place) {
        let mut settings = config(self.upstream.address, ledger(&self.folder));
        settings.ledger = place;
        let service = Service::start(settings).await;
        let client = service.client().await;
        let answer = within(client.clone().create_payout(order("paid"))).await.expect("OK");
        let payout = answer.into_inner().payout.expect("a payout");
        assert_eq!(payout.state(), PayoutState::Accepted);
        assert_eq!(get(&client, "paid").await.expect("known"), payout);
        service.stop().await;
        assert_eq!(self.upstream.book.posts().len(), 1);
    }
}

/// What the command needs beside its arguments.
fn environment(url: &str) -> [(&'static str, String); 4] {
    [
        ("PAYOUTD_LEDGER__URL", url.to_owned()),
        ("PAYOUTD_PROJECT__PID", PID.to_string()),
        ("PAYOUTD_PROJECT__BASE_URL", "http://127.0.0.1:9".to_owned()),
        ("PAYOUTD_PROJECT__API_KEY", API_KEY.to_owned()),
    ]
}

/// Makes the tables.
async fn migrated(url: &str) {
    let (code, words) = said(&run(url, &["migrate"]).await);
    assert_eq!(code, Some(0), "{words}");
}

/// The settings of a ledger at `url`.
fn place(url: &str) -> Place {
    Place::other(url, None, None).expect("settings")
}

/// Whoever holds copies up at the gate, until it is dropped.
struct Gate {
    shell: Client,
    driver: JoinSet<()>,
}

impl Gate {
    /// Closes it, which `at` says where it is.
    async fn close(shell: Client, driver: JoinSet<()>, at: &str) -> Self {
        shell.batch_execute(at).await.expect("a gate");
        shell.batch_execute(CLOSE).await.expect("closed");
        Self { shell, driver }
    }

    /// Waits until somebody stands there.
    async fn reached(&self) {
        let waits = "SELECT count(*) FROM pg_locks
             WHERE locktype = 'advisory' AND classid = 4711 AND NOT granted
                 AND objid = hashtext(current_schema())::oid";
        within(async {
            while self.shell.query_one(waits, &[]).await.expect("read").get::<_, i64>(0) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until nobody is left who stood there.
    async fn open(&self) {
        self.shell.batch_execute(UNLOCK).await.expect("opened");
        let copies = "SELECT count(*) FROM pg_locks
             WHERE locktype = 'advisory' AND classid = 1885436271 AND mode = 'ExclusiveLock'
                 AND objid = (SELECT hashtext(identity)::oid FROM ledger)";
        within(async {
            while self.shell.query_one(copies, &[]).await.expect("read").get::<_, i64>(0) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

async fn killed(mut copy: Child) {
    copy.kill().await.expect("killed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_copy_that_dies_with_its_server_at_any_commit_is_refused_on_both_sides_until_it_is_finished()
 {
    let file = File::new().await;
    let server = Server::start(&Authority::new("databases")).await;
    let url = server.url("postgres", "");
    migrated(&url).await;
    let (shell, driver) = server.shell().await;
    shell.batch_execute(GATE).await.expect("a gate");
    let cut = async |shell, driver, at| {
        let gate = Gate::close(shell, driver, at).await;
        let copy = file.copy(&url);
        gate.reached().await;
        killed(copy).await;
        server.crash();
        server.control("start");
    };

    // Nothing has begun: the file is the ledger.
    cut(shell, driver, AT_COMMIT).await;
    file.serve().await;
    let (shell, driver) = server.shell().await;
    shell.batch_execute(OPEN_COMMIT).await.expect("opened");

    // It has begun: neither is served.
    cut(shell, driver, AT_ROWS).await;
    let command = file.refused(&url).await;
    assert_eq!(file.refused(&file.url()).await, command);
    let (shell, driver) = server.shell().await;
    shell.batch_execute(OPEN).await.expect("opened");

    // The database has lost the rows: neither is served.
    cut(shell, driver, AT_END).await;
    assert_eq!(file.refused(&url).await, command);
    assert_eq!(file.refused(&file.url()).await, command);
    let (shell, _driver) = server.shell().await;
    shell.batch_execute(OPEN).await.expect("opened");

    file.typed(&command).await;
    file.knows(place(&url)).await;
    let retired = Ledger::open(&ledger(&file.folder), &Metrics::new([])).expect_err("retired");
    assert!(matches!(&retired, OpenError::Retired(target) if *target == url), "{retired}");
    // Once more is no harm.
    file.typed(&command).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_copy_whose_client_dies_is_waited_for_and_ends_or_is_finished() {
    let (file, database) = (File::new().await, Database::new().await);
    let url = database.url(None);
    migrated(&url).await;
    let (shell, driver) = database.shell().await;
    shell.batch_execute(GATE).await.expect("a gate");

    // Rows come in: the server gives up what its client does not end.
    let gate = Gate::close(shell, driver, AT_ROWS).await;
    let copy = file.copy(&url);
    gate.reached().await;
    killed(copy).await;
    file.refused(&url).await;
    let (code, words) = said(&run(&file.url(), &["copy", "--to", &url]).await);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("wait for the copy that is being made"), "{words}");
    gate.open().await;
    gate.shell.batch_execute(OPEN).await.expect("opened");
    let command = file.refused(&url).await;
    assert_eq!(file.refused(&file.url()).await, command);

    // At the end: the server commits, and nobody is there to hear it.
    let gate = Gate::close(gate.shell, gate.driver, AT_END).await;
    let copy = file.copy(&url);
    gate.reached().await;
    killed(copy).await;
    for ledger in [&url, &file.url()] {
        assert_eq!(file.refused(ledger).await, command);
    }
    gate.open().await;
    file.knows(database.ledger()).await;
    // Only the file does not know it.
    assert_eq!(file.refused(&file.url()).await, command);
    file.typed(&command).await;
    let retired = Ledger::open(&ledger(&file.folder), &Metrics::new([])).expect_err("retired");
    assert!(matches!(retired, OpenError::Retired(_)), "{retired}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_copy_begins_only_where_no_replica_is_connected_and_none_connects_before_it_ends() {
    let (file, fleet) = (File::new().await, Fleet::start(1).await);
    let url = fleet.database.url(None);
    let (code, words) = said(&run(&file.url(), &["copy", "--to", &url]).await);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("stop its replicas"), "{words}");
    file.serve().await;
    let Fleet { database, services, clients, .. } = fleet;
    drop(clients);
    for service in services {
        service.stop().await;
    }

    let (shell, driver) = database.shell().await;
    shell.batch_execute(GATE).await.expect("a gate");
    let gate = Gate::close(shell, driver, AT_COMMIT).await;
    let copy = file.copy(&url);
    // Before it has said anything, and before it has said the end.
    for _ in 0..2 {
        gate.reached().await;
        let refused = Ledger::of(&database.ledger(), &Metrics::new([])).await.expect_err("not yet");
        assert!(matches!(refused, OpenError::CopyUnderWay | OpenError::HalfCopied(_)), "{refused}");
        gate.shell.batch_execute(UNLOCK).await.expect("opened");
        if matches!(refused, OpenError::CopyUnderWay) {
            gate.shell.batch_execute(CLOSE).await.expect("closed");
        }
    }
    let (code, words) = said(&within(copy.wait_with_output()).await.expect("ended"));
    assert_eq!(code, Some(0), "{words}");
    file.knows(database.ledger()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_copy_that_has_begun_is_finished_from_its_own_file_and_from_no_other_or_older_one() {
    let (file, other, database) = (File::new().await, File::new().await, Database::new().await);
    let url = database.url(None);
    migrated(&url).await;
    let old = file.folder.path().join("old.db");
    let db = rusqlite::Connection::open(ledger(&file.folder)).expect("opened");
    db.execute("VACUUM INTO ?1", [old.to_str()]).expect("copied");
    drop(db);
    file.serve().await;
    let (shell, _driver) = database.shell().await;
    let refuse = "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'cut'; END $$";
    shell.batch_execute(&format!("{refuse}; {AT_ROWS}")).await.expect("a gate");
    let (code, words) = said(&run(&file.url(), &["copy", "--to", &url]).await);
    assert_eq!(code, Some(1), "{words}");
    shell.batch_execute(OPEN).await.expect("opened");

    let command = file.refused(&url).await;
    let old = format!("sqlite:{}", old.display());
    for (from, why) in
        [(other.url(), "the copy of another ledger"), (old, "this one is an old copy")]
    {
        let (code, words) = said(&run(&from, &["copy", "--to", &url]).await);
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains(why) && words.contains(&command), "{words}");
    }
    other.serve().await;
    file.typed(&command).await;
    file.knows(database.ledger()).await;
}
