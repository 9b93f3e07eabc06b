//! The mark by which a folder recognizes that it was copied.
//!
//! Rules:
//!  - The file `identity` holds its own number in the file system and its time of birth. A copy of the file has others, and so
//!    has a file that was moved to another file system or restored from a backup.
//!  - A clone of the whole file system has the same numbers and is not recognized.
//!  - An empty file is the rest of a crash, and counts as no mark, as a missing file does.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// The file with the mark.
const IDENTITY: &str = "identity";

/// Whether a folder is the one in which its last process wrote the mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FolderOrigin {
    /// No process has marked the folder.
    Unmarked,
    /// The folder has its own mark.
    Original,
    /// The folder has the mark of another one.
    Copied,
}

/// Returns the origin of a folder.
pub(super) fn origin(folder: &Path) -> io::Result<FolderOrigin> {
    let path = folder.join(IDENTITY);
    let mark = match fs::read_to_string(&path) {
        Ok(mark) => mark,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FolderOrigin::Unmarked),
        Err(error) => return Err(error),
    };
    Ok(match mark.trim() {
        "" => FolderOrigin::Unmarked,
        mark if mark == mark_of(&fs::metadata(&path)?) => FolderOrigin::Original,
        _ => FolderOrigin::Copied,
    })
}

/// Marks a folder as an original. The mark is durable then.
pub(super) fn mark(folder: &Path) -> io::Result<()> {
    let path = folder.join(IDENTITY);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let mark = mark_of(&file.metadata()?);
    file.write_all(format!("{mark}\n").as_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Returns the mark of a file. A file system without times of birth has the number alone.
fn mark_of(file: &Metadata) -> String {
    let born = file.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    format!("{} {}", file.ino(), born.unwrap_or_default().as_nanos())
}
