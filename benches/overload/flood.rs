//! An open loop over bare HTTP/2: a flood must cost the one who makes it little, since both share the
//! machine.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use hyper::Request;
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::load::{Call, End, order};
use crate::unique::unique;

/// More calls than this are not begun.
const OUTSTANDING_MAX: usize = 15_000;
/// The header by which the service says that it is overloaded: RESOURCE_EXHAUSTED.
const EXHAUSTED: &str = "8";

/// What an open loop came to.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    pub(crate) offered: usize,
    pub(crate) not_begun: usize,
    pub(crate) calls: Vec<Call>,
    pub(crate) seconds: f64,
}

impl Flood {
    /// The times of the calls that ended so, in milliseconds.
    pub(crate) fn times(&self, wanted: End) -> Vec<f64> {
        self.calls.iter().filter(|(end, _)| *end == wanted).map(|(_, time)| *time).collect()
    }
}

/// Connections, and the tasks that drive them.
pub(crate) struct Lines {
    lines: Vec<SendRequest<Bytes>>,
    _driven: JoinSet<()>,
}

impl Lines {
    pub(crate) async fn connect(address: &str, count: usize) -> Self {
        let (mut lines, mut driven) = (Vec::new(), JoinSet::new());
        for _ in 0..count {
            let stream = TcpStream::connect(address).await.expect("connected");
            stream.set_nodelay(true).expect("set");
            let (line, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            driven.spawn(async move { drop(connection.await) });
            lines.push(line);
        }
        Self { lines, _driven: driven }
    }

    /// Offers `rate` payouts a second for `time`, whatever becomes of them.
    pub(crate) async fn flood(&self, rate: f64, time: Duration) -> Flood {
        let mut flood = Flood::default();
        let mut beat = interval(Duration::from_millis(2));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = Instant::now();
        let mut calls = JoinSet::new();
        while start.elapsed() < time {
            beat.tick().await;
            let due = (start.elapsed().as_secs_f64() * rate) as usize;
            for number in flood.offered..due {
                if calls.len() < OUTSTANDING_MAX {
                    calls.spawn(timed(self.lines[number % self.lines.len()].clone()));
                } else {
                    flood.not_begun += 1;
                }
            }
            flood.offered = due;
            while let Some(ended) = calls.try_join_next() {
                flood.calls.push(ended.expect("no panic"));
            }
        }
        flood.seconds = start.elapsed().as_secs_f64();
        // Those that end later count as shed or lost, but never for the goodput.
        let late = calls.join_all().await;
        flood.calls.extend(late.into_iter().filter(|(end, _)| *end != End::Taken));
        flood
    }
}

async fn timed(line: SendRequest<Bytes>) -> Call {
    let begun = Instant::now();
    let end = call(line).await.unwrap_or(End::Other);
    (end, begun.elapsed().as_secs_f64() * 1000.0)
}

async fn call(line: SendRequest<Bytes>) -> Result<End, h2::Error> {
    let message = order(unique()).encode_to_vec();
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("short"));
    framed.put_slice(&message);
    let request = Request::post("http://payoutd/payout.v1.PayoutService/CreatePayout")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let mut line = line.ready().await?;
    let (answer, mut body) = line.send_request(request, false)?;
    body.send_data(framed.freeze(), true)?;
    let answer = answer.await?;
    match answer.headers().get("grpc-status").map(|status| status.as_bytes()) {
        Some(status) if status == EXHAUSTED.as_bytes() => return Ok(End::Shed),
        Some(_) => return Ok(End::Other),
        None => {}
    }
    let mut body = answer.into_body();
    while let Some(chunk) = body.data().await {
        let length = chunk?.len();
        body.flow_control().release_capacity(length)?;
    }
    let status = body.trailers().await?;
    let fine = status.is_some_and(|status| status.get("grpc-status").is_some_and(|s| s == "0"));
    Ok(if fine { End::Taken } else { End::Other })
}
