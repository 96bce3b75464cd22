//! An old copy of the ledger, put back: its witness knows better, and nothing is started.

use std::path::Path;

use nix::sys::signal::Signal;
use payoutd::sandbox::{API_KEY, PID};
use tempfile::TempDir;

use crate::support::{Binary, Upstream, get, ledger, order, payoutd, within};

/// What `payoutd COMMAND` says over the ledger in `folder`; it must fail.
async fn refused(command: &str, upstream: &Upstream, folder: &TempDir, witness: &Path) -> String {
    let mut process = payoutd();
    process.arg(command).envs([
        ("PAYOUTD_GRPC__LISTEN", "127.0.0.1:0".to_owned()),
        ("PAYOUTD_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("PAYOUTD_CALLBACK__LISTEN", "127.0.0.1:0".to_owned()),
        ("PAYOUTD_LEDGER__URL", format!("sqlite:{}", ledger(folder).display())),
        ("PAYOUTD_LEDGER__WITNESS", witness.display().to_string()),
        ("PAYOUTD_PROJECT__PID", PID.to_string()),
        ("PAYOUTD_PROJECT__BASE_URL", format!("http://{}", upstream.address)),
        ("PAYOUTD_PROJECT__API_KEY", API_KEY.to_owned()),
    ]);
    let output = within(process.output()).await.expect("ran");
    assert_eq!(output.status.code(), Some(1), "{command}: {output:?}");
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

async fn pay(binary: &Binary, ids: &[&str]) {
    for id in ids {
        let answer = within(binary.client().await.create_payout(order(id))).await.expect("OK");
        assert!(answer.into_inner().cid > 0);
    }
}

/// Puts `copy` where the ledger in `folder` is.
fn restore(copy: &Path, folder: &TempDir) {
    let file = ledger(folder);
    for suffix in ["-wal", "-shm"] {
        let mut name = file.clone().into_os_string();
        name.push(suffix);
        // The last close has taken it away.
        let _ = std::fs::remove_file(name);
    }
    std::fs::copy(copy, &file).expect("restored");
}

fn commits(path: &Path) -> i64 {
    let db = rusqlite::Connection::open(path).expect("opened");
    db.query_row("SELECT commits FROM ledger", [], |row| row.get(0)).expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_before_the_last_payout_is_refused_the_gap_is_named_and_nothing_is_sent() {
    let (upstream, folder) = (Upstream::start().await, TempDir::new().expect("a folder"));
    let (copy, witness) = (folder.path().join("copy"), folder.path().join("payoutd.db.witness"));
    let binary = Binary::start(upstream.address, &folder).await;
    pay(&binary, &["a", "b"]).await;
    let shell = rusqlite::Connection::open(ledger(&folder)).expect("the ledger");
    shell.execute("VACUUM INTO ?1", [copy.to_str()]).expect("a copy");
    drop(shell);
    pay(&binary, &["last"]).await;
    // What it had told is remembered, however it ends.
    binary.kill().await;
    let (had, has) = (commits(&ledger(&folder)), commits(&copy));
    restore(&copy, &folder);

    for command in ["serve", "check"] {
        let words = refused(command, &upstream, &folder, &witness).await;
        assert!(words.contains("the ledger has lost what was acknowledged"), "{words}");
        for number in [had, has] {
            assert!(words.contains(&format!("number {number} of 20")), "{number}: {words}");
        }
    }
    assert_eq!(upstream.book.posts().len(), 3);

    // Whoever removes it says that everything is settled.
    std::fs::remove_file(&witness).expect("removed");
    let binary = Binary::start(upstream.address, &folder).await;
    get(&binary.client().await, "last").await.expect_err("forgotten");
    pay(&binary, &["next"]).await;
    assert!(witness.exists(), "made anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_a_start_is_fine_and_so_is_one_after_a_kill() {
    let (upstream, folder) = (Upstream::start().await, TempDir::new().expect("a folder"));
    for round in 0..5 {
        let mut binary = Binary::start(upstream.address, &folder).await;
        pay(&binary, &[&format!("{round}")]).await;
        if round % 2 == 0 {
            binary.kill().await;
        } else {
            binary.signal(nix::sys::signal::Signal::SIGTERM);
            assert_eq!(binary.code().await, Some(0));
        }
    }
    assert_eq!(upstream.book.posts().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_of_another_ledger_or_of_none_is_refused_and_left_alone() {
    let upstream = Upstream::start().await;
    let (folder, other) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    for (folder, id) in [(&folder, "a"), (&other, "b")] {
        let binary = Binary::start(upstream.address, folder).await;
        pay(&binary, &[id]).await;
        binary.kill().await;
    }
    let witness = other.path().join("payoutd.db.witness");
    let before = std::fs::read(&witness).expect("a witness");
    let words = refused("serve", &upstream, &folder, &witness).await;
    assert!(words.contains("this is not the ledger that its witness knows"), "{words}");
    assert_eq!(std::fs::read(&witness).expect("a witness"), before);

    // As a ledger that is gone: a new one in its place knows nothing.
    std::fs::remove_file(ledger(&other)).expect("removed");
    let words = refused("serve", &upstream, &other, &witness).await;
    assert!(words.contains("this is not the ledger that its witness knows"), "{words}");

    std::fs::write(&witness, "half of it").expect("written");
    let words = refused("serve", &upstream, &folder, &witness).await;
    assert!(words.contains("is not a witness"), "{words}");
    assert_eq!(std::fs::read(&witness).expect("read"), b"half of it");
    assert_eq!(upstream.book.posts().len(), 2);
}

async fn stop(mut binary: Binary) {
    binary.signal(Signal::SIGTERM);
    assert_eq!(binary.code().await, Some(0));
}

/// The log that a kill leaves holds the newest commit, and nothing of what was brought into the file before.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_file_beside_the_log_that_a_kill_has_left_is_refused() {
    let (upstream, folder) = (Upstream::start().await, TempDir::new().expect("a folder"));
    let (copy, witness) = (folder.path().join("copy"), folder.path().join("payoutd.db.witness"));
    let binary = Binary::start(upstream.address, &folder).await;
    pay(&binary, &["a"]).await;
    stop(binary).await;
    std::fs::copy(ledger(&folder), &copy).expect("copied");
    let binary = Binary::start(upstream.address, &folder).await;
    pay(&binary, &["b"]).await;
    stop(binary).await;
    let binary = Binary::start(upstream.address, &folder).await;
    pay(&binary, &["c"]).await;
    binary.kill().await;
    let present = folder.path().join("present");
    std::fs::copy(ledger(&folder), &present).expect("copied");
    std::fs::copy(&copy, ledger(&folder)).expect("put back");
    for command in ["serve", "check", "serve"] {
        let words = refused(command, &upstream, &folder, &witness).await;
        assert!(words.contains("has lost what was acknowledged"), "{words}");
    }
    let known: Vec<_> =
        upstream.book.posts().iter().map(|post| post.third_party_id.clone()).collect();
    assert_eq!(known.len(), 3, "{known:?}");
    // Nothing was brought into the older file: the right one fits the log still.
    std::fs::copy(&present, ledger(&folder)).expect("put back");
    let binary = Binary::start(upstream.address, &folder).await;
    pay(&binary, &["a", "b", "c"]).await;
    assert_eq!(upstream.book.posts().len(), 3);
}
