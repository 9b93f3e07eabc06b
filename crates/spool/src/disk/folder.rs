//! A folder of the operating system.
//!
//! Rules:
//!  - The folder has mode 0700 and its files 0600, because records may be confidential.
//!  - The operating system locks the file `lock` for one process. A second one would remove files that the first one
//!    writes. The file names the process, for messages alone.
//!  - [`FolderView`] creates and writes nothing. It has the lock only while it looks whether a process holds the folder.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::identity::{self, FolderOrigin};
use super::{Disk, FileSystem, ReadFolder};

/// The file that one process locks.
const LOCK: &str = "lock";
/// How often an opening tries to lock the folder, and the time between two tries. A [`FolderView`] has the lock for an
/// instant.
const LOCK_TRIES: u32 = 10;
const LOCK_INTERVAL: Duration = Duration::from_millis(10);
/// Zeros that are written at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A folder of the operating system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    handle: File,
    /// Holds the lock until it is closed.
    _lock: File,
}

impl Folder {
    /// Opens a folder, and creates it where needed. The names of new folders are durable then.
    ///
    /// # Errors
    /// The operating system's error, [`io::ErrorKind::ResourceBusy`] if another process uses the folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        for parent in missing.iter().filter_map(|folder| folder.parent()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK))?;
        take_lock(&lock).map_err(|error| match error {
            TryLockError::WouldBlock => {
                let text =
                    format!("{}: another process uses this spool: stop it, or use another folder", path.display());
                io::Error::new(io::ErrorKind::ResourceBusy, text)
            }
            TryLockError::Error(error) => error,
        })?;
        // Messages name the process without its pid if the disk is full.
        let _ = lock.write_all_at(format!("{:<10}\n", std::process::id()).as_bytes(), 0);
        Ok(Self { path: path.to_owned(), handle: File::open(path)?, _lock: lock })
    }

    /// Returns whether the folder was copied since a process has marked it.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn origin(&self) -> io::Result<FolderOrigin> {
        identity::origin(&self.path)
    }

    /// Marks the folder as an original. The mark is durable then.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn mark(&self) -> io::Result<()> {
        identity::mark(&self.path)
    }

    /// Returns the file system of the folder.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn file_system(&self) -> io::Result<FileSystem> {
        FileSystem::of(&self.handle)
    }
}

/// Locks the file of a folder for this process.
fn take_lock(lock: &File) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_INTERVAL),
            done => return done,
        }
    }
    lock.try_lock()
}

/// Returns the names of the files in a folder, in order.
fn file_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A name that is no UTF-8 is no file of a spool.
        if entry.file_type()?.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn read_part(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut file = open_to_read(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_to_read(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file. The error of a missing right names the user that owns the file.
fn open_to_read(path: &Path) -> io::Result<File> {
    File::open(path).map_err(|error| match (error.kind(), fs::metadata(path)) {
        (io::ErrorKind::PermissionDenied, Ok(file)) => {
            io::Error::new(error.kind(), format!("{error}, the file belongs to uid {}", file.uid()))
        }
        _ => error,
    })
}

/// Writes `size` zero bytes, so that later writes change no metadata.
fn fill(file: &File, size: u64) -> io::Result<()> {
    let mut offset = 0;
    while offset < size {
        let length = (size - offset).min(ZEROS.len() as u64);
        file.write_all_at(ZEROS.get(..length as usize).unwrap_or(&ZEROS), offset)?;
        offset += length;
    }
    file.sync_all()
}

impl Disk for Folder {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        file_names(&self.path)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        read_whole(&self.path.join(name))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        read_part(&self.path.join(name), offset, length)
    }

    fn free(&self) -> io::Result<u64> {
        let system = rustix::fs::fstatvfs(&self.handle)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<File> {
        let path = self.path.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        fill(&file, size)?;
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join(name))
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// A folder that is only read. Another process may hold it.
#[derive(Clone, Debug)]
pub struct FolderView {
    path: PathBuf,
}

impl FolderView {
    /// Returns the view of a folder. Touches no file.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Returns whether a process holds the folder.
    ///
    /// # Errors
    /// The operating system's error, if the lock can't be read.
    pub fn is_held(&self) -> io::Result<bool> {
        let lock = match File::open(self.path.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // The lock is released when the file is closed.
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Returns the process that opened the folder last, if the lock names it.
    #[must_use]
    pub fn last_holder(&self) -> Option<u32> {
        fs::read_to_string(self.path.join(LOCK)).ok()?.trim().parse().ok()
    }
}

impl ReadFolder for FolderView {
    fn list(&self) -> io::Result<Vec<String>> {
        file_names(&self.path)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        read_whole(&self.path.join(name))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        read_part(&self.path.join(name), offset, length)
    }
}
