//! What the database stands on: the file, or in tests something that fails on purpose.
//!
//! - A new file gets its name only once there is a whole database in it: killed at any moment, it is there or it is not.
//! - A file that was taken away or replaced under us is noticed before letters are written into nowhere.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};

use super::fault::Fault;
use super::kind;
use super::lock::{beside, private};
use super::tables::Tables;

/// Pages kept in memory.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Opens the database, again after a failure.
pub(super) trait Medium: Send + Sync + fmt::Debug {
    fn open(&self) -> Result<Database, Fault>;

    /// Whether what was opened last is still what others find.
    fn intact(&self) -> io::Result<()>;

    /// How large it is; 0 if that can't be known.
    fn bytes(&self) -> u64;
}

/// How databases are opened: with every page checked, for one that was altered is otherwise trusted.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// A file at a path.
#[derive(Debug)]
pub(super) struct DiskFile {
    path: PathBuf,
    opened: Mutex<Option<Identity>>,
}

impl DiskFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, opened: Mutex::new(None) }
    }

    fn create(&self) -> Result<(), Fault> {
        let new = beside(&self.path, ".new");
        kind::check_if_exists(&new)?;
        let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(true)).open(&new)?;
        Tables::new(open_file(file)?)?;
        fs::rename(&new, &self.path)?;
        sync_folder(&self.path)?;
        Ok(())
    }
}

impl Medium for DiskFile {
    fn open(&self) -> Result<Database, Fault> {
        kind::check_if_exists(&self.path)?;
        if fs::metadata(&self.path).map_or_else(absent, |data| Ok(data.len() == 0))? {
            self.create()?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        *self.opened.lock() = Identity::of(&file.metadata()?);
        Ok(open_file(file)?)
    }

    fn intact(&self) -> io::Result<()> {
        let found = fs::metadata(&self.path).map(|data| Identity::of(&data));
        match found {
            Ok(found) if found == *self.opened.lock() => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Err(io::Error::other("the file was removed or replaced while it was open")),
        }
    }

    fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |data| data.len())
    }
}

fn open_file(file: File) -> Result<Database, DatabaseError> {
    builder().create_with_backend(FileBackend::new(file)?)
}

fn absent(error: io::Error) -> io::Result<bool> {
    if error.kind() == io::ErrorKind::NotFound { Ok(true) } else { Err(error) }
}

/// A name is durable once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// What tells a file from another of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    #[cfg(unix)]
    fn of(data: &fs::Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self { device: data.dev(), inode: data.ino() })
    }

    #[cfg(not(unix))]
    fn of(_: &fs::Metadata) -> Option<Self> {
        None
    }
}
