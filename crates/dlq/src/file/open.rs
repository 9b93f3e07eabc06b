//! Opens a store's file: its folder, lock and database.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::FileFault;
use super::kind::FileKind;
use super::lock::{LockError, LockFile, LockHolder, SharedLock};
use super::regular;
use super::tables::FORMAT;

/// Most links that are followed, as on Linux.
const LINKS_MAX: usize = 40;

/// Why a store's file cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A process has the file open: another one, or this one.
    #[error("the dead letters in {} are held by {}: connect through its service, stop it, or choose another file", path.display(), holder(*pid))]
    Held {
        /// The file.
        path: PathBuf,
        /// The holder's process id, if it is known.
        pid: Option<u32>,
        /// The Unix socket of the holder's service, if there is one.
        service: Option<PathBuf>,
    },
    /// A version with another format wrote the file.
    #[error("{} has format {found}, and this version reads {known}: export its dead letters with the version that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: String,
        /// The format of this version.
        known: String,
    },
    /// The file is not a file of dead letters.
    #[error("{} is not a file of dead letters: name another one", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The path leads to a folder.
    #[error("{} is a folder: name a file in it", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The path leads to a device, a pipe or a socket. It was not opened.
    #[error("{} is {kind}, which cannot hold dead letters: name a regular file, or one that does not exist yet", path.display())]
    NotRegular {
        /// The path, links followed.
        path: PathBuf,
        /// The kind of file.
        kind: FileKind,
    },
    /// The file's bytes were altered.
    #[error("{} is damaged: {reason}: move it aside, and a new file will be created", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        reason: String,
    },
    /// The operating system returned an error.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error.
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

    pub(super) fn from_fault(path: &Path, fault: FileFault) -> Self {
        let path = path.to_owned();
        match fault {
            FileFault::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::NotAStore { path },
            FileFault::Io(error) => Self::io(&path, error),
            FileFault::Damaged(reason) => Self::Damaged { path, reason },
            FileFault::Version(found) => Self::Version { path, found: found.to_string(), known: FORMAT.to_string() },
            FileFault::Redb(found) => {
                Self::Version { path, found: format!("redb {found}"), known: "that of redb 4".into() }
            }
            FileFault::Held => Self::Held { path, pid: None, service: None },
            FileFault::Foreign => Self::NotAStore { path },
            FileFault::NotRegular(FileKind::Folder) => Self::Folder { path },
            FileFault::NotRegular(kind) => Self::NotRegular { path, kind },
        }
    }
}

/// Returns the canonical path of an existing file, because two names of one file would have two locks. Does not open the
/// file: opening a pipe waits for its other end.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, OpenError> {
    let found = fs::canonicalize(path).map_err(|error| OpenError::io(path, error))?;
    regular::check(&found).map_err(|fault| OpenError::from_fault(&found, fault))?;
    Ok(found)
}

/// Returns the file's canonical path, in a folder that exists. Follows links also if the file does not exist yet.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match canonical(&path) {
            Err(OpenError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => (),
            found => return found,
        }
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => return resolve_folder(&path),
        }
    }
    Err(OpenError::io(&path, io::Error::other("too many symbolic links")))
}

/// Returns the path in its canonical folder, for a path whose last part is not a link. Creates the folder.
fn resolve_folder(path: &Path) -> Result<PathBuf, OpenError> {
    let Some(name) = path.file_name() else {
        return Err(OpenError::io(path, io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name")));
    };
    let folder = folder_of(path);
    create_folder(folder).map_err(|error| OpenError::io(folder, error))?;
    let folder = fs::canonicalize(folder).map_err(|error| OpenError::io(folder, error))?;
    Ok(folder.join(name))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a folder for its owner alone, if the system has such permissions.
fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Takes the exclusive lock of the file.
pub(super) fn lock(path: &Path) -> Result<LockFile, OpenError> {
    let lock = LockFile::path_for(path);
    LockFile::take(&lock).map_err(|error| not_locked(path, &lock, error))
}

/// Takes the shared lock of the file, for reading.
pub(super) fn share_lock(path: &Path) -> Result<SharedLock, OpenError> {
    let lock = LockFile::path_for(path);
    SharedLock::take(&lock).map_err(|error| not_locked(path, &lock, error))
}

fn not_locked(path: &Path, lock: &Path, error: LockError) -> OpenError {
    match error {
        LockError::Held(LockHolder { pid, service }) => OpenError::Held { path: path.to_owned(), pid, service },
        LockError::Io(error) => OpenError::io(lock, error),
        LockError::NotRegular(kind) => OpenError::NotRegular { path: lock.to_owned(), kind },
    }
}
