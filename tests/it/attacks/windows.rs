//! Answers that nobody takes: bounded, reset in time, and in nobody else's way.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use payoutd::pb::watch_payout_request::Id;
use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::PID;
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::codegen::http::{Request, Response};

use super::{Besieged, GROWTH_MAX};
use crate::support::{Shell, get, order, told, watch_from, within};

const LIST: &str = "/payout.v1.PayoutService/ListPayouts";
const GET: &str = "/payout.v1.PayoutService/GetPayout";

/// A client that opens windows of `window` bytes for its answers, and opens them no further.
async fn shut(besieged: &Besieged, window: u32) -> (SendRequest<Bytes>, JoinSet<()>) {
    let stream = TcpStream::connect(besieged.binary.address).await.expect("connected");
    let (send, connection) =
        Builder::new().initial_window_size(window).handshake(stream).await.expect("HTTP/2");
    let mut task = JoinSet::new();
    task.spawn(async move {
        let _ = connection.await;
    });
    (send, task)
}

/// Calls `path`; gives the answer's head, once it comes.
async fn call(
    send: &mut SendRequest<Bytes>,
    path: &str,
    message: Vec<u8>,
) -> impl Future<Output = Result<Response<h2::RecvStream>, h2::Error>> + use<> {
    let request = Request::post(format!("http://a{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let mut ready = within(send.clone().ready()).await.expect("a stream");
    let (answer, mut stream) = ready.send_request(request, false).expect("sent");
    stream.send_data([&[0][..], &length, &message].concat().into(), true).expect("sent");
    async { within(answer).await }
}

fn page() -> pb::ListPayoutsRequest {
    pb::ListPayoutsRequest { page_size: 1000, ..pb::ListPayoutsRequest::default() }
}

/// Payouts whose pages are as large as they get.
fn fill(besieged: &Besieged) {
    let ledger = besieged.binary.log.with_file_name("payoutd.db");
    let (remark, url) = ("\u{1d52f}".repeat(256), format!("https://a.example/{}", "u".repeat(480)));
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO payout (pid, third_party_id, currency, address, amount, remark, memo,
             callback_url, create_time, revision, update_time, state, reason, refusal_msg, txid,
             block_height, attention, send_time, state_time, due, polls, caller)
         SELECT {PID}, 'p' || i, '195@195', 'TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS', '1.1', '{remark}',
             '', '{url}', 1, 1, 1, 'SUCCEEDED', '', '', '', 0, '', 1, 1, NULL, 0, ''
         FROM n"
    );
    assert_eq!(Shell::file(&ledger).execute(&fill), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pages_behind_shut_windows_cost_little_and_are_given_back() {
    let besieged = Besieged::start().await;
    fill(&besieged);
    let mut client = besieged.bystander.clone();
    let whole = within(client.list_payouts(page())).await.expect("a page").into_inner();
    assert!(whole.encoded_len() <= (1 << 20) + 100, "{} bytes", whole.encoded_len());
    assert!(whole.payouts.len() > 500 && !whole.next_page_token.is_empty());
    let before = besieged.binary.rss_kb();
    for window in [0, 1] {
        let attack = async {
            let (mut send, connection) = shut(&besieged, window).await;
            let mut answers = Vec::new();
            // As many at a time as are read at once.
            while answers.len() < 1_000 {
                let mut asked = JoinSet::new();
                for _ in 0..10 {
                    asked.spawn(call(&mut send, LIST, page().encode_to_vec()).await);
                }
                answers.extend(asked.join_all().await);
            }
            let taken = answers.iter().flatten();
            let taken =
                taken.filter(|answer| answer.headers().get("grpc-status").is_none()).count();
            let grown = besieged.binary.rss_kb() - before;
            println!("window {window}: {taken} pages taken, grown by {grown} KB");
            assert!(grown < GROWTH_MAX, "grown by {grown} KB with {taken} pages");
            drop((answers, send, connection));
        };
        besieged.under(attack).await;
        // What was held is free as soon as the connection is gone.
        within(async {
            while client.list_payouts(page()).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let grown = besieged.binary.rss_kb() - before;
    assert!(grown < GROWTH_MAX, "{grown} KB are not given back");
    besieged.stands(Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_takes_for_30_s_is_reset_and_a_watch_without_news_is_not() {
    let besieged = Besieged::start().await;
    fill(&besieged);
    let mut watched = watch_from(&besieged.bystander, Id::ThirdPartyId("before".to_owned()), 0)
        .await
        .expect("watched");
    let now = told(&mut watched).await.expect("OK").expect("as it stands");
    assert_eq!(now.state(), PayoutState::Accepted);
    let id = || Some(pb::get_payout_request::Id::ThirdPartyId("before".to_owned()));
    let attack = async {
        let begun = Instant::now();
        let mut answers = Vec::new();
        let mut connections = Vec::new();
        for window in [0, 1, 10_000] {
            let (mut send, connection) = shut(&besieged, window).await;
            let list = call(&mut send, LIST, page().encode_to_vec()).await.await;
            answers.push(("a page", window, list.expect("a head")));
            if window < 10_000 {
                let get = pb::GetPayoutRequest { pid: 0, id: id() };
                let one = call(&mut send, GET, get.encode_to_vec()).await.await;
                answers.push(("a payout", window, one.expect("a head")));
            }
            connections.push((send, connection));
        }
        for (what, window, answer) in answers {
            let mut body = answer.into_body();
            let end = tokio::time::timeout(Duration::from_secs(40), async {
                // Never released, so that no window opens.
                while let Some(data) = body.data().await {
                    data?;
                }
                Ok::<_, h2::Error>(())
            });
            let end = end.await.unwrap_or_else(|_| panic!("{what} behind {window} stays"));
            assert!(end.expect_err("reset").is_reset(), "{what} behind {window}");
            let after = begun.elapsed().as_secs();
            assert!((29..40).contains(&after), "{what} behind {window}: after {after} s");
        }
    };
    besieged.under(attack).await;
    // Longer than 30 s without a word, and still there.
    let cid = get(&besieged.bystander, "before").await.expect("known").cid;
    assert!(besieged.pays(cid), "the sandbox knows it");
    let paid = within(async {
        loop {
            let payout = told(&mut watched).await.expect("the stream goes on").expect("more");
            if payout.state() == PayoutState::Succeeded {
                return payout;
            }
        }
    });
    assert_eq!(paid.await.cid, cid);
    within(besieged.bystander.clone().create_payout(order("later"))).await.expect("served");
}
