//! Requests that are too large, claim to be larger than they look, never end, or are no calls at all.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use payoutd::pb;
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Besieged, GROWTH_MAX};
use crate::support::{get, order, reason, within};

const CREATE: &str = "/payout.v1.PayoutService/CreatePayout";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const GRPC: (&str, &str) = ("content-type", "application/grpc");
/// INVALID_ARGUMENT, with what every error carries.
const INVALID: &str = "3 INVALID_REQUEST fix";

struct Caller {
    send: SendRequest<Bytes>,
    _connection: JoinSet<()>,
}

/// What a call came to: the HTTP status, and the gRPC status with its details' reason and `retry`; or the stream's error.
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
        self.ask(("POST", CREATE), &[&[GRPC], headers].concat(), body, true).await.await
    }

    /// Sends a request, its body whole or with more to come, and returns its answer as it comes.
    async fn ask(
        &mut self,
        (verb, path): (&str, &str),
        headers: &[(&str, &str)],
        body: Bytes,
        whole: bool,
    ) -> impl Future<Output = Answer> + use<> {
        let mut request = Request::builder().method(verb).uri(format!("http://a{path}"));
        request = request.header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let ready = within(self.send.clone().ready()).await;
        let sent = ready.and_then(|mut ready| {
            let (answer, mut stream) = ready.send_request(request, false)?;
            let _ = stream.send_data(body, whole);
            self.send = ready;
            // Kept, since dropping it would reset the stream.
            Ok((answer, stream))
        });
        async {
            let (answer, _stream) = sent.map_err(|error| error.to_string())?;
            let answer = within(answer).await.map_err(|error| error.to_string())?;
            let (http, mut grpc) = (answer.status().as_u16(), status(answer.headers()));
            let mut body = answer.into_body();
            while let Some(Ok(_)) = within(body.data()).await {}
            if let Ok(Some(trailers)) = within(body.trailers()).await {
                grpc = grpc.or_else(|| status(&trailers));
            }
            Ok((http, grpc))
        }
    }
}

fn status(headers: &HeaderMap) -> Option<String> {
    let status = Status::from_header_map(headers)?;
    let mut text = i32::from(status.code()).to_string();
    if let Some(info) = status.get_error_details().error_info() {
        text += &format!(" {} {}", info.reason, info.metadata["retry"]);
    }
    Some(text)
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
            assert_eq!(answer, Ok((200, Some(INVALID.to_owned()))), "it was read");
            caller.call(&headers, message(0, 0, &[])).await.expect_err("cut off");
        }
    };
    besieged.under(attack).await;
    besieged.stands(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_the_clients_mistake_with_the_details_of_every_error() {
    let besieged = Besieged::start().await;
    let large = vec![0; 4 << 20];
    // What a gzip stream begins with.
    let cut = message(1, 12, b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x4b\x4c");
    let attack = async {
        for _ in 0..20 {
            let mut caller = Caller::connect(&besieged).await;
            let length = u32::try_from(large.len()).expect("fits");
            let invalid = || Ok((200, Some(INVALID.to_owned())));
            for (headers, body) in [
                (&[][..], message(0, length, &large)),
                (&[], message(0, u32::MAX, b"x")),
                (&[], message(0, 2, b"\xff\xff")),
                (&[], message(0, 3, b"\x0a\x01\xff")),
                (&[], message(0, 9, b"\x12")),
                (&[], message(7, 0, b"")),
                (&[], Bytes::new()),
                // Compressed by nothing, by what is not taken, and not whole.
                (&[], cut.clone()),
                (&[("grpc-encoding", "br")], cut.clone()),
                (&[("grpc-encoding", "gzip")], cut.clone()),
            ] {
                assert_eq!(caller.call(headers, body.clone()).await, invalid());
                let headers = [&[GRPC], headers].concat();
                let answer = caller.ask(("POST", HEALTH), &headers, body, true).await.await;
                assert_eq!(answer, invalid(), "without credentials");
            }
            let nobody =
                caller.ask(("POST", HEALTH), &[GRPC], message(0, 8, b"\x0a\x06nobody"), true);
            let unknown = "5 UNKNOWN_SERVICE fix".to_owned();
            assert_eq!(nobody.await.await, Ok((200, Some(unknown))));
            for path in ["/payout.v1.PayoutService/Pay", "/x.Y/Z", "/grpc.health.v1.Health/Nope"] {
                let answer = caller.ask(("POST", path), &[GRPC], message(0, 0, b""), true).await;
                let unknown = "12 UNKNOWN_METHOD fix".to_owned();
                assert_eq!(answer.await, Ok((200, Some(unknown))), "{path}");
            }
        }
    };
    besieged.under(attack).await;
    besieged.stands(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_grpc_call_is_an_order() {
    let besieged = Besieged::start().await;
    let mut caller = Caller::connect(&besieged).await;
    let order = order("form").encode_to_vec();
    let body = message(0, u32::try_from(order.len()).expect("short"), &order);
    let cross = ("sec-fetch-site", "cross-site");
    for (verb, headers, http) in [
        ("POST", &[("content-type", "text/plain")][..], 415),
        ("POST", &[("content-type", "application/x-www-form-urlencoded")], 415),
        ("POST", &[], 415),
        ("GET", &[GRPC], 415),
        ("POST", &[GRPC, cross], 403),
    ] {
        for path in [CREATE, HEALTH] {
            let answer = caller.ask((verb, path), headers, body.clone(), true).await.await;
            assert_eq!(answer, Ok((http, None)), "{verb} {headers:?}");
        }
    }
    get(&besieged.bystander, "form").await.expect_err("nothing was created");
    let proto = [("content-type", "application/grpc+proto")];
    let answer = caller.ask(("POST", CREATE), &proto, body, true).await.await;
    assert_eq!(answer, Ok((200, Some("0".to_owned()))));
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_taken_and_its_limit_counts_what_is_unpacked() {
    let besieged = Besieged::start().await;
    let mut zipped = besieged.bystander.clone().send_compressed(CompressionEncoding::Gzip);
    let answer = within(zipped.create_payout(order("zipped"))).await.expect("taken");
    assert!(answer.into_inner().cid > 0);
    // 16 MiB that are 16 KiB on the wire.
    let bomb = pb::CreatePayoutRequest { remark: "a".repeat(16 << 20), ..order("bomb") };
    let refused = within(zipped.create_payout(bomb)).await.expect_err("too large");
    let expected = (Code::InvalidArgument, "INVALID_REQUEST".to_owned(), "fix".to_owned());
    assert_eq!(reason(&refused), expected);
    besieged.stands(Duration::from_secs(5)).await;
}

/// Without credentials, and as a caller: what is sent and never ends.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_are_refused_in_time_and_their_memory_is_bounded() {
    let besieged = Besieged::start().await;
    let attack = async {
        for path in [HEALTH, CREATE] {
            let mut asked = JoinSet::new();
            let mut callers = Vec::new();
            for _ in 0..4 {
                let mut caller = Caller::connect(&besieged).await;
                for _ in 0..250 {
                    let body = message(0, 60_000, &[b'x'; 8_000]);
                    asked.spawn(caller.ask(("POST", path), &[GRPC], body, false).await);
                }
                callers.push(caller);
            }
            let answers = asked.join_all().await;
            let grown = besieged.binary.rss_kb() - besieged.rss;
            assert!(grown < GROWTH_MAX, "grown by {grown} KB");
            let overloaded = Ok((200, Some("8 OVERLOADED same_id".to_owned())));
            let unread = Ok((200, Some(INVALID.to_owned())));
            for answer in &answers {
                assert!(*answer == overloaded || *answer == unread, "{path}: {answer:?}");
            }
            assert!(answers.contains(&unread) && (path == HEALTH || answers.contains(&overloaded)));
        }
    };
    besieged.under(attack).await;
    besieged.stands(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_reflection_that_cannot_be_read_is_the_clients_mistake() {
    let besieged = Besieged::start().await;
    let mut caller = Caller::connect(&besieged).await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let list = message(0, 2, b"\x3a\0");
        let invalid = Ok((200, Some(INVALID.to_owned())));
        for body in [
            message(0, 2, b"\xff\xff"),
            message(0, 3, b"\x0a\x01\xff"),
            message(0, 9, b"\x12"),
            message(7, 0, b""),
            message(0, 100_000, &[0; 100_000]),
            [&list[..], &message(0, 2, b"\xff\xff")].concat().into(),
        ] {
            let answer = caller.ask(("POST", &path), &[GRPC], body.clone(), true).await.await;
            assert_eq!(answer, invalid, "{body:?}");
        }
        for body in [list.clone(), [&list[..], &list].concat().into(), Bytes::new()] {
            let answer = caller.ask(("POST", &path), &[GRPC], body, true).await.await;
            assert_eq!(answer, Ok((200, Some("0".to_owned()))));
        }
    }
}
