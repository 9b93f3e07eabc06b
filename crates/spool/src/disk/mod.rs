//! All file operations of a spool.
//!
//! Rules:
//!  - The journal touches files through [`Disk`] alone, so that a simulation can crash it at every operation.
//!  - The bytes of a file survive a loss of power after [`Disk::sync`], and the names after [`Disk::sync_folder`].

mod folder;

pub use folder::Folder;

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

    /// Creates a file of `size` zero bytes, all of them written.
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
