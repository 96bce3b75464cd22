//! The role that `payoutd ledger migrate --grant` makes fit for a service, and for nothing more.

use payoutd::pb::PayoutState;
use payoutd::pb::resolve_payout_request::Resolution::Void;
use tokio_postgres::error::SqlState;

use super::copy::{run, said};
use crate::callback::letter::{notice, success, tell, told, until};
use crate::support::database::connect;
use crate::support::{Database, Upstream, Whole, config, order};

/// A role of one test's own that may do nothing yet.
pub(super) async fn role(database: &Database) -> String {
    let (shell, _driver) = database.shell().await;
    let schema = shell.query_one("SELECT current_schema()", &[]).await.expect("a schema");
    let role = format!("Serves-{}", schema.get::<_, &str>(0));
    shell.batch_execute(&format!("CREATE ROLE \"{role}\" LOGIN")).await.expect("a role");
    role
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_granted_role_serves_a_whole_life_and_can_neither_delete_nor_change_a_table() {
    let database = Database::new().await;
    let role = role(&database).await;
    let (code, words) = said(&run(&database.url(None), &["migrate", "--grant", &role]).await);
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("schema version 2, made"), "{words}");
    assert!(words.contains(&format!("TO \"{role}\";")), "{words}");
    assert!(!words.contains("GRANT ALL") && !words.contains("DELETE"), "{words}");

    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let mut config = config(upstream.address, folder.path().join("none"));
    let mut shared = database.shared();
    shared.database.user(&role);
    config.ledger = payoutd::config::Ledger::Shared(Box::new(shared.clone()));
    config.void_min_age = std::time::Duration::from_nanos(1);
    let service = crate::support::Service::start(config).await;
    let client = service.client().await;
    let whole = Whole { upstream, service, client, folder };
    let payout = whole.create(told(&whole, "a")).await.expect("OK");
    assert!(whole.upstream.book.set_status(payout.cid, 6, true));
    until(&whole, "a", PayoutState::Succeeded).await;
    assert_eq!(tell(&whole, notice("nobody", 5, 6)).await, success());
    whole.lost("b").await;
    let voided = whole.resolve("b", Void(true)).await.expect("OK");
    assert_eq!(voided.state(), PayoutState::Voided);
    assert!(whole.set_intake(0, true).await.expect("OK"));
    assert!(!whole.set_intake(0, false).await.expect("OK"));
    let whole = whole.restart().await;
    assert_eq!(whole.get("b").await.expect("known"), voided);
    whole.create(order("c")).await.expect("OK");

    let (shell, _driver) = connect(&shared.database).await;
    for forbidden in [
        "DELETE FROM payout",
        "DELETE FROM event",
        "DELETE FROM notice",
        "DELETE FROM intake",
        "DELETE FROM mark",
        "UPDATE mark SET time = 0",
        "UPDATE ledger SET copy_command = NULL",
        "SELECT setval(pg_get_serial_sequence('event', 'seq'), 1)",
        "DELETE FROM spend",
        "DELETE FROM payoutd_schema",
        "TRUNCATE payout, event, notice",
        "TRUNCATE notice",
        "TRUNCATE spend",
        "UPDATE event SET cause = ''",
        "UPDATE intake SET paused = true",
        "UPDATE payoutd_schema SET version = 9",
        "ALTER TABLE payout ADD COLUMN more text",
        "ALTER TABLE event DISABLE TRIGGER ALL",
        "DROP TABLE spend",
        "DROP INDEX payout_by_cid",
        "CREATE TABLE more (one int)",
        "SELECT setval(pg_get_serial_sequence('payout', 'id'), 1)",
    ] {
        let refused = shell.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{forbidden}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_a_role_had_before_is_taken_from_it_and_one_that_owns_the_tables_is_refused() {
    let database = Database::new().await;
    let (role, url) = (role(&database).await, database.url(None));
    let (shell, _driver) = database.shell().await;
    let (code, words) = said(&run(&url, &["migrate"]).await);
    assert_eq!(code, Some(0), "{words}");
    let all =
        format!("GRANT ALL ON ledger, payout, event, mark, notice, intake, spend TO \"{role}\"");
    shell.batch_execute(&all).await.expect("granted");
    let (code, words) = said(&run(&url, &["migrate", "--grant", &role]).await);
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("schema version 2, up to date"), "{words}");
    let select = "SELECT string_agg(DISTINCT table_name || ' ' || privilege_type, ',' ORDER BY
             table_name || ' ' || privilege_type)
         FROM information_schema.table_privileges WHERE grantee = $1";
    let left = shell.query_one(select, &[&role]).await.expect("a list");
    assert_eq!(
        left.get::<_, &str>(0),
        "event INSERT,event SELECT,intake INSERT,intake SELECT,ledger SELECT,\
         mark INSERT,mark SELECT,notice INSERT,notice SELECT,notice UPDATE,payout INSERT,payout SELECT,payout UPDATE,payoutd_schema SELECT,\
         spend INSERT,spend SELECT,spend UPDATE"
    );

    for (mighty, why) in [("postgres", "superuser"), ("nobody-at-all", "there is no role")] {
        let (code, words) = said(&run(&url, &["migrate", "--grant", mighty]).await);
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains(why), "{words}");
    }
    let (code, words) = said(&run("sqlite:none.db", &["migrate", "--grant", &role]).await);
    assert_eq!(code, Some(64), "{words}");

    // And the role cannot bring the tables up to date: who can is told.
    let bare = Database::new().await;
    let (shell, _driver) = bare.shell().await;
    let usage = format!("GRANT USAGE ON SCHEMA {} TO \"{role}\"", schema(&bare));
    shell.batch_execute(&usage).await.expect("granted");
    let (code, words) = said(&run(&bare.url(Some(&role)), &["migrate"]).await);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("run `payoutd ledger migrate` as its owner"), "{words}");
}

fn schema(database: &Database) -> String {
    let shared = database.shared();
    let options = shared.database.get_options().expect("a schema");
    options.rsplit('=').next().expect("a schema").to_owned()
}
