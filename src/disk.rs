//! The low-water mark of the ledger's disk: below it, no new payouts are taken.
//!
//! What is recorded must be settled, and a settlement needs room, too. So the room that is left is
//! kept for that, and those who want something new come back later.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::causes::chain;
use crate::config;

/// The file systems of statfs(2) that do not outlive a machine or a container.
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const OVERLAYFS: u64 = 0x794c_7630;

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What is to be said of the file system under the ledger, where that would be lost with the machine or the container.
pub fn warning(settings: &config::Ledger) -> Option<&'static str> {
    let ledger = settings.path()?;
    let folder = ledger.parent().filter(|folder| !folder.as_os_str().is_empty());
    let found = rustix::fs::statfs(folder.unwrap_or(Path::new("."))).ok()?;
    // Its type differs by platform.
    match u64::try_from(found.f_type).ok()? & 0xffff_ffff {
        TMPFS | RAMFS => Some(
            "the ledger lies in memory (tmpfs): it is gone with the machine, and payoutd would pay its ids again. Put \
             ledger.url on a disk",
        ),
        OVERLAYFS => Some(
            "the ledger lies in the container's own layer: it is gone with the container, and payoutd would pay its ids \
             again. Mount a volume for the folder of ledger.url",
        ),
        _ => None,
    }
}

/// The file system that holds the ledger.
#[derive(Debug)]
pub struct Disk {
    /// None: it is somebody else's.
    ledger: Option<PathBuf>,
    min_free: u64,
    low: watch::Sender<bool>,
}

impl Disk {
    /// The disk of the ledger that the settings name.
    pub fn of(settings: &config::Ledger) -> Self {
        match settings {
            config::Ledger::Embedded { path, min_free, .. } => Self::new(path, *min_free),
            config::Ledger::Shared(_) => {
                Self { ledger: None, min_free: 0, low: watch::Sender::new(false) }
            }
        }
    }

    /// The disk of the file `ledger`, looked at once. Blocks. It is low with less than `min_free`
    /// bytes; never with 0.
    pub fn new(ledger: &Path, min_free: u64) -> Self {
        let low = watch::Sender::new(false);
        let disk = Self { ledger: Some(ledger.to_owned()), min_free, low };
        if min_free > 0 {
            disk.note(free(ledger));
        }
        disk
    }

    /// Whether there is too little room for new payouts.
    pub fn is_low(&self) -> bool {
        *self.low.borrow()
    }

    /// Bytes that are free, where that can be told.
    pub fn free(&self) -> Option<u64> {
        self.ledger.as_deref().and_then(|ledger| free(ledger).ok())
    }

    /// Looks at the disk for as long as it is polled.
    pub async fn watch(&self) {
        let Some(ledger) = self.ledger.as_ref() else { return };
        let mut was_closed = None;
        loop {
            sleep(LOOK_EVERY).await;
            let ledger = ledger.clone();
            // A network's file system can take its time.
            let looked = spawn_blocking(move || (free(&ledger), closed(&ledger))).await;
            let (found, closed) =
                looked.unwrap_or_else(|error| (Err(io::Error::other(error)), None));
            if self.min_free > 0 {
                self.note(found);
            }
            if was_closed != closed {
                note_closed(closed.as_deref());
                was_closed = closed;
            }
        }
    }

    /// Takes note of how much is free, and says so where that changes anything.
    fn note(&self, found: io::Result<u64>) {
        // What cannot be seen is not relied upon.
        let low = found.as_ref().map_or(true, |free| *free < self.min_free);
        if !self.low.send_if_modified(|now| std::mem::replace(now, low) != low) {
            return;
        }
        let min_free = self.min_free;
        match found {
            Ok(free) if low => {
                tracing::error!(free, min_free, "disk low: no new payouts are taken");
            }
            Ok(free) => {
                tracing::warn!(free, min_free, "disk has room: new payouts are taken again")
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "disk cannot be looked at: no new payouts are taken");
            }
        }
    }
}

/// What the ledger needs at its next start, or for its log, and we may not write: its folder, or `file` itself. The files
/// that are open may be writable all the same.
fn closed(file: &Path) -> Option<PathBuf> {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    let both = [folder.unwrap_or(Path::new(".")), file];
    let closed = both.into_iter().find(|path| {
        let found = access(*path, Access::WRITE_OK);
        // What is gone is noticed by others.
        matches!(found, Err(Errno::ACCESS | Errno::ROFS | Errno::PERM))
    });
    closed.map(Path::to_owned)
}

/// Says that `closed` has become read-only; or, with None, that nothing is so any more.
fn note_closed(closed: Option<&Path>) {
    match closed {
        Some(path) => {
            let path = path.display();
            tracing::warn!(%path, "ledger is read-only: the next start will be refused");
        }
        None => tracing::info!("ledger is read-only no more"),
    }
}

/// Bytes that are free for us where `file` is.
fn free(file: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(file)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_low_below_the_mark_and_when_it_cannot_be_seen_and_recovers_with_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(folder.path(), 100);
        assert!(!disk.is_low(), "a test has more room than that");
        let blind = || Err(io::Error::other("no"));
        for (found, low) in [(Ok(99), true), (Ok(100), false), (blind(), true), (Ok(101), false)] {
            disk.note(found);
            assert_eq!(disk.is_low(), low);
        }
        assert!(Disk::new(folder.path(), u64::MAX).is_low());
        assert!(Disk::new(Path::new("/no/such/file"), 1).is_low());
        assert!(!Disk::new(Path::new("/no/such/file"), 0).is_low(), "0 looks at nothing");
    }
}
