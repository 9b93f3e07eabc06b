//! The lock of a store's file: `<path>.lock`.
//!
//! Rules:
//! - The operating system keeps the lock, so the lock ends with its holder, also after a crash. The text in the lock file
//!   is information for other processes, and proves nothing.
//! - The lock file is never removed: a process could remove the file of a new holder.
//! - The suffixes of a store's files (`.lock`, `.publishers`, `.new`, `.s`, `.sock`) are unique and never change: processes
//!   of other versions look for them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::fault::FileFault;
use super::kind::FileKind;
use super::regular;

/// The process that holds the store's file, as its lock file says.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct LockHolder {
    /// The process id.
    pub(crate) pid: Option<u32>,
    /// The Unix socket at which the process serves the letters.
    pub(crate) service: Option<PathBuf>,
}

/// The exclusive lock, held until dropped.
#[derive(Debug)]
pub(crate) struct LockFile(Mutex<File>);

/// The shared lock, held until dropped. Other processes may read the file, and none may write it.
#[derive(Debug)]
pub(crate) struct SharedLock {
    /// `None` without a lock file: no process has opened the file for writing yet.
    _file: Option<File>,
}

impl SharedLock {
    /// Takes the shared lock without writing.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        regular::check_if_exists(path)?;
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

/// Why the lock is unavailable.
#[derive(Debug)]
pub(crate) enum LockError {
    Held(LockHolder),
    Io(io::Error),
    NotRegular(FileKind),
}

impl From<FileFault> for LockError {
    fn from(fault: FileFault) -> Self {
        match fault {
            FileFault::Io(error) => Self::Io(error),
            FileFault::NotRegular(kind) => Self::NotRegular(kind),
            other => Self::Io(io::Error::other(other.to_string())),
        }
    }
}

impl LockFile {
    /// Returns the path of the lock file: `<path>.lock`.
    pub(crate) fn path_for(path: &Path) -> PathBuf {
        beside(path, ".lock")
    }

    /// Takes the exclusive lock, and writes the holder into the lock file.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        regular::check_if_exists(path)?;
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

    /// Writes the holder and its service into the lock file.
    pub(crate) fn announce(&self, service: Option<&Path>) -> io::Result<()> {
        let holder = LockHolder { pid: Some(std::process::id()), service: service.map(Path::to_owned) };
        let mut line = serde_json::to_vec(&holder)?;
        line.push(b'\n');
        let mut file = self.0.lock();
        file.seek(SeekFrom::Start(0))?;
        // The line is written before the file is truncated, so that a reader finds a whole first line.
        file.write_all(&line)?;
        file.set_len(line.len() as u64)
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // This clears the text. Closing the file releases the lock.
        let _ = self.0.lock().set_len(0);
    }
}

/// Reads the holder. An empty lock file gives an unknown holder.
fn read(file: &mut File) -> LockHolder {
    let mut text = String::new();
    let read = file.take(64 * 1024).read_to_string(&mut text);
    read.ok().and_then(|_| serde_json::from_str(text.lines().next()?).ok()).unwrap_or_default()
}

/// Returns the path with `suffix` appended to the file's name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Restricts the file to its owner if the system has such permissions. Letters are business data.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}
