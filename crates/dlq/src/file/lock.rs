//! Who holds a store's file: a lock file beside it, `<path>.lock`.
//!
//! - The lock is the operating system's, so it ends with its holder, however that ends; the words in the file are for others
//!   to read and prove nothing.
//! - The lock file stays: who removed it could remove that of a new holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::kind::{self, FileKind};

/// Who holds the store's file, as far as it said so.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// The process's id.
    pub(crate) pid: Option<u32>,
    /// The Unix socket at which it serves the letters.
    pub(crate) service: Option<PathBuf>,
}

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct LockFile(Mutex<File>);

/// A share of the lock, held until dropped: others may read the file too, and none may write it.
#[derive(Debug)]
pub(crate) struct SharedLock {
    /// None: there is no lock file, so nobody has opened the file for writing yet.
    _file: Option<File>,
}

impl SharedLock {
    /// Shares the lock without writing anything.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        kind::check_if_exists(path)?;
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { _file: None }),
            Err(error) => return Err(LockError::Io(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(read(&mut file))),
            Err(TryLockError::Error(error)) => Err(LockError::Io(error)),
        }
    }
}

/// Why the lock can't be had.
#[derive(Debug)]
pub(crate) enum LockError {
    Held(Holder),
    Io(io::Error),
    NotRegular(FileKind),
}

impl From<Fault> for LockError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(error) => Self::Io(error),
            Fault::NotRegular(kind) => Self::NotRegular(kind),
            other => Self::Io(io::Error::other(other.to_string())),
        }
    }
}

impl LockFile {
    /// `<path>.lock`.
    pub(crate) fn path_for(path: &Path) -> PathBuf {
        beside(path, ".lock")
    }

    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        kind::check_if_exists(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = private(&mut options).open(path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {
                let lock = Self(Mutex::new(file));
                lock.announce(None).map_err(LockError::Io)?;
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => Err(LockError::Held(read(&mut file))),
            Err(TryLockError::Error(error)) => Err(LockError::Io(error)),
        }
    }

    /// Says who holds the lock, and where it serves.
    pub(crate) fn announce(&self, service: Option<&Path>) -> io::Result<()> {
        let holder = Holder { pid: Some(std::process::id()), service: service.map(Path::to_owned) };
        let mut line = serde_json::to_vec(&holder)?;
        line.push(b'\n');
        let mut file = self.0.lock();
        file.seek(SeekFrom::Start(0))?;
        // Written before it is cut: a reader in between finds a whole first line.
        file.write_all(&line)?;
        file.set_len(line.len() as u64)
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Only words; the lock itself goes with the file.
        let _ = self.0.lock().set_len(0);
    }
}

/// Nothing is known of a holder that has not said anything yet.
fn read(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file.take(64 * 1024).read_to_string(&mut text);
    read.ok().and_then(|_| serde_json::from_str(text.lines().next()?).ok()).unwrap_or_default()
}

/// The file's path with something added to its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Readable and writable for its owner alone, where there are such permissions: letters are business data.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}
