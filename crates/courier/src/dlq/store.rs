//! The store that a command works on: a file, whoever holds it, or a topic.
//!
//! Rules: reading makes no file; what is in the way is said with the remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kafka_courier::dlq::{self, DeadLetterStore, FileStoreOptions, OpenError};
use kafka_courier::{DeadLetterTopic, KafkaConfig, KafkaProducer, shown_file};

use crate::exit::{Exit, Refusal};
use crate::files::Files;
use crate::letters::{SharedFile, Use};
use crate::settings::SettingsArgs;
use crate::state;

/// Which store.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// The file of dead letters; without it KAFKA_DLQ_FILE (dlq_file), else dead-letters.redb in
    /// $XDG_STATE_HOME/kafka-courier, which is ~/.local/state/kafka-courier by default.
    #[arg(long, visible_alias = "dlq-file", value_name = "PATH", conflicts_with = "store_topic")]
    file: Option<PathBuf>,
    /// A Kafka topic of dead letters instead of a file.
    #[arg(long, value_name = "TOPIC", value_parser = crate::topic_name)]
    store_topic: Option<String>,
    /// The name that --store-topic had.
    #[arg(long, value_name = "TOPIC", hide = true, value_parser = former_topic)]
    topic: Option<String>,
}

/// Refuses `--topic`: it could mean the store or, as in `courier publish`, the destination.
fn former_topic(_: &str) -> Result<String, String> {
    let why = "--store-topic names the topic that holds the dead letters; dlq replay --to-topic names the one they are sent to";
    Err(why.to_owned())
}

/// A store, and the settings that a producer of its letters has: none that keeps letters elsewhere.
pub(super) struct Opened {
    pub(super) store: Arc<dyn DeadLetterStore>,
    pub(super) config: KafkaConfig,
    /// The topic of dead letters by `dlq_topic`, which `config` has no more.
    pub(super) dlq_topic: String,
}

impl StoreArgs {
    /// The store, if it is there, for reading alone.
    pub(super) fn open_to_read(&self) -> Result<Opened, Refusal> {
        self.open(Purpose::Read, |_| {})
    }

    /// The store, if it is there.
    pub(super) fn open_to_remove(&self) -> Result<Opened, Refusal> {
        self.open(Purpose::Remove, |_| {})
    }

    /// The store, if it is there, of a command that writes what it reads `to` a file.
    pub(super) fn open_to_read_beside(&self, to: &Path) -> Result<Opened, Refusal> {
        self.open(Purpose::Read, |files| files.output("the exported letters", to))
    }

    /// The store, if it is there, for as long as a replay takes: others who need the file meanwhile are served.
    pub(super) fn open_for_replay(&self) -> Result<Opened, Refusal> {
        self.open(Purpose::Replay, |_| {})
    }

    /// The store, of a command that reads `from` a file; a store that is not there is created.
    pub(super) fn open_or_create(&self, from: &Path) -> Result<Opened, Refusal> {
        self.open(Purpose::Import, |files| files.input(from))
    }

    /// The store; `add` adds the command's own files to those that must differ.
    fn open(&self, purpose: Purpose, add: impl FnOnce(&mut Files)) -> Result<Opened, Refusal> {
        let mut files = Files::new();
        files.settings(self.settings.file());
        if let Some(file) = &self.file {
            files.dead_letters("the dead letters", file);
        }
        add(&mut files);
        files.check()?;
        let loaded = self.settings.load().map_err(|errors| Refusal(Exit::Config, errors.to_string()))?;
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
        config.auto_replay = false;
        let store = match topic {
            Some(topic) => {
                reach(&config)?;
                open_topic(topic, &with_letters, purpose)?
            }
            None => open_file(&path?, &with_letters, purpose)?,
        };
        Ok(Opened { store, config, dlq_topic })
    }

    /// The Kafka topic that the letters are in, if it is one.
    pub(super) fn topic(&self) -> Option<&str> {
        self.store_topic.as_deref()
    }

    fn path(&self, config: &KafkaConfig) -> Result<PathBuf, Refusal> {
        let set = Some(&config.dlq_file).filter(|file| !file.is_empty()).map(PathBuf::from);
        self.file.clone().or(set).or_else(state::dead_letters).ok_or_else(|| {
            Refusal(Exit::Usage, "there is no home folder here to look for dead letters in: say --file".to_owned())
        })
    }
}

/// The topic, if its settings let it keep what is done to its letters. Letters can be read from any.
fn open_topic(topic: &str, config: &KafkaConfig, purpose: Purpose) -> Result<Arc<dyn DeadLetterStore>, Refusal> {
    let opened = DeadLetterTopic::open(config, topic);
    let store = opened.map_err(|errors| Refusal(Exit::Config, errors.to_string()))?;
    if let Ok(false) = store.exists() {
        let why = format!(
            "topic {topic:?} does not exist on the cluster: create it (kafka-topics.sh --create --topic {topic} --config \
             cleanup.policy=delete), or fix --store-topic"
        );
        return Err(Refusal(Exit::Config, why));
    }
    match store.check() {
        Ok(warnings) => warnings.iter().for_each(|warning| crate::say(&format!("warning: {warning}"))),
        Err(unfit) if purpose == Purpose::Read => crate::say(&format!("warning: {unfit}")),
        Err(unfit) => return Err(Refusal(Exit::Config, unfit.to_string())),
    }
    Ok(Arc::new(store))
}

/// Says whether the brokers answer, and what they refuse: a store in a topic tells that only in words.
fn reach(config: &KafkaConfig) -> Result<(), Refusal> {
    let builder = KafkaProducer::builder().with_config(config.clone());
    let producer = builder.build().map_err(|errors| Refusal(Exit::Config, errors.to_string()))?;
    let patience = config.metadata_timeout;
    tokio::runtime::Handle::current().block_on(async {
        let reached = producer.health_check(patience).await;
        producer.close(Duration::ZERO).await;
        reached.map_err(Refusal::from)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Read,
    Remove,
    Replay,
    Import,
}

fn open_file(path: &Path, config: &KafkaConfig, purpose: Purpose) -> Result<Arc<dyn DeadLetterStore>, Refusal> {
    let create = purpose == Purpose::Import;
    if !create && matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        let why = format!("there are no dead letters: {} is not there (--file names another)", shown_file(path));
        return Err(Refusal(Exit::Data, why));
    }
    let opened: Result<Arc<dyn DeadLetterStore>, OpenError> = match purpose {
        // Both may take long: others who need the file meanwhile are served.
        Purpose::Replay => shared(path, config),
        Purpose::Import => shared(path, &unlimited(config)),
        Purpose::Read => dlq::read_or_reach(path),
        Purpose::Remove => dlq::open_or_reach(path, FileStoreOptions::default()),
    };
    opened.map_err(|error| Refusal(code(&error, create), error.to_string()))
}

fn shared(path: &Path, config: &KafkaConfig) -> Result<Arc<dyn DeadLetterStore>, OpenError> {
    Ok(Arc::new(SharedFile::open(path, config, Use::Replay)?))
}

/// Limits are those of whoever keeps letters: nothing is dropped or refused for having come from elsewhere.
fn unlimited(config: &KafkaConfig) -> KafkaConfig {
    let mut config = config.clone();
    (config.dlq_max_letters, config.dlq_max_bytes, config.dlq_max_age) = (0, 0, Duration::ZERO);
    config
}

fn code(error: &OpenError, create: bool) -> Exit {
    match error {
        OpenError::Held { .. } => Exit::Busy,
        OpenError::Io { .. } | OpenError::NotRegular { .. } if create => Exit::CantCreate,
        OpenError::Io { .. } => Exit::Io,
        _ => Exit::Data,
    }
}
