//! The main job, `courier sample | courier publish`, and the checks of its result.
use std::io::BufReader;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::batches::{self, BatchLimits, BatchStatistics};
use crate::cluster::Cluster;
use crate::courier::{Courier, FinishedRun};
use crate::ledger::{Ledger, TOPICS};
use crate::receipts;

/// The default limit of a topic (`message.max.bytes`) for a whole batch with its header.
pub const MESSAGE_MAX_BYTES: u64 = 1_048_588;

/// The maximum duration of a run.
const DEADLINE: Duration = Duration::from_secs(300);

/// The parameters of one run.
pub struct PublishJob<'a> {
    /// The number of sample events.
    pub events: u64,
    /// The seed of the sample.
    pub seed: u64,
    /// The settings, as environment variables.
    pub settings: &'a [(&'a str, &'a str)],
    /// The maximum size of a batch under these settings.
    pub limits: BatchLimits,
}

/// A run with a checked result.
pub struct CheckedRun {
    /// The exit code, output and cost of `courier publish`.
    pub run: FinishedRun,
    /// The counts and sizes of the batches in the log.
    pub statistics: BatchStatistics,
}

/// Creates the default topics.
///
/// # Errors
/// Fails if the cluster refuses a topic.
pub fn create_topics(cluster: &Cluster, partitions: u32, replication: u32) -> Result<()> {
    for topic in TOPICS.iter() {
        cluster.create_topic(topic, partitions, replication, &[])?;
    }
    Ok(())
}

impl PublishJob<'_> {
    /// Publishes the sample into the cluster's empty default topics, checks the result, and prints the figures.
    ///
    /// The log must hold each event exactly once, unchanged, in order, and in the right partition. Each receipt must
    /// contain the event's position. The batches must be idempotent, compressed with snappy, and within the limits.
    ///
    /// # Errors
    /// Returns an error that shows the first violation.
    pub fn publish_and_check(&self, cluster: &Cluster) -> Result<CheckedRun> {
        let folder = tempfile::tempdir()?;
        let receipts_file = folder.path().join("receipts.ndjson");
        let receipts_name = receipts_file.to_str().context("the path of the temporary folder is not UTF-8")?;
        let run = self.publish(cluster, receipts_name)?;
        let mut ledger = self.ledger()?;
        let counts = ledger.check(cluster)?;
        receipts::check(&receipts_file, &ledger)?;
        let statistics = batches::check_idempotent(&cluster.batches(&TOPICS)?, self.limits)?;
        ensure!(statistics.records.unsigned_abs() == self.events, "{statistics} for {} events", self.events);
        println!(
            "courier publish: {} events in {:.1} s, {:.1} s of CPU ({:.2} us an event), peak memory {:.1} MB",
            self.events,
            run.wall.as_secs_f64(),
            run.cpu.as_secs_f64(),
            run.cpu.as_secs_f64() * 1e6 / self.events as f64,
            run.peak_rss as f64 / 1e6
        );
        println!("{statistics}");
        println!("{counts:?}");
        Ok(CheckedRun { run, statistics })
    }

    fn publish(&self, cluster: &Cluster, receipts: &str) -> Result<FinishedRun> {
        let mut sample = self.sample()?.pipe()?;
        let events = sample.stdout.take().context("courier sample has no output pipe")?;
        let arguments = ["publish", "--brokers", cluster.bootstrap(), "--receipts", receipts, "-"];
        let mut courier = Courier::new(&arguments)?.input(Stdio::from(events)).within(DEADLINE);
        for (name, value) in self.settings {
            courier = courier.env(name, value);
        }
        let run = courier.run().and_then(|run| run.expect_code(0));
        let sampled = sample.wait()?;
        let run = run?;
        ensure!(sampled.success(), "courier sample failed with {sampled}");
        Ok(run)
    }

    /// Returns the ledger of a second, equal sample from the same seed.
    fn ledger(&self) -> Result<Ledger> {
        let mut sample = self.sample()?.pipe()?;
        let events = sample.stdout.take().context("courier sample has no output pipe")?;
        let ledger = Ledger::read(BufReader::with_capacity(1 << 20, events), None)?;
        ensure!(sample.wait()?.success(), "courier sample failed");
        ensure!(ledger.len() as u64 == self.events, "{} sample events, not {}", ledger.len(), self.events);
        Ok(ledger)
    }

    fn sample(&self) -> Result<Courier> {
        let (count, seed) = (self.events.to_string(), self.seed.to_string());
        Courier::new(&["sample", "--count", &count, "--seed", &seed])
    }
}
