//! The store that a command works on: a file, whoever holds it, or a topic.
//!
//! Rules: reading makes no file; what is in the way is said with the remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use kafka_courier::dlq::{self, DeadLetterStore, FileStoreOptions, OpenError};
use kafka_courier::{DeadLetterTopic, KafkaConfig};

use crate::exit::{Exit, Refusal};
use crate::settings::SettingsArgs;
use crate::state;

/// Which store.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// The file of dead letters; without it KAFKA_DLQ_FILE (dlq_file), else dead-letters.redb in
    /// $XDG_STATE_HOME/kafka-courier, which is ~/.local/state/kafka-courier by default.
    #[arg(long, value_name = "PATH", conflicts_with = "topic")]
    file: Option<PathBuf>,
    /// A Kafka topic of dead letters instead of a file.
    #[arg(long, value_name = "TOPIC", value_parser = crate::topic_name)]
    topic: Option<String>,
}

/// A store, and the settings that a producer of its letters has: none that keeps letters elsewhere.
pub(super) struct Opened {
    pub(super) store: Arc<dyn DeadLetterStore>,
    pub(super) config: KafkaConfig,
}

impl StoreArgs {
    /// The store, if it is there.
    pub(super) fn open_existing(&self) -> Result<Opened, Refusal> {
        self.open(false)
    }

    /// The store; a file that is not there is made.
    pub(super) fn open_or_create(&self) -> Result<Opened, Refusal> {
        self.open(true)
    }

    fn open(&self, create: bool) -> Result<Opened, Refusal> {
        let mut config = self.settings.load().map_err(|errors| Refusal(Exit::Config, errors.to_string()))?.config;
        let store: Arc<dyn DeadLetterStore> = match &self.topic {
            Some(topic) => Arc::new(
                DeadLetterTopic::open(&config, topic).map_err(|errors| Refusal(Exit::Config, errors.to_string()))?,
            ),
            None => open_file(&self.path(&config)?, create)?,
        };
        config.dlq_topic = String::new();
        config.dlq_file = String::new();
        config.auto_replay = false;
        Ok(Opened { store, config })
    }

    fn path(&self, config: &KafkaConfig) -> Result<PathBuf, Refusal> {
        let set = Some(&config.dlq_file).filter(|file| !file.is_empty()).map(PathBuf::from);
        self.file.clone().or(set).or_else(state::dead_letters).ok_or_else(|| {
            Refusal(Exit::Usage, "there is no home folder here to look for dead letters in: say --file".to_owned())
        })
    }
}

fn open_file(path: &Path, create: bool) -> Result<Arc<dyn DeadLetterStore>, Refusal> {
    if !create && matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        let why = format!("there are no dead letters: {} is not there (--file names another)", path.display());
        return Err(Refusal(Exit::Data, why));
    }
    // Limits are those of whoever keeps letters: nothing is dropped for having been looked at.
    dlq::open_or_reach(path, FileStoreOptions::default())
        .map_err(|error| Refusal(code(&error, create), error.to_string()))
}

fn code(error: &OpenError, create: bool) -> Exit {
    match error {
        OpenError::Held { .. } => Exit::Busy,
        OpenError::Io { .. } if create => Exit::CantCreate,
        OpenError::Io { .. } => Exit::Io,
        _ => Exit::Data,
    }
}
