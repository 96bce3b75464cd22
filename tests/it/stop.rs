//! Stopping: bounded, in good order, and honest about what did not finish.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use payoutd::pb::PayoutState;
use rusqlite::Connection;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Binary, Upstream, ledger, order, payoutd, within};

async fn fifty(binary: &Binary, upstream: &Upstream) -> JoinSet<Option<PayoutState>> {
    let client = binary.client().await;
    let mut calls = JoinSet::new();
    for number in 0..50 {
        let mut client = client.clone();
        calls.spawn(async move {
            let answer = client.create_payout(order(&format!("stop-{number}"))).await;
            Some(answer.ok()?.into_inner().payout?.state())
        });
    }
    upstream.received(50).await;
    calls
}

fn states(shell: &Connection) -> Vec<(String, String, i64)> {
    let count = "SELECT state, reason, count(*) FROM payout GROUP BY 1, 2";
    let mut select = shell.prepare(count).expect("a ledger");
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.expect("rows").collect::<Result<_, _>>().expect("counts")
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_50_calls_in_flight_lets_all_of_them_finish() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    upstream.fault(r#"{"delay": "1500ms", "times": 50}"#);
    let mut binary = Binary::start(upstream.address, &folder).await;
    let calls = fifty(&binary, &upstream).await;
    binary.signal(Signal::SIGTERM);
    assert_eq!(binary.code().await, Some(0));
    let answers = within(calls.join_all()).await;
    assert!(answers.iter().all(|state| *state == Some(PayoutState::Accepted)), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_within_35_s_is_in_doubt_shutdown() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    upstream.fault(r#"{"then": "hang", "times": 50}"#);
    let long = [("PAYOUTD_PROJECT__TIMEOUT", "10m")];
    let mut binary = Binary::start_with(upstream.address, &folder, &long).await;
    let calls = fifty(&binary, &upstream).await;
    let begun = Instant::now();
    binary.signal(Signal::SIGTERM);
    assert_eq!(binary.code().await, Some(0));
    assert!(begun.elapsed() <= Duration::from_secs(35), "{:?}", begun.elapsed());
    drop(calls);
    let shell = Connection::open(ledger(&folder)).expect("the ledger's file");
    assert_eq!(states(&shell), [("IN_DOUBT".to_owned(), "SHUTDOWN".to_owned(), 50)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    upstream.fault(r#"{"then": "hang", "times": 50}"#);
    let mut binary = Binary::start(upstream.address, &folder).await;
    let calls = fifty(&binary, &upstream).await;
    let begun = Instant::now();
    binary.signal(Signal::SIGTERM);
    let log = binary.log.clone();
    within(async {
        while !std::fs::read_to_string(&log).expect("a log").contains("draining") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    binary.signal(Signal::SIGINT);
    assert_eq!(binary.code().await, Some(1));
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_service_stops_within_a_second_though_a_health_watch_is_open() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut binary = Binary::start(upstream.address, &folder).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", binary.address));
    let channel = endpoint.expect("an address").connect().await.expect("connected");
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = health.watch(request).await.expect("a stream").into_inner();
    let serving = within(async {
        loop {
            let status = watch.message().await.expect("no error").expect("a status").status;
            if status == ServingStatus::Serving as i32 {
                return;
            }
        }
    });
    serving.await;
    let begun = Instant::now();
    binary.signal(Signal::SIGINT);
    let status = within(watch.message()).await.expect("no error").expect("a status").status;
    assert_eq!(status, ServingStatus::NotServing as i32, "told before the stream ends");
    assert_eq!(binary.code().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_dev_with_0_and_once_ends_by_itself() {
    let mut command = payoutd();
    command.args(["dev", "--listen", "127.0.0.1:0"]).stdout(std::process::Stdio::piped());
    let mut dev = command.spawn().expect("started");
    let mut lines = BufReader::new(dev.stdout.take().expect("piped")).lines();
    let mut shown = String::new();
    while !shown.contains("Ctrl-C") {
        let line = within(lines.next_line()).await.expect("read").expect("a line");
        shown.push_str(&line);
        shown.push('\n');
    }
    assert!(shown.contains("ACCEPTED") && shown.contains("grpcurl -plaintext"), "{shown}");
    let pid = i32::try_from(dev.id().expect("running")).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGINT).expect("signalled");
    assert_eq!(within(dev.wait()).await.expect("ended").code(), Some(0));

    let once = within(payoutd().args(["dev", "--once"]).output()).await.expect("ran");
    let shown = String::from_utf8(once.stdout).expect("text");
    assert_eq!(once.status.code(), Some(0), "{shown}");
    let cid = shown.split("cid ").nth(1).and_then(|rest| rest.split(' ').next());
    assert!(cid.expect("a cid").parse::<i64>().expect("an integer") > 0, "{shown}");
}
