//! What a database must be before money is entrusted to it: durable, encrypted, and ours.

use payoutd::causes::chain;
use payoutd::config::{Config, Ledger as Settings};
use payoutd::ledger::{Id, Ledger, OpenError};
use payoutd::metrics::Metrics;
use payoutd::pb::{self, PayoutState};

use crate::support::authority::{Authority, private};
use crate::support::fleet::Fleet;
use crate::support::server::Server;
use crate::support::{
    Database, Service, Upstream, config, get, order, payoutd, reason, settled, within,
};

/// The settings of a ledger, read as the service reads them.
pub(super) fn settings(ledger: &[(&str, &str)]) -> Settings {
    let project = [
        ("PROJECT__PID", "7"),
        ("PROJECT__BASE_URL", "http://127.0.0.1:9"),
        ("PROJECT__API_KEY", "k"),
    ];
    let all = project.iter().chain(ledger);
    let all = all.map(|(name, value)| (format!("PAYOUTD_{name}"), (*value).to_owned()));
    Config::load(None, all).expect("good settings").ledger
}

async fn open(settings: &Settings) -> Result<Ledger, OpenError> {
    within(Ledger::of(settings, &Metrics::new([]))).await
}

/// Why a ledger does not open, with all causes.
async fn refused(ledger: &[(&str, &str)]) -> String {
    let error = open(&settings(ledger)).await.expect_err("refused");
    chain(&error)
}

/// What `payoutd COMMAND` says over the ledger at `url`, and its exit code.
pub(super) async fn said(
    command: &str,
    upstream: &Upstream,
    ledger: &[(&str, &str)],
) -> (Option<i32>, String) {
    let mut binary = payoutd();
    binary.arg(command).envs([
        ("PAYOUTD_GRPC__LISTEN", "127.0.0.1:0".to_owned()),
        ("PAYOUTD_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("PAYOUTD_CALLBACK__LISTEN", "127.0.0.1:0".to_owned()),
        ("PAYOUTD_PROJECT__PID", payoutd::sandbox::PID.to_string()),
        ("PAYOUTD_PROJECT__BASE_URL", format!("http://{}", upstream.address)),
        ("PAYOUTD_PROJECT__API_KEY", payoutd::sandbox::API_KEY.to_owned()),
        ("PAYOUTD_LOG__LEVEL", "trace".to_owned()),
    ]);
    binary.envs(ledger.iter().map(|(name, value)| (format!("PAYOUTD_{name}"), value)));
    let output = within(binary.output()).await.expect("ran");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("utf-8"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_server_that_may_lose_what_it_acknowledged_is_refused_at_the_start_and_says_why() {
    let upstream = Upstream::start().await;
    let server = Server::start(&Authority::new("databases")).await;
    let (shell, driver) = server.shell().await;
    let roles = "CREATE ROLE weak LOGIN; ALTER ROLE weak SET synchronous_commit = off;
         CREATE ROLE reader LOGIN; ALTER ROLE reader SET default_transaction_read_only = on";
    shell.batch_execute(roles).await.expect("roles");
    drop((shell, driver));
    let refuse = async |url: &str, why: &str| {
        for command in ["serve", "check"] {
            let (code, text) = said(command, &upstream, &[("LEDGER__URL", url)]).await;
            assert_eq!(code, Some(1), "{command} {url}: {text}");
            let told = text.contains(&format!("commits would not be durable: {why}"));
            assert!(told, "{command} {url}: {text}");
        }
    };
    let (code, text) =
        said("check", &upstream, &[("LEDGER__URL", &server.url("postgres", ""))]).await;
    assert_eq!(code, Some(0), "{text}");

    for commit in ["off", "local", "remote_write"] {
        let options = format!("?options=-c%20synchronous_commit%3D{commit}");
        let why = format!("synchronous_commit is {commit}; it must be on");
        refuse(&server.url("postgres", &options), &why).await;
    }
    refuse(&server.url("weak", ""), "synchronous_commit is off").await;
    refuse(&server.url("reader", ""), "default_transaction_read_only is on").await;
    let standby = server.standby().await;
    refuse(&standby.url("postgres", ""), "the server is a replica; the primary is needed").await;
    drop(standby);
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        server.set(&format!("{setting} = off"));
        server.control("restart");
        refuse(&server.url("postgres", ""), &format!("{setting} is off; it must be on")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_server_that_becomes_unsafe_under_us_gets_no_payouts_until_it_is_right_again() {
    let (upstream, server) =
        (Upstream::start().await, Server::start(&Authority::new("databases")).await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(upstream.address, folder.path().join("none"));
    config.ledger = settings(&[("LEDGER__URL", &server.url("postgres", ""))]);
    let service = Service::start(config).await;
    let client = service.client().await;
    let ask = async |id: &str| within(client.clone().create_payout(order(id))).await;
    ask("before").await.expect("OK");
    // Under connections that are open.
    server.set("fsync = off");
    server.reload("fsync", "off").await;
    let mut taken = 0;
    let refused = async {
        loop {
            match ask(&format!("meanwhile-{taken}")).await {
                Ok(_) => taken += 1,
                Err(status) => return status,
            }
        }
    };
    let refused = within(refused).await;
    assert_eq!(reason(&refused).1, "LEDGER_UNAVAILABLE");
    // For as long as it is so.
    for number in 0..20 {
        let refused = ask(&format!("unsafe-{number}")).await.expect_err("refused");
        assert_eq!(reason(&refused).1, "LEDGER_UNAVAILABLE");
    }
    server.set("");
    server.reload("fsync", "on").await;
    within(async { while ask("after").await.is_err() {} }).await;
    assert_eq!(settled(&client, "after").await.state(), PayoutState::Accepted);
    assert_eq!(upstream.book.posts().len(), 2 + taken);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn nothing_is_written_over_a_connection_that_is_opened_after_a_fall_to_an_unsafe_server() {
    let server = Server::start(&Authority::new("databases")).await;
    let settings = settings(&[("LEDGER__URL", &server.url("postgres", ""))]);
    // Nobody attends it: each connection answers for itself.
    let ledger = open(&settings).await.expect("opened");
    let write = || within(ledger.set_intake(vec![7], true, "why".to_owned()));
    write().await.expect("written");
    server.set("full_page_writes = off");
    server.control("restart");
    for _ in 0..20 {
        write().await.expect_err("not safe");
    }
    server.set("");
    server.reload("full_page_writes", "on").await;
    write().await.expect("written");
    let (shell, _driver) = server.shell().await;
    let row = shell.query_one("SELECT count(*) FROM intake", &[]).await.expect("read");
    assert_eq!(row.get::<_, i64>(0), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_connection_keeps_its_synchronous_commit_and_its_bounds_whatever_the_server_is_told() {
    let server = Server::start(&Authority::new("databases")).await;
    let settings =
        settings(&[("LEDGER__URL", &server.url("postgres", "")), ("LEDGER__MAX_CONNECTIONS", "1")]);
    let ledger = open(&settings).await.expect("opened");
    server.set("synchronous_commit = off");
    server.reload("synchronous_commit", "off").await;
    // A trigger tells what was in force when the ledger wrote.
    let (shell, _driver) = server.shell().await;
    let spy = "CREATE TABLE spy (value text);
         CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO spy VALUES (current_setting('synchronous_commit')),
             (current_setting('statement_timeout')); RETURN NEW; END $$;
         CREATE TRIGGER spy BEFORE INSERT ON intake FOR EACH ROW EXECUTE FUNCTION spy()";
    shell.batch_execute(spy).await.expect("a trigger");
    within(ledger.set_intake(vec![7], true, "why".to_owned())).await.expect("written");
    let rows = shell.query("SELECT value FROM spy", &[]).await.expect("read");
    let told: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(told, ["on", "5s"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_connection_is_encrypted_to_the_server_that_the_certificate_names_or_there_is_none() {
    let authority = Authority::new("databases");
    let server = Server::start(&authority).await;
    let ca = server.path("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("written");
    let other = server.path("other.pem");
    std::fs::write(&other, Authority::new("others").pem()).expect("written");
    let url = server.url("postgres", "?sslmode=require");

    let ledger = open(&settings(&[("LEDGER__URL", &url), ("LEDGER__TLS_CA_FILE", &ca)])).await;
    let ledger = ledger.expect("opened");
    let (shell, driver) = server.shell().await;
    let select = "SELECT ssl, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE application_name = 'payoutd'";
    let rows = shell.query(select, &[]).await.expect("read");
    assert!(!rows.is_empty());
    for row in rows {
        assert_eq!((row.get(0), row.get(1)), (true, Some("TLSv1.3")));
    }
    drop((ledger, shell, driver));

    let refuse = async |url: &str, ca: Option<&str>, why: &str| {
        let mut given = vec![("LEDGER__URL", url)];
        given.extend(ca.map(|ca| ("LEDGER__TLS_CA_FILE", ca)));
        let text = refused(&given).await;
        assert!(text.contains("TLS handshake") && text.contains(why), "{text}");
    };
    refuse(&url, Some(&other), "UnknownIssuer").await;
    // By the system's roots.
    refuse(&url, None, "certificate").await;
    let elsewhere = url.replace("127.0.0.1", "127.0.0.2");
    refuse(&elsewhere, Some(&ca), "not valid for name").await;
    server.set("ssl = off");
    server.control("restart");
    refuse(&url, Some(&ca), "server does not support TLS").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_password_is_bound_to_the_encrypted_connection_and_a_wrong_one_is_told_but_not_shown() {
    let upstream = Upstream::start().await;
    let authority = Authority::new("databases");
    let server = Server::start(&authority).await;
    let (shell, _driver) = server.shell().await;
    let role = "CREATE ROLE guarded LOGIN PASSWORD 'right-4711';
         GRANT CREATE ON SCHEMA public TO guarded";
    shell.batch_execute(role).await.expect("a role");
    let (ca, file) = (server.path("ca.pem"), server.path("password"));
    std::fs::write(&ca, authority.pem()).expect("written");
    let url = server.url("guarded", "?sslmode=require&channel_binding=require");
    let given =
        [("LEDGER__URL", &*url), ("LEDGER__TLS_CA_FILE", &*ca), ("LEDGER__PASSWORD_FILE", &*file)];
    private(file.as_ref(), "right-4711\n");
    let (code, text) = said("check", &upstream, &given).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("right-4711"), "{text}");

    private(file.as_ref(), "canary-4711\n");
    for command in ["serve", "check"] {
        let (code, text) = said(command, &upstream, &given).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("password authentication failed for user"), "{text}");
        assert!(!text.contains("canary-4711"), "{text}");
    }
    let without = refused(&given[..2]).await;
    assert!(without.contains("password missing"), "{without}");
    // In the clear there is nothing to bind it to.
    let plain = server.url("guarded", "?sslmode=disable&channel_binding=require");
    let plain = refused(&[("LEDGER__URL", &plain), given[2]]).await;
    assert!(plain.contains("server did not use channel binding"), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn replicas_that_start_together_on_an_empty_database_all_come_up() {
    for _ in 0..10 {
        let settings = Database::new().await.ledger();
        let start = || open(&settings);
        let (one, two, three, four) = tokio::join!(start(), start(), start(), start());
        for ledger in [one, two, three, four] {
            assert!(ledger.expect("opened").is_shared());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn tables_of_a_newer_version_or_of_somebody_else_are_left_alone() {
    let newer = Database::new().await;
    drop(open(&newer.ledger()).await.expect("made"));
    let (shell, _driver) = newer.shell().await;
    shell.batch_execute("INSERT INTO payoutd_schema (version) VALUES (9)").await.expect("newer");
    let error = open(&newer.ledger()).await.expect_err("newer");
    assert!(matches!(error, OpenError::Newer { found: 9, known: 2 }), "{error:?}");

    let foreign = Database::new().await;
    let (shell, _driver) = foreign.shell().await;
    shell.batch_execute("CREATE TABLE payout (x integer)").await.expect("made");
    let error = open(&foreign.ledger()).await.expect_err("foreign");
    assert!(matches!(error, OpenError::Foreign), "{error:?}");
    let select =
        "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace";
    let tables = shell.query_one(select, &[]).await.expect("read");
    assert_eq!(tables.get::<_, i64>(0), 1, "something was made beside the foreign table");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn tables_of_version_1_become_what_new_ones_are_and_keep_their_payouts() {
    let (old, new) = (Database::new().await, Database::new().await);
    drop(open(&new.ledger()).await.expect("made"));
    drop(open(&old.ledger()).await.expect("made"));
    let (shell, _driver) = old.shell().await;
    shell.batch_execute(TO_VERSION_1).await.expect("version 1");
    shell
        .batch_execute(
            "INSERT INTO payout (pid, third_party_id, currency, address, amount, remark, memo, callback_url,
                 create_time, revision, update_time, state, reason, refusal_msg, cid, txid, block_height,
                 attention, send_time, state_time, polls, caller, owner, attempt, lease_until)
             VALUES (1, 'old', '195@195', 'TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS', '1.1', '', '', '', 1, 1, 1,
                 'ACCEPTED', '', '', 9, '', 0, '', 1, 1, 0, 'a', '', '', 0)",
        )
        .await
        .expect("a payout");
    // Whoever served may go on.
    let role = format!("served_{}", std::process::id());
    let grant = format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT ON event TO {role};
         GRANT SELECT, INSERT, UPDATE ON payout, spend TO {role};
         GRANT SELECT, INSERT ON intake TO {role}; GRANT SELECT ON ledger, payoutd_schema TO {role};
         DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO {role}', current_schema()); END $$"
    );
    shell.batch_execute(&grant).await.expect("a role");
    let ledger = open(&old.ledger()).await.expect("brought up to date");
    let mut shared = old.shared();
    shared.database.user(&role);
    let served = open(&Settings::Shared(Box::new(shared))).await.expect("opened");
    within(served.set_intake(vec![7], true, "why".to_owned())).await.expect("written");
    let found = within(ledger.find(1, Id::ThirdParty("old".into()))).await.expect("read");
    let found = found.expect("kept");
    assert_eq!((found.caller.as_str(), found.sender()), ("a", "a"));
    assert_eq!(shape(&old).await, shape(&new).await);
    drop(open(&old.ledger()).await.expect("a second start"));
}

/// Takes away what version 2 has added.
const TO_VERSION_1: &str = "ALTER TABLE payout DROP COLUMN sender;
     ALTER TABLE ledger DROP COLUMN copy_of, DROP COLUMN copy_commits, DROP COLUMN copy_command;
     DROP TABLE mark; ALTER TABLE intake DROP COLUMN seq;
     DROP INDEX notice_by_payout, notice_orphan;
     CREATE INDEX notice_by_lead ON notice (payout, cid) WHERE due IS NOT NULL;
     CREATE INDEX notice_orphan ON notice (time) WHERE payout IS NULL;
     UPDATE payoutd_schema SET version = 1;";

/// Every column, index and constraint, in no particular order.
async fn shape(database: &Database) -> Vec<String> {
    let (shell, _driver) = database.shell().await;
    let select = "SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default)
             FROM information_schema.columns WHERE table_schema = current_schema()
         UNION ALL SELECT regexp_replace(indexdef, current_schema() || '.', '') FROM pg_indexes
             WHERE schemaname = current_schema()
         UNION ALL SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
             WHERE connamespace = current_schema()::regnamespace
         ORDER BY 1";
    let rows = shell.query(select, &[]).await.expect("read");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_role_that_may_not_make_tables_hears_who_must() {
    let database = Database::new().await;
    let (shell, _driver) = database.shell().await;
    let role = format!("poor_{}", std::process::id());
    let grant = format!(
        "CREATE ROLE {role} LOGIN;
         DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO {role}', current_schema()); END $$"
    );
    shell.batch_execute(&grant).await.expect("a role");
    let mut shared = database.shared();
    shared.database.user(&role);
    let poor = Settings::Shared(Box::new(shared));
    let error = open(&poor).await.expect_err("older");
    assert!(matches!(error, OpenError::Older { found: 0, wanted: 2 }), "{error:?}");
    assert!(error.to_string().contains("`payoutd ledger migrate`"), "{error}");

    // Once somebody else has made them, it can do with little.
    drop(open(&database.ledger()).await.expect("made"));
    let grant = format!(
        "DO $$ BEGIN EXECUTE format('GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA %I TO {role};
             GRANT USAGE ON SEQUENCE event_seq_seq TO {role}', current_schema()); END $$"
    );
    shell.batch_execute(&grant).await.expect("granted");
    let ledger = open(&poor).await.expect("opened");
    within(ledger.set_intake(vec![7], true, "why".to_owned())).await.expect("written");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_column_that_a_later_schema_adds_does_not_disturb_the_replicas_that_run() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.clients[0].clone();
    let (shell, _driver) = fleet.database.shell().await;
    for round in 0..2 {
        // In the second one each statement is prepared already.
        for number in 0..20 {
            let id = format!("{round}-{number}");
            let created = fleet.create(0, order(&id)).await.expect("OK");
            assert_eq!(fleet.create(0, order(&id)).await.expect("a repeat"), created);
            assert_eq!(get(&client, &id).await.expect("known"), created);
            let list = pb::ListPayoutsRequest::default();
            within(client.list_payouts(list)).await.expect("listed");
        }
        let later = "ALTER TABLE payout ADD COLUMN IF NOT EXISTS later text NOT NULL DEFAULT ''";
        shell.batch_execute(later).await.expect("added");
    }
}
