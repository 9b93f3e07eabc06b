//! The store of a command: a file, the process that holds the file, or a topic.
//!
//! Rules:
//! - A command that only reads creates no file.
//! - An error names the obstacle and the remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kafka_courier::dlq::{self, DeadLetterStore, FileStoreOptions, OpenError};
use kafka_courier::{DeadLetterTopic, KafkaConfig, KafkaProducer, shown_file};

use crate::argument::ArgumentError;
use crate::exit::{CommandError, Exit};
use crate::files::CommandFiles;
use crate::settings::SettingsArgs;
use crate::shared_file::{FileUse, SharedFile};
use crate::state_folder;

/// The choice of the store, and the settings.
#[derive(Args, Debug)]
#[command(next_help_heading = "Dead-letter store")]
pub(super) struct StoreArgs {
    /// Use this file of dead letters [env: KAFKA_DLQ_FILE]
    ///
    /// The default is the option dlq_file, else dead-letters.redb in $XDG_STATE_HOME/kafka-courier
    /// (~/.local/state/kafka-courier).
    #[arg(long, visible_alias = "dlq-file", value_name = "PATH", conflicts_with = "store_topic")]
    file: Option<PathBuf>,
    /// Use this Kafka topic of dead letters instead of a file
    #[arg(long, value_name = "TOPIC", value_parser = crate::topic_name)]
    store_topic: Option<String>,
    /// The former name of --store-topic.
    #[arg(long, value_name = "TOPIC", hide = true, value_parser = former_topic)]
    topic: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Refuses `--topic`.
fn former_topic(_: &str) -> Result<String, ArgumentError> {
    Err(ArgumentError::FormerTopicOption)
}

/// A store, and the settings for a producer of its dead letters. The settings name no other store, and no spool: the dead
/// letters are durable, and a command on them must not deliver the events of a spool.
pub(super) struct OpenedStore {
    pub(super) store: Arc<dyn DeadLetterStore>,
    pub(super) config: KafkaConfig,
    /// The setting `dlq_topic`, which `config` no longer contains.
    pub(super) dlq_topic: String,
    /// Folders that may have a spool: that of the setting `spool_dir`, and the one that has the file.
    pub(super) spools: Vec<PathBuf>,
}

impl StoreArgs {
    /// Opens an existing store for reading.
    pub(super) fn open_to_read(&self) -> Result<OpenedStore, CommandError> {
        self.open(Purpose::Read, |_| {})
    }

    /// Opens an existing store for removal.
    pub(super) fn open_to_remove(&self) -> Result<OpenedStore, CommandError> {
        self.open(Purpose::Remove, |_| {})
    }

    /// Opens an existing store for a command that exports `to` a file.
    pub(super) fn open_to_read_beside(&self, to: &Path) -> Result<OpenedStore, CommandError> {
        self.open(Purpose::Read, |files| files.output("the exported file", to))
    }

    /// Opens an existing store for the duration of a replay, and serves it to other processes.
    pub(super) fn open_for_replay(&self) -> Result<OpenedStore, CommandError> {
        self.open(Purpose::Replay, |_| {})
    }

    /// Opens the store for a command that imports `from` a file. Creates a store that does not exist.
    pub(super) fn open_or_create(&self, from: &Path) -> Result<OpenedStore, CommandError> {
        self.open(Purpose::Import, |files| files.input(from))
    }

    /// Opens the store. `add` adds the command's own files to the files that must differ.
    fn open(&self, purpose: Purpose, add: impl FnOnce(&mut CommandFiles)) -> Result<OpenedStore, CommandError> {
        let mut files = CommandFiles::new();
        files.settings(self.settings.file());
        if let Some(file) = &self.file {
            files.dead_letters("the dead letters", file);
        }
        add(&mut files);
        files.check()?;
        let loaded = self.settings.load().map_err(|errors| CommandError(Exit::Config, errors.to_string()))?;
        files.named_by(&loaded);
        let mut config = loaded.config;
        let (topic, path) = (self.store_topic.as_deref(), self.path(&config));
        if let (None, None, Ok(path)) = (topic, &self.file, &path) {
            files.dead_letters("the dead letters", path);
        }
        files.check()?;
        let with_letters = config.clone();
        let dlq_topic = std::mem::take(&mut config.dlq_topic);
        config.dlq_file = String::new();
        let spool_dir = std::mem::take(&mut config.spool_dir);
        let mut spools: Vec<_> =
            Some(PathBuf::from(spool_dir)).filter(|dir| !dir.as_os_str().is_empty()).into_iter().collect();
        config.auto_replay = false;
        let store = match topic {
            Some(topic) => {
                check_brokers(&config)?;
                open_topic(topic, &with_letters, purpose)?
            }
            None => {
                let path = path?;
                spools.extend(folder_of(&path).filter(|folder| !spools.contains(folder)));
                open_file(&path, &with_letters, purpose)?
            }
        };
        Ok(OpenedStore { store, config, dlq_topic, spools })
    }

    /// Returns the topic of `--store-topic`.
    pub(super) fn topic(&self) -> Option<&str> {
        self.store_topic.as_deref()
    }

    fn path(&self, config: &KafkaConfig) -> Result<PathBuf, CommandError> {
        let set = Some(&config.dlq_file).filter(|file| !file.is_empty()).map(PathBuf::from);
        self.file.clone().or(set).or_else(state_folder::dead_letters).ok_or_else(|| {
            CommandError(
                Exit::Usage,
                "no home folder for the default file of dead letters: name a file with --file".to_owned(),
            )
        })
    }
}

/// Returns the folder of a file of dead letters. A producer with a spool keeps both in one folder by default.
fn folder_of(file: &Path) -> Option<PathBuf> {
    file.canonicalize().ok()?.parent().map(Path::to_owned)
}

/// Opens the topic. A command that writes needs a topic whose settings keep all dead letters. Any topic can be read.
fn open_topic(topic: &str, config: &KafkaConfig, purpose: Purpose) -> Result<Arc<dyn DeadLetterStore>, CommandError> {
    let opened = DeadLetterTopic::open(config, topic);
    let store = opened.map_err(|errors| CommandError(Exit::Config, errors.to_string()))?;
    if let Ok(false) = store.exists() {
        let why = format!(
            "topic {topic:?} does not exist on the cluster: create it (kafka-topics.sh --create --topic {topic} --config \
             cleanup.policy=delete), or fix --store-topic"
        );
        return Err(CommandError(Exit::Config, why));
    }
    match store.check() {
        Ok(warnings) => warnings.iter().for_each(|warning| crate::say(&format!("warning: {warning}"))),
        Err(unfit) if purpose == Purpose::Read => crate::say(&format!("warning: {unfit}")),
        Err(unfit) => return Err(CommandError(Exit::Config, unfit.to_string())),
    }
    Ok(Arc::new(store))
}

/// Checks that the brokers answer and accept the client. The errors of a store in a topic have no codes for that.
fn check_brokers(config: &KafkaConfig) -> Result<(), CommandError> {
    let builder = KafkaProducer::builder().with_config(config.clone());
    let producer = builder.build().map_err(|errors| CommandError(Exit::Config, errors.to_string()))?;
    let patience = config.metadata_timeout;
    tokio::runtime::Handle::current().block_on(async {
        let reached = producer.health_check(patience).await;
        producer.close(Duration::ZERO).await;
        reached.map_err(CommandError::from)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Read,
    Remove,
    Replay,
    Import,
}

fn open_file(path: &Path, config: &KafkaConfig, purpose: Purpose) -> Result<Arc<dyn DeadLetterStore>, CommandError> {
    let create = purpose == Purpose::Import;
    if !create && matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        let why = format!("no dead letters: {} does not exist (--file names another file)", shown_file(path));
        return Err(CommandError(Exit::Data, why));
    }
    let opened: Result<Arc<dyn DeadLetterStore>, OpenError> = match purpose {
        // Both may take long, so the file is served to other processes.
        Purpose::Replay => shared(path, config),
        Purpose::Import => shared(path, &unlimited(config)),
        Purpose::Read => dlq::read_or_reach(path),
        Purpose::Remove => dlq::open_or_reach(path, FileStoreOptions::default()),
    };
    opened.map_err(|error| CommandError(exit_code(&error, create), error.to_string()))
}

fn shared(path: &Path, config: &KafkaConfig) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    Ok(Arc::new(SharedFile::open(path, config, FileUse::Replay)?))
}

/// Returns the settings without limits on the store: an import neither drops nor refuses dead letters.
fn unlimited(config: &KafkaConfig) -> KafkaConfig {
    let mut config = config.clone();
    (config.dlq_max_letters, config.dlq_max_bytes, config.dlq_max_age) = (0, 0, Duration::ZERO);
    config
}

fn exit_code(error: &OpenError, create: bool) -> Exit {
    match error {
        OpenError::Held { .. } => Exit::Busy,
        OpenError::Io { .. } | OpenError::NotRegular { .. } if create => Exit::CantCreate,
        OpenError::Io { .. } => Exit::Io,
        _ => Exit::Data,
    }
}
