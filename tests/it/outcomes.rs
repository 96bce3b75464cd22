//! "What a send came to": every row of the contract's table, through the whole service.

use payoutd::pb::{Payout, PayoutState};
use payoutd::sandbox::PID;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{
    Binary, Service, Upstream, Whole, any_port, config, connect, metadata, order, raw_upstream,
    reason, settled, within,
};

/// A short deadline for what never answers.
const SHORT: std::time::Duration = std::time::Duration::from_millis(400);

/// Keeps the breaker shut between doubts.
async fn calm(whole: &Whole, id: &str) {
    for number in 0..2 {
        whole.create(order(&format!("{id}-calm-{number}"))).await.expect("accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_accepted_200_with_an_exact_cid() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"cid": 9007199254740993}"#);
    let payout = whole.create(order("exact")).await.expect("accepted");
    assert_eq!((payout.state(), payout.cid), (PayoutState::Accepted, 9_007_199_254_740_993));
    assert_eq!((payout.revision, payout.reason.as_str(), payout.pid), (2, "", PID));
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_connect_dns_and_tls_failures_are_not_sent() {
    // Bound and not listening: refuses, and nobody else can take the port.
    let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
    closed.bind(any_port()).expect("a port");
    let nobody = closed.local_addr().expect("an address");
    let (no_tls, _task) = raw_upstream(b"HTTP/1.1 200 OK\r\n\r\n").await;
    for base_url in [
        format!("http://{nobody}"),
        "https://payoutd.invalid".to_owned(),
        format!("https://{no_tls}"),
    ] {
        let whole = Whole::with(|config| {
            config.projects[0].base_url = base_url.parse().expect("a URL");
        })
        .await;
        let refused = whole.create(order("a")).await.expect_err(&base_url);
        let expected = (Code::Unavailable, "NOT_SENT".to_owned(), "same_id".to_owned());
        assert_eq!(reason(&refused), expected, "{base_url}");
        let payout = whole.get("a").await.expect("recorded");
        assert_eq!(
            (payout.state(), payout.reason.as_str()),
            (PayoutState::NotSent, "CONNECT_FAILED")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_rejected_listed_refusals_of_the_payout() {
    let whole = Whole::start().await;
    for (code, field) in [
        ("A0001", None),
        ("E0002", Some("remark")),
        ("E0005", Some("currency")),
        ("E0006", Some("amount")),
        ("E0007", Some("amount")),
        ("E0008", Some("address")),
        ("E0016", Some("amount")),
        ("E0017", None),
        ("E0021", Some("remark")),
        ("E0032", Some("memo")),
    ] {
        let status = if code == "E0008" { 400 } else { 200 };
        whole.upstream.fault(&format!(r#"{{"code": "{code}", "msg": "no", "status": {status}}}"#));
        for attempt in ["fresh", "repeated"] {
            let refused = whole.create(order(code)).await.expect_err(code);
            let blames = field.is_some() || code == "A0001";
            let expected = if blames { Code::InvalidArgument } else { Code::FailedPrecondition };
            let expected = (expected, "REJECTED_BY_CREGIS".to_owned(), "new_id".to_owned());
            assert_eq!(reason(&refused), expected, "{code} {attempt}");
            assert_eq!(metadata(&refused, "cregis_code"), code);
            assert_eq!(metadata(&refused, "cregis_msg"), "no");
            let details = tonic_types::StatusExt::get_error_details(&refused);
            let blamed = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
            assert_eq!(blamed.as_deref(), field, "{code}");
        }
        let payout = whole.get(code).await.expect("recorded");
        assert_eq!((payout.state(), payout.reason.as_str()), (PayoutState::Rejected, code));
    }
    assert_eq!(whole.upstream.book.posts().len(), 10, "a refusal is final: nothing is sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_not_sent_cregis_refuses_us() {
    for code in
        ["B0001", "E0001", "E0003", "E0004", "E0010", "E0011", "E0012", "E0013", "E0034", "O0015"]
    {
        let whole = Whole::start().await;
        whole.upstream.fault(&format!(r#"{{"code": "{code}", "status": 403}}"#));
        let refused = whole.create(order("a")).await.expect_err(code);
        let expected = "CREGIS_REFUSED_GATEWAY".to_owned();
        assert_eq!(reason(&refused), (Code::Unavailable, expected, "same_id".to_owned()), "{code}");
        let payout = whole.get("a").await.expect("recorded");
        assert_eq!((payout.state(), payout.reason.as_str()), (PayoutState::NotSent, code));
        let refused = whole.create(order("b")).await.expect_err("the breaker is open");
        assert_eq!(reason(&refused).1, "UPSTREAM_UNAVAILABLE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_not_sent_a_parameter_error_while_our_clock_is_off() {
    let whole = Whole::start().await;
    let date = r#"{"date": "Sun, 06 Nov 1994 08:49:37 GMT"}"#;
    whole.upstream.fault(&format!(r#"{{"code": "A0001", "headers": {date}}}"#));
    let refused = whole.create(order("a")).await.expect_err("refused");
    assert_eq!(reason(&refused).1, "CREGIS_REFUSED_GATEWAY");
    let payout = whole.get("a").await.expect("recorded");
    assert_eq!((payout.state(), payout.reason.as_str()), (PayoutState::NotSent, "CLOCK_SKEW"));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_in_doubt_the_id_exists_there() {
    let whole = Whole::start().await;
    whole.create(order("twice")).await.expect("accepted");
    // Another gateway, with a ledger of its own, on the same project.
    let folder = tempfile::tempdir().expect("a folder");
    let other = config(whole.upstream.address, folder.path().join("other.db"));
    let other = Service::start(other).await;
    let answer = other.client().await.create_payout(order("twice")).await.expect("OK");
    let payout = answer.into_inner().payout.expect("a payout");
    assert_doubt(&payout, "EXISTS_UPSTREAM");
    calm(&whole, "e0018").await;
    whole.upstream.fault(r#"{"code": "E0018", "status": 409}"#);
    assert_doubt(&whole.create(order("e0018")).await.expect("OK"), "EXISTS_UPSTREAM");
    assert_eq!(
        whole.upstream.book.orders().iter().filter(|o| o.third_party_id == "twice").count(),
        1
    );
}

fn assert_doubt(payout: &Payout, reason: &str) {
    assert_eq!(payout.state(), PayoutState::InDoubt, "{reason}");
    assert_eq!((payout.reason.as_str(), payout.cid), (reason, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_in_doubt_everything_else() {
    let whole = Whole::with(|config| {
        config.projects[0].timeout = SHORT;
        config.projects[0].connect_timeout = SHORT / 2;
    })
    .await;
    let long = "x".repeat(65 * 1024);
    let padded = format!(r#"{{"code":"E0008","msg":"{long}"}}"#);
    let padded = serde_json::to_string(&padded).expect("a text");
    let rows = [
        ("TIMEOUT", r#"{"then": "hang"}"#.to_owned()),
        ("TIMEOUT", r#"{"then": "hang", "store": false}"#.to_owned()),
        ("TIMEOUT", r#"{"then": "drip"}"#.to_owned()),
        ("CONNECTION_LOST", r#"{"then": "drop"}"#.to_owned()),
        ("CONNECTION_LOST", r#"{"then": "drop", "store": false}"#.to_owned()),
        ("CONNECTION_LOST", r#"{"then": "truncate"}"#.to_owned()),
        ("HTTP_5XX", r#"{"status": 500}"#.to_owned()),
        ("HTTP_5XX", r#"{"status": 503, "code": "E0008"}"#.to_owned()),
        ("HTTP_5XX", r#"{"status": 502, "body": "<html>"}"#.to_owned()),
        ("HTTP_OTHER", r#"{"status": 201}"#.to_owned()),
        ("HTTP_OTHER", r#"{"status": 404, "body": "not found"}"#.to_owned()),
        ("HTTP_OTHER", r#"{"status": 429, "body": "slow down"}"#.to_owned()),
        ("HTTP_OTHER", r#"{"status": 400, "code": "X0001"}"#.to_owned()),
        ("BAD_BODY", r#"{"body": "<html>"}"#.to_owned()),
        ("BAD_BODY", r#"{"body": ""}"#.to_owned()),
        (
            "BAD_BODY",
            r#"{"body": "{\"code\":\"E0008\",\"code\":\"E0008\",\"msg\":\"\"}"}"#.to_owned(),
        ),
        ("BAD_BODY", r#"{"body": "{\"code\":\"E0008\"}"}"#.to_owned()),
        ("BAD_BODY", format!(r#"{{"body": {padded}}}"#)),
        ("ACCEPTED_NO_CID", r#"{"cid": "1382626461605888"}"#.to_owned()),
        ("ACCEPTED_NO_CID", r#"{"cid": 1.5}"#.to_owned()),
        ("ACCEPTED_NO_CID", r#"{"cid": 0}"#.to_owned()),
        (
            "ACCEPTED_NO_CID",
            r#"{"body": "{\"code\":\"00000\",\"msg\":\"\",\"data\":{\"cid\":null}}"}"#.to_owned(),
        ),
        ("UNLISTED_CODE", r#"{"code": "E0014"}"#.to_owned()),
        ("UNLISTED_CODE", r#"{"code": "ACCEPTED"}"#.to_owned()),
    ];
    for (number, (reason, fault)) in rows.iter().enumerate() {
        let id = format!("doubt-{number}");
        calm(&whole, &id).await;
        whole.upstream.fault(fault);
        let posts = whole.upstream.book.posts().len();
        let payout = whole.create(order(&id)).await.expect("OK");
        assert_eq!(payout.reason, *reason, "{fault}");
        assert_doubt(&payout, reason);
        let again = whole.create(order(&id)).await.expect("OK");
        assert_eq!(again, payout, "a repeat says the same");
        assert_eq!(whole.upstream.book.posts().len(), posts + 1, "and sends nothing: {fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_in_doubt_a_redirect_is_not_followed() {
    let elsewhere = Upstream::start().await;
    let whole = Whole::start().await;
    for status in [301, 302, 303, 307, 308] {
        let id = status.to_string();
        calm(&whole, &id).await;
        let to = format!("http://{}/api/v1/payout", elsewhere.address);
        let fault = format!(r#"{{"status": {status}, "headers": {{"location": "{to}"}}}}"#);
        whole.upstream.fault(&fault);
        assert_doubt(&whole.create(order(&id)).await.expect("OK"), "HTTP_OTHER");
    }
    assert!(elsewhere.book.received().is_empty(), "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_in_doubt_bytes_that_are_not_http_and_connections_cut_anywhere() {
    let rows: [(&str, &'static [u8]); 5] = [
        ("BAD_BODY", b"\x00\x01\x02 hello there\r\n\r\n"),
        ("CONNECTION_LOST", b""),
        ("CONNECTION_LOST", b"HTTP/1.1 200 OK\r\ncontent-le"),
        ("CONNECTION_LOST", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"code\":"),
        (
            "BAD_BODY",
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x08",
        ),
    ];
    for (reason, answer) in rows {
        let (address, _task) = raw_upstream(answer).await;
        let folder = tempfile::tempdir().expect("a folder");
        let service = Service::start(config(address, folder.path().join("l.db"))).await;
        let answered = service.client().await.create_payout(order("raw")).await.expect("OK");
        let payout = answered.into_inner().payout.expect("a payout");
        assert_eq!(payout.reason, reason, "{:?}", String::from_utf8_lossy(answer));
        assert_doubt(&payout, reason);
    }
}

/// A connection that is closed while idle must not turn into a second delivery.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_after_every_answer_gets_each_payout_once() {
    let listener = TcpListener::bind(any_port()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut ids = Vec::new();
        while ids.len() < 50 {
            let (mut stream, request) = crate::support::next_payout(&listener).await;
            let id = request.split("third_party_id\":\"").nth(1).expect("an id");
            ids.push(id.split('"').next().expect("an id").to_owned());
            let body =
                format!("{{\"code\":\"00000\",\"msg\":\"\",\"data\":{{\"cid\":{}}}}}", ids.len());
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            // Says that it keeps the connection, and does not.
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
        ids
    });
    let folder = tempfile::tempdir().expect("a folder");
    let service = Service::start(config(address, folder.path().join("l.db"))).await;
    let mut client = connect(service.addresses.grpc).await;
    for number in 0..50 {
        let id = format!("close-{number}");
        client.create_payout(order(&id)).await.expect("OK");
        assert_eq!(settled(&client, &id).await.state(), PayoutState::Accepted, "{id}");
    }
    let mut ids = server.join_next().await.expect("a server").expect("no panic");
    ids.dedup();
    assert_eq!(ids.len(), 50, "each once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cid_that_is_bound_elsewhere_is_a_doubt_with_attention() {
    let whole = Whole::start().await;
    let first = whole.create(order("first")).await.expect("accepted");
    whole.upstream.fault(&format!(r#"{{"cid": {}}}"#, first.cid));
    let second = whole.create(order("second")).await.expect("OK");
    assert_doubt(&second, "ACCEPTED_NO_CID");
    assert_eq!(second.attention, ["DUPLICATE_CID"]);
    assert_eq!(whole.get("first").await.expect("known").cid, first.cid, "the first keeps it");
}

/// The body carries the documented fields and no others; empty ones are left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_carries_only_documented_fields_and_no_empty_ones() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    for full in [false, true] {
        let listener = TcpListener::bind(any_port()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let folder = tempfile::tempdir().expect("a folder");
        let service = Service::start(config(address, folder.path().join("l.db"))).await;
        let mut request = order("fields");
        let mut expected = vec![
            "address",
            "amount",
            "currency",
            "nonce",
            "pid",
            "sign",
            "third_party_id",
            "timestamp",
        ];
        if full {
            request.currency = "144@144".to_owned();
            request.address = "rn5Jyu5J6PG64543KdGvS25rQBYFQo7GLc".to_owned();
            request.memo = "7".to_owned();
            request.remark = "Zahlung – 提币".to_owned();
            request.callback_url = "http://192.168.2.29:9099/callback".to_owned();
            expected.extend(["callback_url", "memo", "remark"]);
            expected.sort_unstable();
        }
        let mut client = service.client().await;
        let (_, sent) = tokio::join!(client.create_payout(request), async {
            let (mut stream, sent) = crate::support::next_payout(&listener).await;
            stream.write_all(answer).await.expect("written");
            sent
        });
        let (_, body) = sent.split_once("\r\n\r\n").expect("a body");
        let body: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(body).expect("an object");
        assert_eq!(body.keys().map(String::as_str).collect::<Vec<_>>(), expected);
        assert!(body["pid"].is_i64() && body["timestamp"].is_i64() && body["amount"].is_string());
        assert_eq!(body["nonce"].as_str().map(str::len), Some(6));
        assert_eq!(body["amount"], "1.1");
        let millis = body["timestamp"].as_i64().expect("an integer");
        assert!(millis > 1_700_000_000_000 && millis < 10_000_000_000_000, "milliseconds");
    }
}

/// Each wants another cure.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_no_connection_to_cregis_came_about() {
    let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
    closed.bind(any_port()).expect("a port");
    let closed = closed.local_addr().expect("an address");
    // Speaks no TLS.
    let plain = TcpListener::bind(any_port()).await.expect("a port");
    let address = plain.local_addr().expect("an address");
    let mut speaks = JoinSet::new();
    speaks.spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let upstream = Upstream::start().await;
    for (url, cause) in [
        (format!("http://{closed}"), "Connection refused"),
        ("https://cregis.invalid".to_owned(), "dns error"),
        (format!("https://{address}"), "received corrupt message"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = [("PAYOUTD_PROJECT__BASE_URL", url.as_str())];
        let binary = Binary::start_with(upstream.address, &folder, &settings).await;
        let status = within(binary.client().await.create_payout(order("a"))).await;
        assert_eq!(status.expect_err("not sent").code(), Code::Unavailable);
        let log = std::fs::read_to_string(&binary.log).expect("a log");
        let line = log.lines().find(|line| line.contains("\"send failed\"")).expect("a line");
        assert!(line.contains(cause), "{line}");
    }
}
