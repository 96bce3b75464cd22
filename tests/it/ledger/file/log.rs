//! SQLite's log after a commit that failed: emptied before anything is written behind it.

use std::path::Path;

use crate::support::{Binary, Shell, Upstream, ledger, order, within};

/// Has a commit of the service fail: another process writes for longer than the service waits.
async fn fail(binary: &Binary, file: &Path) {
    let shell = Shell::file(file);
    shell.execute("BEGIN IMMEDIATE");
    within(binary.client().await.create_payout(order("failed"))).await.expect_err("no ledger");
    shell.execute("ROLLBACK");
}

async fn until_said(binary: &Binary, words: &str) {
    within(async {
        while !std::fs::read_to_string(&binary.log).expect("a log").contains(words) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_emptied_before_the_ledger_is_written_again() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let binary = Binary::start(upstream.address, &folder).await;
    for id in ["a", "b", "c", "d", "e"] {
        within(binary.client().await.create_payout(order(id))).await.expect("OK");
    }
    let file = ledger(&folder);
    let log = file.with_extension("db-wal");
    let size = || std::fs::metadata(&log).expect("a log").len();
    let before = size();
    fail(&binary, &file).await;
    until_said(&binary, "ledger can be written again").await;
    assert!(size() < before, "{} bytes of {before}", size());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_whose_log_cannot_be_emptied_is_not_written_until_it_can() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let binary = Binary::start(upstream.address, &folder).await;
    within(binary.client().await.create_payout(order("a"))).await.expect("OK");
    let file = ledger(&folder);
    let reader = Shell::file(&file);
    reader.execute("BEGIN");
    assert_eq!(reader.number("SELECT count(*) FROM payout"), 1);
    fail(&binary, &file).await;
    until_said(&binary, "another process is reading from the ledger's log").await;
    within(binary.client().await.create_payout(order("b"))).await.expect_err("no ledger");
    assert_eq!(upstream.book.posts().len(), 1);
    reader.execute("COMMIT");
    until_said(&binary, "ledger can be written again").await;
    within(binary.client().await.create_payout(order("b"))).await.expect("OK");
}
