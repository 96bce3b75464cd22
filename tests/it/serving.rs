//! What the platform sees: health under every name, reflection, limits, the admin port, the sandbox.

use std::time::{Duration, Instant};

use payoutd::pb::PayoutState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{Binary, Service, Upstream, Whole, config, order, payoutd, within};

const OURS: [&str; 3] = ["", "payout.v1.PayoutService", "payout.v1.OperatorService"];

async fn channel(whole: &Whole) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", whole.service.addresses.grpc));
    endpoint.expect("an address").connect().await.expect("connected")
}

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel.clone()).check(request).await.expect(service);
    if answer.into_inner().status == ServingStatus::Serving as i32 {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

async fn until(channel: &Channel, service: &str, status: ServingStatus) {
    within(async {
        while health(channel, service).await != status {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn admin(whole: &Whole, path: &str) -> String {
    let mut stream = TcpStream::connect(whole.service.addresses.admin).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer.split(' ').nth(1).expect("a status").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_name_is_serving_and_an_upstream_outage_turns_only_cregis() {
    let whole = Whole::start().await;
    let channel = channel(&whole).await;
    for name in OURS.into_iter().chain(["cregis"]) {
        until(&channel, name, ServingStatus::Serving).await;
    }
    whole.upstream.fault(r#"{"code": "B0001"}"#);
    whole.create(order("a")).await.expect_err("refused");
    until(&channel, "cregis", ServingStatus::NotServing).await;
    for name in OURS {
        assert_eq!(health(&channel, name).await, ServingStatus::Serving, "{name}");
    }
    assert_eq!(admin(&whole, "/readyz").await, "200");
    until(&channel, "cregis", ServingStatus::Serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_sends_in_doubt_open_the_breaker() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"then": "drop", "times": 10}"#);
    for number in 0..10 {
        whole.create(order(&format!("doubt-{number}"))).await.expect("OK");
    }
    let refused = whole.create(order("eleventh")).await.expect_err("open");
    assert_eq!(crate::support::reason(&refused).1, "UPSTREAM_UNAVAILABLE");
    let known = whole.create(order("doubt-0")).await.expect("known ids are answered");
    assert_eq!(known.state(), PayoutState::InDoubt);
    assert_eq!(whole.upstream.book.posts().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_cannot_be_written_is_not_serving_until_it_can() {
    let whole = Whole::start().await;
    let channel = channel(&whole).await;
    until(&channel, "", ServingStatus::Serving).await;
    let hold = whole.hold();
    whole.create(order("a")).await.expect_err("no ledger");
    for name in OURS {
        until(&channel, name, ServingStatus::NotServing).await;
    }
    assert_eq!(admin(&whole, "/readyz").await, "503");
    assert_eq!(admin(&whole, "/livez").await, "200", "depends on nothing");
    assert_eq!(health(&channel, "cregis").await, ServingStatus::Serving);
    // And stays so, however often the ledger is tried: it answers questions all the while.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        assert_eq!(health(&channel, "").await, ServingStatus::NotServing);
    }
    drop(hold);
    until(&channel, "", ServingStatus::Serving).await;
    // Another id: the record of the first may still be on its way to be taken back.
    whole.create(order("b")).await.expect("OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_command_exits_0_only_on_serving() {
    let whole = Whole::start().await;
    let ask = async |service: &str, address: String| {
        let mut command = payoutd();
        command.args(["health", "--addr", &format!("http://{address}"), "--service", service]);
        within(command.output()).await.expect("ran").status.code()
    };
    let address = whole.service.addresses.grpc.to_string();
    assert_eq!(ask("", address.clone()).await, Some(0));
    assert_eq!(ask("cregis", address.clone()).await, Some(0));
    assert_eq!(ask("no.such.Service", address.clone()).await, Some(1));
    whole.upstream.fault(r#"{"code": "B0001"}"#);
    whole.create(order("a")).await.expect_err("refused");
    until(&channel(&whole).await, "cregis", ServingStatus::NotServing).await;
    assert_eq!(ask("cregis", address.clone()).await, Some(1));
    whole.service.stop().await;
    assert_eq!(ask("", address).await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_speaks_v1_and_v1alpha_and_can_be_switched_off() {
    let whole = Whole::start().await;
    let channel = channel(&whole).await;
    let expected = ["grpc.health.v1.Health", "payout.v1.PayoutService"];

    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let list = MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let asked = client.server_reflection_info(tokio_stream::once(request)).await.expect("v1");
    let answer = asked.into_inner().next().await.expect("an answer").expect("OK");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(expected.iter().all(|name| names.iter().any(|n| n == name)), "{names:?}");

    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request =
        v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let asked = client.server_reflection_info(tokio_stream::once(request)).await.expect("v1alpha");
    asked.into_inner().next().await.expect("an answer").expect("OK");

    let closed = Whole::with(|config| config.grpc.reflection = false).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", closed.service.addresses.grpc));
    let channel = endpoint.expect("an address").connect().await.expect("connected");
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: None };
    let refused = client.server_reflection_info(tokio_stream::once(request)).await;
    assert_eq!(refused.expect_err("off").code(), tonic::Code::Unimplemented);
}

/// One HTTP/2 frame: length, type, flags, stream.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Opens an HTTP/2 connection by hand and returns it with the server's settings.
async fn by_hand(whole: &Whole) -> (TcpStream, Vec<(u16, u32)>) {
    let mut stream = TcpStream::connect(whole.service.addresses.grpc).await.expect("connected");
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(4, 0, 0, &[]));
    stream.write_all(&hello).await.expect("written");
    let (kind, payload) = within(read_frame(&mut stream)).await.expect("a frame");
    assert_eq!(kind, 4, "SETTINGS come first");
    let settings = payload.chunks(6).map(|entry| {
        let id = u16::from_be_bytes([entry[0], entry[1]]);
        (id, u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
    });
    (stream, settings.collect())
}

async fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_headers_are_limited_in_so_many_words() {
    let whole = Whole::start().await;
    let (_stream, settings) = by_hand(&whole).await;
    assert!(settings.contains(&(3, 1024)), "MAX_CONCURRENT_STREAMS: {settings:?}");
    assert!(settings.contains(&(6, 16 * 1024)), "MAX_HEADER_LIST_SIZE: {settings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_malformed_or_reset_streams_ends_with_goaway_and_others_are_served() {
    for reset in [false, true] {
        let whole = Whole::start().await;
        let (mut stream, _) = by_hand(&whole).await;
        let (mut reader, mut writer) = stream.split();
        let flood = async {
            for number in 0..20_000u32 {
                let id = 2 * number + 1;
                // Either no valid pseudo headers at all, or a valid POST that is cancelled at once.
                let headers: &[u8] = if reset { b"\x83\x86\x84\x41\x01a" } else { b"\x82\x82" };
                let mut bytes = frame(1, if reset { 0x4 } else { 0x5 }, id, headers);
                if reset {
                    bytes.extend(frame(3, 0, id, &8u32.to_be_bytes()));
                }
                if writer.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        };
        let goaway = async {
            let mut bytes = Vec::new();
            let _ = reader.read_to_end(&mut bytes).await;
            // ENHANCE_YOUR_CALM in a GOAWAY frame: its type, flags, stream, last stream, code.
            bytes.windows(17).any(|w| w[3] == 7 && w[4..9] == [0; 5] && w[13..17] == [0, 0, 0, 11])
        };
        let (calm, ()) = within(async { tokio::join!(goaway, flood) }).await;
        assert!(calm, "no GOAWAY ENHANCE_YOUR_CALM (reset: {reset})");
        whole.create(order("other")).await.expect("others are served");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_64_kib_is_refused_and_nothing_is_recorded() {
    let whole = Whole::start().await;
    let mut big = order("big");
    big.remark = "x".repeat(70 * 1024);
    let status = whole.create(big).await.expect_err("too big");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    whole.get("big").await.expect_err("not recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_takes_its_faults_over_the_control_port() {
    let whole = Whole::start().await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let control = format!("http://{}", whole.upstream.control);
    let fault = r#"{"third_party_id": "x", "code": "E0017", "msg": "scripted"}"#;
    let post = http.post(format!("{control}/faults")).header("content-type", "application/json");
    assert_eq!(post.body(fault).send().await.expect("sent").status(), 204);
    whole.create(order("other")).await.expect("not struck");
    whole.create(order("x")).await.expect_err("struck");
    let orders = http.get(format!("{control}/orders")).send().await.expect("sent");
    assert_eq!(orders.text().await.expect("text").matches("third_party_id").count(), 1);
    let requests = http.get(format!("{control}/requests")).send().await.expect("sent");
    assert_eq!(requests.text().await.expect("text").matches("/api/v1/payout").count(), 2);
    let typo = http.post(format!("{control}/faults")).header("content-type", "application/json");
    assert_eq!(typo.body(r#"{"dely": "1s"}"#).send().await.expect("sent").status(), 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_refuses_a_wrong_key_a_bad_nonce_and_an_old_time_stamp() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = config(upstream.address, folder.path().join("l.db"));
    settings.projects[0].api_key = "wrong".into();
    let service = Service::start(settings).await;
    let status = service.client().await.create_payout(order("a")).await.expect_err("B0001");
    assert_eq!(crate::support::reason(&status).1, "CREGIS_REFUSED_GATEWAY");

    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_millis()).expect("fits");
    for (nonce, time, code) in [
        ("abc12", now, "A0001"),
        ("abc1234", now, "A0001"),
        ("abc-12", now, "A0001"),
        ("abc123", now - 3_600_000, "A0001"),
        ("abc123", now, "E0014"),
        ("abc123", now, "A0001"),
    ] {
        let (pid, time) = (payoutd::sandbox::PID.to_string(), time.to_string());
        let parameters = [("pid", &*pid), ("cid", "1"), ("nonce", nonce), ("timestamp", &*time)];
        let sign = payoutd::sign::sign(payoutd::sandbox::API_KEY, &parameters);
        let body = format!(
            r#"{{"pid":{pid},"cid":1,"nonce":"{nonce}","timestamp":{time},"sign":"{sign}"}}"#
        );
        let post = http.post(format!("http://{}/api/v1/payout/query", upstream.address));
        let answer = post.body(body).send().await.expect("sent").text().await.expect("text");
        assert!(answer.contains(code), "{nonce} {time}: {answer}");
    }
}

/// The environment of the tests may name a proxy; money must not go there.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_the_environment_is_ignored() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = "http://127.0.0.1:9";
    let proxies = [("http_proxy", nowhere), ("HTTP_PROXY", nowhere), ("ALL_PROXY", nowhere)];
    let binary = Binary::start_with(upstream.address, &folder, &proxies).await;
    let mut request = tonic::Request::new(order("a"));
    request.set_timeout(Duration::from_secs(5));
    let answer = binary.client().await.create_payout(request).await.expect("OK");
    assert!(answer.into_inner().cid > 0);
}
