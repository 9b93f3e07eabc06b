//! Steady traffic through the library while a cluster has faults, and the comparison of all verdicts with the log.
//!
//! Rules:
//! - Every record has a key and a running number within that key.
//! - Every verdict is kept with its time.
//! - A Java consumer reads the log after the last verdict. Each verdict must agree with the log, and each record in the
//!   log must have been accepted.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kafka_courier::{Delivery, FailedOutcome, KafkaConfig, ProducerRecord};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::audited::Producer;
use crate::cluster::Cluster;
use crate::faults::AcknowledgedTraffic;

/// The number of keys.
const KEYS: u64 = 100;
/// The time between two records: a little more than 200 records a second.
const PACE: Duration = Duration::from_millis(4);

/// A record with its verdict.
#[derive(Debug)]
struct SettledRecord {
    key: u64,
    number: u64,
    partition: i32,
    verdict: RecordVerdict,
    at: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum RecordVerdict {
    Delivered(Option<i64>),
    NotWritten,
    Unknown,
}

/// Running traffic.
pub struct Traffic {
    producer: Producer,
    topic: String,
    stop: tokio::sync::watch::Sender<bool>,
    sender: JoinHandle<Result<u64>>,
    collector: JoinHandle<Vec<SettledRecord>>,
}

/// The result of a run.
#[derive(Debug)]
pub struct TrafficReport {
    /// The number of accepted records.
    pub accepted: u64,
    /// The number of records reported as delivered. Each is in the log exactly once, at the reported offset.
    pub delivered: u64,
    /// The number of records reported as not written. None is in the log.
    pub not_written: u64,
    /// The number of records reported as unknown.
    pub unknown: u64,
    /// The number of unknown records that are in the log, once each.
    pub unknown_in_log: u64,
    /// The longest time without any acknowledgement.
    pub longest_gap: Duration,
    /// The longest time without an acknowledgement in one partition, over all partitions.
    pub worst_partition_gap: Duration,
}

impl Traffic {
    /// Starts publishing to `topic` with these settings and the cluster's brokers.
    ///
    /// # Errors
    /// Fails if the settings are invalid.
    pub fn start(cluster: &Cluster, topic: &str, mut config: KafkaConfig) -> Result<Self> {
        config.brokers = cluster.config()?.brokers;
        let producer = Producer::build(config)?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (deliveries, to_collect) = mpsc::unbounded_channel();
        let sender = tokio::spawn(publish(producer.clone(), topic.to_owned(), stopped, deliveries));
        let collector = tokio::spawn(collect(to_collect));
        Ok(Self { producer, topic: topic.to_owned(), stop, sender, collector })
    }

    /// Stops publishing, closes the producer, and checks every verdict against the log.
    ///
    /// # Errors
    /// Fails if a count or a verdict disagrees with the log.
    pub async fn finish(self, cluster: &Cluster) -> Result<TrafficReport> {
        self.stop.send_replace(true);
        let accepted = self.sender.await??;
        let closed = self.producer.close(Duration::from_secs(60)).await;
        let settled = self.collector.await?;
        ensure!(settled.len() as u64 == accepted, "{} verdicts for {accepted} records", settled.len());
        ensure!(closed.delivered + closed.failed == accepted, "{closed:?} for {accepted} records");
        let mut report = tokio::task::block_in_place(|| check(cluster, &self.topic, &settled))?;
        (report.longest_gap, report.worst_partition_gap) = gaps(&settled);
        Ok(report)
    }
}

impl AcknowledgedTraffic for Traffic {
    async fn wait_for_acknowledgements(&self, count: u64) -> Result<()> {
        let wanted = self.producer.stats().sent + count;
        let begun = Instant::now();
        while self.producer.stats().sent < wanted {
            ensure!(begun.elapsed() < Duration::from_secs(60), "no {count} records were acknowledged within a minute");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Publishes until `stopped` is true, and returns the number of accepted records.
async fn publish(
    producer: Producer,
    topic: String,
    stopped: tokio::sync::watch::Receiver<bool>,
    deliveries: mpsc::UnboundedSender<(u64, u64, Delivery)>,
) -> Result<u64> {
    let mut tick = tokio::time::interval(PACE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut accepted = 0;
    while !*stopped.borrow() {
        tick.tick().await;
        let (key, number) = (accepted % KEYS, accepted / KEYS);
        let (key_text, value) = (format!("key-{key}"), format!("{key} {number}"));
        let record = ProducerRecord {
            topic: &topic,
            key: Some(key_text.as_bytes()),
            value: Some(value.as_bytes()),
            ..ProducerRecord::default()
        };
        let delivery = producer.send(&record).await?;
        accepted += 1;
        deliveries.send((key, number, delivery)).context("the collector has ended")?;
    }
    Ok(accepted)
}

/// Awaits all deliveries, and notes the time of each verdict.
async fn collect(mut deliveries: mpsc::UnboundedReceiver<(u64, u64, Delivery)>) -> Vec<SettledRecord> {
    let mut waiting = tokio::task::JoinSet::new();
    while let Some((key, number, delivery)) = deliveries.recv().await {
        waiting.spawn(async move {
            let partition = delivery.partition();
            let verdict = match delivery.await {
                Ok(placed) => RecordVerdict::Delivered(placed.offset),
                Err(error) if error.outcome() == FailedOutcome::NotWritten => RecordVerdict::NotWritten,
                Err(_) => RecordVerdict::Unknown,
            };
            SettledRecord { key, number, partition, verdict, at: Instant::now() }
        });
    }
    waiting.join_all().await
}

/// The positions (partition and offset) of each record, by key and running number.
type LogPositions = HashMap<(u64, u64), Vec<(i32, i64)>>;

/// Reads the log, and checks that the running numbers of each key rise.
fn read_log(cluster: &Cluster, topic: &str) -> Result<LogPositions> {
    let mut positions = LogPositions::new();
    let mut last: HashMap<u64, u64> = HashMap::new();
    cluster.dump(topic, |record| {
        let value = record.value.as_deref().context("a record has no value")?;
        let (key, number) = value.split_once(' ').context("a record of another producer")?;
        let (key, number): (u64, u64) = (key.parse()?, number.parse()?);
        ensure!(record.key.as_deref() == Some(format!("key-{key}").as_str()), "{value} has key {:?}", record.key);
        if let Some(before) = last.insert(key, number) {
            ensure!(before < number, "key {key}: {number} follows {before} (partition {})", record.partition);
        }
        positions.entry((key, number)).or_default().push((record.partition, record.offset));
        Ok(())
    })?;
    Ok(positions)
}

fn check(cluster: &Cluster, topic: &str, settled: &[SettledRecord]) -> Result<TrafficReport> {
    let mut positions = read_log(cluster, topic)?;
    let zero = Duration::ZERO;
    let mut report = TrafficReport {
        accepted: settled.len() as u64,
        delivered: 0,
        not_written: 0,
        unknown: 0,
        unknown_in_log: 0,
        longest_gap: zero,
        worst_partition_gap: zero,
    };
    for record in settled {
        let found = positions.remove(&(record.key, record.number)).unwrap_or_default();
        ensure!(found.len() <= 1, "{record:?} is in the log {} times: {found:?}", found.len());
        let place = found.first();
        match (&record.verdict, place) {
            (RecordVerdict::Delivered(offset), Some((partition, at))) => {
                ensure!(*partition == record.partition, "{record:?} is in partition {partition}");
                ensure!(offset.is_none_or(|offset| offset == *at), "{record:?} is at offset {at}");
                report.delivered += 1;
            }
            (RecordVerdict::NotWritten, None) => report.not_written += 1,
            (RecordVerdict::Unknown, place) => {
                report.unknown += 1;
                report.unknown_in_log += u64::from(place.is_some());
            }
            (RecordVerdict::Delivered(_), None) => bail!("{record:?} is not in the log"),
            (RecordVerdict::NotWritten, Some(place)) => bail!("{record:?} is in the log at {place:?}"),
        }
    }
    ensure!(positions.is_empty(), "the log has records that were never accepted: {positions:?}");
    Ok(report)
}

fn gaps(settled: &[SettledRecord]) -> (Duration, Duration) {
    let delivered = settled.iter().filter(|record| matches!(record.verdict, RecordVerdict::Delivered(_)));
    longest_gaps(delivered.map(|record| (record.partition, record.at)))
}

/// Returns the longest time without an acknowledgement: over all partitions together, and within one partition.
pub fn longest_gaps(acknowledged: impl Iterator<Item = (i32, Instant)>) -> (Duration, Duration) {
    let mut times: HashMap<i32, Vec<Instant>> = HashMap::new();
    for (partition, at) in acknowledged {
        times.entry(partition).or_default().push(at);
    }
    let longest = |times: &mut Vec<Instant>| {
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    let worst = times.values_mut().map(longest).max().unwrap_or_default();
    let mut all: Vec<Instant> = times.into_values().flatten().collect();
    (longest(&mut all), worst)
}

impl std::fmt::Display for TrafficReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} accepted: {} delivered, {} not written, {} unknown ({} of them in the log); longest gap {:.1} s, of a partition {:.1} s",
            self.accepted,
            self.delivered,
            self.not_written,
            self.unknown,
            self.unknown_in_log,
            self.longest_gap.as_secs_f64(),
            self.worst_partition_gap.as_secs_f64()
        )
    }
}
