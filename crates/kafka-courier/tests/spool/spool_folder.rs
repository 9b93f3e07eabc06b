//! A folder for spools, and producers on it.

use std::path::PathBuf;
use std::time::Duration;

use kafka_courier::{ConfigProblemKind, KafkaConfig, SpoolOpenError};
use kafka_courier_test_broker::TestCluster;
use tempfile::TempDir;

use crate::support::{Producer, config};

/// A folder that is removed with this value.
pub(crate) struct SpoolFolder(TempDir);

impl SpoolFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("spool")
    }

    /// Returns the settings of a quick producer with this folder.
    pub(crate) fn config(&self, cluster: &TestCluster) -> KafkaConfig {
        let mut config = config(cluster);
        config.spool_dir = self.path().to_str().unwrap().to_owned();
        config.spool_idle_sync = Duration::from_millis(1);
        // The folder for temporary files may be in memory.
        config.spool_any_filesystem = true;
        config
    }

    pub(crate) fn producer(&self, cluster: &TestCluster) -> Producer {
        Producer::build(self.config(cluster)).unwrap()
    }

    /// Builds a producer once the one before has released the folder and the file of dead letters.
    pub(crate) async fn next_producer(&self, config: KafkaConfig) -> Producer {
        loop {
            match Producer::build(config.clone()) {
                Ok(producer) => return producer,
                Err(errors) => {
                    let problem = &errors.problems()[0];
                    let is_locked = matches!(problem.spool_error(), Some(SpoolOpenError::Locked { .. }));
                    assert!(is_locked || problem.kind() == ConfigProblemKind::DeadLetterStore, "{errors}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}
