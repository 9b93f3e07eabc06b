//! The lock of processes that keep letters in a file through its holder: `<path>.publishers`.
//!
//! Rules:
//! - A process that publishes shares the lock from before its first letter until it ends or crashes. While no process shares
//!   the lock, every producer that wrote letters earlier has ended, and a check may fence its producer id.
//! - The lock file is empty and is never removed.

use std::fs::File;
use std::io;
use std::path::Path;

use super::lock::{beside, private};
use super::regular;

/// Indicates, until it is dropped, that this process publishes and keeps its letters in a file that another process holds.
#[derive(Debug)]
pub struct Publishing {
    _lock: File,
}

impl Publishing {
    /// Shares the lock beside the existing file at `path`. Waits only for processes that test the lock.
    ///
    /// # Errors
    /// Returns an error if the lock file cannot be opened or locked.
    pub fn beside(path: impl AsRef<Path>) -> io::Result<Self> {
        let lock = open(path.as_ref())?;
        lock.lock_shared()?;
        Ok(Self { _lock: lock })
    }

    /// Returns whether no process publishes. Returns false if the lock is unavailable.
    pub(super) fn is_unused(path: &Path) -> bool {
        open(path).is_ok_and(|lock| lock.try_lock().is_ok())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let lock = beside(&path.canonicalize()?, ".publishers");
    regular::check_if_exists(&lock).map_err(|fault| io::Error::other(format!("{}: {fault}", lock.display())))?;
    private(&mut options).open(lock)
}
