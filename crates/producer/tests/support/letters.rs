//! Stores of dead letters, and what a replay has written.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do

use std::sync::Arc;

use kafka_courier::dlq::FileStore;
use kafka_courier_test_broker::TestCluster;

/// A file of dead letters that lasts as long as this.
pub(crate) struct File {
    _folder: tempfile::TempDir,
    pub(crate) store: Arc<FileStore>,
}

pub(crate) fn file() -> File {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(FileStore::open(folder.path().join("letters")).unwrap());
    File { _folder: folder, store }
}

/// The values of a topic's records, in the order of partitions and offsets.
pub(crate) fn values(cluster: &TestCluster, topic: &str) -> Vec<String> {
    cluster.records(topic).iter().map(|record| record.value_text().unwrap_or_default().to_owned()).collect()
}
