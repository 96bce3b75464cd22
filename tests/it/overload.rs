//! More than can be done: what is too much is turned away early, and nothing is recorded for it.

use std::time::{Duration, Instant};

use payoutd::pb::{self, PayoutState};
use rusqlite::Connection;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::support::{
    Binary, Client, Upstream, Whole, connect, ledger, order, reason, told, watch, within,
};

fn overloaded(status: &Status) {
    let expected = (Code::ResourceExhausted, "OVERLOADED".to_owned(), "same_id".to_owned());
    assert_eq!(reason(status), expected);
    assert!(status.get_error_details().retry_info().is_some(), "RetryInfo");
}

/// Asks for a payout, and tells how long the answer took.
async fn timed(mut client: Client, request: Request<pb::CreatePayoutRequest>) -> (bool, Duration) {
    let begun = Instant::now();
    let answer = client.create_payout(request).await;
    if let Err(status) = &answer {
        overloaded(status);
    }
    (answer.is_ok(), begun.elapsed())
}

fn rows(whole: &Whole) -> usize {
    let count = "SELECT count(*) FROM payout";
    usize::try_from(whole.shell().number(count)).expect("few")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_thousand_calls_to_a_silent_cregis_as_many_are_recorded_as_may_be_in_flight() {
    const CALLS: usize = 10_000;
    const IN_FLIGHT: usize = 256;
    let upstream = Upstream::start().await;
    upstream.fault(r#"{"then": "hang", "times": 0}"#);
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("PAYOUTD_LOG__LEVEL", "info")];
    let binary = Binary::start_with(upstream.address, &folder, &settings).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(binary.client().await);
    }
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let client = clients[number % clients.len()].clone();
        calls.spawn(timed(client, Request::new(order(&format!("id-{number}")))));
    }
    let patience = tokio::time::timeout(Duration::from_secs(60), async {
        for _ in 0..CALLS - IN_FLIGHT {
            let (taken, _) = calls.join_next().await.expect("a call").expect("no panic");
            assert!(!taken, "the rest is turned away");
        }
    });
    patience.await.expect("in time");
    let rss = binary.rss_kb() / 1024;
    assert!(rss <= 256, "{rss} MiB with {IN_FLIGHT} calls that wait");
    let shell = Connection::open(ledger(&folder)).expect("the ledger's file");
    let select = "SELECT state, count(*) FROM payout GROUP BY state";
    let rows = shell.query_row(select, [], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)));
    let (state, recorded): (String, _) = rows.expect("one state");
    assert_eq!((state.as_str(), recorded), ("SENDING", 256));
    upstream.received(IN_FLIGHT).await;
    assert_eq!(upstream.book.posts().len(), IN_FLIGHT);
    calls.shutdown().await;
    println!("RSS {rss} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_holds_twice_the_cap_and_whoever_runs_out_of_time_leaves_it() {
    const CAP: usize = 4;
    let whole = Whole::with(|config| config.projects[0].max_in_flight = CAP).await;
    whole.upstream.fault(r#"{"then": "hang", "times": 0}"#);
    let mut sending = JoinSet::new();
    for number in 0..CAP {
        sending.spawn(timed(whole.client.clone(), Request::new(order(&format!("s{number}")))));
    }
    whole.upstream.received(CAP).await;

    // Those that wait have 800 ms, which leaves the handler 640; the others are turned away before.
    let mut calls = JoinSet::new();
    for number in 0..5 * CAP {
        let mut request = Request::new(order(&format!("q{number}")));
        request.set_timeout(Duration::from_millis(800));
        calls.spawn(timed(whole.client.clone(), request));
    }
    let mut waited = 0;
    for (taken, time) in within(calls.join_all()).await {
        assert!(!taken);
        waited += usize::from(time >= Duration::from_millis(600));
    }
    assert_eq!(waited, 2 * CAP);
    // Their places are free again: these wait the whole second.
    let mut calls = JoinSet::new();
    for number in 0..2 * CAP {
        calls.spawn(timed(whole.client.clone(), Request::new(order(&format!("r{number}")))));
    }
    for (taken, time) in within(calls.join_all()).await {
        assert!(!taken && time >= Duration::from_millis(900), "{time:?}");
    }
    assert_eq!(whole.upstream.book.posts().len(), CAP);
    assert_eq!(rows(&whole), CAP, "nothing was recorded for those turned away");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_watches_health_and_known_ids_are_answered_while_creates_are_turned_away() {
    let whole = Whole::with(|config| {
        config.projects[0].max_in_flight = 1;
        config.projects[0].poll_first = Duration::from_millis(50);
    })
    .await;
    let known = whole.create(order("known")).await.expect("OK");
    let mut watching = watch(&whole.client, "known").await.expect("OK");
    whole.upstream.fault(r#"{"then": "hang", "times": 0}"#);
    let mut calls = JoinSet::new();
    for number in 0..200 {
        let client = connect(whole.service.addresses.grpc).await;
        calls.spawn(async move {
            // Comes back for as long as the test lasts, as a crowd does.
            loop {
                let request = Request::new(order(&format!("crowd-{number}")));
                timed(client.clone(), request).await;
            }
        });
    }
    whole.upstream.received(2).await;
    within(async { while whole.create(order("more")).await.is_ok() {} }).await;

    assert_eq!(whole.get("known").await.expect("read").cid, known.cid);
    assert_eq!(whole.create(order("known")).await.expect("a known id").cid, known.cid);
    let listed = whole.client.clone().list_payouts(pb::ListPayoutsRequest::default()).await;
    assert_eq!(listed.expect("OK").into_inner().payouts.len(), 2);
    let address = format!("http://{}", whole.service.addresses.grpc);
    let channel = Endpoint::from_shared(address).expect("an address").connect_lazy();
    let checked = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    assert_eq!(checked.expect("OK").into_inner().status, 1, "SERVING");
    whole.upstream.book.set_status(known.cid, 6, false);
    let mut last = None;
    while let Some(payout) = told(&mut watching).await.expect("OK") {
        last = Some(payout.state());
    }
    assert_eq!(last, Some(PayoutState::Succeeded));
    calls.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_have_a_bound_of_their_own() {
    let whole = Whole::with(|config| config.grpc.max_reads = 0).await;
    whole.create(order("a")).await.expect("creates go on");
    overloaded(&whole.get("a").await.expect_err("no reads"));
    let listed = whole.client.clone().list_payouts(pb::ListPayoutsRequest::default()).await;
    overloaded(&listed.expect_err("no reads"));
    let mut watching = watch(&whole.client, "a").await.expect("watches go on");
    assert!(told(&mut watching).await.expect("OK").is_some());
}

/// A Cregis that hangs for minutes under a steady load leaves few doubts, not one for each call.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_doubts_ends_with_the_breaker() {
    const CAP: usize = 16;
    let whole = Whole::with(|config| {
        config.projects[0].max_in_flight = CAP;
        config.projects[0].timeout = Duration::from_millis(500);
        config.projects[0].connect_timeout = Duration::from_millis(200);
    })
    .await;
    whole.upstream.fault(r#"{"then": "hang", "times": 0}"#);
    whole.upstream.fault(r#"{"on": "query", "then": "hang", "times": 0}"#);
    // 100 a second for 6 seconds: longer than the breaker's first probe takes to come.
    let mut beat = tokio::time::interval(Duration::from_millis(10));
    let mut calls = JoinSet::new();
    for number in 0..600 {
        beat.tick().await;
        let mut client = whole.client.clone();
        calls.spawn(async move {
            let answer = client.create_payout(order(&format!("storm-{number}"))).await;
            answer.map_or_else(|status| reason(&status).1, |_| "taken".to_owned())
        });
    }
    let answers = within(calls.join_all()).await;
    let open = answers.iter().filter(|answer| *answer == "UPSTREAM_UNAVAILABLE").count();
    let shed = answers.iter().filter(|answer| *answer == "OVERLOADED").count();
    // The breaker has overtaken them while they were being recorded.
    let unsent = answers.iter().filter(|answer| *answer == "NOT_SENT").count();
    let doubts = rows(&whole) - unsent;
    println!("{doubts} doubts of 600 calls, {open} met an open breaker");
    assert!((10..=CAP + 20).contains(&doubts), "{doubts} doubts");
    assert!(open >= 400, "{open} met an open breaker");
    assert_eq!(whole.upstream.book.posts().len(), doubts, "each was sent once");
    assert_eq!(open + doubts + unsent + shed, answers.len());
}
