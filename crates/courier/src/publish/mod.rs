//! `courier publish`: events from a file or standard input to Kafka.
//!
//! Rules:
//! - Every item of the input has its fate told: delivered, failed with its reason, or no event.
//! - Ctrl-C or SIGTERM stops reading, delivers what was read, and says what became of it; a second one ends
//!   at once.
//! - Memory is bounded: by the producer's buffer, and by how many verdicts may be noted late.

mod array;
mod input;
mod progress;
mod tally;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::HumanCount;
use kafka_courier::{Endpoint, KafkaConfig, KafkaProducer, PublishError};
use kafka_courier_event_model::{AnyEvent, Event, validate_topic_name};
use tokio::sync::mpsc;

use self::input::{Chunk, Item};
use self::progress::Progress;
use self::tally::{Counts, Tally};
use crate::exit::Exit;

/// Verdicts that may be noted late before reading waits for the oldest.
const LATE_VERDICTS: usize = 50_000;

/// Publishes events from a file or standard input: NDJSON, an event a line, or one JSON array.
///
/// Each event goes to its type's topic (KAFKA_TOPIC_MAPPING changes which), keyed so that what belongs
/// together stays in order. All settings are read from the environment: KAFKA_BROKERS, KAFKA_FLUSH_MESSAGES,
/// KAFKA_FLUSH_BYTES, KAFKA_FLUSH_TIMEOUT, KAFKA_DELIVERY_TIMEOUT and so on.
#[derive(Args, Debug)]
pub(crate) struct PublishArgs {
    /// Where to begin: host:port of some brokers, separated by commas; instead of KAFKA_BROKERS.
    #[arg(long, value_name = "HOST:PORT[,..]", value_delimiter = ',')]
    brokers: Vec<Endpoint>,
    /// Sends every event to this topic, whatever its type.
    #[arg(long, value_name = "TOPIC", value_parser = topic_name)]
    topic: Option<String>,
    /// Writes a line for each event, in the input's order: id, topic, partition and offset, or its error.
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    /// Stops at the first item that is no event. What stands before it is delivered.
    #[arg(long)]
    strict: bool,
    /// How long to go on delivering after Ctrl-C, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    /// The file to read, or - for standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
}

fn topic_name(name: &str) -> Result<String, String> {
    validate_topic_name(name).map_err(|error| format!("topic: {error}"))?;
    Ok(name.to_owned())
}

/// Why nothing could be done.
struct Refusal(Exit, String);

/// How reading ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Input,
    Strict,
    Signal,
    InputFailed,
}

/// Runs the command; prints its summary or its error.
pub(crate) fn run(args: PublishArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("courier: the runtime could not be started: {error}");
            return Exit::Io;
        }
    };
    let exit = runtime.block_on(async {
        match publish(args).await {
            Ok(exit) => exit,
            Err(Refusal(exit, why)) => {
                eprintln!("courier: {why}");
                exit
            }
        }
    });
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    exit
}

fn configure(args: &PublishArgs) -> Result<KafkaConfig, Refusal> {
    let (mut config, warnings) = KafkaConfig::from_env().map_err(|errors| Refusal(Exit::Config, errors.to_string()))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if !args.brokers.is_empty() {
        config.brokers = args.brokers.clone();
    }
    Ok(config)
}

async fn publish(args: PublishArgs) -> Result<Exit, Refusal> {
    let config = configure(&args)?;
    let source = input::open(&args.file).map_err(|why| Refusal(Exit::Data, why))?;
    let receipts = match &args.receipts {
        Some(path) => Some(
            File::create(path).map_err(|error| Refusal(Exit::CantCreate, format!("{}: {error}", path.display())))?,
        ),
        None => None,
    };
    let patience = config.metadata_timeout;
    let producer = KafkaProducer::build(config).map_err(|errors| Refusal(Exit::Config, errors.to_string()))?;
    producer
        .health_check(patience)
        .await
        .map_err(|error| Refusal(Exit::Unreachable, format!("no broker could be reached: {error}")))?;
    let items = input::start(source).map_err(|error| Refusal(Exit::Io, format!("{}: {error}", args.file)))?;
    let mut session = Session::new(producer, args, receipts);
    let end = session.read(items).await.map_err(|error| session.receipts_failed(&error))?;
    session.deliver_rest(end).await.map_err(|error| session.receipts_failed(&error))?;
    Ok(session.summary(end))
}

struct Session {
    producer: KafkaProducer,
    args: PublishArgs,
    tally: Tally,
    progress: Progress,
}

impl Session {
    fn new(producer: KafkaProducer, args: PublishArgs, receipts: Option<File>) -> Self {
        let progress = Progress::new();
        let tally = Tally::new(receipts, progress.printer());
        Self { producer, args, tally, progress }
    }

    /// Publishes the input's events as they come.
    async fn read(&mut self, mut items: mpsc::Receiver<Chunk>) -> io::Result<End> {
        let mut stop = std::pin::pin!(interrupted());
        loop {
            let chunk = tokio::select! {
                biased;
                () = &mut stop => return Ok(End::Signal),
                chunk = items.recv() => chunk,
            };
            let items = match chunk {
                None => return Ok(End::Input),
                Some(Ok(items)) => items,
                Some(Err(error)) => {
                    eprintln!("courier: {}: {error}", self.args.file);
                    return Ok(End::InputFailed);
                }
            };
            for item in items {
                tokio::select! {
                    biased;
                    taken = self.take(item) => if !taken? { return Ok(End::Strict) },
                    () = &mut stop => return Ok(End::Signal),
                }
            }
            self.tally.note_settled()?;
            self.progress.show(&self.tally, "publishing");
        }
    }

    /// Publishes one item. Returns whether to go on.
    async fn take(&mut self, Item { place, event }: Item) -> io::Result<bool> {
        let event = match event {
            Ok(event) => event,
            Err(why) => {
                self.tally.bad(place, &why)?;
                return Ok(!self.args.strict);
            }
        };
        while self.tally.in_flight() >= LATE_VERDICTS {
            self.tally.wait_for_oldest().await?;
        }
        match self.send(&event).await {
            Ok(delivery) => self.tally.accepted(place, event.id().clone(), delivery),
            Err(error) => {
                let topic = self.args.topic.clone().unwrap_or_else(|| event.event_type().to_owned());
                self.tally.refused(place, event.id(), &topic, &error.to_string())?;
            }
        }
        Ok(true)
    }

    async fn send(&self, event: &AnyEvent) -> Result<kafka_courier::Delivery, PublishError> {
        match &self.args.topic {
            Some(topic) => self.producer.publish_to(topic, event).await,
            None => self.producer.publish(event).await,
        }
    }

    /// Waits for the verdicts that are still to come.
    async fn deliver_rest(&mut self, end: End) -> io::Result<()> {
        let grace = match end {
            End::Signal => Duration::from_secs(self.args.grace),
            // Bounded by delivery_timeout, which every event has from its publish on.
            _ => Duration::from_secs(u64::from(u32::MAX)),
        };
        if end == End::Signal {
            (self.progress.printer())(&format!(
                "interrupted: delivering what was read, for at most {} s; once more to stop at once",
                grace.as_secs()
            ));
        }
        let producer = self.producer.clone();
        let mut close = std::pin::pin!(producer.close(grace));
        let mut stop = std::pin::pin!(interrupted());
        let mut look = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                _ = &mut close => break,
                () = &mut stop, if end == End::Signal => std::process::exit(Exit::Interrupted as i32),
                _ = look.tick() => {
                    self.tally.note_settled()?;
                    self.progress.show(&self.tally, "delivering");
                }
            }
        }
        self.tally.note_settled()?;
        self.tally.finish()
    }

    fn receipts_failed(&self, error: &io::Error) -> Refusal {
        let path = self.args.receipts.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        Refusal(Exit::Io, format!("receipts {path}: {error}; events may have been published all the same"))
    }

    fn summary(&self, end: End) -> Exit {
        self.progress.finish();
        let counts = self.tally.counts();
        let seconds = self.progress.elapsed().as_secs_f64();
        eprintln!("courier: {}", sentence(counts, seconds));
        let mut reasons: Vec<_> = self.tally.reasons().iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons.into_iter().take(10).filter(|(_, count)| **count > 1) {
            eprintln!("courier:   {} times: {reason}", HumanCount(*count));
        }
        exit_code(counts, end)
    }
}

fn sentence(counts: &Counts, seconds: f64) -> String {
    let Counts { delivered, not_written, unknown, bad } = *counts;
    let total = delivered + not_written + unknown + bad;
    let rate = HumanCount((delivered as f64 / seconds.max(1e-3)) as u64);
    let mut text =
        format!("{} read, {} delivered in {seconds:.1} s ({rate}/s)", HumanCount(total), HumanCount(delivered));
    for (count, what) in
        [(not_written, "failed and not written"), (unknown, "failed and perhaps written"), (bad, "no event")]
    {
        if count > 0 {
            text.push_str(&format!(", {} {what}", HumanCount(count)));
        }
    }
    text
}

fn exit_code(counts: &Counts, end: End) -> Exit {
    if counts.not_written + counts.unknown > 0 {
        Exit::SomeFailed
    } else if counts.bad > 0 || end == End::Strict {
        Exit::Data
    } else if end == End::InputFailed {
        Exit::Io
    } else {
        Exit::Ok
    }
}

/// Ready at the next Ctrl-C or SIGTERM.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
                return;
            }
            Err(error) => tracing::warn!(%error, "SIGTERM is not caught"),
        }
    }
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::warn!(%error, "Ctrl-C is not caught");
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_the_worst() {
        let counts = |not_written, bad| Counts { delivered: 5, not_written, unknown: 0, bad };
        assert_eq!(exit_code(&counts(0, 0), End::Input), Exit::Ok);
        assert_eq!(exit_code(&counts(0, 0), End::Signal), Exit::Ok);
        assert_eq!(exit_code(&counts(1, 1), End::Input), Exit::SomeFailed);
        assert_eq!(exit_code(&counts(0, 1), End::Strict), Exit::Data);
        assert_eq!(exit_code(&counts(0, 0), End::InputFailed), Exit::Io);
    }

    #[test]
    fn the_summary_names_only_what_happened() {
        let counts = Counts { delivered: 1_000_000, not_written: 0, unknown: 2, bad: 0 };
        assert_eq!(
            sentence(&counts, 2.0),
            "1,000,002 read, 1,000,000 delivered in 2.0 s (500,000/s), 2 failed and perhaps written"
        );
    }
}
