//! A folder of the operating system.
//!
//! Rules:
//!  - The folder has mode 0700 and its files 0600, because records may be confidential.
//!  - The operating system locks the file `lock` for one process. A second one would remove files that the first one
//!    writes.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Disk;

/// The file that one process locks.
const LOCK: &str = "lock";
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
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let text =
                    format!("{}: another process uses this spool: stop it, or use another folder", path.display());
                io::Error::new(io::ErrorKind::ResourceBusy, text)
            }
            TryLockError::Error(error) => error,
        })?;
        Ok(Self { path: path.to_owned(), handle: File::open(path)?, _lock: lock })
    }
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
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
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

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<File> {
        let path = self.path.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        fill(&file, size).inspect_err(|_| {
            // A part of a file takes room, and helps no process. It is read as an empty segment if it stays.
            let _ = fs::remove_file(&path);
        })?;
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
