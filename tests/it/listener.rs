//! The callers' port before any call: who is let in, how many, and for how long without a word.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Client, Whole, connect, get, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn served(client: &Client) -> bool {
    get(client, "none").await.is_err_and(|status| status.code() == tonic::Code::NotFound)
}

async fn say(address: SocketAddr, words: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(words).await.expect("written");
    stream
}

/// Waits for the other side to hang up, and returns what it said before.
async fn hung_up(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = within(stream.read_to_end(&mut said)).await;
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_speak_http2_is_cut_off() {
    let whole = Whole::start().await;
    let address = whole.service.addresses.grpc;
    for words in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"PRI !"]
    {
        assert_eq!(hung_up(&mut say(address, words).await).await, b"", "{words:?}");
    }
    // Nothing, or the beginning of the right thing: that takes its time, and no longer.
    let silent = async { hung_up(&mut say(address, b"").await).await };
    let slow = async { hung_up(&mut say(address, &PREFACE[..PREFACE.len() - 1]).await).await };
    let both = tokio::join!(silent, slow);
    assert_eq!(both, (vec![], vec![]));
    assert!(served(&whole.client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_in_pieces_is_heard() {
    let whole = Whole::start().await;
    let mut stream = TcpStream::connect(whole.service.addresses.grpc).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    for byte in PREFACE {
        stream.write_u8(*byte).await.expect("written");
        tokio::task::yield_now().await;
    }
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("SETTINGS");
    let mut head = [0; 9];
    within(stream.read_exact(&mut head)).await.expect("an answer");
    assert_eq!(head[3], 4, "SETTINGS");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_closed_at_once_and_a_place_left_is_free_again() {
    let whole = Whole::with(|config| config.grpc.max_connections = 4).await;
    let address = whole.service.addresses.grpc;
    assert!(served(&whole.client).await);
    let mut held = Vec::new();
    for _ in 0..3 {
        let client = connect(address).await;
        assert!(served(&client).await);
        held.push(client);
    }
    let mut fifth = say(address, b"").await;
    assert_eq!(hung_up(&mut fifth).await, b"");
    assert!(served(&whole.client).await, "those inside are served");
    held.clear();
    within(async {
        loop {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
            let connected = endpoint.expect("an address").connect().await;
            if let Ok(channel) = connected
                && served(&Client::new(channel)).await
            {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_no_proxy_gets_a_quarter_of_the_places() {
    let whole = Whole::with(|config| {
        config.grpc.max_connections = 8;
        config.grpc.trusted_proxies = vec![];
    })
    .await;
    let address = whole.service.addresses.grpc;
    assert!(served(&whole.client).await);
    let second = connect(address).await;
    assert!(served(&second).await);
    assert_eq!(hung_up(&mut say(address, b"").await).await, b"");
    // From another address there is still room.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.77:0".parse().expect("an address")).expect("bound");
    let mut other = within(socket.connect(address)).await.expect("connected");
    other.write_all(PREFACE).await.expect("written");
    other.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("SETTINGS");
    let mut head = [0; 9];
    within(other.read_exact(&mut head)).await.expect("an answer");
}

/// A stop must not wait for peers that are still arriving.
#[tokio::test(flavor = "multi_thread")]
async fn silent_peers_do_not_hold_up_the_stop() {
    let whole = Whole::start().await;
    let silent = say(whole.service.addresses.grpc, b"").await;
    assert!(served(&whole.client).await);
    drop(whole.client);
    let before = std::time::Instant::now();
    whole.service.stop().await;
    assert!(before.elapsed() < std::time::Duration::from_secs(1), "{:?}", before.elapsed());
    drop(silent);
}
