//! Tests of the file store: on a disk, with power cuts, and on failing disks.

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

/// Options without a pause after a failure.
fn without_pause() -> FileStoreOptions {
    FileStoreOptions { retry_pause: Duration::ZERO, ..FileStoreOptions::default() }
}

/// Opens a store on a simulated disk.
pub(crate) fn open_disk(disk: &Arc<Disk>, options: FileStoreOptions) -> Result<FileStore, OpenError> {
    FileStore::open_medium(PathBuf::from("/simulated"), Box::new(DiskMedium(disk.clone())), None, options)
}

/// Creates a store on a new simulated disk.
pub(crate) fn on_new_disk(limits: Limits) -> (Arc<Disk>, FileStore) {
    let disk = Arc::new(Disk::default());
    let store = open_disk(&disk, FileStoreOptions { limits, ..without_pause() }).unwrap();
    (disk, store)
}

/// Opens a store on a simulated disk again.
pub(crate) fn reopen_disk(disk: &Arc<Disk>, limits: Limits) -> FileStore {
    open_disk(disk, FileStoreOptions { limits, ..without_pause() }).unwrap()
}

fn all(store: &FileStore) -> Vec<Letter> {
    let selection = crate::Selection::all();
    crate::letters(store, &selection).map(|held| held.unwrap().letter).collect()
}
