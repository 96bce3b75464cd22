//! The documents say what the code says: nothing that can be answered or set is missing from them.

mod catalogue;
mod links;

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn file(name: &str) -> String {
    read_to_string(path(name)).expect(name)
}

/// The string literals of a source file before its tests that consist of `fits` characters.
fn literals(path: &str, fits: impl Fn(char) -> bool) -> BTreeSet<String> {
    let source = file(path);
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let quoted = code.split('"').skip(1).step_by(2);
    quoted.filter(|text| text.len() > 4 && text.chars().all(&fits)).map(str::to_owned).collect()
}

fn upper(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
}

#[test]
fn every_state_reason_code_and_refusal_is_in_the_table_of_outcomes() {
    let outcomes = file("docs/outcomes.md");
    let sources = [
        "src/attention.rs",
        "src/state.rs",
        "src/outcome.rs",
        "src/policy.rs",
        "src/grpc/reason.rs",
        "src/cregis/reply.rs",
    ];
    let mut words: BTreeSet<String> =
        sources.iter().flat_map(|source| literals(source, upper)).collect();
    words.remove("00000");
    assert!(words.len() > 50, "the sources hold {} words: are they read right?", words.len());
    let missing: Vec<_> =
        words.iter().filter(|word| !outcomes.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "docs/outcomes.md does not explain {missing:?}");
}

#[test]
fn every_reason_of_ours_why_a_payout_stands_where_it_does_is_in_the_proto() {
    let proto = file("proto/payout/v1/payout.proto");
    let reasons = literals("src/outcome.rs", upper);
    assert!(reasons.contains("SEND_EXPIRED"), "is the source read right? {reasons:?}");
    let missing: Vec<_> = reasons.iter().filter(|reason| !proto.contains(*reason)).collect();
    assert!(missing.is_empty(), "the proto does not name {missing:?}");
}

#[test]
fn every_reason_and_refusal_is_in_the_published_proto() {
    let proto = file("proto/payout/v1/payout.proto");
    let words = literals("src/grpc/reason.rs", upper);
    assert!(words.len() > 15, "the source holds {} words: is it read right?", words.len());
    let missing: Vec<_> = words.iter().filter(|word| !proto.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "the proto's comments do not name {missing:?}");
}

#[test]
fn every_setting_is_in_the_table_of_settings() {
    let settings = file("docs/settings.md");
    for (path, section, least) in [
        ("src/config.rs", "", 6),
        ("src/config/grpc.rs", "grpc.", 9),
        ("src/config/tls.rs", "grpc.tls.", 3),
        ("src/config/ledger.rs", "ledger.", 5),
        ("src/config/project.rs", "project.", 6),
        ("src/config/caller.rs", "caller.", 6),
        ("src/config/limit.rs", "caller.limit.", 3),
        ("src/config/telemetry.rs", "telemetry.", 2),
    ] {
        let source = file(path);
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let mut found = 0;
        let calls = ["get(\"", "require(\"", "optional(\"", "secret(\"", "optional_secret(\""];
        for call in calls.map(|call| format!("section.{call}")) {
            for rest in code.split(&call).skip(1) {
                let name = rest.split('"').next().expect("a name");
                let place = format!("{section}{name}` |");
                assert!(settings.contains(&place), "docs/settings.md lacks {place}");
                found += 1;
            }
        }
        assert!(found >= least, "{path} is not read right");
    }
}

/// CI runs what the README tells people to run.
#[test]
fn ci_runs_the_commands_of_the_readme() {
    let (readme, ci) = (file("README.md"), file(".ci/run"));
    for command in ["cargo test --locked", "cargo run --release -- dev"] {
        assert!(readme.lines().any(|line| line == command), "the README lacks {command}");
        assert!(ci.contains(command), ".ci/run lacks {command}");
    }
}
