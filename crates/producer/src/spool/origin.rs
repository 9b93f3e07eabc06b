//! Copies of a spool.
//!
//! Rules:
//!  - A folder with undelivered events that was copied or moved is not opened before it is adopted. Its original may be in
//!    use, and each copy would give new stamps to events that both have.
//!  - A folder without such events is adopted automatically.

use std::io;
use std::path::Path;

use kafka_courier_spool::disk::{Folder, FolderOrigin, FolderView};
use kafka_courier_spool::journal::{Snapshot, SnapshotError};

/// Marks a folder as an original. Returns false if the folder is a copy with undelivered events, which is not marked.
pub(crate) fn mark_if_original(dir: &Path, folder: &Folder) -> io::Result<bool> {
    match folder.origin()? {
        FolderOrigin::Original => return Ok(true),
        // Every spool has a mark from its first opening on. Files that were copied without it have none.
        FolderOrigin::Copied | FolderOrigin::Unmarked if !is_drained(dir) => return Ok(false),
        FolderOrigin::Copied | FolderOrigin::Unmarked => {}
    }
    // A full disk must not keep the events that are stored there.
    if let Err(error) = folder.mark() {
        tracing::warn!(dir = %dir.display(), %error, "spool can't be marked, and a copy of it would not be recognized");
    }
    Ok(true)
}

fn is_drained(dir: &Path) -> bool {
    match Snapshot::read(FolderView::new(dir)) {
        Ok(snapshot) => snapshot.table().partitions.values().all(|state| state.is_drained()),
        Err(error) => matches!(error, SnapshotError::NoSpool),
    }
}
