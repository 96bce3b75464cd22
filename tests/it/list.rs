//! `ListPayouts`: every payout that fits, each once, in the order in which it was recorded.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use payoutd::config;
use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::PID;
use payoutd::state::{STATES, State};
use tonic::{Code, Status};

use crate::support::{Whole, bad_fields, beside, ended, order, project, reason, run, within};

/// Rows of every state; of four a person should look at one, and of ten one is another project's.
/// They came into their states up to four hours ago.
fn fill(whole: &Whole, rows: i64) {
    let states: Vec<_> =
        STATES.iter().enumerate().map(|(n, s)| format!("WHEN {n} THEN '{s}'")).collect();
    let states = states.join(" ");
    let shell = whole.shell();
    let (columns, values) = shell.lease();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}),
         s AS (SELECT i, CASE i % 9 {states} END AS state FROM n)
         INSERT INTO payout (pid, third_party_id, currency, address, amount, remark, memo,
             callback_url, create_time, revision, update_time, state, reason, refusal_msg, txid,
             block_height, attention, send_time, state_time, due, polls, caller{columns})
         SELECT CASE WHEN i % 10 = 0 THEN 7 ELSE {PID} END, 'p' || i, '195@195',
             'TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS', '1.1', '', '', '', 1, 1, 1, state, '', '', '',
             0, CASE WHEN i % 4 = 0 THEN 'FIELD_MISMATCH' ELSE '' END, 1,
             {now} - 60000000 - 3600000000 * (i % 5),
             CASE WHEN state IN ('SENDING', 'IN_DOUBT', 'ACCEPTED') THEN 9000000000000000 END, 0,
             ''{values} FROM s ORDER BY i"
    );
    assert_eq!(shell.execute(&fill), rows.unsigned_abs());
}

async fn page(
    whole: &Whole,
    request: pb::ListPayoutsRequest,
) -> Result<pb::ListPayoutsResponse, Status> {
    Ok(within(whole.client.clone().list_payouts(request)).await?.into_inner())
}

/// All pages.
async fn all(whole: &Whole, mut request: pb::ListPayoutsRequest) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = page(whole, request.clone()).await.expect("OK");
        let size = usize::try_from(request.page_size).expect("small");
        assert!(page.payouts.len() == size || page.next_page_token.is_empty(), "a short page");
        found.extend(page.payouts.into_iter().map(|payout| payout.third_party_id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return found;
        }
    }
}

fn listed(page_size: i32) -> pb::ListPayoutsRequest {
    pb::ListPayoutsRequest { pid: PID, page_size, ..pb::ListPayoutsRequest::default() }
}

fn hours(hours: i64) -> Option<prost_types::Duration> {
    (hours > 0).then_some(prost_types::Duration { seconds: hours * 3600, nanos: 0 })
}

/// A service with two projects.
async fn two_projects() -> Whole {
    Whole::with(|config| {
        let other = config::Project { pid: 7, ..project(config.grpc.listen) };
        config.projects.push(other);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_holds_50_or_up_to_1000_in_the_order_of_recording() {
    let whole = Whole::start().await;
    assert_eq!(page(&whole, listed(0)).await.expect("OK"), pb::ListPayoutsResponse::default());
    fill(&whole, 1200);
    let expected: Vec<_> = (1..=1200).filter(|i| i % 10 != 0).map(|i| format!("p{i}")).collect();
    for (asked, holds) in [(0, 50), (1, 1), (999, 999), (1000, 1000)] {
        let page = page(&whole, listed(asked)).await.expect("OK");
        let ids: Vec<_> = page.payouts.iter().map(|payout| &payout.third_party_id).collect();
        assert_eq!(ids, expected.iter().take(holds).collect::<Vec<_>>());
        assert!(!page.next_page_token.is_empty());
    }
    for size in [1, 7, 540, 1000] {
        assert_eq!(all(&whole, listed(size)).await, expected, "pages of {size}");
    }
    let only = page(&whole, pb::ListPayoutsRequest { pid: 0, ..listed(50) }).await.expect("OK");
    assert_eq!(only.payouts[0], whole.get("p1").await.expect("OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_stable_while_payouts_are_recorded_between_them() {
    let whole = Whole::start().await;
    for number in 0..10 {
        whole.create(order(&format!("p{number}"))).await.expect("OK");
    }
    let (mut found, mut request, mut next) = (Vec::new(), listed(3), 10);
    loop {
        let page = page(&whole, request.clone()).await.expect("OK");
        found.extend(page.payouts.into_iter().map(|payout| payout.third_party_id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
        for _ in 0..i32::from(next < 20) * 2 {
            whole.create(order(&format!("p{next}"))).await.expect("OK");
            next += 1;
        }
    }
    assert_eq!(found, (0..next).map(|number| format!("p{number}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_and_every_two_of_them_find_what_fits_and_nothing_else() {
    let whole = two_projects().await;
    fill(&whole, 360);
    let one = |number: usize| vec![STATES[number]];
    let mut choices: Vec<Vec<State>> = (0..9).map(one).collect();
    choices.extend([
        vec![],
        vec![State::Sending, State::InDoubt, State::Accepted],
        vec![State::Accepted, State::InDoubt, State::InDoubt],
        vec![State::InDoubt, State::NotSent],
        vec![State::Succeeded, State::Failed, State::Denied, State::Rejected, State::Voided],
        STATES.repeat(200),
    ]);
    for states in choices {
        for attention_only in [false, true] {
            for age in [0, 1, 3] {
                let fits = |i: &i64| {
                    let state = STATES[usize::try_from(i % 9).expect("small")];
                    i % 10 != 0
                        && (states.is_empty() || states.contains(&state))
                        && (!attention_only || i % 4 == 0)
                        && i % 5 >= age
                };
                let expected: Vec<_> = (1..=360).filter(fits).map(|i| format!("p{i}")).collect();
                let request = pb::ListPayoutsRequest {
                    states: states.iter().map(|s| pb::PayoutState::from(*s).into()).collect(),
                    attention_only,
                    min_age: hours(age),
                    ..listed(7)
                };
                assert_eq!(all(&whole, request).await, expected, "{attention_only} {age}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn age_counts_from_the_present_state_and_not_from_the_last_change() {
    let whole = Whole::start().await;
    let accepted = whole.create(order("a")).await.expect("OK");
    whole.create(order("b")).await.expect("OK");
    let old = |hours_ago| pb::ListPayoutsRequest { min_age: hours(hours_ago), ..listed(10) };
    assert!(all(&whole, old(1)).await.is_empty());
    whole.aged("a", 2);
    // A change that leaves the state as it is.
    whole.upstream.book.set_status(accepted.cid, 5, false);
    whole.shell().execute("UPDATE payout SET due = 1 WHERE third_party_id = 'a'");
    whole.until("a", |payout| payout.cregis_status == Some(5)).await;
    assert_eq!(all(&whole, old(1)).await, ["a"]);
    assert!(all(&whole, old(3)).await.is_empty());
    whole.upstream.book.set_status(accepted.cid, 6, false);
    whole.shell().execute("UPDATE payout SET due = 1 WHERE third_party_id = 'a'");
    whole.until("a", |payout| payout.cregis_status == Some(6)).await;
    assert!(all(&whole, old(1)).await.is_empty());
    let ages = [(1, 0), (i64::MAX / 1_000_000_000, 0), (315_576_000_000, 999_999_999)];
    for (seconds, nanos) in ages {
        let min_age = Some(prost_types::Duration { seconds: seconds.max(3600), nanos });
        let found = all(&whole, pb::ListPayoutsRequest { min_age, ..listed(10) }).await;
        assert!(found.is_empty(), "{seconds}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_names_every_bad_field() {
    let whole = two_projects().await;
    let negative = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let every = pb::ListPayoutsRequest {
        pid: 0,
        states: vec![PayoutState::Accepted.into(), 99],
        min_age: negative(-1, 0),
        page_size: -1,
        page_token: "x".to_owned(),
        attention_only: true,
    };
    let status = page(&whole, every).await.expect_err("bad");
    assert_eq!(bad_fields(&status), ["pid", "states", "min_age", "page_size", "page_token"]);
    for (field, request) in [
        ("pid", pb::ListPayoutsRequest { pid: 0, ..listed(1) }),
        ("states", pb::ListPayoutsRequest { states: vec![0], ..listed(1) }),
        ("states", pb::ListPayoutsRequest { states: vec![-1], ..listed(1) }),
        ("min_age", pb::ListPayoutsRequest { min_age: negative(0, -1), ..listed(1) }),
        ("page_size", listed(1001)),
        ("page_size", listed(i32::MIN)),
        ("page_token", pb::ListPayoutsRequest { page_token: "0".to_owned(), ..listed(1) }),
        ("page_token", pb::ListPayoutsRequest { page_token: "-1".to_owned(), ..listed(1) }),
        ("page_token", pb::ListPayoutsRequest { page_token: "+1".to_owned(), ..listed(1) }),
        ("page_token", pb::ListPayoutsRequest { page_token: "1 ".to_owned(), ..listed(1) }),
        ("page_token", pb::ListPayoutsRequest { page_token: "f".repeat(17), ..listed(1) }),
    ] {
        let status = page(&whole, request.clone()).await.expect_err(field);
        assert_eq!(bad_fields(&status), [field], "{request:?}");
    }
    let unknown = page(&whole, pb::ListPayoutsRequest { pid: 8, ..listed(1) }).await;
    let status = unknown.expect_err("unknown");
    assert_eq!((status.code(), reason(&status).1.as_str()), (Code::NotFound, "UNKNOWN_PROJECT"));
    let other = page(&whole, pb::ListPayoutsRequest { pid: 7, ..listed(1) }).await.expect("OK");
    assert_eq!(other, pb::ListPayoutsResponse::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_doubts_among_100_000_payouts_is_quick_and_creates_go_on() {
    let whole = Whole::start().await;
    fill(&whole, 100_000);
    let mut client = whole.client.clone();
    let creates = beside(async move {
        let mut slowest = Duration::ZERO;
        for number in 0..50 {
            let begun = Instant::now();
            client.create_payout(order(&format!("new{number}"))).await.expect("OK");
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    });
    let doubts = vec![PayoutState::InDoubt.into()];
    let mut slowest = Duration::ZERO;
    let mut request = pb::ListPayoutsRequest { states: doubts, ..listed(50) };
    let mut found = HashSet::new();
    for _ in 0..10 {
        let begun = Instant::now();
        let page = page(&whole, request.clone()).await.expect("OK");
        slowest = slowest.max(begun.elapsed());
        assert_eq!(page.payouts.len(), 50);
        assert!(page.payouts.iter().all(|payout| payout.state() == PayoutState::InDoubt));
        found.extend(page.payouts.into_iter().map(|payout| payout.third_party_id));
        request.page_token = page.next_page_token;
    }
    assert_eq!(found.len(), 500);
    let begun = Instant::now();
    let missing = pb::ListPayoutsRequest { attention_only: true, min_age: hours(9), ..listed(50) };
    assert!(page(&whole, missing).await.expect("OK").payouts.is_empty());
    let none = begun.elapsed();
    let create = ended(creates).await;
    assert!(slowest.max(none) < Duration::from_millis(700), "{slowest:?} {none:?}");
    assert!(create < Duration::from_secs(1), "{create:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_all_pages_of_the_real_service() {
    let whole = two_projects().await;
    fill(&whole, 1200);
    let address = whole.service.addresses.grpc;
    let pid = PID.to_string();
    let count = async |arguments: &[&str]| {
        let list = ["payouts", "list", "--pid", &pid, "--output", "json"];
        let output = run(address, &[&list[..], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        listed.as_array().expect("a list").len()
    };
    let closed = |i: &i64| i % 4 == 0 && i % 5 >= 3 && matches!(i % 9, 5 | 8);
    let closed = (1..=1200).filter(closed).count();
    assert_eq!(count(&[]).await, 1080);
    assert_eq!(count(&["--limit", "700"]).await, 700);
    assert_eq!(count(&["--state", "in_doubt"]).await, 120);
    assert_eq!(count(&["--attention"]).await, 240);
    assert_eq!(
        count(&["--attention", "--min-age", "3h", "--state", "voided,denied"]).await,
        closed
    );
    let ambiguous = run(address, &["payouts", "list"]).await;
    assert_eq!(ambiguous.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ambiguous.stderr).contains("pid"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_serves_where_it_was_given_and_tells_nothing() {
    let whole = two_projects().await;
    fill(&whole, 1200);
    let accepted = vec![PayoutState::Accepted.into(), PayoutState::InDoubt.into()];
    let asked = pb::ListPayoutsRequest { states: accepted, min_age: hours(1), ..listed(10) };
    let first = page(&whole, asked.clone()).await.expect("OK");
    let token = first.next_page_token;
    let with = |request: &pb::ListPayoutsRequest, token: &str| pb::ListPayoutsRequest {
        page_token: token.to_owned(),
        ..request.clone()
    };
    let second = page(&whole, with(&asked, &token)).await.expect("OK");
    // Another size, or the same states in other words, is the same list.
    let mut states = asked.states.clone();
    states.reverse();
    states.push(PayoutState::Accepted.into());
    let same = pb::ListPayoutsRequest { states, page_size: 20, ..asked.clone() };
    let more = page(&whole, with(&same, &token)).await.expect("OK").payouts;
    assert_eq!(more[..10], second.payouts);
    let mut spoilt = token.clone().into_bytes();
    spoilt[3] = if spoilt[3] == b'A' { b'B' } else { b'A' };
    let spoilt = String::from_utf8(spoilt).expect("ASCII");
    for (request, token) in [
        (pb::ListPayoutsRequest { pid: 7, ..asked.clone() }, &token),
        (pb::ListPayoutsRequest { states: vec![], ..asked.clone() }, &token),
        (pb::ListPayoutsRequest { attention_only: true, ..asked.clone() }, &token),
        (pb::ListPayoutsRequest { min_age: hours(2), ..asked.clone() }, &token),
        (pb::ListPayoutsRequest { min_age: None, ..asked.clone() }, &token),
        (asked.clone(), &spoilt),
        (asked.clone(), &format!("{token}AA")),
        (asked.clone(), &token[..token.len() - 1].to_owned()),
    ] {
        let status = page(&whole, with(&request, token)).await.expect_err("another list's");
        assert_eq!(bad_fields(&status), ["page_token"], "{request:?}");
    }
    // What is later looks like what is earlier.
    let next = second.next_page_token;
    let common = token.bytes().zip(next.bytes()).take_while(|(a, b)| a == b).count();
    assert!(token.len() == next.len() && common < 8, "{token} {next}");
    let whole = whole.restart().await;
    assert_eq!(page(&whole, with(&asked, &token)).await.expect("OK").payouts, second.payouts);
}
