//! Copies of a spool.
//!
//! Rules:
//!  - A folder with undelivered events that was copied or moved is not opened before it is adopted. Its original may be in
//!    use, and each copy would give new stamps to events that both have.
//!  - A folder without such events is adopted automatically.

use std::path::Path;

use kafka_courier_spool::disk::{Folder, FolderOrigin, FolderView};
use kafka_courier_spool::journal::{Snapshot, SnapshotError};

use super::open::SpoolOpenError;

/// Checks that the folder is no copy with undelivered events, and marks it as an original.
pub(crate) fn check_origin(dir: &Path, folder: &Folder) -> Result<(), SpoolOpenError> {
    let failed = |source| SpoolOpenError::Folder { dir: dir.to_owned(), source };
    match folder.origin().map_err(failed)? {
        FolderOrigin::Original => return Ok(()),
        FolderOrigin::Copied if !is_drained(dir) => return Err(SpoolOpenError::Copied { dir: dir.to_owned() }),
        FolderOrigin::Copied | FolderOrigin::Unmarked => {}
    }
    // A full disk must not keep the events that are stored there.
    if let Err(error) = folder.mark() {
        tracing::warn!(dir = %dir.display(), %error, "spool can't be marked, and a copy of it would not be recognized");
    }
    Ok(())
}

fn is_drained(dir: &Path) -> bool {
    match Snapshot::read(FolderView::new(dir)) {
        Ok(snapshot) => snapshot.table().partitions.values().all(|state| state.is_drained()),
        Err(error) => matches!(error, SnapshotError::NoSpool),
    }
}

/// Declares a spool's folder the only copy that is in use. The next process opens it.
///
/// # Errors
///
/// [`SpoolOpenError`]: a process has the folder, or it can't be written.
pub fn adopt(dir: &Path) -> Result<(), SpoolOpenError> {
    let failed = |source| SpoolOpenError::Folder { dir: dir.to_owned(), source };
    let folder = Folder::open(dir).map_err(|source| match source.kind() {
        std::io::ErrorKind::ResourceBusy => {
            SpoolOpenError::Locked { pid: FolderView::new(dir).last_holder(), dir: dir.to_owned() }
        }
        _ => failed(source),
    })?;
    folder.mark().map_err(failed)
}
