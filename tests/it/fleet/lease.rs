//! Who may send, for how long, and what becomes of it when the database or the owner is cut off.

use std::time::Duration;

use nix::sys::signal::Signal;
use payoutd::pb::PayoutState;
use tempfile::TempDir;
use tokio_postgres::Client as Shell;
use tonic::Code;

use crate::support::fleet::{Fleet, wired};
use crate::support::proxy::Wire;
use crate::support::{
    Binary, Database, Service, beside, connect, ended, get, order, reason, within,
};

/// Waits until the row of `id` is in `state`, and returns its reason.
async fn row(shell: &Shell, id: &str, state: &str) -> String {
    let select = "SELECT reason FROM payout WHERE third_party_id = $1 AND state = $2";
    within(async {
        loop {
            if let Some(row) = shell.query_opt(select, &[&id, &state]).await.expect("read") {
                return row.get(0);
            }
        }
    })
    .await
}

/// The settings of a process whose ledger is reached at `address`.
pub(super) fn settings(database: &Database, port: u16) -> Vec<(&'static str, String)> {
    let shared = database.shared();
    let options = shared.database.get_options().expect("a schema").replace(' ', "%20");
    let (user, name) = (shared.database.get_user(), shared.database.get_dbname());
    let (user, name) = (user.expect("a user"), name.expect("a name"));
    let url = format!(
        "postgres://{user}@127.0.0.1:{port}/{name}?options={}",
        options.replace('=', "%3D")
    );
    vec![
        ("PAYOUTD_LEDGER__URL", url),
        ("PAYOUTD_LEDGER__LEASE", "4s".to_owned()),
        ("PAYOUTD_PROJECT__TIMEOUT", "1s".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn an_owner_that_was_stopped_between_record_and_send_does_not_send_any_more() {
    let fleet = Fleet::with(1, |_| {}).await;
    let (proxy, _) = wired(&fleet.database).await;
    let (shell, _driver) = fleet.database.shell().await;
    let folder = TempDir::new().expect("a folder");
    let settings = settings(&fleet.database, proxy.address.port());
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let owner = Binary::start_with(fleet.upstream.address, &folder, &settings).await;
    let client = owner.client().await;

    // Its record is made, but it does not know yet.
    proxy.set(Wire::HoldsAnswer("stopped".to_owned()));
    let mut asking = client.clone();
    let asked = beside(async move { asking.create_payout(order("stopped")).await });
    row(&shell, "stopped", "SENDING").await;
    owner.signal(Signal::SIGSTOP);
    proxy.set(Wire::Open);
    // For longer than its lease: the other replica gives it up.
    assert_eq!(row(&shell, "stopped", "IN_DOUBT").await, "LEASE_EXPIRED");
    owner.signal(Signal::SIGCONT);

    let answer = ended(asked).await.expect("OK").into_inner();
    let payout = answer.payout.expect("a payout");
    assert_eq!((payout.state(), &*payout.reason), (PayoutState::InDoubt, "LEASE_EXPIRED"));
    assert_eq!(fleet.posts("stopped"), 0, "it was sent by an owner that had been given up");
    assert_eq!(get(&fleet.clients[0], "stopped").await.expect("known"), payout);
    // It is well again, and serves.
    let served = within(client.clone().create_payout(order("b"))).await.expect("OK");
    assert!(served.into_inner().cid > 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn the_sends_of_a_dead_owner_become_doubts_and_are_not_sent_again() {
    let fleet = Fleet::with(2, |_| {}).await;
    let folder = TempDir::new().expect("a folder");
    let (shell, _driver) = fleet.database.shell().await;
    let (proxy, _) = wired(&fleet.database).await;
    let settings = settings(&fleet.database, proxy.address.port());
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let owner = Binary::start_with(fleet.upstream.address, &folder, &settings).await;
    fleet.upstream.fault(r#"{"third_party_id": "a", "delay_answer": "60s"}"#);
    let mut asking = owner.client().await;
    let _asked = beside(async move { asking.create_payout(order("a")).await });
    fleet.upstream.received(1).await;
    owner.kill().await;
    // Whoever asks meanwhile waits, and hears the doubt.
    let heard = fleet.create(1, order("a")).await.expect("OK");
    assert_eq!((heard.state(), &*heard.reason), (PayoutState::InDoubt, "LEASE_EXPIRED"));
    assert_eq!(row(&shell, "a", "IN_DOUBT").await, "LEASE_EXPIRED");
    assert_eq!(fleet.posts("a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn the_late_answer_of_an_owner_that_was_given_up_is_still_evidence() {
    let fleet = Fleet::with(2, |config| {
        if let payoutd::config::Ledger::Shared(shared) = &mut config.ledger {
            shared.lease = Duration::from_secs(1);
        }
    })
    .await;
    let (shell, _driver) = fleet.database.shell().await;
    fleet.upstream.fault(r#"{"third_party_id": "a", "delay_answer": "4s"}"#);
    let (answer, reason) = tokio::join!(fleet.create(0, order("a")), row(&shell, "a", "IN_DOUBT"));
    assert_eq!(reason, "LEASE_EXPIRED");
    let payout = answer.expect("OK");
    assert_eq!(payout.state(), PayoutState::Accepted);
    assert!(payout.cid > 0);
    assert_eq!(fleet.posts("a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_record_whose_commit_was_not_answered_is_sent_once_or_not_at_all() {
    let fleet = Fleet::with(1, |_| {}).await;
    let (proxy, ledger) = wired(&fleet.database).await;
    let (shell, _driver) = fleet.database.shell().await;
    let mut config = fleet.services[0].config.clone();
    config.ledger = ledger;
    config.grpc = payoutd::config::Grpc::at(crate::support::any_port());
    let service = Service::start(config).await;
    let client = connect(service.addresses.grpc).await;
    let paid = async |id: &str| {
        let repeated = async {
            loop {
                match client.clone().create_payout(order(id)).await {
                    Ok(answer) => return answer.into_inner().cid,
                    Err(status) => assert_eq!(status.code(), Code::Unavailable),
                }
            }
        };
        assert!(within(repeated).await > 0, "{id}");
        assert_eq!(fleet.posts(id), 1);
    };
    let mut found = 0;
    for round in 0..10 {
        // Done, but the answer is lost: whoever recorded it finds it and sends, or has too little time left.
        let id = format!("done-{round}");
        proxy.set(Wire::HoldsAnswer(id.clone()));
        let (mut asking, request) = (client.clone(), order(&id));
        let asked = beside(async move { asking.create_payout(request).await });
        row(&shell, &id, "SENDING").await;
        proxy.cut().await;
        match ended(asked).await {
            Ok(answer) => {
                assert!(answer.into_inner().cid > 0, "{id}");
                assert_eq!(fleet.posts(&id), 1);
                found += 1;
            }
            Err(status) => {
                assert_eq!(reason(&status).1, "LEDGER_UNAVAILABLE");
                assert_eq!(fleet.posts(&id), 0);
            }
        }
        paid(&id).await;

        // Never got there: nothing is sent, and the caller hears that.
        let id = format!("never-{round}");
        proxy.set(Wire::HoldsQuestion(id.clone()));
        let (mut asking, request) = (client.clone(), order(&id));
        let asked = beside(async move { asking.create_payout(request).await });
        proxy.holds(1).await;
        proxy.cut().await;
        let status = ended(asked).await.expect_err("not recorded");
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(reason(&status).1, "LEDGER_UNAVAILABLE");
        assert_eq!(fleet.posts(&id), 0);
        paid(&id).await;
    }
    assert!(found > 0, "none was found in time");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_record_that_is_made_only_after_its_connection_broke_is_found_and_sent() {
    let fleet = Fleet::with(1, |_| {}).await;
    let (proxy, ledger) = wired(&fleet.database).await;
    let (shell, _driver) = fleet.database.shell().await;
    let (onlooker, _driver) = fleet.database.shell().await;
    let mut config = fleet.services[0].config.clone();
    config.ledger = ledger;
    config.grpc = payoutd::config::Grpc::at(crate::support::any_port());
    let service = Service::start(config).await;
    let client = connect(service.addresses.grpc).await;
    within(client.clone().create_payout(order("before"))).await.expect("OK");

    // Somebody has the same id under way, and will not have it: until then the database waits.
    let hold = r#"BEGIN; INSERT INTO payout SELECT (jsonb_populate_record(payout,
        '{"id": -1, "third_party_id": "late", "cid": null}')).* FROM payout"#;
    shell.batch_execute(hold).await.expect("held");
    proxy.set(Wire::Loses(&["late"], 1));
    let mut asking = client.clone();
    let asked = beside(async move { asking.create_payout(order("late")).await });
    let activity = |what: &str| {
        let select = format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE {what}");
        let shell = &onlooker;
        async move {
            within(async {
                while !shell.query_one(&select, &[]).await.expect("read").get::<_, bool>(0) {}
            })
            .await;
        }
    };
    activity("wait_event_type = 'Lock' AND query LIKE '%INSERT INTO payout%'").await;
    proxy.set(Wire::Open);
    // Looked for, and not found.
    activity("state = 'idle' AND query LIKE '%attempt = $3 AND payout.state = ''SENDING''%'").await;
    shell.batch_execute("ROLLBACK").await.expect("free");
    assert!(ended(asked).await.expect("OK").into_inner().cid > 0);
    assert_eq!(fleet.posts("late"), 1);
}
