//! The file as a store: on disk, on disks that lose power, and on disks that fail.

mod altered;
mod disk;
mod failing;
mod on_disk;
mod power_cut;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{FileStore, FileStoreOptions, OpenError};
use crate::letter::Letter;
use crate::limits::Limits;
pub(crate) use disk::Disk;
use disk::DiskMedium;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn letter(reason: impl ToString, bytes: usize) -> Letter {
    let value = bytes::Bytes::from(format!("\"{}\"", "x".repeat(bytes)));
    Letter::new("t", value, reason.to_string(), at(0))
}

/// Tries again at once after a failure.
fn eager() -> FileStoreOptions {
    FileStoreOptions { retry_pause: Duration::ZERO, ..FileStoreOptions::default() }
}

/// A store on a simulated disk.
pub(crate) fn on(disk: &Arc<Disk>, options: FileStoreOptions) -> Result<FileStore, OpenError> {
    FileStore::on(PathBuf::from("/simulated"), Box::new(DiskMedium(disk.clone())), None, options)
}

/// A store on a new simulated disk, which can be opened again.
pub(crate) fn on_new_disk(limits: Limits) -> (Arc<Disk>, FileStore) {
    let disk = Arc::new(Disk::default());
    let store = on(&disk, FileStoreOptions { limits, ..eager() }).unwrap();
    (disk, store)
}

/// The same, opened again.
pub(crate) fn again(disk: &Arc<Disk>, limits: Limits) -> FileStore {
    on(disk, FileStoreOptions { limits, ..eager() }).unwrap()
}

fn all(store: &FileStore) -> Vec<Letter> {
    let selection = crate::Selection::all();
    crate::letters(store, &selection).map(|held| held.unwrap().letter).collect()
}
