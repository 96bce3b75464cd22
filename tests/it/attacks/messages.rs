//! Requests that are too large, or claim to be larger than they look.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::codegen::http::{HeaderMap, Request};

use super::Besieged;
use crate::support::within;

const CREATE: &str = "/payout.v1.PayoutService/CreatePayout";

struct Caller {
    send: SendRequest<Bytes>,
    _connection: JoinSet<()>,
}

/// What a call came to: the HTTP status and the gRPC status, or the stream's error.
type Answer = Result<(u16, Option<String>), String>;

impl Caller {
    async fn connect(besieged: &Besieged) -> Self {
        let stream = TcpStream::connect(besieged.binary.address).await.expect("connected");
        let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _ = connection.await;
        });
        Self { send, _connection: task }
    }

    /// Calls CreatePayout with `headers` beside the usual ones, and with `body`.
    async fn call(&mut self, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = Request::post(format!("http://a{CREATE}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let ready = within(self.send.clone().ready()).await.map_err(|e| e.to_string())?;
        self.send = ready;
        let (answer, mut stream) =
            self.send.send_request(request, false).map_err(|error| error.to_string())?;
        let _ = stream.send_data(body, true);
        let answer = within(answer).await.map_err(|error| error.to_string())?;
        let status = |headers: &HeaderMap| {
            headers.get("grpc-status").map(|code| code.to_str().expect("ASCII").to_owned())
        };
        let (http, mut grpc) = (answer.status().as_u16(), status(answer.headers()));
        let mut body = answer.into_body();
        while let Some(Ok(_)) = within(body.data()).await {}
        if let Ok(Some(trailers)) = within(body.trailers()).await {
            grpc = grpc.or_else(|| status(&trailers));
        }
        Ok((http, grpc))
    }
}

/// A gRPC message: whether it is compressed, the length it claims, and what there is of it.
fn message(compressed: u8, claimed: u32, content: &[u8]) -> Bytes {
    [&[compressed][..], &claimed.to_be_bytes(), content].concat().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_64_kib_are_refused() {
    let besieged = Besieged::start().await;
    let long = "a".repeat(1_000);
    let names: Vec<String> = (0..64).map(|number| format!("x-{number}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
    let attack = async {
        for _ in 0..20 {
            let mut caller = Caller::connect(&besieged).await;
            // A little too long: that request alone. Far too long: the whole connection.
            let answer = caller.call(&headers[..20], message(0, 0, &[])).await;
            assert_eq!(answer, Ok((431, None)));
            let answer = caller.call(&headers[..10], message(0, 0, &[])).await;
            assert_eq!(answer, Ok((200, Some("3".to_owned()))), "INVALID_ARGUMENT: it was read");
            caller.call(&headers, message(0, 0, &[])).await.expect_err("cut off");
        }
    };
    besieged.under(attack).await;
    besieged.stands(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_or_compressed_are_refused_unread() {
    let besieged = Besieged::start().await;
    let large = vec![0; 4 << 20];
    // What a gzip stream begins with; this service takes none.
    let bomb = message(1, 12, b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x4b\x4c");
    let attack = async {
        for _ in 0..20 {
            let mut caller = Caller::connect(&besieged).await;
            let length = u32::try_from(large.len()).expect("fits");
            let answer = caller.call(&[], message(0, length, &large)).await;
            assert_eq!(answer, Ok((200, Some("11".to_owned()))), "OUT_OF_RANGE");
            let answer = caller.call(&[], message(0, u32::MAX, b"x")).await;
            assert_eq!(answer, Ok((200, Some("11".to_owned()))), "OUT_OF_RANGE");
            let answer = caller.call(&[("grpc-encoding", "gzip")], bomb.clone()).await;
            assert_eq!(answer, Ok((200, Some("12".to_owned()))), "UNIMPLEMENTED");
            let answer = caller.call(&[], bomb.clone()).await;
            assert_eq!(answer, Ok((200, Some("13".to_owned()))), "compressed by nothing: INTERNAL");
        }
    };
    besieged.under(attack).await;
    besieged.stands(Duration::from_secs(5)).await;
}
