//! Opening a store's file: folder, lock, database, and what stands against each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::Fault;
use super::lock::{Holder, LockError, LockFile, SharedLock};
use super::tables::FORMAT;

/// Why a store's file can't be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it, or this one, already.
    #[error("the dead letters in {} are held by {}: go through it, end it, or use another file", path.display(), holder(*pid))]
    Held {
        /// The file.
        path: PathBuf,
        /// The holder's process id, if it said so.
        pid: Option<u32>,
        /// The Unix socket at which the holder serves the letters, if it does.
        service: Option<PathBuf>,
    },
    /// Written by a version with another format.
    #[error("{} has format {found}, and this version reads {known}: use the version that wrote it to export its letters", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The format that is known.
        known: String,
    },
    /// A file of something else.
    #[error("{} is not a file of dead letters: name another", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// A folder.
    #[error("{} is a folder: name a file in it", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// A file of dead letters, but its bytes were altered.
    #[error("{} is damaged: {reason}; move it away, and a new one is made", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// The operating system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        error: Arc<io::Error>,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

impl OpenError {
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error: Arc::new(error) }
    }

    pub(super) fn from_fault(path: &Path, fault: Fault) -> Self {
        let path = path.to_owned();
        match fault {
            Fault::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::NotAStore { path },
            Fault::Io(error) => Self::io(&path, error),
            Fault::Damaged(reason) => Self::Damaged { path, reason },
            Fault::Version(found) => Self::Version { path, found: found.to_string(), known: FORMAT.to_string() },
            Fault::Redb(found) => {
                Self::Version { path, found: format!("redb {found}"), known: "that of redb 4".into() }
            }
            Fault::Held => Self::Held { path, pid: None, service: None },
            Fault::Foreign => Self::NotAStore { path },
        }
    }
}

/// The one name of a file that is there: two names of one file would have two locks.
pub(super) fn found(path: &Path) -> Result<PathBuf, OpenError> {
    let found = fs::canonicalize(path).map_err(|error| OpenError::io(path, error))?;
    if found.is_dir() { Err(OpenError::Folder { path: found }) } else { Ok(found) }
}

/// The file's one name, in a folder that is there.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    match found(path) {
        Err(OpenError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => (),
        found => return found,
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(OpenError::io(path, io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file")));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    make_folder(folder).map_err(|error| OpenError::io(folder, error))?;
    let folder = fs::canonicalize(folder).map_err(|error| OpenError::io(folder, error))?;
    Ok(folder.join(name))
}

/// For its owner alone, where there are such permissions.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

pub(super) fn lock(path: &Path) -> Result<LockFile, OpenError> {
    let lock = LockFile::path_for(path);
    LockFile::take(&lock).map_err(|error| not_locked(path, &lock, error))
}

/// For reading only.
pub(super) fn share_lock(path: &Path) -> Result<SharedLock, OpenError> {
    let lock = LockFile::path_for(path);
    SharedLock::take(&lock).map_err(|error| not_locked(path, &lock, error))
}

fn not_locked(path: &Path, lock: &Path, error: LockError) -> OpenError {
    match error {
        LockError::Held(Holder { pid, service }) => OpenError::Held { path: path.to_owned(), pid, service },
        LockError::Io(error) => OpenError::io(lock, error),
    }
}
