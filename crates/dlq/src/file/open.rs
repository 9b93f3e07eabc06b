//! Opening a store's file: folder, lock, database, and what stands against each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::Fault;
use super::kind::{self, FileKind};
use super::lock::{Holder, LockError, LockFile, SharedLock};
use super::tables::FORMAT;

/// Links that are followed one after another, as Linux does.
const LINKS_MAX: usize = 40;

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
    /// A device, a pipe or a socket, of which nothing was touched.
    #[error("{} is {kind}, which can't hold dead letters: name a regular file, or one that does not exist yet", path.display())]
    NotRegular {
        /// The path, links followed.
        path: PathBuf,
        /// What is there.
        kind: FileKind,
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
            Fault::NotRegular(FileKind::Folder) => Self::Folder { path },
            Fault::NotRegular(kind) => Self::NotRegular { path, kind },
        }
    }
}

/// Returns the one name of a file that exists: two names of one file would have two locks. The file is not opened, because
/// opening a pipe waits for its other end.
pub(super) fn found(path: &Path) -> Result<PathBuf, OpenError> {
    let found = fs::canonicalize(path).map_err(|error| OpenError::io(path, error))?;
    kind::check(&found).map_err(|fault| OpenError::from_fault(&found, fault))?;
    Ok(found)
}

/// Returns the file's one name, in a folder that exists. Links are followed also where the file does not exist yet.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match found(&path) {
            Err(OpenError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => (),
            found => return found,
        }
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => return resolve_folder(&path),
        }
    }
    Err(OpenError::io(&path, io::Error::other("too many links, one to the next")))
}

/// Returns a path whose last part is no link, in its folder's one name. Makes the folder.
fn resolve_folder(path: &Path) -> Result<PathBuf, OpenError> {
    let Some(name) = path.file_name() else {
        return Err(OpenError::io(path, io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file")));
    };
    let folder = folder_of(path);
    make_folder(folder).map_err(|error| OpenError::io(folder, error))?;
    let folder = fs::canonicalize(folder).map_err(|error| OpenError::io(folder, error))?;
    Ok(folder.join(name))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
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
        LockError::NotRegular(kind) => OpenError::NotRegular { path: lock.to_owned(), kind },
    }
}
