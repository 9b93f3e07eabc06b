//! `courier publish`: events from a file or standard input to Kafka.
//!
//! Rules:
//! - The output accounts for every item of the input: delivered, failed with a reason, not published, or not an event.
//! - Ctrl-C, SIGTERM or SIGHUP stops reading, and the command delivers the events that were read. A second signal ends the
//!   command with the verdicts that are known.
//! - A run with a spool continues where an earlier one was killed (`input_start`, `session/spooled`).
//! - Memory is bounded by the producer's buffer and by the number of unrecorded verdicts.
//! - An event passes through `reader` (a thread), `line_channel` (bounded) and `publisher`. `session` runs them.

mod counts;
mod dead_letters;
mod input_start;
mod item_error;
mod known_items;
mod line_channel;
mod monitor;
mod pace;
mod parked;
mod position;
mod progress;
mod publisher;
mod reader;
mod reasons;
mod receipts;
mod refusal;
mod session;
mod spool_run;
mod spool_summary;
mod summary;
mod tally;
mod topic_waits;
mod unmapped;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kafka_courier::{ErrorCode, KafkaConfig, KafkaProducer, LoadedConfig, PublishError, Reason, shown_file};
use serde_json::json;

use self::dead_letters::{FileChoice, RunDeadLetters};
use self::line_channel::LineReceiver;
use self::reader::Source;
use self::receipts::Receipts;
use self::session::{PublishSession, SessionOptions};
use self::spool_run::SpoolRun;
use self::unmapped::Unmapped;
use crate::exit::{CommandError, Exit};
use crate::files::CommandFiles;
use crate::input;
use crate::settings::{SettingsArgs, check_destination};
use crate::shared_file::SharedFile;
use crate::signals::Signals;
use crate::spool::check_outside;

/// The longest grace period in seconds. Longer ones are reduced to it.
const LONGEST_GRACE: u64 = u32::MAX as u64;
/// Heading of the options about dead letters.
const DEAD_LETTERS: &str = "Dead letters";
/// Heading of the options about a spool.
const SPOOL: &str = "Spool";

/// Publish events from a file or standard input
///
/// The input is NDJSON, one event per line, or one JSON array. Each event is sent to the topic of its type, which
/// KAFKA_TOPIC_MAPPING can change. Events with the same key stay in order. An event that cannot be delivered is kept as a
/// dead letter in a file before its failure is reported. `courier config --explain` lists all settings.
#[derive(Args, Debug)]
pub(crate) struct PublishArgs {
    /// Send every event to this topic instead of its type's topic
    #[arg(long, value_name = "TOPIC", value_parser = crate::topic_name)]
    topic: Option<String>,
    /// Write a line of JSON for each event to this file (- is standard output)
    ///
    /// The lines have the order of the input. Each has the event's place in the input, id, topic, partition and offset, or its
    /// error. An existing file is overwritten. With --spool the lines are added to it.
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    /// Stop at the first item that is not an event, and deliver the events before it
    #[arg(long)]
    strict: bool,
    /// Continue for this long after Ctrl-C, SIGTERM or SIGHUP, and after the end of the input with --spool
    ///
    /// The first half is for publishing events that were read, the whole time for their delivery.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = crate::whole_number::<u64>, default_value_t = 30)]
    grace: u64,
    /// Keep dead letters in this file [env: KAFKA_DLQ_FILE]
    ///
    /// The default is the option dlq_file, else dead-letters.redb in $XDG_STATE_HOME/kafka-courier
    /// (~/.local/state/kafka-courier). `courier dlq` lists and replays dead letters.
    #[arg(long, alias = "file", value_name = "PATH", conflicts_with = "no_dlq_file", help_heading = DEAD_LETTERS)]
    dlq_file: Option<PathBuf>,
    /// Do not keep dead letters in a file
    #[arg(long, help_heading = DEAD_LETTERS)]
    no_dlq_file: bool,
    /// Print the counts of the summary as a line of JSON to standard output
    #[arg(long)]
    json: bool,
    /// Store events in this folder before they are sent [env: KAFKA_SPOOL_DIR]
    ///
    /// A run that was killed at any moment continues with the same FILE and folder: each line is in Kafka once. Unreachable
    /// brokers do not stop the run: events are stored, and delivered by this run or a later one. Exit code 75 says that
    /// events or lines are left.
    #[arg(long, value_name = "DIR", help_heading = SPOOL)]
    spool: Option<PathBuf>,
    /// Stay until everything in the spool is delivered
    #[arg(long, help_heading = SPOOL)]
    wait: bool,
    /// Publish a file from its start that was published to its end before, or has changed since
    ///
    /// A run that did not reach the end of the file continues, with --again too. A file is not published again while the
    /// spool has events of earlier runs.
    #[arg(long, help_heading = SPOOL)]
    again: bool,
    /// Read events from this file (- is standard input)
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl PublishArgs {
    fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.min(LONGEST_GRACE))
    }
}

/// Runs the command and prints its summary or its error.
pub(crate) fn run(args: PublishArgs) -> Exit {
    let runtime = match crate::runtime::start() {
        Ok(runtime) => runtime,
        Err(error) => return error.report(),
    };
    let is_json = args.json;
    let exit = runtime.block_on(publish(args)).unwrap_or_else(|error| {
        if is_json {
            print_failure(&error);
        }
        error.report()
    });
    // The reader's thread may still wait for input.
    runtime.shutdown_background();
    exit
}

/// Prints the error of a run that has read nothing as a line of JSON.
fn print_failure(CommandError(exit, why): &CommandError) {
    let try_again = (*exit == Exit::Busy).then_some("held");
    // A reader that has ended changes no outcome.
    let _ = writeln!(std::io::stdout(), "{}", json!({ "exit": *exit as u8, "error": why, "try_again": try_again }));
}

async fn publish(args: PublishArgs) -> Result<Exit, CommandError> {
    let mut signals = Signals::catch();
    let ready = tokio::select! {
        biased;
        () = signals.reached(1) => None,
        ready = prepare(&args) => Some(ready?),
    };
    let Some(Prepared { producer, delivery_timeout, unmapped, lines, receipts, dead_letters, spool }) = ready else {
        return Err(CommandError(signals.exit(), "stopped by a signal before anything was read".to_owned()));
    };
    let options = SessionOptions {
        topic: args.topic.as_deref().map(Into::into),
        strict: args.strict,
        grace: args.grace(),
        input: args.file,
        delivery_timeout,
        unmapped,
        spool,
    };
    let summary = PublishSession::new(producer, options, lines, receipts, dead_letters, signals).run().await;
    Ok(summary.print(args.receipts.as_deref(), args.json))
}

/// The parts of a run before the first event is read.
struct Prepared {
    producer: KafkaProducer,
    delivery_timeout: Duration,
    unmapped: Unmapped,
    lines: LineReceiver,
    receipts: Receipts,
    dead_letters: RunDeadLetters,
    spool: Option<SpoolRun>,
}

/// Checks files, settings and the cluster, and creates the parts of a run.
async fn prepare(args: &PublishArgs) -> Result<Prepared, CommandError> {
    let files = named_files(args)?;
    let settings = args.settings.clone();
    let loaded = open(move || settings.load()).await?;
    let loaded = loaded.map_err(|errors| CommandError(Exit::Config, errors.to_string()))?;
    check_destination("--topic", args.topic.as_deref(), &loaded.config.dlq_topic)?;
    let wanted = FileChoice::of(args, &loaded.config);
    check_files(files, args, &loaded, &wanted)?;
    let mut config = loaded.config;
    let mut spool = SpoolRun::of(args, &mut config)?;
    if let (Some(spool), Some(receipts)) = (&spool, &args.receipts) {
        check_outside(&spool.dir, "the file of receipts", receipts)?;
    }
    let file = args.file.clone();
    let source = open(move || input::open(Path::new(&file), "events"))
        .await?
        .map_err(|error| CommandError(Exit::Data, error.to_string()))?;
    let (patience, delivery_timeout) = (config.metadata_timeout, config.delivery_timeout);
    config.validate().map_err(|errors| CommandError(Exit::Config, errors.to_string()))?;
    config.dlq_file = String::new();
    let settings = config.clone();
    let letters = open(move || wanted.open(&settings)).await??;
    let mapping = config.topic_mapping.clone();
    let producer = build(config, letters.as_ref(), spool.as_ref()).await?;
    if spool_run::check_cluster(&producer, spool.as_ref(), patience).await? {
        check_topics(&producer, args.topic.as_deref()).await?;
        // Brokers that answer say within this time that a topic does not exist.
        spool.iter_mut().for_each(|spool| spool.patience += patience);
    }
    let unmapped = Unmapped::new(&producer, &mapping);
    let receipts = create_receipts(args, spool.is_some()).await?;
    let mut source = Source::of(source);
    if let Some(spool) = &mut spool {
        let (producer, file, again) = (producer.clone(), args.file.clone(), args.again);
        (source, spool.input) = open(move || spool_run::open_input(&producer, &file, again, source)).await??;
    }
    let lines = reader::start(source).map_err(|error| {
        CommandError(Exit::Io, format!("cannot read {}: {error}", shown_file(Path::new(&args.file))))
    })?;
    let dead_letters = RunDeadLetters::new(producer.dead_letters(), letters, args.no_dlq_file);
    Ok(Prepared { producer, delivery_timeout, unmapped, lines, receipts, dead_letters, spool })
}

async fn build(
    config: KafkaConfig,
    letters: Option<&Arc<SharedFile>>,
    spool: Option<&SpoolRun>,
) -> Result<KafkaProducer, CommandError> {
    let mut builder = KafkaProducer::builder().with_config(config);
    if let Some(letters) = letters {
        builder = builder.dead_letter_store(letters.clone());
    }
    let built = open(move || builder.build()).await?;
    built.map_err(|errors| match spool {
        Some(spool) => spool_run::build_failed(&spool.dir, &errors),
        None => CommandError(Exit::Config, errors.to_string()),
    })
}

/// Checks the dead-letter topic and the topic of `--topic`.
async fn check_topics(producer: &KafkaProducer, topic: Option<&str>) -> Result<(), CommandError> {
    let fit = producer.dead_letters().check_topic().await;
    let warnings = fit.map_err(|unfit| CommandError(Exit::Config, format!("dlq_topic: {unfit}")))?;
    warnings.iter().for_each(|warning| crate::say(&format!("warning: {warning}")));
    if let Some(topic) = topic {
        producer.learn_topic(topic).await.map_err(|error| topic_error(topic, &error))?;
    }
    Ok(())
}

/// Returns the files that arguments name. Fails if two of them are the same.
fn named_files(args: &PublishArgs) -> Result<CommandFiles, CommandError> {
    let mut files = CommandFiles::new();
    files.settings(args.settings.file());
    files.input(Path::new(&args.file));
    if let Some(path) = &args.receipts {
        files.output("--receipts", path);
    }
    if let Some(path) = &args.dlq_file {
        files.dead_letters("--dlq-file", path);
    }
    files.check()?;
    Ok(files)
}

/// Fails if a file that settings name, or the default file of dead letters, is one of `files`.
fn check_files(
    mut files: CommandFiles,
    args: &PublishArgs,
    loaded: &LoadedConfig,
    letters: &FileChoice,
) -> Result<(), CommandError> {
    files.named_by(loaded);
    if let Some((option, path)) = letters.path().filter(|_| args.dlq_file.is_none()) {
        files.dead_letters(option, path);
    }
    files.check()
}

/// Returns the error of the topic of `--topic`.
fn topic_error(topic: &str, error: &PublishError) -> CommandError {
    match error {
        PublishError::Topic { reason: Reason::Broker { code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, .. }, .. } => {
            let why = format!("topic {topic:?} does not exist on the cluster: create it, or fix --topic");
            CommandError(Exit::Config, why)
        }
        _ if error.is_refusal() => CommandError(Exit::Refused, error.to_string()),
        _ => CommandError(Exit::Unreachable, error.to_string()),
    }
}

/// `continues` is whether the run may continue an earlier one, whose receipts are kept.
async fn create_receipts(args: &PublishArgs, continues: bool) -> Result<Receipts, CommandError> {
    let Some(path) = args.receipts.clone() else { return Ok(Receipts::default()) };
    let name = shown_file(&path);
    let create = move || if continues { Receipts::append(&path) } else { Receipts::create(&path) };
    let created = open(create).await?;
    created.map_err(|error| {
        let why = format!("--receipts: cannot create {name}: {error}: name a file, or - for standard output");
        CommandError(Exit::CantCreate, why)
    })
}

/// Opens or reads files on a separate thread, because a named pipe waits for its other side, and a signal must end the wait.
async fn open<T: Send + 'static>(open: impl FnOnce() -> T + Send + 'static) -> Result<T, CommandError> {
    tokio::task::spawn_blocking(open).await.map_err(|error| CommandError(Exit::Io, error.to_string()))
}
