//! `courier spool drain`.
//!
//! Rules:
//! - An event that has no verdict when the command ends is still in the spool.
//! - The summary counts the events that the folder holds afterwards.
//! - Unreachable brokers are no reason to end. Brokers that refuse the client are.
//! - A process that has the spool delivers its events itself. The command waits for it.

mod watch;

use std::io::{self, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::HumanCount;
use kafka_courier::{KafkaConfig, KafkaProducer, Stats};
use serde::Serialize;

use self::watch::{WatchEnd, watch};
use super::folder::{ChosenFolder, FolderArgs};
use super::progress::DrainProgress;
use super::{events, held, output_failed};
use crate::exit::{CommandError, Exit};
use crate::signals::Signals;
use crate::spool_errors::{build_failed, fault};

/// Interval between two looks at the producer.
const TICK: Duration = Duration::from_millis(100);
/// Time for requests in flight when the command ends early.
const GRACE: Duration = Duration::from_secs(5);

/// Deliver the events in a spool
///
/// Delivers each event once, and in order per partition, as the next producer with this folder would. Waits while the brokers
/// are unreachable, until all events are delivered or --timeout is over. Events that the brokers reject become dead letters,
/// in the store of dlq_file or dlq_topic, else in dead-letters.redb in the folder. Ctrl-C loses nothing: events without a
/// verdict stay in the spool.
///
/// If a process has the spool, it delivers the events, and the command waits for those that are in the spool at first.
#[derive(Args, Debug)]
pub(super) struct DrainArgs {
    /// End after this time, and leave the other events in the spool
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = crate::whole_number::<u32>)]
    timeout: Option<u32>,
    /// Print the summary as a line of JSON to standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

/// Why the delivery ended.
#[derive(Debug)]
enum DrainEnd {
    /// Every event has its verdict.
    Settled,
    Timeout,
    Signal,
    /// An error that a later run would have, too.
    Failed(CommandError),
}

/// The summary as a line of JSON.
#[derive(Serialize)]
struct DrainSummary {
    delivered: u64,
    /// Events that are dead letters.
    failed: u64,
    /// Events that are still in the spool.
    left: u64,
    /// Events that were damaged on the disk.
    lost: u64,
    seconds: f64,
}

pub(super) fn run(args: &DrainArgs) -> Result<Exit, CommandError> {
    let runtime = crate::runtime::start()?;
    let done = runtime.block_on(drain(args));
    runtime.shutdown_background();
    done
}

async fn drain(args: &DrainArgs) -> Result<Exit, CommandError> {
    let mut signals = Signals::catch();
    let chosen = args.folder.choose()?;
    let began = Instant::now();
    let ends = args.timeout.map(|seconds| began + Duration::from_secs(seconds.into()));
    match watch(&chosen, ends, &mut signals).await? {
        WatchEnd::Released => {}
        end => return watched(args, &chosen, &end, began.elapsed(), &signals),
    }
    // The producer would create a folder that does not exist.
    chosen.read()?;
    let producer = build(&chosen).await?;
    let mut progress = DrainProgress::new();
    let end = deliver(&producer, chosen.config.metadata_timeout, ends, &mut progress, &mut signals).await;
    let grace = match &end {
        DrainEnd::Failed(_) => Duration::ZERO,
        _ => GRACE,
    };
    let is_closed = tokio::select! {
        _ = producer.close(grace) => true,
        () = signals.reached(2) => false,
    };
    progress.finish();
    if !is_closed {
        let why = "stopped immediately: events without a verdict are in the spool".to_owned();
        return Err(CommandError(signals.exit(), why));
    }
    let left = left(&chosen)?;
    print_summary(args, &chosen, &producer.stats(), left, progress.elapsed())?;
    match end {
        DrainEnd::Failed(error) => Err(error),
        DrainEnd::Signal if left > 0 => Ok(signals.exit()),
        _ if left > 0 => Ok(Exit::Busy),
        _ if producer.stats().failed > 0 || lost(&producer.stats()) > 0 => Ok(Exit::SomeFailed),
        _ => Ok(Exit::Ok),
    }
}

/// Prints the summary of events that another process delivered.
fn watched(
    args: &DrainArgs,
    chosen: &ChosenFolder,
    end: &WatchEnd,
    took: Duration,
    signals: &Signals,
) -> Result<Exit, CommandError> {
    let (left, exit) = match end {
        WatchEnd::Settled { .. } | WatchEnd::Released => (0, Exit::Ok),
        WatchEnd::Timeout { left, .. } => (*left, Exit::Busy),
        WatchEnd::Signal { left } => (*left, signals.exit()),
    };
    if args.json {
        print_json(&DrainSummary { delivered: 0, failed: 0, left, lost: 0, seconds: took.as_secs_f64() })?;
        return Ok(exit);
    }
    match end {
        WatchEnd::Settled { delivering, records } => {
            crate::say(&format!(
                "{delivering} delivered {}, none left of them in {}",
                events(*records),
                chosen.shown()
            ));
        }
        WatchEnd::Timeout { delivering, .. } => return Err(held(&chosen.shown(), *delivering)),
        WatchEnd::Signal { .. } | WatchEnd::Released => {}
    }
    Ok(exit)
}

/// Builds the producer. Its spool has the events.
async fn build(chosen: &ChosenFolder) -> Result<KafkaProducer, CommandError> {
    let mut config: KafkaConfig = chosen.config.clone();
    config.spool_dir = chosen.dir.display().to_string();
    config.auto_replay = false;
    // The events are here already, and no further one is stored.
    config.spool_any_filesystem = true;
    let builder = KafkaProducer::builder().with_config(config);
    let built = tokio::task::spawn_blocking(move || builder.build()).await;
    let built = built.map_err(|error| CommandError(Exit::Io, error.to_string()))?;
    built.map_err(|errors| build_failed(&errors, |holder| held(&chosen.shown(), holder)))
}

/// Waits until every event has its verdict, and its dead letter is durable.
async fn deliver(
    producer: &KafkaProducer,
    patience: Duration,
    ends: Option<Instant>,
    progress: &mut DrainProgress,
    signals: &mut Signals,
) -> DrainEnd {
    let mut look = tokio::time::interval(TICK);
    let mut reached = pin!(producer.health_check(patience));
    let mut is_checked = false;
    loop {
        tokio::select! {
            biased;
            () = signals.reached(1) => return DrainEnd::Signal,
            reached = &mut reached, if !is_checked => {
                is_checked = true;
                match reached {
                    Err(error) if error.is_refusal() => return DrainEnd::Failed(error.into()),
                    Err(error) => progress.say(&format!("warning: {error}: the events wait in the spool")),
                    Ok(()) => {}
                }
            }
            _ = look.tick() => {
                let stats = producer.stats();
                progress.show(&stats);
                let spool = stats.spool.clone().unwrap_or_default();
                if let Some(failed) = fault(&spool, stats.in_flight) {
                    return DrainEnd::Failed(failed);
                }
                if stats.in_flight == 0 && spool.records == 0 {
                    return DrainEnd::Settled;
                }
                if ends.is_some_and(|ends| ends <= Instant::now()) {
                    return DrainEnd::Timeout;
                }
            }
        }
    }
}

/// Returns the number of events in the folder.
fn left(chosen: &ChosenFolder) -> Result<u64, CommandError> {
    Ok(chosen.read()?.records())
}

fn print_summary(
    args: &DrainArgs,
    chosen: &ChosenFolder,
    stats: &Stats,
    left: u64,
    took: Duration,
) -> Result<(), CommandError> {
    let seconds = took.as_secs_f64();
    if args.json {
        return print_json(&DrainSummary {
            delivered: stats.sent,
            failed: stats.failed,
            left,
            lost: lost(stats),
            seconds,
        });
    }
    let mut text = format!("{} delivered", events(stats.sent));
    if stats.failed > 0 {
        text.push_str(&format!(", {} failed and kept as dead letters (courier dlq)", HumanCount(stats.failed)));
    }
    if lost(stats) > 0 {
        text.push_str(&format!(", {} damaged on the disk and lost", HumanCount(lost(stats))));
    }
    text.push_str(&match left {
        0 => format!(", none left in {}", chosen.shown()),
        _ => format!(", {} left in {}: drain again later", HumanCount(left), chosen.shown()),
    });
    crate::say(&format!("{text}, in {seconds:.1} s"));
    Ok(())
}

/// Returns the number of events that were damaged on the disk.
fn lost(stats: &Stats) -> u64 {
    stats.spool.as_ref().map_or(0, |spool| spool.lost)
}

fn print_json(summary: &DrainSummary) -> Result<(), CommandError> {
    let line = serde_json::to_string(summary).map_err(|error| CommandError(Exit::Io, error.to_string()))?;
    writeln!(io::stdout(), "{line}").map_err(output_failed)
}
