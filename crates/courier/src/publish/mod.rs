//! `courier publish`: events from a file or standard input to Kafka.
//!
//! Rules:
//! - Every item of the input has its fate told: delivered, failed with its reason, not published, or no event.
//! - Ctrl-C, SIGTERM or SIGHUP stops reading, delivers what was read, and says what became of it; a second one ends
//!   the command with what is known.
//! - Memory is bounded: by the producer's buffer, and by how many verdicts may be noted late.
//! - The way of an event: `reader` (a thread), `lines` (a bounded hand-over, with positions), `publisher`; `session` runs them.

mod counts;
mod desk;
mod keeping;
mod lines;
mod pace;
mod parked;
mod position;
mod progress;
mod publisher;
mod reader;
mod reasons;
mod receipts;
mod session;
mod summary;
mod tally;
mod topics;
mod unmapped;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use kafka_courier::{ErrorCode, KafkaProducer, LoadedConfig, PublishError, Reason, shown_file};

use self::keeping::{Keeping, Wanted};
use self::lines::Lines;
use self::receipts::Receipts;
use self::session::{Plan, Session};
use self::unmapped::Unmapped;
use crate::exit::{Exit, Refusal};
use crate::files::Files;
use crate::settings::{SettingsArgs, check_destination};
use crate::signals::Signals;

/// The longest grace period, in seconds; more is as good as this.
const LONGEST_GRACE: u64 = u32::MAX as u64;

/// Publishes events from a file or standard input: NDJSON, an event a line, or one JSON array.
///
/// Each event goes to its type's topic (KAFKA_TOPIC_MAPPING changes which), keyed so that what belongs
/// together stays in order. An event that can't be delivered is kept as a dead letter, in a file, before its failure is told.
/// Every setting may come from --set, from the environment (KAFKA_BROKERS, KAFKA_FLUSH_MESSAGES,
/// KAFKA_FLUSH_TIMEOUT, KAFKA_DELIVERY_TIMEOUT and so on) or from --config; `courier config --explain` tells them all.
#[derive(Args, Debug)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Sends every event to this topic, whatever its type.
    #[arg(long, value_name = "TOPIC", value_parser = crate::topic_name)]
    topic: Option<String>,
    /// Writes a line for each event, in the input's order: place, id, topic, partition and offset, or its error. - is
    /// standard output.
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    /// Stops at the first item that is no event. What stands before it is delivered.
    #[arg(long)]
    strict: bool,
    /// Keeps dead letters in this file; without it in KAFKA_DLQ_FILE (dlq_file), else dead-letters.redb in
    /// $XDG_STATE_HOME/kafka-courier, which is ~/.local/state/kafka-courier by default. `courier dlq` lists them and sends
    /// them again.
    #[arg(long, alias = "file", value_name = "PATH", conflicts_with = "no_dlq_file")]
    dlq_file: Option<PathBuf>,
    /// Keeps dead letters in no file.
    #[arg(long)]
    no_dlq_file: bool,
    /// How long to go on after Ctrl-C, SIGTERM or SIGHUP, in seconds: half of it publishing what was read, all of it delivering.
    #[arg(long, value_name = "SECONDS", value_parser = crate::whole_number::<u64>, default_value_t = 30)]
    grace: u64,
    /// The file to read, or - for standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
}

/// Runs the command; prints its summary or its error.
pub(crate) fn run(args: PublishArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::say(&format!("the runtime could not be started: {error}"));
            return Exit::Io;
        }
    };
    let exit = runtime.block_on(async {
        match publish(args).await {
            Ok(exit) => exit,
            Err(Refusal(exit, why)) => {
                crate::say(&why);
                exit
            }
        }
    });
    // A thread may still wait for the input.
    runtime.shutdown_background();
    exit
}

async fn publish(args: PublishArgs) -> Result<Exit, Refusal> {
    let mut signals = Signals::catch();
    let ready = tokio::select! {
        biased;
        () = signals.reached(1) => None,
        ready = prepare(&args) => Some(ready?),
    };
    let Some(Ready { producer, delivery_timeout, unmapped, lines, receipts, keeping }) = ready else {
        return Err(Refusal(signals.exit(), "stopped before anything was read".to_owned()));
    };
    let plan = Plan {
        topic: args.topic.as_deref().map(Into::into),
        strict: args.strict,
        grace: Duration::from_secs(args.grace.min(LONGEST_GRACE)),
        input: args.file,
        delivery_timeout,
        unmapped,
    };
    let summary = Session::new(producer, plan, lines, receipts, keeping, signals).run().await;
    Ok(summary.print(args.receipts.as_deref()))
}

/// What is there before the first event is read.
struct Ready {
    producer: KafkaProducer,
    delivery_timeout: Duration,
    unmapped: Unmapped,
    lines: Lines,
    receipts: Receipts,
    keeping: Keeping,
}

/// Looks at everything that may be wrong before the first event is read.
async fn prepare(args: &PublishArgs) -> Result<Ready, Refusal> {
    let files = named_files(args)?;
    let loaded = args.settings.load().map_err(|errors| Refusal(Exit::Config, errors.to_string()))?;
    check_destination("--topic", args.topic.as_deref(), &loaded.config.dlq_topic)?;
    let wanted = Wanted::of(args, &loaded.config);
    check_files(files, args, &loaded, &wanted)?;
    let mut config = loaded.config;
    let file = args.file.clone();
    let source = open(move || reader::open(&file)).await?.map_err(|why| Refusal(Exit::Data, why))?;
    let (patience, delivery_timeout) = (config.metadata_timeout, config.delivery_timeout);
    config.validate().map_err(|errors| Refusal(Exit::Config, errors.to_string()))?;
    config.dlq_file = String::new();
    let settings = config.clone();
    let file = open(move || wanted.open(&settings)).await??;
    let mapping = config.topic_mapping.clone();
    let mut builder = KafkaProducer::builder().with_config(config);
    if let Some(file) = &file {
        builder = builder.dead_letter_store(file.clone());
    }
    let producer = builder.build().map_err(|errors| Refusal(Exit::Config, errors.to_string()))?;
    producer.health_check(patience).await?;
    let fit = producer.dead_letters().check_topic().await;
    let warnings = fit.map_err(|unfit| Refusal(Exit::Config, format!("dlq_topic: {unfit}")))?;
    warnings.iter().for_each(|warning| crate::say(&format!("warning: {warning}")));
    if let Some(topic) = &args.topic {
        producer.learn_topic(topic).await.map_err(|error| no_topic(topic, &error))?;
    }
    let unmapped = Unmapped::new(&producer, &mapping);
    let receipts = create_receipts(args).await?;
    let lines = reader::start(source)
        .map_err(|error| Refusal(Exit::Io, format!("{}: {error}", shown_file(Path::new(&args.file)))))?;
    let keeping = Keeping::new(producer.dead_letters(), file, args.no_dlq_file);
    Ok(Ready { producer, delivery_timeout, unmapped, lines, receipts, keeping })
}

/// The files that arguments name. Fails if two of them are the same.
fn named_files(args: &PublishArgs) -> Result<Files, Refusal> {
    let mut files = Files::new();
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

/// Fails if a file that settings name is one of those, or the usual one of dead letters is.
fn check_files(mut files: Files, args: &PublishArgs, loaded: &LoadedConfig, letters: &Wanted) -> Result<(), Refusal> {
    files.named_by(loaded);
    if let Some((option, path)) = letters.path().filter(|_| args.dlq_file.is_none()) {
        files.dead_letters(option, path);
    }
    files.check()
}

/// Why nothing can be published to the one topic of all events.
fn no_topic(topic: &str, error: &PublishError) -> Refusal {
    match error {
        PublishError::Topic { reason: Reason::Broker { code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, .. }, .. } => {
            let why = format!("topic {topic:?} does not exist on the cluster: create it, or fix --topic");
            Refusal(Exit::Config, why)
        }
        _ if error.is_refusal() => Refusal(Exit::Refused, error.to_string()),
        _ => Refusal(Exit::Unreachable, error.to_string()),
    }
}

async fn create_receipts(args: &PublishArgs) -> Result<Receipts, Refusal> {
    let Some(path) = args.receipts.clone() else { return Ok(Receipts::default()) };
    let name = shown_file(&path);
    let created = open(move || Receipts::create(&path)).await?;
    created.map_err(|error| Refusal(Exit::CantCreate, format!("{name}: {error}")))
}

/// Opens a file on a thread of its own: of a named pipe that waits for the other side.
async fn open<T: Send + 'static>(open: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(open).await.map_err(|error| Refusal(Exit::Io, error.to_string()))
}
