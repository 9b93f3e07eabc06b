//! Runs records through a producer, with and without a recorder of metrics or spans, to measure the cost of
//! observation.
//!
//! Rules: nothing is exported, so that only the producer and the registry count. Every case has the same records.
//! `benches/watched` counts the instructions of each case.
//!
//! `watched` lists the cases. `watched CASE ROUNDS` runs that number of rounds of a thousand records.
use std::error::Error;
use std::time::Duration;

use kafka_courier::{Delivery, KafkaProducer, ProducerRecord};
use kafka_courier_benches::{keys, values};
use kafka_courier_test_broker::TestCluster;
use metrics_util::debugging::DebuggingRecorder;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

type Outcome<T> = Result<T, Box<dyn Error>>;

const RECORDS: usize = 1000;
const BATCH: u32 = 100;
const CASES: &[&str] = &[
    "sink",
    "sink_spans_of_batches",
    "sink_spans_of_events",
    "broker",
    "broker_metrics",
    "broker_metrics_and_spans_of_batches",
];

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(case) = arguments.next() else {
        CASES.iter().for_each(|case| println!("{case}"));
        return Ok(());
    };
    let rounds: u32 = arguments.next().ok_or("ROUNDS is missing: watched CASE ROUNDS")?.parse()?;
    watch(&case)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if case.starts_with("sink") { sink(&runtime, rounds) } else { runtime.block_on(broker(rounds)) }
}

/// Installs the recorders of metrics and spans that the case needs.
fn watch(case: &str) -> Outcome<()> {
    if case.contains("metrics") {
        DebuggingRecorder::new().install().map_err(|error| error.to_string())?;
    }
    let level = match case {
        _ if case.contains("spans_of_events") => LevelFilter::DEBUG,
        _ if case.contains("spans_of_batches") => LevelFilter::INFO,
        _ => return Ok(()),
    };
    // Only spans are recorded. Log lines are not part of the measurement.
    let filter = tracing_subscriber::filter::Targets::new()
        .with_target("kafka_courier::create", level)
        .with_target("kafka_courier::send", level);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter))?;
    Ok(())
}

fn builder() -> kafka_courier::Builder {
    KafkaProducer::builder().flush_messages(BATCH).compression("none")
}

/// Publishes all records. Returns an error if one is refused.
fn send(producer: &KafkaProducer, keys: &[Vec<u8>], values: &[Vec<u8>], topic: &str) -> Outcome<()> {
    for (key, value) in keys.iter().zip(values) {
        let record = ProducerRecord { topic, key: Some(key), value: Some(value), ..ProducerRecord::default() };
        producer.try_send(&record).map(Delivery::detach)?;
    }
    Ok(())
}

/// Runs a producer that discards its batches.
fn sink(runtime: &tokio::runtime::Runtime, rounds: u32) -> Outcome<()> {
    let producer = runtime.block_on(async { kafka_courier_benches::sink(builder(), "t", 1) })?;
    let (keys, values) = (keys(RECORDS), values(RECORDS));
    for _ in 0..rounds {
        send(&producer, &keys, &values, "t")?;
        if !runtime.block_on(producer.flush(Duration::from_secs(600))) {
            return Err("some records have no verdict".into());
        }
    }
    Ok(())
}

/// Runs a producer with the test broker in this process.
async fn broker(rounds: u32) -> Outcome<()> {
    let cluster = TestCluster::builder().topic("t", 1).start().await?;
    let producer = builder().brokers(cluster.bootstrap()).build()?;
    producer.health_check_topics(&["t"], Duration::from_secs(600)).await?;
    let (keys, values) = (keys(RECORDS), values(RECORDS));
    for _ in 0..rounds {
        send(&producer, &keys, &values, "t")?;
        if !producer.flush(Duration::from_secs(600)).await {
            return Err("some records have no verdict".into());
        }
    }
    Ok(())
}
