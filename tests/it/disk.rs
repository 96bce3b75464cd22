//! The disk's low-water mark: nothing new below it, and everything else goes on.

use std::time::Duration;

use payoutd::config::{Config, Ledger};
use payoutd::pb::{self, PayoutState};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::support::{
    Binary, Service, Upstream, Whole, connect, order, payoutd, reason, told, watch, within,
};

fn no_room(status: &Status) {
    let expected = (Code::Unavailable, "LEDGER_UNAVAILABLE".to_owned(), "same_id".to_owned());
    assert_eq!(reason(status), expected);
    assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_has_become_read_only_is_said_in_a_warning_and_serves_on() {
    use std::os::unix::fs::{MetadataExt, chown};
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    // Whoever is root may write whatever its mode.
    let root = std::fs::metadata("/proc/self").expect("a process").uid() == 0;
    let mut command = payoutd();
    command.arg("serve");
    if root {
        chown(folder.path(), Some(65534), Some(65534)).expect("nobody's");
        command.uid(65534).gid(65534);
    }
    for min_free in ["1KiB", "0"] {
        let settings = [("PAYOUTD_LEDGER__MIN_FREE", min_free)];
        let binary = Binary::start_as(&mut command, upstream.address, &folder, &settings).await;
        let said = async |words: &str| {
            within(async {
                while !std::fs::read_to_string(&binary.log).expect("a log").contains(words) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        };
        let mode = crate::support::authority::mode;
        for (path, closed, open) in
            [(folder.path(), 0o500, 0o700), (&*crate::support::ledger(&folder), 0o400, 0o600)]
        {
            mode(path, closed);
            let words = "ledger is read-only: the next start will be refused";
            said(&format!("\"WARN\",\"message\":\"{words}\"")).await;
            said(&format!("\"path\":\"{}\"", path.display())).await;
            let id = format!("during-{min_free}-{closed}");
            within(binary.client().await.create_payout(order(&id))).await.expect("OK");
            mode(path, open);
            said("ledger is read-only no more").await;
            let log = std::fs::read_to_string(&binary.log).expect("a log");
            assert_eq!(log.matches(words).count(), 1, "{log}");
            std::fs::File::options()
                .write(true)
                .open(&binary.log)
                .expect("a log")
                .set_len(0)
                .expect("");
        }
        binary.kill().await;
    }
}

fn with_free(config: &Config, min_free: u64) -> Ledger {
    let path = config.ledger.path().expect("a file").to_owned();
    Ledger::Embedded { path, min_free, witness: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_mark_nothing_new_is_taken_and_everything_else_goes_on() {
    let whole =
        Whole::with(|config| config.projects[0].poll_first = Duration::from_millis(50)).await;
    let known = whole.create(order("known")).await.expect("OK");
    whole.upstream.fault(r#"{"code": "E0034"}"#);
    whole.create(order("unsent")).await.expect_err("not sent");
    let Whole { upstream, service, client: _, folder } = whole;
    // More than any disk has.
    let mut config = service.stop().await;
    config.ledger = with_free(&config, u64::MAX);
    let service = Service::start(config).await;
    let whole = Whole { client: service.client().await, upstream, service, folder };

    no_room(&whole.create(order("new")).await.expect_err("no room"));
    no_room(&whole.create(order("unsent")).await.expect_err("would send"));
    assert_eq!(reason(&whole.get("new").await.expect_err("unknown")).1, "PAYOUT_NOT_FOUND");
    assert_eq!(whole.create(order("known")).await.expect("known").cid, known.cid);
    let mut client = whole.client.clone();
    let listed = within(client.list_payouts(pb::ListPayoutsRequest::default())).await.expect("OK");
    assert_eq!(listed.into_inner().payouts.len(), 2);
    let validate = pb::CreatePayoutRequest { validate_only: true, ..order("new") };
    within(client.create_payout(validate)).await.expect("validated");
    let address = format!("http://{}", whole.service.addresses.grpc);
    let channel = Endpoint::from_shared(address).expect("an address").connect_lazy();
    let mut health = HealthClient::new(channel);
    let serving = within(health.check(HealthCheckRequest::default())).await.expect("OK");
    assert_eq!(serving.into_inner().status, 1, "SERVING");

    let mut watching = watch(&whole.client, "known").await.expect("OK");
    whole.upstream.book.set_status(known.cid, 6, false);
    let mut last = None;
    while let Some(payout) = told(&mut watching).await.expect("OK") {
        last = Some(payout.state());
    }
    assert_eq!(last, Some(PayoutState::Succeeded), "what is recorded is settled");
    assert_eq!(whole.upstream.book.posts().len(), 2);

    // Room again, as another service on the same disk has it.
    let mut config = whole.service.stop().await;
    config.ledger = with_free(&config, 1);
    let service = Service::start(config).await;
    let client = connect(service.addresses.grpc).await;
    for id in ["new", "unsent"] {
        let answer = within(client.clone().create_payout(order(id))).await.expect("taken");
        assert!(answer.into_inner().cid > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_service_says_once_that_its_disk_is_low_and_by_default_it_is_not() {
    let upstream = Upstream::start().await;
    for (settings, low) in [(vec![("PAYOUTD_LEDGER__MIN_FREE", "9999999TiB")], 1), (vec![], 0)] {
        let folder = tempfile::tempdir().expect("a folder");
        let binary = Binary::start_with(upstream.address, &folder, &settings).await;
        let created = within(binary.client().await.create_payout(order("a"))).await;
        assert_eq!(created.is_err(), low == 1);
        let log = std::fs::read_to_string(&binary.log).expect("a log");
        let lines = log.lines().filter(|line| line.contains("disk low: no new payouts are taken"));
        let errors = lines.filter(|line| line.contains("\"level\":\"ERROR\"")).count();
        assert_eq!(errors, low, "{log}");
    }
}
