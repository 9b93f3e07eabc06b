//! All file operations of a spool.
//!
//! Rules:
//!  - The journal touches files through [`Disk`] alone, so that a simulation can crash it at every operation.
//!  - The bytes of a file survive a loss of power after [`Disk::sync`], and the names after [`Disk::sync_folder`].
//!  - A spool that is not opened is read through [`ReadFolder`], which can't change anything.

mod file_system;
mod folder;
mod identity;

pub use file_system::FileSystem;
pub use folder::{Folder, FolderView};
pub use identity::FolderOrigin;

use std::io;

/// A folder of files.
pub trait Disk {
    /// An open file.
    type File;

    /// Returns the names of all files.
    ///
    /// # Errors
    /// The operating system's error.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Reads a whole file.
    ///
    /// # Errors
    /// The operating system's error, [`io::ErrorKind::NotFound`] where the file does not exist.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Reads `length` bytes of a file from an offset on, or fewer where the file ends before.
    ///
    /// # Errors
    /// The operating system's error.
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Returns how many bytes the file system has for new files.
    ///
    /// # Errors
    /// The operating system's error.
    fn free(&self) -> io::Result<u64>;

    /// Creates a file of `size` zero bytes, all of them written and durable. After an error, a part of the file may exist.
    ///
    /// # Errors
    /// The operating system's error: among others [`io::ErrorKind::StorageFull`].
    fn create(&self, name: &str, size: u64) -> io::Result<Self::File>;

    /// Opens a file to write to it.
    ///
    /// # Errors
    /// The operating system's error.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Writes at an offset. The file grows where needed.
    ///
    /// # Errors
    /// The operating system's error.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes a file's bytes durable.
    ///
    /// # Errors
    /// The operating system's error. The file must not be used again: the system may hold bytes as written that are not.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Renames a file.
    ///
    /// # Errors
    /// The operating system's error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system's error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names of all files durable.
    ///
    /// # Errors
    /// The operating system's error.
    fn sync_folder(&self) -> io::Result<()>;
}

/// The operations that read a folder. Every [`Disk`] has them.
pub trait ReadFolder {
    /// Returns the names of all files.
    ///
    /// # Errors
    /// The operating system's error.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Reads a whole file, as [`Disk::read`] does.
    ///
    /// # Errors
    /// The operating system's error, [`io::ErrorKind::NotFound`] where the file does not exist.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Reads a part of a file, as [`Disk::read_at`] does.
    ///
    /// # Errors
    /// The operating system's error.
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

impl<D: Disk> ReadFolder for D {
    fn list(&self) -> io::Result<Vec<String>> {
        Disk::list(self)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Disk::read(self, name)
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        Disk::read_at(self, name, offset, length)
    }
}
