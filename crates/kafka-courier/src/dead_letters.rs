//! The stores of dead letters, opened as the options say.
//!
//! Rule: a letter is kept before its delivery reports the failure.

use std::sync::Arc;

use kafka_courier_client::security::TokenSource;
use kafka_courier_dlq::{DeadLetterStore, FileStore, FileStoreOptions, Limits};
use kafka_courier_recovery::{DeadLetterTopic, DeadLetters, Stores, TopicEngine, TopicOptions};

use crate::config::{ConfigErrors, ConfigProblem, KafkaConfig};
use crate::spool;

impl KafkaConfig {
    /// Returns the options of a dead-letter file: the limits `dlq_max_letters`, `dlq_max_bytes` and `dlq_max_age` (0:
    /// no limit), and the behaviour of a full file, `dlq_overflow`.
    pub fn dlq_file_options(&self) -> FileStoreOptions {
        let at_most = |limit: usize| Some(limit as u64).filter(|limit| *limit > 0);
        let limits = Limits {
            max_letters: at_most(self.dlq_max_letters),
            max_bytes: at_most(self.dlq_max_bytes),
            max_age: Some(self.dlq_max_age).filter(|age| !age.is_zero()),
            overflow: self.dlq_overflow,
        };
        FileStoreOptions { limits, ..FileStoreOptions::default() }
    }
}

/// Opens the stores of the configuration, and starts the thread that keeps letters in them and in `store`.
pub(crate) fn start(
    config: &KafkaConfig,
    store: Option<Arc<dyn DeadLetterStore>>,
    tokens: Option<TokenSource>,
) -> Result<DeadLetters, ConfigErrors> {
    let topic = match config.dlq_topic.as_str() {
        "" => None,
        topic => {
            let (engine, options) = config.start(tokens)?;
            Some(DeadLetterTopic::with_engine(engine, topic, TopicOptions { logs_check: true, ..options }))
        }
    };
    let file = match config.dlq_file.as_str() {
        "" if topic.is_none() && store.is_none() => spool::dead_letter_file(config),
        "" => None,
        path => Some(path.into()),
    };
    let file = match file {
        None => None,
        Some(path) => Some(FileStore::open_with(path, config.dlq_file_options()).map_err(ConfigProblem::dlq_file)?),
    };
    let stores = Stores { topic, custom: store, file, memory_letters: config.dlq_buffer as u64 };
    Ok(DeadLetters::start(stores).map_err(ConfigProblem::dead_letter_thread)?)
}
