//! Which file the ledger is, which process has it, and whether it still lies at its path.
//!
//! A file has one inode and may have many names, so the inode is locked and compared, and never a name. The
//! lock is flock(2), which does not meet the byte-range locks of fcntl(2) that SQLite takes. But a process that
//! closes any descriptor of a file loses all its byte-range locks on that file: the descriptor of a [`Lock`] is
//! opened before every connection to the file and closed after the last one.

use std::fs::{
    File, Metadata, OpenOptions, TryLockError, canonicalize, metadata, symlink_metadata,
};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::causes::chain;
use crate::ledger::OpenError;

/// Keeps every other process away from a ledger's file for as long as it lives.
#[derive(Debug)]
pub(in crate::ledger) struct Lock {
    given: PathBuf,
    path: PathBuf,
    file: File,
    /// The lock of builds that know no other one, which may run while this one is installed.
    _beside: File,
}

impl Lock {
    /// Locks the ledger's file at `path`, by whatever name other processes may reach it; makes it where there is
    /// none, readable by its owner only.
    ///
    /// # Errors
    /// Where another process has it, or it has names under which its log would not be found.
    pub(in crate::ledger) fn claim(path: &Path) -> Result<Self, OpenError> {
        let given = path.to_owned();
        // The name that the settings give: an older build with the same settings locks the same one.
        let beside_it = || try_lock(private(&beside(path, ".lock"), true)?);
        let (file, known) = match private(path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Its file was taken away under a process that runs: no new one is put in its place.
                let lock = beside_it().map_err(OpenError::Io)?.ok_or(OpenError::Replaced)?;
                (private(path, true), Some(lock))
            }
            found => (found, None),
        };
        let file = file.map_err(OpenError::Io)?;
        // SQLite follows links, so its log lies beside the file that they lead to.
        let path = canonicalize(path).map_err(OpenError::Io)?;
        let found = file.metadata().map_err(OpenError::Io)?;
        if found.nlink() > 1 {
            return Err(OpenError::Linked(found.nlink()));
        }
        if is_mount_point(&path) {
            return Err(OpenError::Mounted);
        }
        let file = try_lock(file).map_err(OpenError::Io)?.ok_or(OpenError::Locked)?;
        let beside = match known {
            Some(lock) => lock,
            None => beside_it().map_err(OpenError::Io)?.ok_or(OpenError::Replaced)?,
        };
        lies_at(&path, Inode::of(&found))?;
        Ok(Self { given, path, file, _beside: beside })
    }

    /// Where the file lies, without links in it.
    pub(in crate::ledger) fn path(&self) -> &Path {
        &self.path
    }
}

/// The files of a ledger that is open: the database, its log and the log's index. SQLite makes the latter two
/// with the first connection, and removes them with the last.
#[derive(Debug)]
pub(in crate::ledger) struct Files {
    /// As the settings name the database: a folder in it may be a link.
    given: PathBuf,
    parts: [(PathBuf, Inode); 3],
    /// When the database had been written to when last looked at, and its size.
    written: Option<(SystemTime, u64)>,
    rewritten: bool,
    /// Whether all of them were at their paths when last looked at.
    in_place: Arc<AtomicBool>,
    /// Whether the database had another name when last looked at.
    linked: bool,
}

impl Files {
    /// Those of the ledger that `lock` keeps and a connection has open.
    ///
    /// # Errors
    /// Where one of them was taken away or replaced meanwhile.
    pub(in crate::ledger) fn of(lock: &Lock) -> Result<Self, OpenError> {
        let database = lock.file.metadata().map_err(OpenError::Io)?;
        let part = |suffix| {
            let path = beside(&lock.path, suffix);
            let found = symlink_metadata(&path).map_err(OpenError::Io)?;
            Ok::<_, OpenError>((path, Inode::of(&found)))
        };
        let parts = [(lock.path.clone(), Inode::of(&database)), part("-wal")?, part("-shm")?];
        let in_place = Arc::new(AtomicBool::new(true));
        let (given, linked) = (lock.given.clone(), false);
        let files = Self { given, parts, written: None, rewritten: true, in_place, linked };
        files.find()?;
        Ok(files)
    }

    /// Where the database lies.
    pub(in crate::ledger) fn path(&self) -> &Path {
        &self.parts[0].0
    }

    /// Whether all of them were at their paths when last looked at, as it changes.
    pub(in crate::ledger) fn in_place(&self) -> &Arc<AtomicBool> {
        &self.in_place
    }

    /// Looks whether all of them are at their paths, and says so in the log where that has changed.
    pub(in crate::ledger) fn look(&mut self) -> bool {
        let found = self.find();
        let in_place = found.is_ok();
        let changed = self.in_place.swap(in_place, Ordering::AcqRel) != in_place;
        match found {
            Ok(database) => {
                let written = database.modified().ok().map(|time| (time, database.len()));
                self.rewritten |= written != self.written;
                self.written = written;
                let linked = database.nlink() > 1;
                if linked && !self.linked {
                    let links = database.nlink();
                    tracing::error!(links, "ledger file has another hard link: remove it");
                }
                self.linked = linked;
                if changed {
                    tracing::warn!("ledger files are back at their paths");
                }
            }
            Err(error) if changed => {
                let error = chain(&error);
                tracing::error!(error, "ledger files moved: nothing is written or read");
            }
            Err(_) => {}
        }
        in_place
    }

    /// Whether the database had been written to when last looked at, since this was last asked: by a checkpoint, or
    /// by somebody else.
    pub(in crate::ledger) fn rewritten(&mut self) -> bool {
        std::mem::take(&mut self.rewritten)
    }

    /// The database, where all of them are at their paths.
    fn find(&self) -> Result<Metadata, OpenError> {
        let [(database, inode), others @ ..] = &self.parts;
        let moved = |cause| OpenError::Moved { path: self.given.clone(), cause };
        let named = metadata(&self.given).map_err(|error| moved(Some(error)))?;
        if Inode::of(&named) != *inode {
            return Err(moved(None));
        }
        let found = lies_at(database, *inode)?;
        for (path, inode) in others {
            lies_at(path, *inode)?;
        }
        Ok(found)
    }
}

/// Tells a file from every other one on this machine, as long as it is open somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), number: file.ino() }
    }
}

/// The file beside the ledger at `path` whose name ends in `suffix`.
pub(in crate::ledger) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The file at `path`, where it is the one with `inode`. A link to it is another file: SQLite would look for
/// the log elsewhere.
fn lies_at(path: &Path, inode: Inode) -> Result<Metadata, OpenError> {
    let moved = |cause| OpenError::Moved { path: path.to_owned(), cause };
    let found = symlink_metadata(path).map_err(|error| moved(Some(error)))?;
    if Inode::of(&found) == inode { Ok(found) } else { Err(moved(None)) }
}

/// Opens the file at `path` for writing. SQLite gives the log and its index the mode of the database.
fn private(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().write(true).create(create).truncate(false).mode(0o600).open(path)
}

/// The file, locked; None where another process has locked it.
fn try_lock(file: File) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the file alone is mounted at `path`, as `docker run -v FILE:FILE` does. Kernels before 5.8 do not
/// tell.
#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    found.is_ok_and(|found| {
        found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
            && found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}

#[cfg(not(target_os = "linux"))]
fn is_mount_point(_path: &Path) -> bool {
    false
}
