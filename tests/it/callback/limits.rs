//! A port that is open to the internet: slow, many and stubborn senders cost little.

use std::sync::Arc;
use std::time::{Duration, Instant};

use payoutd::pb::PayoutState;
use payoutd::sandbox::PID;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::letter::{
    accepted, ask, count, genuine, hear, notice, question, snapshot, success, tell, tell_bytes,
    until,
};
use crate::support::{Whole, order, within};

/// The place of a sender that stalls.
const HEAD: &str = "POST /callbacks/1382528827416576/payout HTTP/1.1\r\nhost: x\r\n";

fn cut_in_time(begun: Instant, what: &str) {
    let after = begun.elapsed();
    assert!((4..8).contains(&after.as_secs()), "{what}: cut after {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sender_is_cut_wherever_it_stalls() {
    assert!(HEAD.contains(&PID.to_string()));
    let whole = Whole::start().await;
    let address = whole.service.addresses.callback;
    let mut stalls = JoinSet::new();
    for (what, bytes) in [
        ("nothing", String::new()),
        ("half a line", HEAD[..20].to_owned()),
        ("half a head", HEAD.to_owned()),
        ("no body", format!("{HEAD}content-length: 100\r\n\r\n")),
        ("half a body", format!("{HEAD}content-length: 100\r\n\r\n{{\"pid\":")),
        ("half a chunk", format!("{HEAD}transfer-encoding: chunked\r\n\r\n100\r\n{{")),
    ] {
        stalls.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(bytes.as_bytes()).await.expect("sent");
            let begun = Instant::now();
            let (status, body) = within(hear(&mut stream)).await;
            cut_in_time(begun, what);
            assert!(status != 200 && !body.contains("success"), "{what}: {status} {body}");
        });
    }
    // A byte a moment keeps nobody's attention either.
    stalls.spawn(async move {
        let stream = TcpStream::connect(address).await.expect("connected");
        let (mut read, mut write) = stream.into_split();
        let begun = Instant::now();
        let drip = async {
            let head = format!("{HEAD}content-length: 16000\r\n\r\n");
            let mut moments = tokio::time::interval(Duration::from_millis(100));
            for byte in head.bytes().chain(std::iter::repeat(b' ')) {
                moments.tick().await;
                if write.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        };
        let ended = async { drop(tokio::io::copy(&mut read, &mut tokio::io::sink()).await) };
        within(async {
            tokio::select! { () = drip => {}, () = ended => {} }
        })
        .await;
        cut_in_time(begun, "a drip");
    });
    stalls.join_all().await;
    assert_eq!(count(&whole.shell(), "notice"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_senders_give_way_to_a_genuine_message_and_callers_do_not_notice() {
    let whole = Whole::with(|config| config.projects[0].verification = true).await;
    let cid = accepted(&whole, "a").await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    let address = whole.service.addresses.callback;
    let mut stalled = Vec::new();
    for _ in 0..300 {
        let mut stream = within(TcpStream::connect(address)).await.expect("connected");
        stream.write_all(HEAD.as_bytes()).await.expect("sent");
        stalled.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(ask(&whole, question("a", cid)).await, (200, "ok".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(1), "answered after {:?}", begun.elapsed());
    assert_eq!(tell(&whole, notice("a", cid, 6)).await, success());
    whole.create(order("b")).await.expect("callers are served");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    until(&whole, "a", PayoutState::Succeeded).await;
}

/// As after an outage; a notice comes once or never.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_genuine_notices_at_once_none_is_lost() {
    let whole = Arc::new(Whole::start().await);
    let cid = accepted(&whole, "a").await;
    let mut told = JoinSet::new();
    for number in 0..1_000 {
        let whole = Arc::clone(&whole);
        told.spawn(async move { tell(&whole, notice(&format!("n-{number}"), cid, 1)).await });
    }
    assert!(told.join_all().await.into_iter().all(|answer| answer == success()));
    assert_eq!(count(&whole.shell(), "notice"), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_from_the_same_address_keep_no_genuine_message_out() {
    let whole = Whole::with(|config| config.projects[0].verification = true).await;
    let cid = accepted(&whole, "a").await;
    assert!(whole.upstream.book.set_status(cid, 6, false));
    let before = snapshot(&whole.shell());
    let address = whole.service.addresses.callback;
    for number in 0..200 {
        assert_eq!(tell_bytes(address, b"{}").await, (401, String::new()), "{number}");
    }
    assert_eq!(snapshot(&whole.shell()), before);
    assert_eq!(ask(&whole, question("a", cid)).await, (200, "ok".to_owned()));
    assert_eq!(tell(&whole, notice("a", cid, 6)).await, success());
    until(&whole, "a", PayoutState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_the_greatest_length_is_read_and_a_longer_one_is_not() {
    let whole = Whole::start().await;
    let cid = accepted(&whole, "a").await;
    let address = whole.service.addresses.callback;
    let letter = genuine(notice("a", cid, 6));
    for (length, answer) in [(16 * 1024, 200), (16 * 1024 + 1, 413)] {
        let mut padded = letter.clone();
        padded.resize(length, b' ');
        assert_eq!(tell_bytes(address, &padded).await.0, answer, "{length}");
        // The same without saying how long it will be.
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{length:x}\r\n");
        let chunk = [head.as_bytes(), &padded, b"\r\n0\r\n\r\n"].concat();
        let _ = stream.write_all(&chunk).await;
        assert_eq!(within(hear(&mut stream)).await.0, answer, "{length} in chunks");
    }
}
