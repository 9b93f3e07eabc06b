//! The storage of the database: the file, or in tests a simulated disk.
//!
//! Rules:
//! - A new file gets its name after its database is complete. A process that is killed leaves a whole file or none.
//! - A file that was removed or replaced while it was open is detected before the next write.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};

use super::fault::FileFault;
use super::lock::{beside, private};
use super::regular;
use super::tables::Tables;

/// Size of the database's page cache.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The storage of a database, which can be opened again after a failure.
pub(super) trait Medium: Send + Sync + fmt::Debug {
    /// Opens the database.
    fn open(&self) -> Result<Database, FileFault>;

    /// Returns an error if the path leads to another file than the one that was opened last.
    fn check_in_place(&self) -> io::Result<()>;

    /// Returns the size in bytes, 0 if it is unknown.
    fn bytes(&self) -> u64;
}

/// Returns the options of the database. Every page is checked when the file is opened: redb trusts altered pages otherwise.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// A file at a path.
#[derive(Debug)]
pub(super) struct DiskFile {
    path: PathBuf,
    opened: Mutex<Option<FileIdentity>>,
}

impl DiskFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, opened: Mutex::new(None) }
    }

    fn create(&self) -> Result<(), FileFault> {
        let new = beside(&self.path, ".new");
        regular::check_if_exists(&new)?;
        let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(true)).open(&new)?;
        Tables::new(open_file(file)?)?;
        fs::rename(&new, &self.path)?;
        sync_folder(&self.path)?;
        Ok(())
    }
}

impl Medium for DiskFile {
    fn open(&self) -> Result<Database, FileFault> {
        regular::check_if_exists(&self.path)?;
        if fs::metadata(&self.path).map_or_else(is_absent, |data| Ok(data.len() == 0))? {
            self.create()?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        *self.opened.lock() = FileIdentity::of(&file.metadata()?);
        Ok(open_file(file)?)
    }

    fn check_in_place(&self) -> io::Result<()> {
        let found = fs::metadata(&self.path).map(|data| FileIdentity::of(&data));
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

/// Returns true if the error says that the file does not exist.
fn is_absent(error: io::Error) -> io::Result<bool> {
    if error.kind() == io::ErrorKind::NotFound { Ok(true) } else { Err(error) }
}

/// Syncs the folder, which makes a new name durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Identifies a file among all files that had the same path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
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
