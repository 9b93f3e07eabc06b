//! `courier dlq replay`.
//!
//! Rules:
//! - A signal stops the replay between two groups, so every dead letter that was sent has its verdict.
//! - A second signal stops the replay immediately. The store has a mark on each dead letter in flight, and the next replay
//!   searches the log for it.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kafka_courier::dlq::BeginReplayError;
use kafka_courier::spool::SpoolViewError;
use kafka_courier::{Doubtful, KafkaProducer, Replay, ReplayError, ReplayReport};
use tokio::runtime::Runtime;

use super::select::ChosenArgs;
use super::store::OpenedStore;
use super::{output_failed, report};
use crate::exit::{CommandError, Exit};
use crate::settings::check_destination;
use crate::signals::Signals;

/// Time for records in flight when the producer closes.
const GRACE: Duration = Duration::from_secs(10);

/// Publish dead letters again, and remove each once it is acknowledged
///
/// Dead letters are sent in the order of their arrival, with their keys and headers. One that fails again stays. Dead
/// letters of events that may already be in the log are left out, unless --verify searches the log for them, or
/// --include-unknown sends them at the risk of a duplicate.
#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// Send nothing, and print how many dead letters would be sent to each topic
    ///
    /// Needs no broker, except with --verify or --store-topic.
    #[arg(long)]
    dry_run: bool,
    /// Send up to N dead letters per second
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = crate::positive_number)]
    rate: Option<NonZeroU32>,
    /// Send to this topic instead of the dead letters' own topics
    ///
    /// Use this option if the topic of the events is wrong or does not exist. --verify still searches that topic.
    #[arg(long, value_name = "TOPIC", value_parser = crate::topic_name)]
    to_topic: Option<String>,
    /// Leave out dead letters that were already replayed N times
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = crate::whole_number::<u32>, default_value_t = Replay::default().max_replays)]
    max_replays: u32,
    /// Print the report as a line of JSON to standard output
    #[arg(long)]
    json: bool,
    /// Search the log for events that may be there
    ///
    /// Dead letters of events that are found are removed. Those of events that are proved absent are sent. Use --verify in
    /// the first replay: a dead letter that is sent without it can no longer prove the absence of earlier ones.
    #[arg(long, help_heading = UNKNOWN)]
    verify: bool,
    /// Also send events that --verify neither found nor proved absent (risks duplicates)
    #[arg(long, requires = "verify", help_heading = UNKNOWN)]
    force: bool,
    /// Let --verify fence the producers that wrote imported dead letters
    ///
    /// Assumes that these producers have ended. A fence can prove an event absent. A producer that still publishes under a
    /// fenced id loses its records in flight.
    #[arg(long, requires = "verify", help_heading = UNKNOWN)]
    fence_imported: bool,
    /// Send events that may be in the log without a search (risks duplicates)
    #[arg(long, conflicts_with = "verify", help_heading = UNKNOWN)]
    include_unknown: bool,
    /// Send dead letters even if earlier ones of their key stay (breaks the order)
    ///
    /// An earlier dead letter stays if it is not selected, left out, not found, or was replayed too often. Consumers then
    /// see the records of that key in another order. With --verify such a dead letter may be sent first to prove others
    /// absent.
    #[arg(long)]
    out_of_order: bool,
    #[command(flatten)]
    chosen: ChosenArgs,
}

pub(super) fn run(runtime: &Runtime, args: &ReplayArgs) -> Result<Exit, CommandError> {
    let selection = args.chosen.selection("dlq replay")?;
    if let Some(topic) = &args.to_topic
        && args.chosen.store.topic() == Some(topic.as_str())
    {
        let why =
            format!("dlq replay: --to-topic {topic:?} is the topic that holds the dead letters: name another topic");
        return Err(CommandError(Exit::Usage, why));
    }
    // A dry run writes nothing, so it works on a read-only disk.
    let opened = match args.dry_run {
        true => args.chosen.store.open_to_read()?,
        false => args.chosen.store.open_for_replay()?,
    };
    check_destination("--to-topic", args.to_topic.as_deref(), &opened.dlq_topic)?;
    let replay = Replay {
        selection,
        doubtful: match (args.verify, args.include_unknown) {
            (true, _) => Doubtful::Verify { force: args.force },
            (_, true) => Doubtful::Send,
            _ => Doubtful::LeaveOut,
        },
        max_replays: args.max_replays,
        rate: args.rate,
        limit: args.chosen.letters.limit,
        dry_run: args.dry_run,
        fence_imported: args.fence_imported,
        spools: opened.spools.clone(),
        to_topic: args.to_topic.clone(),
        out_of_order: args.out_of_order,
    };
    runtime.block_on(send(args, opened, &replay))
}

/// The progress line of a replay, and its stop flag.
struct ReplayMonitor {
    bar: ProgressBar,
    began: Instant,
    /// Set by a signal: the replay sends no further group.
    stop: AtomicBool,
}

impl ReplayMonitor {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, began: Instant::now(), stop: AtomicBool::new(false) }
    }

    fn show(&self, report: &ReplayReport) -> ControlFlow<()> {
        self.bar.set_message(report::progress(report, self.began.elapsed()));
        self.bar.tick();
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

async fn send(args: &ReplayArgs, opened: OpenedStore, replay: &Replay) -> Result<Exit, CommandError> {
    let mut signals = Signals::catch();
    let patience = opened.config.metadata_timeout;
    let builder = KafkaProducer::builder().with_config(opened.config).dead_letter_store(opened.store);
    // The files of TLS and SASL may be named pipes, which block.
    let built = tokio::select! {
        biased;
        () = signals.reached(1) => return Err(CommandError(signals.exit(), STOPPED_BEFORE.to_owned())),
        built = tokio::task::spawn_blocking(move || builder.build()) => built,
    };
    let built = built.map_err(|error| CommandError(Exit::Io, error.to_string()))?;
    let producer = built.map_err(|errors| CommandError(Exit::Config, errors.to_string()))?;
    if needs_brokers(args) {
        let reached = tokio::select! {
            biased;
            () = signals.reached(1) => return Err(CommandError(signals.exit(), STOPPED_BEFORE.to_owned())),
            reached = producer.health_check(patience) => reached,
        };
        reached?;
    }
    let monitor = ReplayMonitor::new();
    let done = replay_until_signal(&producer, replay, &monitor, &mut signals).await;
    monitor.bar.finish_and_clear();
    producer.close(GRACE).await;
    let report = match done {
        Some(done) => done.map_err(|error| command_error(&error))?,
        None => return Err(CommandError(signals.exit(), STOPPED_NOW.to_owned())),
    };
    print_report(args, &report, monitor.began.elapsed())?;
    if signals.times() > 0 {
        crate::say("stopped by a signal: the remaining dead letters are unchanged");
        return Ok(signals.exit());
    }
    let stay = report.failed + report.left_out + report.not_found + report.too_often + report.held_back;
    Ok(if stay == 0 || args.dry_run { Exit::Ok } else { Exit::SomeFailed })
}

/// Only a dry run on a file without `--verify` needs no brokers.
fn needs_brokers(args: &ReplayArgs) -> bool {
    !args.dry_run || args.verify || args.chosen.store.topic().is_some()
}

/// Heading of the options for events that may already be in the log.
const UNKNOWN: &str = "Events with unknown outcome";

const STOPPED_BEFORE: &str = "stopped by a signal before anything was sent";
const STOPPED_NOW: &str =
    "stopped immediately: dead letters in flight stay, and the next replay searches the log for them";

/// Returns `None` if a second signal stopped the replay.
async fn replay_until_signal(
    producer: &KafkaProducer,
    replay: &Replay,
    monitor: &ReplayMonitor,
    signals: &mut Signals,
) -> Option<Result<ReplayReport, ReplayError>> {
    let mut replaying = std::pin::pin!(producer.replay(replay, |report| monitor.show(report)));
    tokio::select! {
        done = &mut replaying => return Some(done),
        () = signals.reached(1) => {}
    }
    monitor.stop.store(true, Ordering::Relaxed);
    monitor.bar.suspend(|| {
        crate::say("stopping once the dead letters in flight have their verdict: signal again to stop immediately")
    });
    tokio::select! {
        done = replaying => Some(done),
        () = signals.reached(2) => None,
    }
}

fn print_report(args: &ReplayArgs, report: &ReplayReport, took: Duration) -> Result<(), CommandError> {
    if args.json {
        let line = serde_json::to_string(&report.as_json(args.dry_run, took))
            .map_err(|error| CommandError(Exit::Io, error.to_string()))?;
        return writeln!(io::stdout(), "{line}").map_err(output_failed);
    }
    for line in report::lines(report, args.dry_run, took) {
        crate::say(&line);
    }
    Ok(())
}

/// Returns the exit code and message of a replay that ended in an error.
fn command_error(error: &ReplayError) -> CommandError {
    match error {
        ReplayError::Begin(BeginReplayError::Busy { .. } | BeginReplayError::Claimed { .. }) => {
            CommandError(Exit::Busy, error.to_string())
        }
        ReplayError::Spool(why) if matches!(**why, SpoolViewError::Unsteady { .. }) => {
            CommandError(Exit::Busy, error.to_string())
        }
        ReplayError::Begin(_) => CommandError(Exit::Io, error.to_string()),
        _ => CommandError(Exit::Io, format!("{error} (delivered dead letters are removed, all others stay)")),
    }
}
