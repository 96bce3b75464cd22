//! One id, one payout: however often, from wherever, and whoever goes away.

use std::time::Duration;

use payoutd::pb::{self, PayoutState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::support::{Whole, any_port, connect, metadata, order, reason, within};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_parallel_calls_with_one_id_make_one_post_and_get_one_cid() {
    let mut whole = Whole::start().await;
    for round in ["fresh", "after a restart"] {
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            let client = whole.service.client().await;
            for _ in 0..25 {
                let mut client = client.clone();
                calls.spawn(async move { client.create_payout(order("one")).await });
            }
        }
        let answers = within(calls.join_all()).await;
        let mut cids: Vec<_> =
            answers.into_iter().map(|answer| answer.expect("OK").into_inner().cid).collect();
        assert_eq!(cids.len(), 200);
        cids.dedup();
        assert!(cids.len() == 1 && cids[0] > 0, "{round}: {cids:?}");
        assert_eq!(whole.upstream.book.posts().len(), 1, "{round}");
        whole = whole.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_amounts_under_one_id_one_is_paid_and_the_other_refused() {
    let whole = Whole::start().await;
    for number in 0..50 {
        let id = format!("race-{number}");
        let other = pb::CreatePayoutRequest { amount: "2".to_owned(), ..order(&id) };
        let (one, two) = tokio::join!(whole.create(order(&id)), whole.create(other));
        let refused = match (one, two) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
            both => panic!("exactly one is paid: {both:?}"),
        };
        assert_eq!(reason(&refused).1, "THIRD_PARTY_ID_REUSED");
        assert_eq!(metadata(&refused, "fields"), "amount");
    }
    assert_eq!(whole.upstream.book.orders().len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_paid_all_the_same() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"delay": "2s"}"#);
    let mut client = whole.client.clone();
    let mut call = JoinSet::new();
    call.spawn(async move { client.create_payout(order("cancelled")).await });
    whole.upstream.received(1).await;
    call.shutdown().await;
    let payout = whole.settled("cancelled").await;
    assert_eq!(payout.state(), PayoutState::Accepted);
    assert!(payout.cid > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_of_150_ms_answers_sending_in_time_and_the_payout_goes_on() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"delay": "2s"}"#);
    let mut request = Request::new(order("deadline"));
    request.set_timeout(Duration::from_millis(150));
    let answer = whole.client.clone().create_payout(request).await.expect("OK, not CANCELLED");
    let payout = answer.into_inner().payout.expect("a payout");
    assert_eq!((payout.state(), payout.cid), (PayoutState::Sending, 0));
    let payout = whole.settled("deadline").await;
    assert!(payout.state() == PayoutState::Accepted && payout.cid > 0);
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

/// Copies bytes between a caller and the service until told to cut the line.
async fn cuttable(service: std::net::SocketAddr) -> (std::net::SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(any_port()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut line = JoinSet::new();
    line.spawn(async move {
        let (mut caller, _) = listener.accept().await.expect("a connection");
        let mut server = TcpStream::connect(service).await.expect("connected");
        let _ = tokio::io::copy_bidirectional(&mut caller, &mut server).await;
    });
    (address, line)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_changes_nothing_about_the_payout() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"delay": "2s"}"#);
    let (address, mut line) = cuttable(whole.service.addresses.grpc).await;
    let mut client = connect(address).await;
    let (answer, ()) = tokio::join!(client.create_payout(order("cut")), async {
        whole.upstream.received(1).await;
        line.shutdown().await;
    });
    answer.expect_err("the line was cut");
    let payout = whole.settled("cut").await;
    assert!(payout.state() == PayoutState::Accepted && payout.cid > 0);
    assert_eq!(whole.create(order("cut")).await.expect("OK").cid, payout.cid);
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

/// What a mesh does by default: again on CANCELLED and UNAVAILABLE, at once, twice.
#[tokio::test(flavor = "multi_thread")]
async fn retries_of_a_mesh_over_every_kind_of_fault_make_at_most_one_order() {
    let whole = Whole::with(|config| {
        config.projects[0].timeout = Duration::from_millis(300);
        config.projects[0].connect_timeout = Duration::from_millis(100);
    })
    .await;
    let faults = [
        r#"{"then": "drop"}"#,
        r#"{"then": "drop", "store": false}"#,
        r#"{"then": "hang"}"#,
        r#"{"status": 503}"#,
        r#"{"body": "garbage"}"#,
        r#"{"code": "E0008"}"#,
    ];
    for (number, fault) in faults.iter().enumerate() {
        let id = format!("mesh-{number}");
        for calm in 0..2 {
            whole.create(order(&format!("{id}-calm-{calm}"))).await.expect("OK");
        }
        whole.upstream.fault(fault);
        for _ in 0..3 {
            match whole.create(order(&id)).await {
                Ok(_) => break,
                Err(status) => assert_ne!(status.code(), tonic::Code::Cancelled),
            }
        }
        let posts = whole.upstream.book.posts();
        let mine = posts.iter().filter(|post| post.third_party_id.as_deref() == Some(&id));
        assert_eq!(mine.count(), 1, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_is_sent_again_only_where_the_project_says_so_and_only_after_the_timeout() {
    let timeout = Duration::from_millis(500);
    for allowed in [false, true] {
        let whole = Whole::with(|config| {
            config.projects[0].timeout = timeout;
            config.projects[0].connect_timeout = timeout / 2;
            config.projects[0].resend_in_doubt = allowed;
        })
        .await;
        whole.upstream.fault(r#"{"then": "drop", "store": false}"#);
        let begun = std::time::Instant::now();
        let doubt = whole.create(order("again")).await.expect("OK");
        assert_eq!(doubt.state(), PayoutState::InDoubt);
        let mut payout = whole.create(order("again")).await.expect("OK");
        assert_eq!(payout, doubt, "too young to be sent again");
        while begun.elapsed() < timeout * 2 {
            payout = whole.create(order("again")).await.expect("OK");
        }
        let posts = whole.upstream.book.posts().len();
        if allowed {
            assert_eq!((payout.state(), posts), (PayoutState::Accepted, 2));
        } else {
            assert_eq!((payout, posts), (doubt, 1));
        }
    }
}

/// A second send that is refused proves nothing about the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_resend_leaves_the_doubt() {
    let whole = Whole::with(|config| {
        config.projects[0].timeout = Duration::from_millis(100);
        config.projects[0].connect_timeout = Duration::from_millis(50);
        config.projects[0].resend_in_doubt = true;
    })
    .await;
    whole.upstream.fault(r#"{"then": "drop"}"#);
    whole.upstream.fault(r#"{"code": "E0008"}"#);
    let payout = within(async {
        loop {
            let payout = whole.create(order("again")).await.expect("OK");
            if payout.revision == 4 {
                return payout;
            }
        }
    })
    .await;
    assert_eq!(payout.state(), PayoutState::InDoubt);
    assert_eq!(payout.reason, "CONNECTION_LOST", "the first send's doubt");
}

/// A raw HTTP/2 peer that resets nothing and reads nothing must not hold up others.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_holds_nobody_up() {
    let whole = Whole::start().await;
    let mut silent = TcpStream::connect(whole.service.addresses.grpc).await.expect("connected");
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
    whole.create(order("a")).await.expect("OK");
    let Whole { service, .. } = whole;
    service.stop().await;
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ok_never_shows_what_is_not_recorded_nor_the_order_of_another_call() {
    let whole = Whole::start().await;
    let hold = whole.hold();
    let create = async |amount: &str| {
        let order = pb::CreatePayoutRequest { amount: amount.to_owned(), ..order("held") };
        let mut request = Request::new(order);
        request.set_timeout(Duration::from_millis(300));
        within(whole.client.clone().create_payout(request)).await
    };
    let (one, other) = tokio::join!(create("1.1"), create("999999"));
    for answer in [one, other] {
        let late = reason(&answer.expect_err("not recorded"));
        let expected = (Code::DeadlineExceeded, "NOT_RECORDED_YET".into(), "same_id".into());
        assert_eq!(late, expected);
    }
    drop(hold);
    // The one whose record it was is paid, or can be repeated; never both.
    let payout = within(async {
        loop {
            match whole.create(order("held")).await {
                Ok(payout) => return Ok(payout),
                Err(status) if status.code() == Code::Unavailable => {}
                Err(status) => return Err(reason(&status).1),
            }
        }
    })
    .await;
    match payout {
        Ok(payout) => assert_eq!(payout.amount, "1.1"),
        Err(reason) => assert_eq!(reason, "THIRD_PARTY_ID_REUSED"),
    }
    assert_eq!(whole.upstream.book.orders().len(), 1);
}
