//! Who keeps letters in a file without holding it: a lock beside it, `<path>.publishers`.
//!
//! - Whoever publishes shares the lock from before its first letter until it ends, however that happens. Where nobody does,
//!   whoever wrote letters before is gone, and its producer's life may be ended to prove what it wrote.
//! - The file itself is empty and stays.

use std::fs::File;
use std::io;
use std::path::Path;

use super::kind;
use super::lock::{beside, private};

/// Says, as long as it lives, that somebody publishes whose letters come into a file that others hold as well.
#[derive(Debug)]
pub struct Publishing {
    _lock: File,
}

impl Publishing {
    /// Says so beside the file at `path`, which is there. Waits only for those who look whether anybody does.
    pub fn beside(path: impl AsRef<Path>) -> io::Result<Self> {
        let lock = open(path.as_ref())?;
        lock.lock_shared()?;
        Ok(Self { _lock: lock })
    }

    /// Whether nobody says so. Where that can't be found out, somebody may.
    pub(super) fn nobody_is(path: &Path) -> bool {
        open(path).is_ok_and(|lock| lock.try_lock().is_ok())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let lock = beside(&path.canonicalize()?, ".publishers");
    kind::check_if_exists(&lock).map_err(|fault| io::Error::other(format!("{}: {fault}", lock.display())))?;
    private(&mut options).open(lock)
}
