//! Stores of dead letters, and the records that a replay has written.
#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use kafka_courier::dlq::FileStore;
use kafka_courier_test_broker::TestCluster;

/// A file of dead letters in a temporary folder. Dropping the value deletes the folder.
pub(crate) struct TempFileStore {
    _folder: tempfile::TempDir,
    pub(crate) store: Arc<FileStore>,
}

pub(crate) fn file_store() -> TempFileStore {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(FileStore::open(folder.path().join("letters")).unwrap());
    TempFileStore { _folder: folder, store }
}

/// Returns the values of a topic's records, ordered by partition and offset.
pub(crate) fn values(cluster: &TestCluster, topic: &str) -> Vec<String> {
    cluster.records(topic).iter().map(|record| record.value_text().unwrap_or_default().to_owned()).collect()
}
