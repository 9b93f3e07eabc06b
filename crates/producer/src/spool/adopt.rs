//! Takes over a copied folder.

use std::io;
use std::path::Path;

use kafka_courier_spool::disk::{Folder, FolderView};

use super::open::SpoolOpenError;

/// Declares a spool's folder the only copy that is in use. The next process opens it.
///
/// # Errors
///
/// [`SpoolOpenError`]: a process has the folder, or it can't be written.
pub fn adopt(dir: &Path) -> Result<(), SpoolOpenError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::ResourceBusy => {
            SpoolOpenError::Locked { pid: FolderView::new(dir).last_holder(), dir: dir.to_owned() }
        }
        _ => SpoolOpenError::Folder { dir: dir.to_owned(), source },
    };
    Folder::open(dir).and_then(|folder| folder.mark()).map_err(failed)
}
