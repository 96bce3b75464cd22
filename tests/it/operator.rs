//! The operator's commands: the real binary against a service of canned answers.

mod fake;
mod night;

use payoutd::pb::{self, PayoutState};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::{Code, Status};

use crate::support::{ADDRESS, any_port, payoutd, within};
use fake::{Asked, CID, Fake, Ran, doubt, payout, refusal};

// === payouts list and show ===

#[tokio::test]
async fn a_list_follows_every_page_with_the_same_filters_and_counts_its_rows() {
    let payouts = vec![doubt("a", "1.1", 192), doubt("b", "2", 5), doubt("c", "3", 0)];
    let fake = Fake { page: 2, ..Fake::of(payouts) };
    let arguments =
        ["payouts", "list", "--state", "in_doubt", "--state", "PAYOUT_STATE_SENDING", "--pid", "7"];
    let ran = fake.run(&[&arguments[..], &["--min-age", "1h 30m"]].concat()).await.ended(0);

    let first = pb::ListPayoutsRequest {
        pid: 7,
        states: vec![PayoutState::InDoubt.into(), PayoutState::Sending.into()],
        attention_only: false,
        min_age: Some(prost_types::Duration { seconds: 5400, nanos: 0 }),
        page_size: 500,
        page_token: String::new(),
    };
    let second = pb::ListPayoutsRequest { page_token: "2".to_owned(), ..first.clone() };
    assert_eq!(fake.asked(), [Asked::List(first), Asked::List(second)]);
    let text = ran.out();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = text.lines().map(words).collect();
    let head = "STATE REASON AGE THIRD_PARTY_ID CID AMOUNT CURRENCY ADDRESS ATTENTION";
    assert_eq!(lines[0], words(head));
    assert_eq!(lines[1], words("IN_DOUBT TIMEOUT 3h 12m a - 1.1 195@195 TXsmKp…n1FS -"));
    assert_eq!(lines[3][3..5], words("c -"));
    assert_eq!(text.lines().last(), Some("3 payouts"));
    assert!(!text.contains(ADDRESS), "{text}");
}

#[tokio::test]
async fn a_limit_ends_the_list_early_and_says_that_there_is_more() {
    let payouts = ["a", "b", "c", "d"].map(|id| doubt(id, "1", 1));
    let fake = Fake { page: 2, ..Fake::of(payouts.into()) };
    let ran = fake.run(&["payouts", "list", "--limit", "3"]).await.ended(0);
    assert_eq!(ran.out().lines().last(), Some("3 payouts; there are more than --limit"));
    let sizes: Vec<_> = fake.asked().iter().map(size).collect();
    assert_eq!(sizes, [3, 1]);
}

fn size(asked: &Asked) -> i32 {
    let Asked::List(request) = asked else { panic!("{asked:?}") };
    request.page_size
}

#[tokio::test]
async fn json_is_one_document_with_exact_ids_as_texts_and_times_in_rfc_3339() {
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let whole = pb::Payout {
        pid: CID + 1,
        cid: CID,
        remark: "for \"Ann\", twice\u{1b}".to_owned(),
        cregis_status: Some(0),
        create_time: time(1_782_000_000, 0),
        update_time: time(1_782_000_001, 250_000_000),
        state_time: time(1_782_000_000, 500_000_000),
        attention: vec!["AGE".to_owned(), "DUPLICATE_CID".to_owned()],
        ..payout("a", PayoutState::Accepted, "0.000000000000000001", 0)
    };
    let fake = Fake { page: 1, ..Fake::of(vec![whole, doubt("b", "2", 0)]) };
    let listed = fake.run(&["payouts", "list", "--output", "json"]).await.ended(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    let expected = json!({
        "pid": "9007199254740994",
        "third_party_id": "a",
        "cid": "9007199254740993",
        "state": "ACCEPTED",
        "reason": "",
        "currency": "195@195",
        "address": ADDRESS,
        "amount": "0.000000000000000001",
        "remark": "for \"Ann\", twice\u{1b}",
        "memo": "",
        "callback_url": "",
        "cregis_status": 0,
        "txid": "",
        "block_height": 0,
        "block_time": null,
        "create_time": "2026-06-21T00:00:00Z",
        "update_time": "2026-06-21T00:00:01.250Z",
        "state_time": "2026-06-21T00:00:00.500Z",
        "revision": 2,
        "attention": ["AGE", "DUPLICATE_CID"],
    });
    assert_eq!(listed[0], expected);
    assert_eq!((&listed[1]["cid"], &listed[1]["cregis_status"]), (&json!("0"), &Value::Null));
    assert_eq!(fake.run(&["payouts", "show", "a", "--output", "json"]).await.json(), expected);
    let none = Fake::of(vec![]);
    assert_eq!(none.run(&["payouts", "list", "--output", "json"]).await.ended(0).json(), json!([]));
}

#[tokio::test]
async fn csv_keeps_commas_quotes_and_exact_ids_and_defuses_formulas() {
    let with = |remark: &str| pb::Payout {
        cid: CID,
        remark: remark.to_owned(),
        ..payout("a", PayoutState::Accepted, "1", 0)
    };
    let fake = Fake::of(vec![with("for \"Ann\", twice"), with("=1+1")]);
    let ran = fake.run(&["payouts", "list", "--output", "csv"]).await.ended(0);
    assert!(ran.out().contains(",\"for \"\"Ann\"\", twice\","), "{}", ran.out());
    let rows = ran.csv();
    let place = |name: &str| rows[0].iter().position(|head| head == name).expect("a column");
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1][place("remark")], "for \"Ann\", twice");
    assert_eq!(rows[1][place("cid")], CID.to_string());
    assert_eq!(rows[2][place("remark")], "'=1+1");
}

#[tokio::test]
async fn show_asks_by_either_id_and_prints_every_field_on_its_own_line() {
    use pb::get_payout_request::Id;
    let fake = Fake::of(vec![pb::Payout { remark: "\u{1b}[2J".to_owned(), ..doubt("a", "1", 61) }]);
    let text = fake.run(&["payouts", "show", "a"]).await.ended(0).out();
    fake.run(&["payouts", "show", "--cid", &CID.to_string(), "--pid", "7"]).await.ended(0);
    let by = |pid, id| Asked::Get(pb::GetPayoutRequest { pid, id: Some(id) });
    assert_eq!(fake.asked(), [by(0, Id::ThirdPartyId("a".to_owned())), by(7, Id::Cid(CID))]);
    for line in [
        "pid             1382528827416576",
        "third_party_id  a",
        "cid             -",
        "state           IN_DOUBT",
        &format!("address         {ADDRESS}"),
        "remark          \\u{1b}[2J",
        "revision        2",
        "age             1h 1m",
        "next            look for its id at Cregis: found, resolve --cid; not there after a day, resolve --void",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert_eq!(text.lines().count(), 22, "{text}");
}

// === payouts resolve, pause and resume ===

#[tokio::test]
async fn resolve_sends_exactly_what_was_asked_once_and_prints_what_stands() {
    use pb::resolve_payout_request::Resolution;
    let fake =
        Fake::of(vec![pb::Payout { cid: CID, ..payout("a", PayoutState::Accepted, "1", 0) }]);
    let evidence = "seen in the app, \"order 7\", by B.";
    let (cid, resolve) = (CID.to_string(), ["payouts", "resolve", "a", "--evidence", evidence]);
    let bound = fake.run(&[&resolve[..], &["--cid", &cid, "--pid", "7"]].concat()).await.ended(0);
    fake.run(&[&resolve[..], &["--void"]].concat()).await.ended(0);
    let asked = |pid, resolution| {
        Asked::Resolve(pb::ResolvePayoutRequest {
            pid,
            third_party_id: "a".to_owned(),
            resolution: Some(resolution),
            evidence: evidence.to_owned(),
        })
    };
    assert_eq!(fake.asked(), [asked(7, Resolution::Cid(CID)), asked(0, Resolution::Void(true))]);
    for line in ["state           ACCEPTED", &format!("cid             {CID}")] {
        assert!(bound.out().lines().any(|found| found == line), "{}", bound.out());
    }
}

#[tokio::test]
async fn pause_and_resume_set_the_intake_with_a_note_and_print_what_stands() {
    let fake = Fake::default();
    let paused = fake.run(&["payouts", "pause", "--note", "E0034 since 3:10"]).await.ended(0);
    let resumed = fake.run(&["payouts", "resume", "--pid", "7", "--output", "json"]).await.ended(0);
    let asked = |pid, paused, note: &str| {
        Asked::Intake(pb::SetIntakeRequest { pid, paused, note: note.to_owned() })
    };
    assert_eq!(fake.asked(), [asked(0, true, "E0034 since 3:10"), asked(7, false, "")]);
    assert_eq!(paused.out(), "all projects: paused; no new payouts are taken\n");
    assert_eq!(resumed.json(), json!({"paused": false}));
}

// === errors ===

#[tokio::test]
async fn an_error_is_told_with_reason_and_way_out_and_nothing_is_repeated() {
    let status = refusal(Code::Unavailable, "UPSTREAM_UNAVAILABLE", "same_id", "no \u{1b}answer");
    let fake = Fake { refusal: Some(status), ..Fake::of(vec![]) };
    let commands: [&[&str]; 5] = [
        &["payouts", "list"],
        &["payouts", "show", "a"],
        &["payouts", "resolve", "a", "--void", "--evidence", "x"],
        &["payouts", "pause"],
        &["reconcile"],
    ];
    for (count, command) in commands.iter().enumerate() {
        let ran = fake.run(command).await.ended(1);
        assert_eq!(
            ran.err(),
            "payoutd: UPSTREAM_UNAVAILABLE: no \\u{1b}answer\n  \
             retry same_id: nothing was created; run the same command again, after 5s\n"
        );
        assert_eq!(fake.asked().len(), count + 1, "{command:?}");
    }
}

#[tokio::test]
async fn an_error_without_our_detail_is_told_to_say_nothing() {
    let fake = Fake { refusal: Some(Status::unavailable("mesh")), ..Fake::of(vec![]) };
    let ran = fake.run(&["payouts", "resolve", "a", "--void", "--evidence", "x"]).await.ended(1);
    assert!(ran.err().contains("Unavailable: mesh"), "{}", ran.err());
    assert!(ran.err().contains("says nothing about what was done"), "{}", ran.err());
}

#[tokio::test]
async fn nobody_at_the_address_is_1_and_said_aloud() {
    let free = TcpListener::bind(any_port()).await.expect("a port");
    let address = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let mut command = payoutd();
    command.args(["payouts", "list", "--addr", &address]);
    let ran = Ran(within(command.output()).await.expect("ran")).ended(1);
    assert!(ran.err().starts_with("payoutd: cannot connect"), "{}", ran.err());
}

#[tokio::test]
async fn pages_that_do_not_go_on_end_the_list_with_an_error() {
    let fake = Fake { page: 0, ..Fake::of(vec![doubt("a", "1", 1)]) };
    let ran = fake.run(&["payouts", "list"]).await.ended(1);
    assert!(ran.err().contains("the next page is this page"), "{}", ran.err());
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_failure() {
    let (address, _task) = Fake::of(vec![doubt("a", "1", 1)]).serve().await;
    for output in ["table", "json", "csv"] {
        for command in [&["payouts", "list"][..], &["payouts", "show", "a"], &["reconcile"]] {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            let mut process = payoutd();
            process.args(command).args([
                "--output",
                output,
                "--addr",
                &format!("http://{address}"),
            ]);
            let status = within(process.stdout(writer).status()).await.expect("ran");
            assert_eq!(status.code(), Some(0), "{command:?} {output}");
        }
    }
}

#[tokio::test]
async fn bad_usage_is_64_and_asks_nobody() {
    let fake = Fake::of(vec![]);
    let long = ["payouts", "resolve", "a", "--evidence", "x"];
    for arguments in [
        &["payouts"][..],
        &["payouts", "list", "--state", "paid"],
        &["payouts", "list", "--state", "unspecified"],
        &["payouts", "list", "--min-age", "soon"],
        &["payouts", "list", "--limit", "0"],
        &["payouts", "list", "--output", "yaml"],
        &["payouts", "list", "--pid", "-1"],
        &["payouts", "show"],
        &["payouts", "show", "a", "--cid", "1"],
        &["payouts", "show", "--cid", "0"],
        &long[..],
        &[&long[..], &["--void", "--cid", "1"]].concat(),
        &["payouts", "resolve", "a", "--void"],
        &["payouts", "resolve", "a", "--void", "--evidence", ""],
        &["reconcile", "--accepted-age", "1 fortnight"],
    ] {
        fake.run(arguments).await.ended(64);
    }
    let mut command = payoutd();
    command.args(["payouts", "list", "--addr", "nowhere"]);
    Ran(within(command.output()).await.expect("ran")).ended(64);
    assert_eq!(fake.asked(), []);
}
