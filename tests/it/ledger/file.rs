//! The embedded ledger's file: locked, private, in WAL mode, versioned.

mod log;
mod moved;
mod names;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use payoutd::ledger::{Ledger, OpenError};
use payoutd::metrics::Metrics;

use crate::support::{Binary, Upstream, Whole, ledger, order, payoutd, within};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_in_wal_mode_and_readable_with_its_companions_by_its_owner_only() {
    let whole = Whole::start().await;
    whole.create(order("a")).await.expect("OK");
    for suffix in ["", "-wal", "-shm", ".lock", ".witness"] {
        let path = format!("{}{suffix}", whole.service.config.ledger.name());
        let mode = std::fs::metadata(&path).expect(suffix).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix}");
    }
    let journal = whole.shell().rows("PRAGMA journal_mode");
    assert_eq!(journal, [[Some("wal".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_refuses_and_says_why() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Binary::start(upstream.address, &folder).await;
    let mut second = payoutd();
    second.arg("serve").envs([
        ("PAYOUTD_GRPC__LISTEN", "127.0.0.1:0"),
        ("PAYOUTD_ADMIN__LISTEN", "127.0.0.1:0"),
        ("PAYOUTD_CALLBACK__LISTEN", "127.0.0.1:0"),
        ("PAYOUTD_LEDGER__URL", &format!("sqlite:{}", ledger(&folder).display())),
        ("PAYOUTD_PROJECT__PID", "1"),
        ("PAYOUTD_PROJECT__BASE_URL", "http://127.0.0.1:9"),
        ("PAYOUTD_PROJECT__API_KEY", "k"),
    ]);
    let second = within(second.output()).await.expect("ran");
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("another process has this ledger open"), "{words}");
}

fn refusal(path: &Path) -> OpenError {
    Ledger::open(path, &Metrics::new([])).expect_err("must not open")
}

#[tokio::test]
async fn a_newer_or_a_foreign_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let newer = folder.path().join("newer.db");
    drop(Ledger::open(&newer, &Metrics::new([])).expect("new"));
    let db = rusqlite::Connection::open(&newer).expect("opened");
    db.pragma_update(None, "user_version", 99).expect("written");
    drop(db);
    let before = std::fs::read(&newer).expect("read");
    assert!(matches!(refusal(&newer), OpenError::Newer { found: 99, known: 5 }));
    assert_eq!(std::fs::read(&newer).expect("read"), before, "a byte was changed");

    let foreign = folder.path().join("foreign.db");
    let db = rusqlite::Connection::open(&foreign).expect("opened");
    db.execute_batch("CREATE TABLE other (x)").expect("written");
    drop(db);
    assert!(matches!(refusal(&foreign), OpenError::Foreign));
    std::fs::write(folder.path().join("text.db"), "not a database, but long enough".repeat(100))
        .expect("written");
    assert!(matches!(refusal(&folder.path().join("text.db")), OpenError::Sqlite(_)));
    assert!(matches!(refusal(&folder.path().join("no/such/folder.db")), OpenError::Io(_)));
}
