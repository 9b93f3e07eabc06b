//! `courier demo`: a cluster inside the process, events, faults, and the ledger.
//!
//! Rules: nothing is staged: the events go through the same library as anywhere, over real sockets, and the ledger is
//! drawn up from the brokers' logs and the verdicts that the library gave. If it does not balance the command fails.
//! A fault ends with its act, however few events met it.

mod ledger;
mod letters;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::HumanCount;
use jiff::Timestamp;
use kafka_courier::{KafkaConfig, KafkaProducer};
use kafka_courier_event_model::{BUILT_IN, Event};
use kafka_courier_test_broker::TestCluster;

use self::ledger::{Balance, Receipt, balance};
use crate::exit::Exit;
use crate::sample::Samples;

const BROKERS: i32 = 3;
const PARTITIONS: i32 = 6;
/// Answers that are lost, at most.
const LOST: u32 = 10;

/// Shows it at work: three brokers inside this process, events of all types, a leader moved, answers lost, a broker killed
/// and started again, events refused that become dead letters and are sent again, and at the end every verdict held
/// against the log. Needs no Kafka.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// How many events.
    #[arg(long, value_name = "N", default_value_t = 40_000, value_parser = events)]
    events: u64,
    /// Other seeds give other events, the same seed the same.
    #[arg(long, value_name = "S", value_parser = crate::whole_number::<u64>, default_value_t = 1)]
    seed: u64,
}

fn events(text: &str) -> Result<u64, String> {
    let in_range = text.parse().ok().filter(|events| (1..=1_000_000).contains(events));
    in_range.ok_or_else(|| "a number of events from 1 to 1000000 is expected".to_owned())
}

/// What happens while a part of the events is published.
struct Act {
    title: &'static str,
    fault: fn(&TestCluster),
}

const ACTS: &[Act] = &[
    Act { title: "all is well", fault: |_| {} },
    Act {
        title: "the leaders of user-events move to other brokers",
        fault: |cluster| {
            for partition in 0..PARTITIONS {
                let leader = cluster.leader("user-events", partition).unwrap_or_default();
                cluster.move_leader("user-events", partition, leader % BROKERS + 1);
            }
        },
    },
    Act {
        title: "up to ten answers are lost after the events were written",
        fault: |cluster| cluster.apply_then_disconnect(LOST.into()),
    },
];

/// How the acts are played.
struct Stage {
    /// How long the broker that is killed stays away.
    away: Duration,
    retry_backoff: Duration,
    /// Where each line goes.
    tell: Box<dyn Fn(fmt::Arguments<'_>) + Send + Sync>,
}

impl Stage {
    /// For somebody who watches.
    fn shown() -> Self {
        let retry_backoff = KafkaConfig::default().retry_backoff;
        Self { away: Duration::from_secs(1), retry_backoff, tell: Box::new(print) }
    }

    fn tell(&self, line: fmt::Arguments<'_>) {
        (self.tell)(line);
    }
}

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::say(&format!("the runtime could not be started: {error}"));
            return Exit::Io;
        }
    };
    match runtime.block_on(play(args, &Stage::shown())) {
        Ok(balance) if balance.is_even() => Exit::Ok,
        Ok(_) => Exit::SomeFailed,
        Err(error) => {
            crate::say(&format!("{error:#}"));
            Exit::Io
        }
    }
}

async fn play(args: &DemoArgs, stage: &Stage) -> anyhow::Result<Balance> {
    let begun = Instant::now();
    let mut builder = TestCluster::builder().brokers(BROKERS);
    for topic in topics() {
        builder = builder.topic(topic, PARTITIONS);
    }
    let cluster = builder.start().await?;
    stage.tell(format_args!("{BROKERS} brokers inside this process, at {}", cluster.bootstrap()));
    let mut config = KafkaConfig::default();
    config.brokers =
        cluster.bootstrap().split(',').map(str::parse).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    // All that one act may make; what memory holds ends with the demo.
    config.dlq_buffer = count(args.events);
    config.retry_backoff = stage.retry_backoff;
    // With few events all the answers may be lost to one batch.
    config.retry_max = config.retry_max.max(LOST);
    let producer = KafkaProducer::build(config)?;

    let mut samples = Samples::new(args.seed, Timestamp::now(), &[]);
    let acts = ACTS.len() as u64 + 2;
    let mut receipts = Vec::new();
    for act in ACTS {
        (act.fault)(&cluster);
        publish(stage, &producer, act.title, (&mut samples).take(count(args.events / acts)), &mut receipts).await?;
        cluster.clear_faults();
    }
    let some = (&mut samples).take(count(args.events / acts));
    letters::refused_and_sent_again(stage, &cluster, &producer, some, &mut receipts).await?;
    cluster.kill(2).await;
    let rest = args.events - args.events / acts * (acts - 1);
    let (first, last) = (rest / 2, rest - rest / 2);
    let half = publish(stage, &producer, "broker 2 is killed", (&mut samples).take(count(first)), &mut receipts);
    let restart = async {
        tokio::time::sleep(stage.away).await;
        cluster.restart(2)
    };
    let (published, restarted) = tokio::join!(half, restart);
    published?;
    restarted?;
    publish(stage, &producer, "broker 2 is back", (&mut samples).take(count(last)), &mut receipts).await?;

    let report = producer.close(Duration::from_secs(30)).await;
    stage.tell(format_args!(
        "closed: {} delivered, replayed dead letters included; {} failed before a replay",
        HumanCount(report.delivered),
        HumanCount(report.failed)
    ));
    let balance = balance(&cluster, &topics(), &receipts);
    stage.tell(format_args!("{balance}"));
    stage.tell(format_args!("{:.1} s in all", begun.elapsed().as_secs_f64()));
    Ok(balance)
}

/// Prints a line to standard output. If nobody reads it the demo goes on: its exit code tells as much.
fn print(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn count(events: u64) -> usize {
    usize::try_from(events).unwrap_or(usize::MAX)
}

/// The topics that the sample's events go to.
fn topics() -> Vec<&'static str> {
    let mut topics: Vec<_> = BUILT_IN.iter().map(|built_in| built_in.default_topic).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// Publishes these events and waits for their verdicts.
async fn publish(
    stage: &Stage,
    producer: &KafkaProducer,
    title: &str,
    events: impl Iterator<Item = Box<dyn Event>>,
    receipts: &mut Vec<Receipt>,
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
        receipts.push(Receipt { id, result, replayed: false });
    }
    let again = producer.stats().retried - before.retried;
    stage.tell(format_args!(
        "{:>8} events, {:>6} sent again, {failed} failed, {:>4} ms: {title}",
        HumanCount(published as u64).to_string(),
        HumanCount(again).to_string(),
        begun.elapsed().as_millis()
    ));
    Ok(())
}
