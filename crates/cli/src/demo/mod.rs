//! `courier demo`: a cluster inside the process, events, faults, and a ledger of all verdicts.
//!
//! Rules:
//! - Nothing is simulated in the client: the events pass through the library as in any program, over real sockets.
//! - The ledger checks the library's verdicts against the brokers' logs. The command fails if they differ.
//! - A fault ends with its scene, even if few events met the fault.

mod dead_letters;
mod ledger;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::HumanCount;
use jiff::Timestamp;
use kafka_courier::{KafkaConfig, KafkaProducer};
use kafka_courier_event_model::Event;
use kafka_courier_test_broker::TestCluster;

use self::ledger::{DemoLedger, EventVerdict, check};
use crate::argument::ArgumentError;
use crate::exit::Exit;
use crate::sample::Samples;
use crate::topics::built_in_topics;

const BROKERS: i32 = 3;
const PARTITIONS: i32 = 6;
/// The largest number of events of a demonstration.
const MAX_EVENTS: u64 = 1_000_000;
/// The largest number of answers that are lost.
const LOST: u32 = 10;

/// Run a demonstration on a cluster inside this process, with faults (needs no Kafka)
///
/// Three brokers run inside the process. The demonstration publishes events of all types while leaders move, answers are
/// lost and a broker is killed. Events that the brokers reject become dead letters and are replayed. The
/// demonstration ends with a check of every verdict against the brokers' logs, and prints `ledger: ok` or
/// `ledger: FAILED`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Publish this number of events, 1 to 1000000
    #[arg(long, value_name = "N", default_value_t = 40_000, allow_negative_numbers = true, value_parser = events)]
    events: u64,
    /// Generate the events from this seed: the same seed gives the same events
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = crate::whole_number::<u64>, default_value_t = 1)]
    seed: u64,
}

fn events(text: &str) -> Result<u64, ArgumentError> {
    let in_range = text.parse().ok().filter(|events| (1..=MAX_EVENTS).contains(events));
    in_range.ok_or(ArgumentError::NoEventCount { max: MAX_EVENTS })
}

/// A fault, and the title of the scene in which a part of the events is published.
struct Scene {
    title: &'static str,
    fault: fn(&TestCluster),
}

const SCENES: &[Scene] = &[
    Scene { title: "no fault", fault: |_| {} },
    Scene {
        title: "the leaders of user-events move to other brokers",
        fault: |cluster| {
            for partition in 0..PARTITIONS {
                let leader = cluster.leader("user-events", partition).unwrap_or_default();
                cluster.move_leader("user-events", partition, leader % BROKERS + 1);
            }
        },
    },
    Scene {
        title: "up to ten answers are lost after the write",
        fault: |cluster| cluster.apply_then_disconnect(LOST.into()),
    },
];

/// The timing and the output of a demonstration.
struct Stage {
    /// The time from the kill of a broker to its restart.
    downtime: Duration,
    retry_backoff: Duration,
    /// Prints a line.
    print: Box<dyn Fn(fmt::Arguments<'_>) + Send + Sync>,
}

impl Stage {
    /// Returns the timing for a person at a terminal, with standard output.
    fn terminal() -> Self {
        let retry_backoff = KafkaConfig::default().retry_backoff;
        Self { downtime: Duration::from_secs(1), retry_backoff, print: Box::new(print) }
    }

    fn print_line(&self, line: fmt::Arguments<'_>) {
        (self.print)(line);
    }
}

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Exit {
    let runtime = match crate::runtime::start() {
        Ok(runtime) => runtime,
        Err(error) => return error.report(),
    };
    match runtime.block_on(play(args, &Stage::terminal())) {
        Ok(ledger) if ledger.is_ok() => Exit::Ok,
        Ok(_) => Exit::SomeFailed,
        Err(error) => {
            crate::say(&format!("{error:#}"));
            Exit::Io
        }
    }
}

async fn play(args: &DemoArgs, stage: &Stage) -> anyhow::Result<DemoLedger> {
    let begun = Instant::now();
    let mut builder = TestCluster::builder().brokers(BROKERS);
    for topic in built_in_topics() {
        builder = builder.topic(topic, PARTITIONS);
    }
    let cluster = builder.start().await?;
    stage.print_line(format_args!("{BROKERS} brokers inside this process: {}", cluster.bootstrap()));
    let mut config = KafkaConfig::default();
    config.brokers = cluster.bootstrap().split(',').map(str::parse).collect::<Result<_, _>>()?;
    // Enough for all dead letters of a scene, because memory is the only store of the demo.
    config.dlq_buffer = count(args.events);
    config.retry_backoff = stage.retry_backoff;
    // If events are few, one batch may lose all its answers.
    config.retry_max = config.retry_max.max(LOST);
    let producer = KafkaProducer::build(config)?;

    let mut samples = Samples::new(args.seed, Timestamp::now(), &[]);
    let scenes = SCENES.len() as u64 + 2;
    let mut receipts = Vec::new();
    for scene in SCENES {
        (scene.fault)(&cluster);
        publish(stage, &producer, scene.title, (&mut samples).take(count(args.events / scenes)), &mut receipts).await?;
        cluster.clear_faults();
    }
    let some = (&mut samples).take(count(args.events / scenes));
    dead_letters::reject_and_replay(stage, &cluster, &producer, some, &mut receipts).await?;
    cluster.kill(2).await;
    let rest = args.events - args.events / scenes * (scenes - 1);
    let (first, last) = (rest / 2, rest - rest / 2);
    let half = publish(stage, &producer, "broker 2 is killed", (&mut samples).take(count(first)), &mut receipts);
    let restart = async {
        tokio::time::sleep(stage.downtime).await;
        cluster.restart(2)
    };
    let (published, restarted) = tokio::join!(half, restart);
    published?;
    restarted?;
    publish(stage, &producer, "broker 2 is back", (&mut samples).take(count(last)), &mut receipts).await?;

    let report = producer.close(Duration::from_secs(30)).await;
    stage.print_line(format_args!(
        "producer closed: {} delivered, replayed dead letters included, {} failed before the replay",
        HumanCount(report.delivered),
        HumanCount(report.failed)
    ));
    let ledger = check(&cluster, &built_in_topics(), &receipts);
    stage.print_line(format_args!("{ledger}"));
    stage.print_line(format_args!("total time: {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(ledger)
}

/// Prints a line to standard output. The demo continues if its reader has gone: the exit code has the result.
fn print(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn count(events: u64) -> usize {
    usize::try_from(events).unwrap_or(usize::MAX)
}

/// Publishes these events and waits for their verdicts.
async fn publish(
    stage: &Stage,
    producer: &KafkaProducer,
    title: &str,
    events: impl Iterator<Item = Box<dyn Event>>,
    receipts: &mut Vec<EventVerdict>,
) -> anyhow::Result<()> {
    let (begun, before) = (Instant::now(), producer.stats());
    let mut deliveries = Vec::new();
    for event in events {
        let delivery = producer.publish(&event).await?;
        deliveries.push((event.id().to_string(), delivery));
    }
    producer.flush(Duration::from_secs(60)).await;
    let published = deliveries.len();
    let mut failed = 0;
    for (id, delivery) in deliveries {
        let result = delivery.await;
        failed += u64::from(result.is_err());
        receipts.push(EventVerdict { id, result, replayed: false });
    }
    let retried = producer.stats().retried - before.retried;
    stage.print_line(format_args!(
        "{:>8} events, {:>6} retried, {failed} failed, {:>4} ms: {title}",
        HumanCount(published as u64).to_string(),
        HumanCount(retried).to_string(),
        begun.elapsed().as_millis()
    ));
    Ok(())
}
