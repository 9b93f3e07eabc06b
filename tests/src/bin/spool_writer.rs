//! Publishes numbered records through a spool until it is killed, and notes each number that the spool has stored.
//!
//! Usage: `spool_writer BOOTSTRAP TOPIC SPOOL LEDGER FIRST`, or `spool_writer BOOTSTRAP TOPIC SPOOL` to deliver what the spool
//! has, and to print its dead letters.
//!
//! Rules:
//! - A number is in the ledger only once its record is stored. A writer adds lines with one write, so that a kill leaves
//!   whole lines and at most one part of a line.
//! - The records of a key have rising numbers. Several tasks publish, each with its own keys.
//! - A record that the spool or the memory has no room for is published again, and the line `refused` says so.
//! - `KAFKA_*` variables are the producer's options. `SPOOL_WRITER_RATE` is the number of records per second,
//!   `SPOOL_WRITER_BYTES` the size of a value.
use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kafka_courier::dlq::{Letter, Selection};
use kafka_courier::{Delivery, KafkaConfig, ProducerRecord};
use kafka_courier_tests::audited::Producer;
use kafka_courier_tests::settings::number;
use kafka_courier_tests::spool_lives::{KEYS, REFUSED, WRITERS};

const PATIENCE: Duration = Duration::from_secs(600);
/// The time between two records of a task. It bounds the log that a test reads.
const PACE: Duration = Duration::from_millis(2);
/// The time between two bursts of a task that publishes at a rate.
const BURST_PACE: Duration = Duration::from_millis(40);

/// The tasks of a writer.
struct Writers {
    producer: Producer,
    topic: String,
    ledger: std::fs::File,
    next: AtomicU64,
    padding: String,
    /// Records of a task between two pauses.
    burst: u64,
    pause: Duration,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, spool, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: spool_writer BOOTSTRAP TOPIC SPOOL [LEDGER FIRST]");
    };
    let mut config = KafkaConfig::from_env()?;
    let brokers = bootstrap.split(',').map(str::parse).collect::<Result<_, kafka_courier::EndpointError>>();
    config.brokers = brokers.map_err(anyhow::Error::msg)?;
    config.spool_dir.clone_from(spool);
    config.spool_any_filesystem = true;
    let producer = Producer::build(config)?;
    let [ledger, first] = rest else { return deliver(&producer).await };
    let rate = number("SPOOL_WRITER_RATE", 0)?;
    let bursts = 1000 / u64::try_from(BURST_PACE.as_millis())? * WRITERS;
    let (burst, pause) = if rate == 0 { (1, PACE) } else { (rate.div_ceil(bursts), BURST_PACE) };
    let writers = Arc::new(Writers {
        producer,
        topic: topic.clone(),
        ledger: std::fs::OpenOptions::new().append(true).create(true).open(ledger)?,
        next: AtomicU64::new(first.parse().context("FIRST is no number")?),
        padding: "x".repeat(usize::try_from(number("SPOOL_WRITER_BYTES", 200)?)?),
        burst,
        pause,
    });
    let tasks = (0..WRITERS).map(|writer| tokio::spawn(write(writers.clone(), writer)));
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

/// Publishes until the process is killed.
async fn write(writers: Arc<Writers>, writer: u64) -> Result<()> {
    loop {
        let mut awaited = Vec::new();
        for _ in 0..writers.burst {
            let number = writers.next.fetch_add(1, Ordering::Relaxed);
            let delivery = writers.publish(writer, number).await?;
            // Some records are neither awaited nor in the ledger.
            if !number.is_multiple_of(4) {
                awaited.push((number, delivery));
            }
        }
        let mut lines = String::new();
        for (number, delivery) in awaited {
            delivery.stored().await?;
            writeln!(lines, "{number}")?;
        }
        (&writers.ledger).write_all(lines.as_bytes())?;
        tokio::time::sleep(writers.pause).await;
    }
}

impl Writers {
    async fn publish(&self, writer: u64, number: u64) -> Result<Delivery> {
        let key = format!("{writer}-{}", number % KEYS);
        let value = format!("{number} {}", self.padding);
        let record = ProducerRecord {
            topic: &self.topic,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..ProducerRecord::default()
        };
        loop {
            match self.producer.send(&record).await {
                Err(error) if error.is_retriable() => {
                    (&self.ledger).write_all(format!("{REFUSED}\n").as_bytes())?;
                    tokio::time::sleep(self.pause).await;
                }
                accepted => return Ok(accepted?),
            }
        }
    }
}

/// Delivers what the spool has, and prints the number and the outcome of each dead letter.
async fn deliver(producer: &Producer) -> Result<()> {
    ensure!(producer.flush(PATIENCE).await, "the spool is not empty after {PATIENCE:?}");
    let listed = producer.dead_letters().list(&Selection::all(), usize::MAX).await?;
    ensure!(listed.unread.is_empty(), "{:?}", listed.unread);
    producer.close(PATIENCE).await;
    let spool = producer.stats().spool.context("the producer has no spool")?;
    ensure!(spool.records == 0, "{spool:?}");
    for held in &listed.letters {
        let Letter { value, outcome, failure_reason, .. } = &held.letter;
        let value = std::str::from_utf8(value.as_deref().unwrap_or_default())?;
        println!("{} {outcome} {failure_reason}", value.split(' ').next().unwrap_or_default());
    }
    Ok(())
}
