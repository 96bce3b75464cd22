//! Files of the ledger that are removed, moved or replaced under the service.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use payoutd::pb::{self, PayoutState};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{
    Binary, Service, Shell, Upstream, Whole, config, get, ledger, order, reason, within,
};

/// What somebody does to the ledger's files.
#[derive(Clone, Copy, Debug)]
enum Way {
    Removed,
    AllRemoved,
    Renamed,
    ReplacedByACopy,
    ReplacedByALink,
    FolderRenamed,
    LogRemoved,
    IndexRemoved,
}

const WAYS: [Way; 8] = [
    Way::Removed,
    Way::AllRemoved,
    Way::Renamed,
    Way::ReplacedByACopy,
    Way::ReplacedByALink,
    Way::FolderRenamed,
    Way::LogRemoved,
    Way::IndexRemoved,
];

impl Way {
    fn goes(self, file: &Path) {
        let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", file.display()));
        let away = beside(".away");
        let done = match self {
            Self::Removed => std::fs::remove_file(file),
            Self::AllRemoved => ["", "-wal", "-shm", ".lock", ".witness"]
                .into_iter()
                .try_for_each(|suffix| std::fs::remove_file(beside(suffix))),
            Self::Renamed => std::fs::rename(file, away),
            Self::ReplacedByACopy => {
                Shell::file(file).execute(&format!("VACUUM INTO '{}'", away.display()));
                std::fs::rename(away, file)
            }
            Self::ReplacedByALink => {
                std::fs::rename(file, &away).and_then(|()| std::os::unix::fs::symlink(&away, file))
            }
            Self::FolderRenamed => {
                let folder = file.parent().expect("a folder");
                std::fs::rename(folder, folder.with_extension("away"))
            }
            Self::LogRemoved => std::fs::remove_file(beside("-wal")),
            Self::IndexRemoved => std::fs::remove_file(beside("-shm")),
        };
        done.expect("done");
    }
}

/// A service over a file in a folder of its own, whatever engine the other tests have.
async fn whole() -> (Whole, PathBuf) {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("data");
    std::fs::create_dir(&inner).expect("made");
    let file = inner.join("payoutd.db");
    let service = Service::start(config(upstream.address, file.clone())).await;
    let client = service.client().await;
    (Whole { upstream, service, client, folder }, file)
}

fn unavailable(status: &Status) {
    let expected = (Code::Unavailable, "LEDGER_UNAVAILABLE".to_owned(), "same_id".to_owned());
    assert_eq!(reason(status), expected);
}

fn channel(whole: &Whole) -> Channel {
    let address = format!("http://{}", whole.service.addresses.grpc);
    Endpoint::from_shared(address).expect("an address").connect_lazy()
}

async fn serving(channel: &Channel) -> bool {
    let mut client = HealthClient::new(channel.clone());
    within(client.check(HealthCheckRequest::default())).await.expect("OK").into_inner().status == 1
}

async fn until_serving(channel: &Channel, expected: bool) {
    within(async {
        while serving(channel).await != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Creates `id` again and again until it is taken.
async fn until_created(whole: &Whole, id: &str) -> pb::Payout {
    within(async {
        loop {
            match whole.create(order(id)).await {
                Ok(payout) => return payout,
                Err(status) => unavailable(&status),
            }
        }
    })
    .await
}

fn posts(upstream: &Upstream, id: &str) -> usize {
    upstream.book.posts().iter().filter(|post| post.third_party_id.as_deref() == Some(id)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_or_sent_after_a_file_is_gone() {
    for way in WAYS {
        let (whole, file) = whole().await;
        whole.create(order("before")).await.expect("OK");
        way.goes(&file);
        let status = whole.create(order("after")).await.err().unwrap_or_else(|| panic!("{way:?}"));
        unavailable(&status);
        until_serving(&channel(&whole), false).await;
        unavailable(&whole.create(order("another")).await.expect_err("no ledger"));
        // Nor is anything read from what is not there after a restart.
        unavailable(&whole.get("before").await.expect_err("no ledger"));
        let list = pb::ListPayoutsRequest::default();
        unavailable(&within(whole.client.clone().list_payouts(list)).await.expect_err("no ledger"));
        assert_eq!(whole.upstream.book.posts().len(), 1, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_not_serving_within_3_s_although_nothing_is_written() {
    for way in WAYS {
        let (whole, file) = whole().await;
        let channel = channel(&whole);
        until_serving(&channel, true).await;
        way.goes(&file);
        let begun = Instant::now();
        until_serving(&channel, false).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{way:?}");
        let ready = format!("http://{}/readyz", whole.service.addresses.admin);
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let ready = within(client.get(ready).send()).await.expect("answered");
        assert_eq!(ready.status(), 503, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_at_the_path_is_never_opened_and_the_same_one_serves_again() {
    let (whole, file) = whole().await;
    let (away, copy) = (file.with_extension("away"), file.with_extension("copy"));
    whole.create(order("before")).await.expect("OK");
    Shell::file(&file).execute(&format!("VACUUM INTO '{}'", copy.display()));
    std::fs::rename(&file, &away).expect("moved");
    unavailable(&whole.create(order("during")).await.expect_err("no ledger"));
    std::fs::rename(&copy, &file).expect("another one");
    let bytes = std::fs::read(&file).expect("read");
    unavailable(&whole.create(order("during")).await.expect_err("another ledger"));
    unavailable(&whole.get("before").await.expect_err("another ledger"));
    assert_eq!(std::fs::read(&file).expect("read"), bytes, "not touched");

    std::fs::rename(&away, &file).expect("back");
    until_serving(&channel(&whole), true).await;
    // Recorded in the file while it was away, but acknowledged to nobody: it was taken back, and is sent now.
    let during = until_created(&whole, "during").await;
    assert_eq!(whole.get("during").await.expect("known"), during);
    assert_eq!(whole.get("before").await.expect("known").state(), PayoutState::Accepted);
    assert_eq!((posts(&whole.upstream, "before"), posts(&whole.upstream, "during")), (1, 1));
    let whole = whole.restart().await;
    assert_eq!(whole.get("during").await.expect("known"), during);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cregis_answers_while_the_file_is_away_is_recorded_when_it_is_back() {
    let (whole, file) = whole().await;
    let away = file.with_extension("away");
    whole.upstream.fault(r#"{"delay_answer": "500ms"}"#);
    let mut request = tonic::Request::new(order("a"));
    request.set_timeout(Duration::from_secs(2));
    let mut client = whole.client.clone();
    let mut call = JoinSet::new();
    call.spawn(async move { client.create_payout(request).await });
    within(async {
        while posts(&whole.upstream, "a") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    std::fs::rename(&file, &away).expect("moved");
    let told = within(call.join_next()).await.expect("one").expect("no panic");
    let told = told.expect("OK").into_inner();
    let told = told.payout.expect("a payout");
    assert_eq!((told.state(), told.reason.as_str()), (PayoutState::InDoubt, "LEDGER_WRITE_FAILED"));
    std::fs::rename(&away, &file).expect("back");
    let settled = within(async {
        loop {
            match whole.get("a").await {
                Ok(payout) if payout.state() == PayoutState::Accepted => return payout,
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert_eq!(settled.cid, whole.upstream.book.orders()[0].cid);
    assert_eq!(posts(&whole.upstream, "a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_brings_a_removed_log_into_the_file() {
    let (whole, file) = whole().await;
    let before = whole.create(order("before")).await.expect("OK");
    Way::LogRemoved.goes(&file);
    until_serving(&channel(&whole), false).await;
    let whole = whole.restart().await;
    assert_eq!(whole.get("before").await.expect("known"), before);
    assert_eq!(whole.create(order("before")).await.expect("known"), before);
    assert_eq!(whole.upstream.book.posts().len(), 1);
}

/// Its witness is made anew, however much was removed.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_ledger_in_the_place_of_a_removed_one_is_refused() {
    let (whole, file) = whole().await;
    whole.create(order("before")).await.expect("OK");
    Way::AllRemoved.goes(&file);
    until_serving(&channel(&whole), false).await;
    let Whole { upstream, service, .. } = whole;
    let config = service.stop().await;
    let error = payoutd::app::App::bind(&config).await.expect_err("refused");
    let words = payoutd::causes::chain(&error);
    assert!(words.contains("this is not the ledger that its witness knows"), "{words}");
    assert_eq!(upstream.book.posts().len(), 1);
}

/// As docs/operations.md tells the operator to do: writing has ended, so a copy is whole.
#[tokio::test(flavor = "multi_thread")]
async fn removed_files_are_saved_from_the_running_process() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let binary = Binary::start(upstream.address, &folder).await;
    within(binary.client().await.create_payout(order("before"))).await.expect("OK");
    let file = ledger(&folder);
    Way::AllRemoved.goes(&file);
    let after = within(binary.client().await.create_payout(order("after"))).await;
    unavailable(&after.expect_err("no ledger"));
    for entry in std::fs::read_dir(binary.proc().join("fd")).expect("descriptors") {
        let entry = entry.expect("a descriptor").path();
        let Ok(target) = std::fs::read_link(&entry) else { continue };
        for suffix in ["", "-wal"] {
            if target.as_os_str() == format!("{}{suffix} (deleted)", file.display()).as_str() {
                let saved = folder.path().join(format!("saved{suffix}"));
                std::fs::copy(&entry, saved).expect("saved");
            }
        }
    }
    binary.kill().await;
    for suffix in ["", "-wal"] {
        let (saved, back) = (format!("saved{suffix}"), format!("payoutd.db{suffix}"));
        let folder = folder.path();
        std::fs::rename(folder.join(saved), folder.join(back)).expect("put back");
    }
    let binary = Binary::start(upstream.address, &folder).await;
    let known = get(&binary.client().await, "before").await.expect("known");
    assert_eq!(known.state(), PayoutState::Accepted);
    assert_eq!(upstream.book.posts().len(), 1);
}

/// Puts the ledger in `from` into the open file `file`, as `.restore` of the sqlite3 shell does.
fn put_back(from: &Path, file: &Path) {
    let from = rusqlite::Connection::open(from).expect("opened");
    let mut into = rusqlite::Connection::open(file).expect("opened");
    let backup = rusqlite::backup::Backup::new(&from, &mut into).expect("begun");
    backup.run_to_completion(1_000, Duration::ZERO, None).expect("done");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_ledger_that_is_put_into_the_open_file_is_neither_written_nor_read() {
    for writes in [true, false] {
        let (whole, file) = whole().await;
        let old = file.with_extension("old");
        Shell::file(&file).execute(&format!("VACUUM INTO '{}'", old.display()));
        let paid = whole.create(order("paid")).await.expect("OK");
        put_back(&old, &file);
        if writes {
            unavailable(&whole.create(order("paid")).await.expect_err("it was paid"));
        }
        let channel = channel(&whole);
        until_serving(&channel, false).await;
        unavailable(&get(&whole.client, "paid").await.expect_err("not to be denied"));
        unavailable(&whole.create(order("paid")).await.expect_err("it was paid"));
        assert_eq!(whole.upstream.book.posts().len(), 1, "{}", paid.cid);
    }
}

/// What `cp` does: the open file keeps its inode, and SQLite the pages that it has read.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_that_is_written_over_the_open_file_is_found_and_refused_from_then_on() {
    for writes in [true, false] {
        let (whole, file) = whole().await;
        let old = file.with_extension("old");
        let whole = whole.restart().await;
        std::fs::copy(&file, &old).expect("copied");
        whole.create(order("paid")).await.expect("OK");
        // The last close brings the log into the file.
        let whole = whole.restart().await;
        whole.create(order("later")).await.expect("OK");
        std::fs::copy(&old, &file).expect("written over");
        if writes {
            unavailable(&whole.create(order("after")).await.expect_err("an older file"));
        }
        until_serving(&channel(&whole), false).await;
        unavailable(&whole.create(order("paid")).await.expect_err("it was paid"));
        unavailable(&get(&whole.client, "paid").await.expect_err("not to be denied"));
        assert_eq!(whole.upstream.book.posts().len(), 2);
        if writes {
            // What was recorded of it is taken back only once the right file is there: a drain waits for that.
            continue;
        }
        let config = whole.service.stop().await;
        let error = payoutd::app::App::bind(&config).await.expect_err("refused");
        let words = payoutd::causes::chain(&error);
        assert!(words.contains("has lost what was acknowledged"), "{words}");
    }
}

/// The path of the settings leads elsewhere then, and so would the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_the_folder_that_is_turned_to_another_one_is_noticed() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("one")).expect("made");
    std::os::unix::fs::symlink(at("one"), at("data")).expect("linked");
    let file = at("data").join("payoutd.db");
    let service = Service::start(config(upstream.address, file.clone())).await;
    let client = service.client().await;
    let whole = Whole { upstream, service, client, folder };
    whole.create(order("before")).await.expect("OK");
    let at = |name: &str| whole.folder.path().join(name);
    std::fs::create_dir(at("two")).expect("made");
    let copy = at("two").join("payoutd.db");
    Shell::file(&file).execute(&format!("VACUUM INTO '{}'", copy.display()));
    std::fs::remove_file(at("data")).expect("removed");
    std::os::unix::fs::symlink(at("two"), at("data")).expect("turned");
    unavailable(&whole.create(order("after")).await.expect_err("another folder"));
    until_serving(&channel(&whole), false).await;
}
