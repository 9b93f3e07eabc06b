//! Steady traffic through the library while a cluster is being broken, and the ledger of it afterwards.
//!
//! Rules: every record has a key and a running number of that key; every verdict is kept with the time at which it came;
//! the log is read by a Java consumer once all is over, and each verdict is held against it. Nothing that is in the log may
//! be unaccounted for.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kafka_courier::{Delivery, FailedOutcome, KafkaConfig, ProducerRecord};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::audited::Producer;
use crate::cluster::Cluster;
use crate::faults::Flow;

/// Keys that the records are spread over.
const KEYS: u64 = 100;
/// Between two records: somewhat more than 200 a second.
const PACE: Duration = Duration::from_millis(4);

/// What became of one record.
#[derive(Debug)]
struct Fate {
    key: u64,
    number: u64,
    partition: i32,
    verdict: Verdict,
    at: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Delivered(Option<i64>),
    NotWritten,
    Unknown,
}

/// Traffic that flows.
pub struct Traffic {
    producer: Producer,
    topic: String,
    stop: tokio::sync::watch::Sender<bool>,
    sender: JoinHandle<Result<u64>>,
    collector: JoinHandle<Vec<Fate>>,
}

/// What the ledger of a run says.
#[derive(Debug)]
pub struct Balance {
    /// Records accepted.
    pub accepted: u64,
    /// Reported delivered, and in the log exactly once where that was said.
    pub delivered: u64,
    /// Reported not written, and not in the log.
    pub not_written: u64,
    /// Reported unknown.
    pub unknown: u64,
    /// Of those, the ones that are in the log (once).
    pub unknown_landed: u64,
    /// The longest time without any acknowledgement.
    pub longest_gap: Duration,
    /// The longest time without one, of the partition where that was longest.
    pub worst_partition_gap: Duration,
}

impl Traffic {
    /// Starts publishing to `topic` with these settings; the brokers are set here.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub fn start(cluster: &Cluster, topic: &str, mut config: KafkaConfig) -> Result<Self> {
        config.brokers = cluster.config()?.brokers;
        let producer = Producer::build(config)?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (deliveries, to_collect) = mpsc::unbounded_channel();
        let sender = tokio::spawn(send(producer.clone(), topic.to_owned(), stopped, deliveries));
        let collector = tokio::spawn(collect(to_collect));
        Ok(Self { producer, topic: topic.to_owned(), stop, sender, collector })
    }

    /// Stops publishing, closes the producer, and holds every verdict against the log.
    ///
    /// # Errors
    /// Whatever does not balance.
    pub async fn balance(self, cluster: &Cluster) -> Result<Balance> {
        self.stop.send_replace(true);
        let accepted = self.sender.await??;
        let report = self.producer.close(Duration::from_secs(60)).await;
        let fates = self.collector.await?;
        ensure!(fates.len() as u64 == accepted, "{} verdicts for {accepted} records", fates.len());
        ensure!(report.delivered + report.failed == accepted, "{report:?} for {accepted} records");
        let mut balance = tokio::task::block_in_place(|| check(cluster, &self.topic, &fates))?;
        (balance.longest_gap, balance.worst_partition_gap) = gaps(&fates);
        Ok(balance)
    }
}

impl Flow for Traffic {
    async fn flows(&self, count: u64) -> Result<()> {
        let wanted = self.producer.stats().sent + count;
        let begun = Instant::now();
        while self.producer.stats().sent < wanted {
            ensure!(begun.elapsed() < Duration::from_secs(60), "no {count} records were acknowledged within a minute");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Publishes until told to stop; returns how many records were accepted.
async fn send(
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
        deliveries.send((key, number, delivery)).context("the collector is gone")?;
    }
    Ok(accepted)
}

/// Takes each verdict down when it comes.
async fn collect(mut deliveries: mpsc::UnboundedReceiver<(u64, u64, Delivery)>) -> Vec<Fate> {
    let mut waiting = tokio::task::JoinSet::new();
    while let Some((key, number, delivery)) = deliveries.recv().await {
        waiting.spawn(async move {
            let partition = delivery.partition();
            let verdict = match delivery.await {
                Ok(placed) => Verdict::Delivered(placed.offset),
                Err(error) if error.outcome() == FailedOutcome::NotWritten => Verdict::NotWritten,
                Err(_) => Verdict::Unknown,
            };
            Fate { key, number, partition, verdict, at: Instant::now() }
        });
    }
    waiting.join_all().await
}

/// Where a record stands in the log.
type Places = HashMap<(u64, u64), Vec<(i32, i64)>>;

/// Reads the log, and checks on the way that each key's numbers rise.
fn read(cluster: &Cluster, topic: &str) -> Result<Places> {
    let mut places = Places::new();
    let mut last: HashMap<u64, u64> = HashMap::new();
    cluster.dump(topic, |record| {
        let value = record.value.as_deref().context("a record without value")?;
        let (key, number) = value.split_once(' ').context("a record that is not ours")?;
        let (key, number): (u64, u64) = (key.parse()?, number.parse()?);
        ensure!(record.key.as_deref() == Some(format!("key-{key}").as_str()), "{value} has key {:?}", record.key);
        if let Some(before) = last.insert(key, number) {
            ensure!(before < number, "key {key}: {number} stands behind {before} (partition {})", record.partition);
        }
        places.entry((key, number)).or_default().push((record.partition, record.offset));
        Ok(())
    })?;
    Ok(places)
}

fn check(cluster: &Cluster, topic: &str, fates: &[Fate]) -> Result<Balance> {
    let mut places = read(cluster, topic)?;
    let zero = Duration::ZERO;
    let mut balance = Balance {
        accepted: fates.len() as u64,
        delivered: 0,
        not_written: 0,
        unknown: 0,
        unknown_landed: 0,
        longest_gap: zero,
        worst_partition_gap: zero,
    };
    for fate in fates {
        let found = places.remove(&(fate.key, fate.number)).unwrap_or_default();
        ensure!(found.len() <= 1, "{fate:?} is in the log {} times: {found:?}", found.len());
        let place = found.first();
        match (&fate.verdict, place) {
            (Verdict::Delivered(offset), Some((partition, at))) => {
                ensure!(*partition == fate.partition, "{fate:?} is in partition {partition}");
                ensure!(offset.is_none_or(|offset| offset == *at), "{fate:?} is at offset {at}");
                balance.delivered += 1;
            }
            (Verdict::NotWritten, None) => balance.not_written += 1,
            (Verdict::Unknown, landed) => {
                balance.unknown += 1;
                balance.unknown_landed += u64::from(landed.is_some());
            }
            (Verdict::Delivered(_), None) => bail!("{fate:?} is not in the log"),
            (Verdict::NotWritten, Some(place)) => bail!("{fate:?} is in the log at {place:?}"),
        }
    }
    ensure!(places.is_empty(), "in the log, but never accepted: {places:?}");
    Ok(balance)
}

fn gaps(fates: &[Fate]) -> (Duration, Duration) {
    let delivered = fates.iter().filter(|fate| matches!(fate.verdict, Verdict::Delivered(_)));
    longest_gaps(delivered.map(|fate| (fate.partition, fate.at)))
}

/// The longest time without an acknowledgement: of all, and of the partition where it was longest.
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

impl std::fmt::Display for Balance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} accepted: {} delivered, {} not written, {} unknown ({} of them in the log); longest gap {:.1} s, of a partition {:.1} s",
            self.accepted,
            self.delivered,
            self.not_written,
            self.unknown,
            self.unknown_landed,
            self.longest_gap.as_secs_f64(),
            self.worst_partition_gap.as_secs_f64()
        )
    }
}
