//! One ledger file, one process, by whatever name it is reached.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use payoutd::sandbox::{API_KEY, PID};
use tempfile::TempDir;

use crate::support::{Binary, Upstream, ledger, order, payoutd, within};

const REFUSED: &str = "another process has this ledger open";

/// What `payoutd COMMAND` over the ledger at `path`, as seen from `folder`, says, and its exit code.
async fn run(
    command: &[&str],
    upstream: &Upstream,
    folder: &TempDir,
    path: &Path,
) -> (i32, String) {
    let mut process = payoutd();
    process.args(command).current_dir(folder.path()).envs([
        ("PAYOUTD_GRPC__LISTEN", "127.0.0.1:0".to_owned()),
        ("PAYOUTD_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("PAYOUTD_CALLBACK__LISTEN", "127.0.0.1:0".to_owned()),
        ("PAYOUTD_LEDGER__URL", format!("sqlite:{}", path.display())),
        ("PAYOUTD_PROJECT__PID", PID.to_string()),
        ("PAYOUTD_PROJECT__BASE_URL", format!("http://{}", upstream.address)),
        ("PAYOUTD_PROJECT__API_KEY", API_KEY.to_owned()),
    ]);
    let output = within(process.output()).await.expect("ran");
    let words = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a code"), String::from_utf8(words).expect("text"))
}

async fn refused(upstream: &Upstream, folder: &TempDir, path: &Path, why: &str) {
    for command in [&["serve"][..], &["ledger", "migrate"]] {
        let (code, words) = run(command, upstream, folder, path).await;
        assert_eq!(code, 1, "{command:?} {path:?}: {words}");
        assert!(words.contains(why), "{command:?} {path:?}: {words}");
    }
}

async fn start() -> (Upstream, TempDir, Binary) {
    let (upstream, folder) = (Upstream::start().await, TempDir::new().expect("a folder"));
    let binary = Binary::start(upstream.address, &folder).await;
    (upstream, folder, binary)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_by_any_path() {
    let (upstream, folder, _first) = start().await;
    let (file, below) = (ledger(&folder), folder.path().join("below"));
    fs::create_dir(&below).expect("made");
    symlink(&file, folder.path().join("link.db")).expect("a link");
    symlink(folder.path().join("link.db"), below.join("link of a link.db")).expect("a link");
    symlink(folder.path(), below.join("folder")).expect("a link");
    let paths = [
        "payoutd.db",
        "./payoutd.db",
        "below/../payoutd.db",
        "below//folder/payoutd.db",
        "below/folder/below/link of a link.db",
        "link.db",
    ];
    for path in paths {
        refused(&upstream, &folder, Path::new(path), REFUSED).await;
        let (_, words) = run(&["check"], &upstream, &folder, Path::new(path)).await;
        assert!(words.contains("in use by a running payoutd"), "{path}: {words}");
    }
    // Whoever removes a lock file, or puts another in its place, ends no lock.
    let lock = folder.path().join("payoutd.db.lock");
    fs::remove_file(&lock).expect("removed");
    refused(&upstream, &folder, &file, REFUSED).await;
    fs::write(&lock, "").expect("written");
    refused(&upstream, &folder, &file, REFUSED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_opened_by_a_link_has_its_witness_beside_the_file() {
    let (upstream, folder) = (Upstream::start().await, TempDir::new().expect("a folder"));
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("made");
    // To a file that is not there yet.
    symlink(data.join("real.db"), ledger(&folder)).expect("a link");
    let binary = Binary::start(upstream.address, &folder).await;
    within(binary.client().await.create_payout(order("a"))).await.expect("OK");
    binary.kill().await;
    let size = |path: &Path| fs::metadata(path).map(|found| found.len()).unwrap_or_default();
    assert!(size(&data.join("real.db.witness")) > 0);
    assert!(!folder.path().join("payoutd.db.witness").exists());
    // So it is the same by the file's own name: an empty file in its place is known for what it is.
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(data.join(format!("real.db{suffix}"))).expect("removed");
    }
    let (code, words) = run(&["check"], &upstream, &folder, &data.join("real.db")).await;
    assert_eq!(code, 1);
    assert!(words.contains("this is not the ledger that its witness knows"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_second_hard_link_is_refused_by_both_names_and_noticed_while_it_serves() {
    let (upstream, folder, binary) = start().await;
    let (file, other) = (ledger(&folder), folder.path().join("other.db"));
    fs::hard_link(&file, &other).expect("a link");
    for path in [&file, &other] {
        refused(&upstream, &folder, path, "the ledger file has 2 hard links").await;
        let (code, words) = run(&["check"], &upstream, &folder, path).await;
        assert_eq!(code, 1);
        assert!(words.contains("FAIL  ledger"), "{words}");
    }
    within(binary.client().await.create_payout(order("a"))).await.expect("it goes on");
    let log = fs::read_to_string(&binary.log).expect("a log");
    let lines = log.lines().filter(|line| line.contains("ledger file has another hard link"));
    assert_eq!(lines.count(), 1, "{log}");
    binary.kill().await;
    for path in [&file, &other] {
        refused(&upstream, &folder, path, "the ledger file has 2 hard links").await;
    }
    fs::remove_file(&other).expect("removed");
    Binary::start(upstream.address, &folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_whose_file_was_replaced_under_a_running_process_is_refused() {
    let (upstream, folder, binary) = start().await;
    within(binary.client().await.create_payout(order("a"))).await.expect("OK");
    let (file, away) = (ledger(&folder), folder.path().join("away.db"));
    fs::rename(&file, &away).expect("moved");
    let why = "has another file open";
    let checked = async || {
        refused(&upstream, &folder, &file, why).await;
        let (code, words) = run(&["check"], &upstream, &folder, &file).await;
        assert_eq!(code, 1, "{words}");
        assert!(words.contains(why), "{words}");
    };
    checked().await;
    assert!(!file.exists(), "none is made in its place");
    rusqlite::Connection::open(&away)
        .and_then(|db| db.execute("VACUUM INTO ?1", [file.to_str()]))
        .expect("a copy");
    checked().await;
    refused(&upstream, &folder, &away, REFUSED).await;
}
