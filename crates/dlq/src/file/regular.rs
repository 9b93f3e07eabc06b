//! The check that a path leads to a regular file.
//!
//! Rule: the kind is checked before the path is opened. Opening a pipe waits for its other end, and a device may react.

use std::fs;
use std::io;
use std::path::Path;

use super::fault::FileFault;
use super::kind::FileKind;

/// Returns an error unless the path leads to a regular file. Links are followed.
pub(super) fn check(path: &Path) -> Result<(), FileFault> {
    FileKind::of(fs::metadata(path)?.file_type()).map_or(Ok(()), |kind| Err(FileFault::NotRegular(kind)))
}

/// Does the same as [`check`] for a file that may not exist.
pub(super) fn check_if_exists(path: &Path) -> Result<(), FileFault> {
    match check(path) {
        Err(FileFault::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        checked => checked,
    }
}
