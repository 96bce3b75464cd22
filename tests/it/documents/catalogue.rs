//! What is made from the code and checked in: the tables of docs/outcomes.md, and docs/errors.json.

use std::collections::{BTreeMap, BTreeSet};
use std::env::var_os;
use std::fs::write;

use payoutd::cregis::reply::{BLAMED, Meaning, blamed_field, meaning};
use payoutd::grpc::reason::Reason;
use payoutd::grpc::status::DOMAIN;
use payoutd::metrics::label::Label;
use serde_json::json;

use super::{file, literals, path, upper};

/// Holds a checked-in file to what the code makes of it, or with `BLESS=1` makes it that.
fn held(name: &str, made: &str) {
    if var_os("BLESS").is_some_and(|bless| bless == "1") {
        write(path(name), made).expect(name);
    }
    let how = "BLESS=1 cargo test --locked --test it documents::";
    assert!(file(name) == made, "{name} is not what the code says; this makes it so:\n  {how}");
}

/// The text with what stands between a section's two comments replaced.
fn filled(text: &str, section: &str, with: &str) -> String {
    let (before, rest) = text.split_once(&format!("<!-- {section}: ")).expect("an opening comment");
    let (made_by, rest) = rest.split_once(" -->\n").expect("the comment's end");
    let (_, after) = rest.split_once(&format!("<!-- /{section} -->\n")).expect("a closing comment");
    format!("{before}<!-- {section}: {made_by} -->\n{with}<!-- /{section} -->\n{after}")
}

fn errors() -> String {
    let head = "| situation | code | reason | `retry` | what you do |\n|---|---|---|---|---|\n";
    let rows = Reason::ALL.map(|reason| {
        let mut situation = reason.situation().to_owned();
        for (at, (name, what)) in reason.metadata().iter().enumerate() {
            situation += if at == 0 { "; metadata " } else { ", " };
            situation += &format!("`{name}`: {what}");
        }
        let mut code = reason.code().text().to_owned();
        if reason.code_without_field() != reason.code() {
            let other = reason.code_without_field().text();
            code += &format!(", or {other} where no field is to blame");
        }
        let (word, retry, advice) = (reason.as_str(), reason.retry().as_str(), reason.advice());
        format!("| {situation} | {code} | `{word}` | `{retry}` | {advice} |\n")
    });
    head.to_owned() + &rows.concat()
}

fn blamed() -> String {
    let quoted = |codes: &[&str]| {
        let quoted: Vec<_> = codes.iter().map(|code| format!("`{code}`")).collect();
        quoted.join(" ")
    };
    let mut table = "| Cregis's code | field |\n|---|---|\n".to_owned();
    for (field, codes) in BLAMED {
        table += &format!("| {} | `{field}` |\n", quoted(codes));
    }
    assert_eq!((meaning("A0000"), blamed_field("A0000")), (Meaning::Parameter, None));
    table += "| `A` and four digits | none, still INVALID_ARGUMENT |\n";
    let codes = (0..10_000).map(|number| format!("E{number:04}"));
    let blameless: Vec<_> = codes
        .filter(|code| meaning(code) == Meaning::RefusesPayout && blamed_field(code).is_none())
        .collect();
    let blameless: Vec<_> = blameless.iter().map(String::as_str).collect();
    table + &format!("| {} | none: FAILED_PRECONDITION |\n", quoted(&blameless))
}

#[test]
fn the_tables_of_outcomes_are_what_the_code_says() {
    let outcomes = filled(&file("docs/outcomes.md"), "errors", &errors());
    held("docs/outcomes.md", &filled(&outcomes, "blamed", &blamed()));
}

/// For programs. `metadata` are there besides `retry`; a RetryInfo comes always or, where `retry_info` is
/// false, never.
#[test]
fn the_error_catalogue_is_what_the_code_says() {
    let errors = Reason::ALL.map(|reason| {
        let codes = BTreeSet::from([reason.code().text(), reason.code_without_field().text()]);
        json!({
            "reason": reason.as_str(),
            "codes": codes,
            "retry": reason.retry().as_str(),
            "retry_info": reason.wait().is_some(),
            "metadata": BTreeMap::from_iter(reason.metadata().iter().copied()),
            "situation": reason.situation(),
            "advice": reason.advice(),
        })
    });
    let catalogue = json!({ "domain": DOMAIN, "errors": errors });
    let text = serde_json::to_string_pretty(&catalogue).expect("JSON");
    held("docs/errors.json", &format!("{text}\n"));
}

#[test]
fn the_table_of_retries_has_a_row_for_every_reason_and_code() {
    let retries = file("docs/retries.md");
    for reason in Reason::ALL {
        let (word, retry) = (reason.as_str(), reason.retry().as_str());
        for code in [reason.code(), reason.code_without_field()].map(Label::text) {
            let cell = |row: &&str, at, text: &str| {
                row.split(" | ").nth(at).is_some_and(|cell| cell.contains(text))
            };
            let says = |row: &&str| {
                cell(row, 0, code)
                    && cell(row, 1, &format!("`{word}`"))
                    && cell(row, 2, &format!("`{retry}`"))
            };
            assert_eq!(retries.lines().filter(says).count(), 1, "{code} {word} {retry}");
        }
    }
}

/// `Reason::ALL` is all, and no word of it stands a second time where statuses are made.
#[test]
fn every_reason_is_in_the_catalogue_and_nowhere_else() {
    let all: BTreeSet<_> = Reason::ALL.map(|reason| reason.as_str().to_owned()).into();
    assert_eq!(all.len(), Reason::ALL.len());
    assert_eq!(literals("src/grpc/reason.rs", upper), all);
    assert_eq!(literals("src/grpc/status.rs", upper), BTreeSet::new());
}
