//! Publishes numbered records through a spool until it is killed, and notes each number that the spool has stored.
//!
//! Usage: `spool_writer BOOTSTRAP TOPIC SPOOL LEDGER FIRST`, or `spool_writer BOOTSTRAP TOPIC SPOOL` to deliver what the spool
//! has.
//!
//! Rules:
//! - A number is in the ledger only once its record is stored. A writer adds a line with one write, so that a kill leaves
//!   whole lines and at most one part of a line.
//! - The records of a key have rising numbers. Several tasks publish, each with its own keys.
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kafka_courier::{KafkaConfig, ProducerRecord};
use kafka_courier_tests::audited::Producer;
use kafka_courier_tests::spool_kills::{KEYS, WRITERS};

const PATIENCE: Duration = Duration::from_secs(600);
/// The time between two records of a task. It bounds the log that a test reads.
const PACE: Duration = Duration::from_millis(2);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, spool, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: spool_writer BOOTSTRAP TOPIC SPOOL [LEDGER FIRST]");
    };
    let mut config = KafkaConfig::default();
    let brokers = bootstrap.split(',').map(str::parse).collect::<Result<_, kafka_courier::EndpointError>>();
    config.brokers = brokers.map_err(anyhow::Error::msg)?;
    config.spool_dir.clone_from(spool);
    config.spool_any_filesystem = true;
    let producer = Arc::new(Producer::build(config)?);
    let [ledger, first] = rest else { return deliver(&producer).await };
    let ledger = Arc::new(std::fs::OpenOptions::new().append(true).create(true).open(ledger)?);
    let next = Arc::new(AtomicU64::new(first.parse().context("FIRST is no number")?));
    let tasks = (0..WRITERS).map(|writer| {
        let (producer, topic) = (producer.clone(), topic.clone());
        tokio::spawn(write(producer, topic, ledger.clone(), next.clone(), writer))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

/// Publishes until the process is killed.
async fn write(
    producer: Arc<Producer>,
    topic: String,
    ledger: Arc<std::fs::File>,
    next: Arc<AtomicU64>,
    writer: u64,
) -> Result<()> {
    let padding = "x".repeat(200);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let key = format!("{writer}-{}", number % KEYS);
        let value = format!("{number} {padding}");
        let record = ProducerRecord {
            topic: &topic,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..ProducerRecord::default()
        };
        let delivery = producer.send(&record).await?;
        // Some records are neither awaited nor in the ledger.
        if !number.is_multiple_of(4) {
            delivery.stored().await?;
            (&*ledger).write_all(format!("{number}\n").as_bytes())?;
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn deliver(producer: &Producer) -> Result<()> {
    ensure!(producer.flush(PATIENCE).await, "the spool is not empty after {PATIENCE:?}");
    producer.close(PATIENCE).await;
    let spool = producer.stats().spool.context("the producer has no spool")?;
    ensure!(spool.records == 0, "{spool:?}");
    Ok(())
}
