//! `courier dlq replay`.
//!
//! Rules: a signal ends it between two groups of letters, so that each has its verdict; a second one ends it at once: the
//! letters that were under way say so, and the next replay looks for them.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kafka_courier::dlq::BeginReplayError;
use kafka_courier::{Doubtful, KafkaProducer, Replay, ReplayError, ReplayReport};
use tokio::runtime::Runtime;

use super::select::ChosenArgs;
use super::store::Opened;
use super::{output_failed, report};
use crate::exit::{Exit, Refusal};
use crate::settings::check_destination;
use crate::signals::Signals;

/// How long what is under way may take at the end.
const GRACE: Duration = Duration::from_secs(10);

/// Sends letters again, in the order in which they arrived, with their keys and headers. A letter is removed once its record
/// is acknowledged; one that fails again stays. Letters of events that may be in the log already are left out, unless
/// --verify looks for them there or --include-unknown sends them at the risk of a duplicate.
#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// Sends nothing: says what would be sent, by topic. No broker is needed, unless with --verify or --store-topic.
    #[arg(long)]
    dry_run: bool,
    /// At most so many letters a second.
    #[arg(long, value_name = "N", value_parser = crate::whole_number::<NonZeroU32>)]
    rate: Option<NonZeroU32>,
    /// Sends the letters to this topic instead of their own, which may not exist or be the wrong one. Events that may be in the
    /// log already are looked for in their own topic.
    #[arg(long, value_name = "TOPIC", value_parser = crate::topic_name)]
    to_topic: Option<String>,
    /// Looks in the log for events that may be there: those that are, are removed; those that are proved not to be, are
    /// sent. Best the first time: a letter that is sent without it can no longer prove anything of those before it.
    #[arg(long)]
    verify: bool,
    /// Sends events that --verify neither found nor proved absent, too: they may be in the log twice afterwards.
    #[arg(long, requires = "verify")]
    force: bool,
    /// Takes it that whoever wrote imported letters has ended: --verify may then end those producers' ids, where that proves
    /// an event absent. A service that still publishes under such an id loses what it has under way.
    #[arg(long, requires = "verify")]
    fence_imported: bool,
    /// Sends events that may be in the log without a look: they may be there twice afterwards.
    #[arg(long, conflicts_with = "verify")]
    include_unknown: bool,
    /// Sends dead letters though earlier ones of their key stay: not selected, left out, not found, or sent again too often.
    /// Consumers then see the records of that key in another order than they were published in. With --verify such a letter
    /// may also go first as the proof.
    #[arg(long)]
    out_of_order: bool,
    /// Leaves out letters that were sent again so often.
    #[arg(long, value_name = "N", value_parser = crate::whole_number::<u32>, default_value_t = Replay::default().max_replays)]
    max_replays: u32,
    /// The report as a line of JSON, on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    chosen: ChosenArgs,
}

pub(super) fn run(runtime: &Runtime, args: &ReplayArgs) -> Result<Exit, Refusal> {
    let selection = args.chosen.selection("dlq replay")?;
    if args.to_topic.is_some() && args.to_topic.as_deref() == args.chosen.store.topic() {
        let why = "dlq replay: --to-topic is the topic that holds the dead letters: events sent there would be lost among them";
        return Err(Refusal(Exit::Usage, why.to_owned()));
    }
    // A dry run changes nothing, so it works where nothing can be written.
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
        to_topic: args.to_topic.clone(),
        out_of_order: args.out_of_order,
    };
    runtime.block_on(send(args, opened, &replay))
}

/// A replay under way, and what is shown of it.
struct Watch {
    bar: ProgressBar,
    began: Instant,
    /// Set by a signal: no further group of letters.
    stop: AtomicBool,
}

impl Watch {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, began: Instant::now(), stop: AtomicBool::new(false) }
    }

    fn show(&self, report: &ReplayReport) -> ControlFlow<()> {
        self.bar.set_message(report::standing(report, self.began.elapsed()));
        self.bar.tick();
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

async fn send(args: &ReplayArgs, opened: Opened, replay: &Replay) -> Result<Exit, Refusal> {
    let mut signals = Signals::catch();
    let patience = opened.config.metadata_timeout;
    let builder = KafkaProducer::builder().with_config(opened.config).dead_letter_store(opened.store);
    let producer = builder.build().map_err(|errors| Refusal(Exit::Config, errors.to_string()))?;
    if needs_brokers(args) {
        let reached = tokio::select! {
            biased;
            () = signals.reached(1) => return Err(Refusal(signals.exit(), "stopped before anything was sent".to_owned())),
            reached = producer.health_check(patience) => reached,
        };
        reached?;
    }
    let watch = Watch::new();
    let done = under_signals(&producer, replay, &watch, &mut signals).await;
    watch.bar.finish_and_clear();
    producer.close(GRACE).await;
    let report = match done {
        Some(done) => done.map_err(failed)?,
        None => return Err(Refusal(signals.exit(), CUT.to_owned())),
    };
    tell(args, &report, watch.began.elapsed())?;
    if signals.times() > 0 {
        crate::say("stopped by a signal: the rest of the letters is as it was");
        return Ok(signals.exit());
    }
    let stay = report.failed + report.left_out + report.not_found + report.too_often + report.held_back;
    Ok(if stay == 0 || args.dry_run { Exit::Ok } else { Exit::SomeFailed })
}

/// Without: a dry run over a file that looks for nothing in the log.
fn needs_brokers(args: &ReplayArgs) -> bool {
    !args.dry_run || args.verify || args.chosen.store.topic().is_some()
}

const CUT: &str = "stopped at once: letters that were under way stay, and the next replay looks for them in the log";

/// None: it was cut off by a second signal.
async fn under_signals(
    producer: &KafkaProducer,
    replay: &Replay,
    watch: &Watch,
    signals: &mut Signals,
) -> Option<Result<ReplayReport, ReplayError>> {
    let mut replaying = std::pin::pin!(producer.replay(replay, |report| watch.show(report)));
    tokio::select! {
        done = &mut replaying => return Some(done),
        () = signals.reached(1) => {}
    }
    watch.stop.store(true, Ordering::Relaxed);
    watch.bar.suspend(|| {
        crate::say("stopping once the letters that are under way have their verdict; once more to stop at once")
    });
    tokio::select! {
        done = replaying => Some(done),
        () = signals.reached(2) => None,
    }
}

fn tell(args: &ReplayArgs, report: &ReplayReport, took: Duration) -> Result<(), Refusal> {
    if args.json {
        let line = report::json(report, args.dry_run, took).map_err(|error| Refusal(Exit::Io, error.to_string()))?;
        return writeln!(io::stdout(), "{line}").map_err(output_failed);
    }
    for line in report::lines(report, args.dry_run, took) {
        crate::say(&line);
    }
    Ok(())
}

fn failed(error: ReplayError) -> Refusal {
    let exit = match &error {
        ReplayError::Begin(BeginReplayError::Busy { .. } | BeginReplayError::Claimed { .. }) => Exit::Busy,
        _ => Exit::Io,
    };
    Refusal(exit, format!("{error}; what was delivered is removed, all else stays"))
}
