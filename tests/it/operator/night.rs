//! `payoutd reconcile`, and the page for the night.

use std::path::Path;

use payoutd::pb::{self, PayoutState};
use serde_json::json;

use super::fake::{Asked, Fake, doubt, payout};

fn night() -> Fake {
    let attention = vec!["CONTRADICTION".to_owned()];
    Fake::of(vec![
        doubt("young", "0.1", 1),
        doubt("old", "0.2", 600),
        pb::Payout { currency: "60@60".to_owned(), ..doubt("other", "1.000000000000000001", 60) },
        payout("waits", PayoutState::Accepted, "5", 90),
        pb::Payout { attention, ..payout("odd", PayoutState::Succeeded, "7", 9) },
    ])
}

#[tokio::test]
async fn reconcile_lists_the_oldest_first_sums_exactly_and_names_a_next_step() {
    let fake = night();
    let text = fake.run(&["reconcile"]).await.ended(0).out();
    let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word} in\n{text}"));
    assert!(place(" old ") < place(" other ") && place(" other ") < place(" young "), "{text}");
    for line in [
        "3 payouts: 0.3 195@195, 1.000000000000000001 60@60",
        "1 payout: 5 195@195",
        "1 payout: 7 195@195",
        "0 payouts",
        "orders at Cregis without a ledger row: the API does not list them; see orphans in the log \
         and docs/operations.md",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    for step in
        ["not there after a day, resolve --void", "Cregis contradicts itself", "it waits for"]
    {
        place(step);
    }
    assert!(!text.contains('\r'), "progress where there is no terminal");

    let filter = |states: &[PayoutState], attention_only, seconds: Option<i64>| {
        Asked::List(pb::ListPayoutsRequest {
            pid: 0,
            states: states.iter().map(|state| (*state).into()).collect(),
            attention_only,
            min_age: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            page_size: 500,
            page_token: String::new(),
        })
    };
    assert_eq!(
        fake.asked(),
        [
            filter(&[PayoutState::InDoubt], false, None),
            filter(&[PayoutState::Accepted], false, Some(3600)),
            filter(&[], true, None),
            filter(&[PayoutState::Sending], false, Some(120)),
        ]
    );
}

#[tokio::test]
async fn reconcile_as_json_and_csv_holds_the_same_findings() {
    let fake = night();
    let report = fake.run(&["reconcile", "--output", "json"]).await.ended(0).json();
    let sections = report["sections"].as_array().expect("sections");
    let names: Vec<_> = sections.iter().map(|section| &section["name"]).collect();
    assert_eq!(names, ["in_doubt", "accepted", "attention", "sending"]);
    assert_eq!(sections[0]["totals"]["195@195"], "0.3");
    assert_eq!((&sections[0]["count"], &sections[0]["unsummed"]), (&json!(3), &json!(0)));
    let oldest = &sections[0]["payouts"][0];
    assert_eq!((&oldest["third_party_id"], &oldest["state"]), (&json!("old"), &json!("IN_DOUBT")));
    assert!(oldest["age_seconds"].as_u64().is_some_and(|age| (36_030..36_100).contains(&age)));
    assert!(report["note"].as_str().is_some_and(|note| note.contains("without a ledger row")));

    let ran = fake.run(&["reconcile", "--output", "csv"]).await.ended(0);
    let (rows, head) = (ran.csv(), ["section", "age_seconds", "next_step", "pid"]);
    assert_eq!(rows[0][..4], head);
    let sections: Vec<_> = rows[1..].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(sections, ["in_doubt", "in_doubt", "in_doubt", "accepted", "attention"]);
    assert!(ran.err().contains("in_doubt: 3 payouts: 0.3 195@195"), "{}", ran.err());
    assert!(ran.err().contains("without a ledger row"), "{}", ran.err());
}

#[tokio::test]
async fn findings_fail_only_where_that_was_asked_for() {
    night().run(&["reconcile", "--fail-on-findings"]).await.ended(1);
    Fake::of(vec![]).run(&["reconcile", "--fail-on-findings"]).await.ended(0);
}

// === docs/operations.md ===

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every source file below `folder`, without its tests.
fn sources(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{folder}/{}", entry.file_name().to_str().expect("UTF-8"));
        if entry.path().is_dir() {
            found.extend(sources(&name));
        } else if name.ends_with(".rs") {
            found.push(file(&name).split("#[cfg(test)]").next().unwrap_or_default().to_owned());
        }
    }
    found
}

/// What stands before the parenthesis that closes the one before `text`.
fn arguments(text: &str) -> &str {
    let (mut open, mut quoted) = (1, false);
    let end = text.find(|c| {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => open += 1,
            ')' if !quoted => open -= 1,
            _ => {}
        }
        open == 0
    });
    &text[..end.expect("the call ends")]
}

#[test]
fn every_error_line_of_the_log_and_every_attention_is_explained_for_the_night() {
    let page = file("docs/operations.md");
    let mut lines = 0;
    for source in sources("src") {
        for call in source.split("tracing::error!(").skip(1) {
            let message = arguments(call).rsplit('"').nth(1).expect("a message");
            assert!(page.contains(&format!("`{message}`")), "{message:?} is not explained");
            lines += 1;
        }
    }
    assert!(lines > 5, "the sources hold {lines} error lines: are they read right?");

    let proto = file("proto/payout/v1/payout.proto");
    let (_, attentions) = proto.split_once("never hides the state: ").expect("the list");
    let (attentions, _) = attentions.split_once(". New ones").expect("its end");
    let upper = |word: &&str| word.len() > 2 && !word.contains("//");
    for attention in attentions.split_whitespace().filter(upper) {
        assert!(page.contains(&format!("### {attention}\n")), "{attention} is not explained");
    }
}
