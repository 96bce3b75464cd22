//! Closed loops: what the peak is, and whether all is normal again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use payoutd::pb;
use payoutd::pb::payout_service_client::PayoutServiceClient;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

use crate::unique::unique;

pub(crate) type Client = PayoutServiceClient<Channel>;

/// Part of each round in which nothing is measured yet.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Taken,
    Shed,
    Other,
}

/// One call: what became of it, and after how many milliseconds.
pub(crate) type Call = (End, f64);

/// `count` connections.
pub(crate) async fn connect(address: &str, count: usize) -> Vec<Client> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(PayoutServiceClient::new(endpoint.connect().await.expect("connected")));
    }
    clients
}

pub(crate) fn order(id: String) -> pb::CreatePayoutRequest {
    pb::CreatePayoutRequest {
        currency: "195@195".to_owned(),
        address: "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS".to_owned(),
        amount: "1.1".to_owned(),
        third_party_id: id,
        ..pb::CreatePayoutRequest::default()
    }
}

/// One payout under a new id.
pub(crate) async fn call(mut client: Client) -> Call {
    let begun = Instant::now();
    let answer = client.create_payout(order(unique())).await;
    let time = begun.elapsed().as_secs_f64() * 1000.0;
    let end = match answer {
        Ok(_) => End::Taken,
        Err(status) => match status.get_error_details().error_info() {
            Some(info) if info.reason == "OVERLOADED" => End::Shed,
            Some(_) | None => {
                eprintln!("unexpected: {status}");
                End::Other
            }
        },
    };
    (end, time)
}

/// Payouts a second, and their times in milliseconds, with `concurrency` calls at a time.
pub(crate) async fn closed(
    clients: &[Client],
    concurrency: usize,
    time: Duration,
) -> (f64, Vec<f64>) {
    let start = Instant::now();
    let mut loops = JoinSet::new();
    for number in 0..concurrency {
        let client = clients[number % clients.len()].clone();
        loops.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < WARM_UP + time {
                let (end, took) = call(client.clone()).await;
                assert_eq!(end, End::Taken, "a closed loop below the cap is never shed");
                if start.elapsed() > WARM_UP {
                    times.push(took);
                }
            }
            times
        });
    }
    let times = loops.join_all().await.concat();
    (times.len() as f64 / (start.elapsed() - WARM_UP).as_secs_f64(), times)
}

/// How long until a closed loop has its median back within half as much again as `normal`, in seconds.
pub(crate) async fn recovery(clients: &[Client], concurrency: usize, normal: f64) -> f64 {
    const WINDOW: Duration = Duration::from_millis(250);
    let start = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut loops = JoinSet::new();
    for number in 0..concurrency {
        let (client, over) = (clients[number % clients.len()].clone(), Arc::clone(&over));
        let told = told.clone();
        loops.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let (end, time) = call(client.clone()).await;
                // A call that is shed is not back to normal, however quick its answer was.
                let _ = told.send(if end == End::Taken { time } else { f64::INFINITY });
            }
        });
    }
    let back = loop {
        let mut times = Vec::new();
        let end = Instant::now() + WINDOW;
        while let Ok(Some(time)) = tokio::time::timeout_at(end.into(), heard.recv()).await {
            times.push(time);
        }
        if !times.is_empty() && percentile(&mut times, 50) <= 1.5 * normal {
            break start.elapsed().as_secs_f64() - WINDOW.as_secs_f64();
        }
        if start.elapsed() > Duration::from_secs(30) {
            break f64::INFINITY;
        }
    };
    over.store(true, Ordering::Relaxed);
    loops.join_all().await;
    back
}

/// The `percent`th percentile; NaN of nothing.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN)
}
